//! Names of refusals, checks, findings and prune reasons that were renamed. Only the new name is
//! printed; the old one is still accepted, on the command line, in the configuration and in the
//! Manifests of older backups (docs/interface.md, "Renamed").

use std::convert::Infallible;

use serde::{Deserialize, Deserializer};

/// Each old name with the name that replaces it.
pub const RENAMED: [(&str, &str); 22] = [
    ("address-not-here", "address-not-local"),
    ("another-member-answers", "wrong-member-answers"),
    ("certificates-unfit", "certificates-invalid"),
    ("first-day", "before-first-cert-rotation"),
    ("living-voters", "other-members-running"),
    ("manifest-unfit", "manifest-unsupported"),
    ("member-complains", "member-reports-errors"),
    ("member-votes", "already-voting"),
    ("members-disagree", "hashkv-mismatch"),
    ("mount-between", "cross-mount"),
    ("name-elsewhere", "name-resolves-elsewhere"),
    ("no-way-back", "not-revertible"),
    ("other-cluster", "cluster-mismatch"),
    ("other-node", "node-mismatch"),
    ("other-profile", "profile-mismatch"),
    ("other-version", "version-mismatch"),
    ("peer-url-not-here", "peer-url-not-local"),
    ("rollout-in-between", "rollout-during-backup"),
    ("root-needed", "root-required"),
    ("unsealed-snapshot", "no-integrity-hash"),
    ("wal-dir-apart", "separate-wal-dir"),
    ("young-incomplete", "recent-incomplete"),
];

/// The present name of what `name` is called, or was called by an older release.
pub fn current(name: &str) -> &str {
    let renamed = RENAMED.iter().find(|(old, _)| *old == name);
    renamed.map_or(name, |(_, new)| new)
}

/// The same, as clap reads a value of `--allow`; whether the name exists is the command's business.
///
/// # Errors
///
/// Never.
pub fn parse(name: &str) -> std::result::Result<String, Infallible> {
    Ok(current(name).to_owned())
}

/// Reads one name.
///
/// # Errors
///
/// If it is not a string.
pub fn one<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    String::deserialize(from).map(|name| current(&name).to_owned())
}

/// Reads a list of names.
///
/// # Errors
///
/// If it is not a list of strings.
pub fn list<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    Ok(names.iter().map(|name| current(name).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_new_name_is_an_old_one_and_each_is_there_once() {
        for (at, (old, new)) in RENAMED.iter().enumerate() {
            assert_eq!(current(old), *new);
            assert_eq!(current(new), *new, "{new} was renamed again");
            let others = RENAMED.iter().skip(at + 1);
            assert!(
                others
                    .clone()
                    .all(|(other, name)| other != old && name != new),
                "{old}"
            );
        }
        assert_eq!(current("raft-lag"), "raft-lag");
        assert_eq!(current(""), "");
    }
}
