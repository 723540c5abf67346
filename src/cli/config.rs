//! The configuration file: TOML, every key optional, an unknown one an error.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args::{ProfileArg, parse_duration, parse_size};
use crate::error::{Doing, Fact, Failure, Kind, Result};

/// Where it is looked for when no one says otherwise.
pub(super) const DEFAULT_PATH: &str = "/etc/etcd-dr/config.toml";
/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Config {
    pub(super) profile: Option<ProfileArg>,
    pub(super) node_name: Option<String>,
    #[serde(default)]
    pub(super) endpoints: Vec<String>,
    pub(super) cacert: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) store: Option<PathBuf>,
    #[serde(default)]
    pub(super) backup: Backup,
}

/// `[backup]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Backup {
    #[serde(default)]
    pub(super) allow: Vec<String>,
    #[serde(default)]
    pub(super) check_members: bool,
    pub(super) max_rate: Option<String>,
    pub(super) stall_timeout: Option<String>,
}

/// The keys of each table, for the nearest-name hint.
const KEYS: [(&str, &[&str]); 2] = [
    (
        "",
        &[
            "profile",
            "node-name",
            "endpoints",
            "cacert",
            "cert",
            "key",
            "store",
            "backup",
        ],
    ),
    (
        "backup",
        &["allow", "check-members", "max-rate", "stall-timeout"],
    ),
];

/// Reads the file; where none was named, a missing one is an empty one.
pub(super) fn load(named: Option<&Path>, root: &Path) -> Result<Config> {
    let default = root.join(DEFAULT_PATH.trim_start_matches('/'));
    let path = named.unwrap_or(&default);
    match crate::ops::catalog::read_bounded(path, MAX_BYTES) {
        Ok(Some(bytes)) => {
            let text = String::from_utf8(bytes)
                .doing(Kind::Usage, || format!("reading {}", path.display()))?;
            parse(&text, path)
        }
        Ok(None) if named.is_none() => Ok(Config::default()),
        Ok(None) => Err(Failure::new(
            Kind::Usage,
            format!("reading {}: there is no such file", path.display()),
        )
        .with(Fact::Path(path.to_owned()))),
        Err(failure) => Err(failure.as_kind(Kind::Usage)),
    }
}

fn parse(text: &str, path: &Path) -> Result<Config> {
    let doing = || format!("reading {}", path.display());
    let table: toml::Table = text.parse().doing(Kind::Usage, doing)?;
    for (name, keys) in KEYS {
        let here = if name.is_empty() {
            Some(&table)
        } else {
            table.get(name).and_then(toml::Value::as_table)
        };
        let mut unknown = here
            .into_iter()
            .flat_map(toml::Table::keys)
            .filter(|key| !keys.contains(&key.as_str()));
        if let Some(key) = unknown.next() {
            let section = if name.is_empty() {
                String::new()
            } else {
                format!(" in [{name}]")
            };
            let near = nearest(key, keys).map(|near| format!("; did you mean {near:?}?"));
            let near = near.unwrap_or_default();
            return Err(
                Failure::new(Kind::Usage, format!("unknown key {key:?}{section}{near}"))
                    .doing(doing()),
            );
        }
    }
    let config: Config = toml::from_str(text).doing(Kind::Usage, doing)?;
    if let Some(rate) = &config.backup.max_rate {
        parse_size(rate)
            .map_err(|e| Failure::new(Kind::Usage, format!("max-rate: {e}")).doing(doing()))?;
    }
    if let Some(time) = &config.backup.stall_timeout {
        parse_duration(time)
            .map_err(|e| Failure::new(Kind::Usage, format!("stall-timeout: {e}")).doing(doing()))?;
    }
    Ok(config)
}

/// The known name most like a mistyped one, if any is like it at all.
pub(super) fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(typed, name), *name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let at = Path::new("c.toml");
        let failure = parse("[backup]\nmaxrate = \"1MiB\"\n", at).unwrap_err();
        let expected =
            "reading c.toml: unknown key \"maxrate\" in [backup]; did you mean \"max-rate\"?";
        assert_eq!(failure.to_string(), expected);
        assert_eq!(failure.kind(), Kind::Usage);
        let failure = parse("endpoint = \"x\"\n", at).unwrap_err();
        assert!(
            failure.to_string().ends_with("did you mean \"endpoints\"?"),
            "{failure}"
        );
        assert!(parse("[backup]\nmax-rate = \"fast\"\n", at).is_err());
        let config = parse(
            "store = \"/b\"\nprofile = \"bare\"\n[backup]\nallow = [\"raft-lag\"]\n",
            at,
        )
        .unwrap();
        assert_eq!(config.backup.allow, ["raft-lag"]);
        assert_eq!(config.profile, Some(ProfileArg::Bare));
    }

    #[test]
    fn only_a_named_file_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(None, dir.path()).unwrap(), Config::default());
        assert_eq!(
            load(Some(&dir.path().join("x")), dir.path())
                .unwrap_err()
                .kind(),
            Kind::Usage
        );
    }
}
