//! The configuration file: TOML, every key optional, an unknown one an error.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};

use super::args::{ProfileArg, parse_duration, parse_size, parse_zone};
use crate::backup::retention::Rules;
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
    pub(super) store_ca: Option<PathBuf>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) store_patience: Option<Duration>,
    #[serde(default)]
    pub(super) backup: Backup,
    #[serde(default)]
    pub(super) keep: Keep,
    #[serde(default)]
    pub(super) copy: Copy,
    #[serde(default)]
    pub(super) sign: Sign,
    #[serde(default)]
    pub(super) schedule: Schedule,
    #[serde(default)]
    pub(super) s3: S3,
    #[serde(default)]
    pub(super) sftp: Sftp,
}

/// `[backup]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Backup {
    #[serde(default, deserialize_with = "crate::error::names::list")]
    pub(super) allow: Vec<String>,
    #[serde(default)]
    pub(super) check_members: bool,
    #[serde(default, deserialize_with = "size")]
    pub(super) max_rate: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) stall_timeout: Option<Duration>,
}

/// `[keep]`: which sets stay, as `prune`'s options say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Keep {
    /// Whether `backup` and `schedule` prune by it once theirs is taken.
    #[serde(default)]
    pub(super) after_backup: bool,
    last: Option<NonZeroU32>,
    hourly: Option<NonZeroU32>,
    daily: Option<NonZeroU32>,
    weekly: Option<NonZeroU32>,
    monthly: Option<NonZeroU32>,
    #[serde(default, deserialize_with = "duration")]
    within: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    moments: Option<Duration>,
    #[serde(default, deserialize_with = "size")]
    max_size: Option<u64>,
    min_keep: Option<NonZeroU32>,
    #[serde(default)]
    ocp_versions: bool,
    #[serde(default, deserialize_with = "zone")]
    time_zone: Option<TimeZone>,
}

impl Keep {
    /// The same as rules; `zone` is what the command line says.
    pub(super) fn rules(&self, zone: Option<&TimeZone>) -> Rules {
        Rules {
            last: self.last,
            hourly: self.hourly,
            daily: self.daily,
            weekly: self.weekly,
            monthly: self.monthly,
            within: self.within,
            moments: self.moments,
            max_size: self.max_size,
            min_keep: self.min_keep,
            ocp_versions: self.ocp_versions,
            zone: zone.or(self.time_zone.as_ref()).cloned(),
        }
    }
}

/// `[copy]`: where backups are copied to, and how copies are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Copy {
    #[serde(default)]
    pub(super) to: Vec<String>,
    /// Whether `backup` and `schedule` prune the copies by the rules they prune their own store by.
    #[serde(default)]
    pub(super) keep: bool,
    #[serde(default)]
    pub(super) compress: bool,
    #[serde(default)]
    pub(super) recipients: Vec<String>,
    pub(super) recipients_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) secrets_recipients: Vec<String>,
}

/// `[sign]`: what signs backups, and whose signatures count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Sign {
    pub(super) key: Option<PathBuf>,
    pub(super) passphrase_file: Option<PathBuf>,
    pub(super) allowed_signers: Option<PathBuf>,
    /// Whether a backup must be signed at all.
    #[serde(default)]
    pub(super) require: bool,
}

/// `[schedule]`: what `schedule` does besides taking backups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Schedule {
    /// How long after a rehearsal the next one is due.
    #[serde(default, deserialize_with = "duration")]
    pub(super) rehearse: Option<Duration>,
    pub(super) etcd: Option<PathBuf>,
    pub(super) scratch: Option<PathBuf>,
}

/// `[s3]`: where credentials are, for a service that has neither variables nor a home.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct S3 {
    credentials_file: Option<String>,
    profile: Option<String>,
    region: Option<String>,
    endpoint: Option<String>,
}

/// `[sftp]`: who we are, and by what a host is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Sftp {
    identity: Option<String>,
    known_hosts: Option<String>,
    fingerprint: Option<String>,
}

impl Config {
    /// The values of `[s3]` and `[sftp]`, by the names of the variables that override them.
    pub(super) fn store_variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("AWS_SHARED_CREDENTIALS_FILE", &self.s3.credentials_file),
            ("AWS_PROFILE", &self.s3.profile),
            ("AWS_REGION", &self.s3.region),
            ("AWS_ENDPOINT_URL", &self.s3.endpoint),
            ("ETCD_DR_SFTP_IDENTITY", &self.sftp.identity),
            ("ETCD_DR_SFTP_KNOWN_HOSTS", &self.sftp.known_hosts),
            ("ETCD_DR_SFTP_FINGERPRINT", &self.sftp.fingerprint),
        ];
        let given = all.into_iter();
        given.filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

