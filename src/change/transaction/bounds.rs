//! Which paths a journal may name: an operation changes only `/etc/kubernetes`, etcd's data
//! directory, files from the same place in a backup, and etcd-dr's own state. A journal that names
//! more was written by another program, or for another node.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::error::{Failure, Result};
use crate::journal::Progress;
use crate::node::collect::OUTSIDE;
use crate::node::layout::{KUBERNETES, NodeLayout};

/// Directories that hold no etcd data, nor anything below them.
const NO_DATA: [&str; 11] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/sbin", "/sys", "/usr",
];
/// Directories in which no backup has files: what is in them is the system's.
const NO_FILES: [&str; 10] = [
    "/bin", "/boot", "/dev", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr",
];
/// Fields of a step that are read only, or are not paths.
const READ_ONLY: [&str; 6] = ["allow", "archive", "evidence", "from", "snapshot", "what"];

/// Refuses an operation whose journal names other paths.
///
/// # Errors
/// [`Kind::Refused`], which nothing overrides.
pub(crate) fn check(layout: &NodeLayout, progress: &Progress) -> Result<()> {
    let about = &progress.begin.about;
    let data_dir = about.pointer("/etcd/dataDir").and_then(Value::as_str);
    let roots = roots(layout, data_dir.map(Path::new));
    let mut changed = Vec::new();
    if let Some(safety) = about.get("safety") {
        gather("safety", safety, &mut changed);
    }
    for step in &progress.begin.steps {
        gather("", step, &mut changed);
    }
    let outside: Vec<&Path> = progress
        .begin
        .steps
        .iter()
        .filter_map(|step| outside(step, &roots))
        .collect();
    let stray = changed.into_iter().find(|(key, path)| {
        let plain = path
            .components()
            .all(|part| !matches!(part, Component::ParentDir));
        let below = roots.iter().any(|root| path.starts_with(root));
        // Their parents may have to be made; they are removed again only if they are empty.
        let mut ends = roots
            .iter()
            .map(PathBuf::as_path)
            .chain(outside.iter().copied());
        let leads = *key == "folders" && ends.any(|end| end.starts_with(path));
        let put = *key == "place" && outside.contains(path);
        !plain || !(below || leads || put)
    });
    let Some((_, path)) = stray else {
        return Ok(());
    };
    let allowed: Vec<String> = roots
        .iter()
        .map(|root| root.display().to_string())
        .collect();
    let what = format!(
        "the journal of {} names {}, but such an operation may change only {}",
        progress.begin.id,
        path.display(),
        allowed.join(", ")
    );
    Err(Failure::refused_for_good("journal-out-of-bounds", what))
}

/// The place of a file from elsewhere on the node. It must come from the same name in the unpacked
/// archive, and what it replaces must be set aside in etcd-dr's own folders.
fn outside<'a>(step: &'a Value, roots: &[PathBuf]) -> Option<&'a Path> {
    let field = |name: &str| step.pointer(name).and_then(Value::as_str).map(Path::new);
    let place = field("/exchange/place")?;
    let (incoming, aside) = (field("/exchange/incoming")?, field("/exchange/aside")?);
    let ours = |path: &Path| roots.iter().any(|root| path.starts_with(root));
    let named = Path::new(OUTSIDE).join(place.strip_prefix("/").ok()?);
    let system = NO_FILES.iter().any(|system| place.starts_with(system));
    let fits = incoming.ends_with(named) && ours(incoming) && ours(aside);
    (fits && !system && place.components().count() > 2).then_some(place)
}

/// The directories in which an operation may change something, as node paths.
fn roots(layout: &NodeLayout, data_dir: Option<&Path>) -> Vec<PathBuf> {
    let mut roots = vec![
        PathBuf::from(KUBERNETES),
        layout.node_path(&layout.manifests()),
        layout.node_path(&layout.state()),
    ];
    let holds = |dir: &Path| {
        let above = roots.iter().any(|root| root.starts_with(dir));
        let system = NO_DATA.iter().any(|system| dir.starts_with(system));
        let inside = dir.starts_with(KUBERNETES);
        // A directory directly below the root is never etcd's alone.
        dir.is_absolute() && dir.components().count() > 2 && !above && (!system || inside)
    };
    let data_dir = data_dir.filter(|dir| holds(dir)).map(Path::to_owned);
    roots.extend(data_dir);
    // Any of them may be a link, and plans have links resolved.
    let resolved: Vec<PathBuf> = roots
        .iter()
        .filter_map(|root| layout.resolve(root).ok())
        .map(|host| layout.node_path(&host))
        .collect();
    for root in resolved {
        if !roots.contains(&root) {
            roots.push(root);
        }
    }
    roots
}

