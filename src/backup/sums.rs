//! `SHA256SUMS`, in the form that `sha256sum -c` reads: 64 hex digits, two spaces, the name.

use super::manifest::FileEntry;

/// The file's text for these entries, in their order.
pub fn render<'a>(entries: impl IntoIterator<Item = &'a FileEntry>) -> String {
    entries
        .into_iter()
        .map(|entry| format!("{}  {}\n", entry.sha256, entry.name))
        .collect()
}

/// Reads such a file: pairs of (hex digest, name).
///
/// # Errors
/// The number of the first line, from 1, that is not of that form.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, usize> {
    text.lines()
        .enumerate()
        .map(|(number, line)| {
            let (digest, name) = line
                .split_once("  ")
                .or_else(|| line.split_once(" *"))
                .ok_or(number + 1)?;
            let hex = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
            if !hex || name.is_empty() {
                return Err(number + 1);
            }
            Ok((digest.to_ascii_lowercase(), name.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::names::FileKind;

    #[test]
    fn sha256sum_accepts_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"abc").unwrap();
        let entry = FileEntry {
            name: "a".into(),
            kind: FileKind::Snapshot,
            size: 3,
            mode: "0600".into(),
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into(),
        };
        let text = render([&entry]);
        std::fs::write(dir.path().join("SHA256SUMS"), &text).unwrap();
        let checked = std::process::Command::new("sha256sum")
            .args(["-c", "--strict", "SHA256SUMS"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(checked.status.success());
        assert_eq!(parse(&text).unwrap(), vec![(entry.sha256, "a".to_owned())]);
        assert_eq!(parse("x  y\n"), Err(1));
    }
}
