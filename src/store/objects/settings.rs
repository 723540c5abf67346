//! What is known of how stores are reached: variables, files, bounds. Who calls gathers it; the
//! environment is not read here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How stores are reached. Its `Debug` shows no value of a variable.
#[derive(Clone)]
pub struct Settings {
    /// Variables by name, as the services' own tools know them (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
    pub variables: BTreeMap<String, String>,
    /// Certificates in PEM that a store's may be signed by besides the system's.
    pub ca: Option<Vec<u8>>,
    /// Where the caller's own files are (`.aws/credentials`).
    pub home: Option<PathBuf>,
    /// How long a request is tried again after failures that may pass.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            variables: BTreeMap::new(),
            ca: None,
            home: None,
            patience: Duration::from_secs(120),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.variables.keys().collect();
        f.debug_struct("Settings")
            .field("variables", &names)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// A variable that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A text without the values of variables that are secret.
    pub(super) fn redact(&self, text: &str) -> String {
        const SECRET: [&str; 5] = ["SECRET", "KEY", "TOKEN", "PASSWORD", "SAS"];
        const SHORTEST: usize = 6;
        let mut text = text.to_owned();
        for (name, value) in &self.variables {
            let secret = SECRET.iter().any(|word| name.to_uppercase().contains(word));
            // A shorter one would be found in words that are no secret.
            if secret && value.len() >= SHORTEST {
                text = text.replace(value.as_str(), "[secret]");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut settings = Settings::default();
        let secret = "wJalrXUtnFEMI";
        settings
            .variables
            .insert("AWS_SECRET_ACCESS_KEY".into(), secret.into());
        assert!(!format!("{settings:?}").contains(secret));
        assert_eq!(settings.redact(&format!("x{secret}y")), "x[secret]y");
    }
}