/// The keys of each table, for the nearest-name hint.
const KEYS: [(&str, &[&str]); 8] = [
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
            "store-ca",
            "store-patience",
            "backup",
            "keep",
            "copy",
            "sign",
            "schedule",
            "s3",
            "sftp",
        ],
    ),
    (
        "backup",
        &["allow", "check-members", "max-rate", "stall-timeout"],
    ),
    (
        "keep",
        &[
            "after-backup",
            "last",
            "hourly",
            "daily",
            "weekly",
            "monthly",
            "within",
            "moments",
            "max-size",
            "min-keep",
            "ocp-versions",
            "time-zone",
        ],
    ),
    (
        "copy",
        &[
            "to",
            "keep",
            "compress",
            "recipients",
            "recipients-file",
            "secrets-recipients",
        ],
    ),
    (
        "sign",
        &["key", "passphrase-file", "allowed-signers", "require"],
    ),
    ("schedule", &["rehearse", "etcd", "scratch"]),
    ("s3", &["credentials-file", "profile", "region", "endpoint"]),
    ("sftp", &["identity", "known-hosts", "fingerprint"]),
];

/// Reads a value as the option of the same name does.
fn read<'de, D: Deserializer<'de>, T>(
    from: D,
    parse: impl Fn(&str) -> std::result::Result<T, String>,
) -> std::result::Result<Option<T>, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).map(Some).map_err(serde::de::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<Duration>, D::Error> {
    read(from, parse_duration)
}

fn size<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    read(from, parse_size)
}

fn zone<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<TimeZone>, D::Error> {
    read(from, parse_zone)
}

/// Reads the file; without `--config`, a missing file counts as empty.
pub(super) fn load(named: Option<&Path>, root: &Path) -> Result<Config> {
    let default = root.join(DEFAULT_PATH.trim_start_matches('/'));
    let path = named.unwrap_or(&default);
    match crate::sys::small::read_given(path, MAX_BYTES) {
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
    if config.keep != Keep::default() {
        config
            .keep
            .rules(None)
            .check()
            .map_err(|failure| failure.doing("[keep]").doing(doing()))?;
    }
    Ok(config)
}

/// The known name most similar to a mistyped one, if any is similar.
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
    fn what_stays_is_read_as_the_options_are() {
        let at = Path::new("c.toml");
        let text =
            "[keep]\nlast = 20\nwithin = \"3d\"\nmax-size = \"1GiB\"\ntime-zone = \"+01:00\"\n";
        let rules = parse(text, at).unwrap().keep.rules(None);
        assert_eq!(rules.last, NonZeroU32::new(20));
        assert_eq!(rules.within, Some(Duration::from_secs(3 * 24 * 3600)));
        assert_eq!(rules.max_size, Some(1 << 30));
        assert_eq!(rules.zone, parse_zone("+01:00").ok());
        let bad = [
            ("[keep]\nlast = 0\n", "expected a nonzero u32"),
            ("[keep]\nlast = \"20\"\n", "invalid type: string"),
            ("[keep]\nwithin = \"long\"\n", "expected a time such as"),
            (
                "[keep]\nlast = 1\ntime-zone = \"Mars\"\n",
                "expected a zone such as",
            ),
            (
                "[keep]\nmin-keep = 3\n",
                "no rule says which backups to keep",
            ),
            (
                "[keep]\nafter-backup = true\n",
                "no rule says which backups to keep",
            ),
            (
                "[keep]\nkeep-last = 3\n",
                "unknown key \"keep-last\" in [keep]",
            ),
            ("[copy]\nto = \"s3://b\"\n", "expected a sequence"),
        ];
        for (text, expected) in bad {
            let failure = parse(text, at).unwrap_err();
            assert!(failure.to_string().contains(expected), "{text}: {failure}");
            assert_eq!(failure.kind(), Kind::Usage, "{text}");
        }
    }

    /// A key that is read and not in the list would be refused as unknown.
    #[test]
    fn the_documented_file_is_read_whole() {
        let page = include_str!("../../docs/interface.md");
        let text = page.split("```toml\n").nth(1).unwrap();
        let text = text.split("```").next().unwrap();
        let config = parse(text, Path::new("interface.md")).unwrap();
        assert!(config.keep.after_backup && config.copy.compress);
        assert_eq!(config.copy.to.len(), 2);
        for (section, keys) in KEYS {
            for key in keys {
                let written = [format!("\n{key} ="), format!("[{key}]"), format!(" {key}")];
                let found = written
                    .iter()
                    .any(|form| format!("\n{text}").contains(form.as_str()));
                assert!(found, "{key} of [{section}] is not in docs/interface.md");
            }
        }
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