/// All paths in a value that a step changes, each with the name of its field.
fn gather<'a>(key: &'a str, value: &'a Value, found: &mut Vec<(&'a str, &'a Path)>) {
    if READ_ONLY.contains(&key) {
        return;
    }
    match value {
        Value::String(text) if text.starts_with('/') => found.push((key, Path::new(text))),
        Value::Array(list) => {
            for item in list {
                match (key, item.as_array().map(Vec::as_slice)) {
                    // From where, to where.
                    ("copies", Some([_, to])) => gather("", to, found),
                    // Where, and where to.
                    ("links", Some([link, _])) => gather("", link, found),
                    _ => gather(key, item, found),
                }
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                gather(key, value, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::journal::{self, Begin, Known, State};

    fn refused(about: Value, steps: Vec<Value>) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let progress = Progress {
            steps: Vec::new(),
            begin: Begin {
                schema: journal::SCHEMA,
                tool: String::new(),
                id: "restore-1".to_owned(),
                kind: "restore".to_owned(),
                about,
                steps,
            },
            began: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
            state: State::Completed,
            known: Known::default(),
            why: None,
        };
        check(&NodeLayout::new(dir.path()), &progress).is_err()
    }

    #[test]
    fn a_journal_changes_what_a_restore_changes_and_nothing_else() {
        let about = |data: &str| json!({"etcd": {"dataDir": data}, "safety": [format!("{data}/.etcd-dr/restore-1")]});
        let steps = |place: &str| {
            vec![
                json!({"step": "make-folders", "folders": ["/data", "/data/etcd"]}),
                json!({"step": "unpack", "archives": [{"archive": "/mnt/a.tar.gz", "into": "/etc/kubernetes/.etcd-dr/x"}],
                    "copies": [["/root/etcd.yaml", "/etc/kubernetes/x"]], "links": [["/etc/kubernetes/l", "/anywhere"]]}),
                json!({"step": "put-back", "what": "/put", "exchange": {"place": place, "aside": "/var/lib/etcd-dr/x", "incoming": null}}),
            ]
        };
        assert!(!refused(about("/data/etcd"), steps("/etc/kubernetes/pki")));
        for place in [
            "/home/x",
            "/etc/kubernetes/../passwd",
            "/etc",
            "/etc/kubernetes-2",
        ] {
            assert!(refused(about("/data/etcd"), steps(place)), "{place}");
        }
        let put = |place: &str, incoming: &str| {
            let exchange = json!({"place": place, "aside": "/var/lib/etcd-dr/x/outside/aside/x", "incoming": incoming});
            vec![
                json!({"step": "make-folders", "folders": ["/srv", "/srv/enc"]}),
                json!({"step": "put-back", "what": "", "exchange": exchange}),
            ]
        };
        let from = "/var/lib/etcd-dr/x/outside/new/outside-etc-kubernetes";
        let fits = put("/srv/enc/x.yaml", &format!("{from}/srv/enc/x.yaml"));
        assert!(!refused(about("/data/etcd"), fits));
        for (place, incoming) in [
            ("/srv/enc/x.yaml", format!("{from}/srv/enc/y.yaml")),
            (
                "/srv/enc/x.yaml",
                "/tmp/outside-etc-kubernetes/srv/enc/x.yaml".to_owned(),
            ),
            ("/usr/bin/x", format!("{from}/usr/bin/x")),
        ] {
            assert!(
                refused(about("/data/etcd"), put(place, &incoming)),
                "{place}"
            );
        }
        for data in ["/etc/ssh", "/var/lib", "/home", "/usr/lib/x"] {
            assert!(refused(about(data), Vec::new()), "{data}");
        }
        let safety = json!({"etcd": {"dataDir": "/var/lib/etcd"}, "safety": ["/home_victim"]});
        assert!(refused(safety, Vec::new()));
    }
}
