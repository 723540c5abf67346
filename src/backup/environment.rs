//! `backup.env`: the summary a shell script can source.
//!
//! `NAME=value` lines, values in single quotes where they hold anything beyond
//! `[A-Za-z0-9_.:+-]`. The names come from the OpenShift proposals for automated backups; the
//! `*_REVISION` values are static-pod revisions (`etcd-pod-7` is 7), not etcd's.

use super::manifest::Manifest;
use crate::sys::quote;

/// The variable of each component's PodRevision.
const REVISIONS: [(&str, &str); 4] = [
    ("ETCD_REVISION", "etcd"),
    ("APISERVER_REVISION", "kube-apiserver"),
    ("CONTROLLER_MANAGER_REVISION", "kube-controller-manager"),
    ("SCHEDULER_REVISION", "kube-scheduler"),
];

/// The file's text. What is not known is left out.
pub fn render(manifest: &Manifest) -> String {
    let mut lines = vec![("CREATED".to_owned(), manifest.created.to_string())];
    if let Some(version) = &manifest.cluster.ocp_version {
        lines.push(("OCP_VERSION".to_owned(), version.clone()));
    }
    for (variable, name) in REVISIONS {
        let component = manifest
            .components
            .iter()
            .find(|component| component.name == name);
        if let Some(revision) = component.and_then(|component| component.revision) {
            lines.push((variable.to_owned(), revision.to_string()));
        }
    }
    lines
        .into_iter()
        .map(|(name, value)| format!("{name}={}\n", quote(&value)))
        .collect()
}

/// A value as a POSIX shell reads it back. Plain ones stay bare, as OpenShift's scripts write them.
fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.:+-".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    quote::shell(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_it_back() {
        let mut manifest = crate::backup::manifest::tests::example();
        manifest.cluster.ocp_version = Some("4.18.3 o'$(id)".into());
        let text = render(&manifest);
        assert!(text.starts_with("CREATED=2026-11-21T06:15:30Z\n"), "{text}");
        let script = format!("{text}\nprintf '%s|%s' \"$OCP_VERSION\" \"$ETCD_REVISION\"");
        let out = std::process::Command::new("sh")
            .arg("-c")
            .arg(script)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), "4.18.3 o'$(id)|7");
    }
}
