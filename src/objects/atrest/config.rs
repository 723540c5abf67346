//! The keys of EncryptionConfigurations (k8s.io/apiserver, `pkg/apis/apiserver/types_encryption.go`).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::provider::Provider;
use crate::sys::yaml;

/// Keys by provider and name. Files of several API servers can name different keys alike, so that a name has a list.
#[derive(Clone, Default)]
pub struct Keys {
    keys: BTreeMap<(Provider, String), Vec<Vec<u8>>>,
    plugins: Vec<String>,
}

/// The names, never the keys.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self
            .keys
            .keys()
            .map(|(provider, name)| (provider.name(), name));
        f.debug_list().entries(names).finish()
    }
}

/// Why a file is not an EncryptionConfiguration. Says where, and nothing of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Keys {
    /// Adds the keys of a file, YAML or JSON.
    ///
    /// # Errors
    /// If it is not an EncryptionConfiguration, or a key is not one of its cipher.
    pub fn add(&mut self, file: &[u8]) -> Result<(), ConfigError> {
        // The parser's own words can quote a key.
        let config: Config = yaml::from_slice(file).map_err(|_| {
            ConfigError("expected an EncryptionConfiguration, found something else".into())
        })?;
        // EncryptionConfig was its name up to 1.12, and API servers still read it.
        if !matches!(
            config.kind.as_str(),
            "EncryptionConfiguration" | "EncryptionConfig"
        ) {
            let found = config.kind;
            return Err(ConfigError(format!(
                "expected kind EncryptionConfiguration, found {found:?}"
            )));
        }
        for (at, resources) in config.resources.into_iter().enumerate() {
            for (index, provider) in resources.providers.into_iter().enumerate() {
                let place = format!("resources[{at}].providers[{index}]");
                self.provider(provider, &place)?;
            }
        }
        Ok(())
    }

    fn provider(&mut self, config: ProviderConfig, place: &str) -> Result<(), ConfigError> {
        if let Some(kms) = config.kms
            && !self.plugins.contains(&kms.name)
        {
            self.plugins.push(kms.name);
        }
        for (provider, list) in [
            (Provider::AesCbc, config.aescbc),
            (Provider::AesGcm, config.aesgcm),
            (Provider::Secretbox, config.secretbox),
        ] {
            for (index, key) in list.unwrap_or_default().keys.into_iter().enumerate() {
                let place = format!("{place}.{}.keys[{index}]", provider.name());
                let secret = STANDARD
                    .decode(key.secret.trim())
                    .map_err(|_| ConfigError(format!("{place}: expected a secret in base64")))?;
                let sizes: &[usize] = match provider {
                    Provider::Secretbox => &[32],
                    Provider::AesCbc | Provider::AesGcm => &[16, 24, 32],
                };
                if !sizes.contains(&secret.len()) {
                    return Err(ConfigError(format!(
                        "{place}: expected a secret of {sizes:?} bytes, found {}",
                        secret.len()
                    )));
                }
                let known = self.keys.entry((provider, key.name)).or_default();
                if !known.contains(&secret) {
                    known.push(secret);
                }
            }
        }
        Ok(())
    }

    /// Adds all keys of others.
    pub fn merge(&mut self, others: Self) {
        for (name, secrets) in others.keys {
            let known = self.keys.entry(name).or_default();
            known.extend(
                secrets
                    .into_iter()
                    .filter(|secret| !known.contains(secret))
                    .collect::<Vec<_>>(),
            );
        }
        self.plugins.extend(others.plugins);
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The KMS plugins that the files name.
    pub fn plugins(&self) -> &[String] {
        &self.plugins
    }

    pub(super) fn named(&self, provider: Provider, name: &str) -> impl Iterator<Item = &[u8]> {
        let found = self.keys.get(&(provider, name.to_owned()));
        found.into_iter().flatten().map(Vec::as_slice)
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    resources: Vec<ResourceConfig>,
}

#[derive(Deserialize)]
struct ResourceConfig {
    #[serde(default)]
    providers: Vec<ProviderConfig>,
}

#[derive(Deserialize)]
struct ProviderConfig {
    aescbc: Option<KeyList>,
    aesgcm: Option<KeyList>,
    secretbox: Option<KeyList>,
    kms: Option<Plugin>,
}

#[derive(Default, Deserialize)]
struct KeyList {
    #[serde(default)]
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    name: String,
    secret: String,
}

#[derive(Deserialize)]
struct Plugin {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aescbc: {keys: [{name: k1, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}
  - kms: {name: vault, endpoint: unix:///run/kms.sock}
  - identity: {}
";

    #[test]
    fn keys_are_read_and_not_shown() {
        let mut keys = Keys::default();
        keys.add(CONFIG.as_bytes()).unwrap();
        assert_eq!(
            keys.named(Provider::AesCbc, "k1").collect::<Vec<_>>(),
            [b"0123456789abcdef"]
        );
        assert_eq!(keys.named(Provider::AesGcm, "k1").count(), 0);
        assert_eq!(keys.plugins(), ["vault"]);
        let shown = format!("{keys:?}");
        assert!(shown.contains("k1") && !shown.contains("0123"), "{shown}");
        assert!(!shown.contains("48, 49"), "{shown}");
    }

    #[test]
    fn a_fault_names_its_place_and_no_key() {
        for (from, to, expected) in [
            (
                "MDEyMzQ1Njc4OWFiY2RlZg==",
                "MDEy",
                "resources[0].providers[0].aescbc.keys[0]: expected a secret of [16, 24, 32] bytes, found 3",
            ),
            (
                "MDEyMzQ1Njc4OWFiY2RlZg==",
                "'!!'",
                "resources[0].providers[0].aescbc.keys[0]: expected a secret in base64",
            ),
            (
                "EncryptionConfiguration",
                "Pod",
                "expected kind EncryptionConfiguration, found \"Pod\"",
            ),
            (
                "resources:",
                "resources: x",
                "expected an EncryptionConfiguration, found something else",
            ),
        ] {
            let error = Keys::default()
                .add(CONFIG.replace(from, to).as_bytes())
                .unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
