//! Archives that no honest program writes.

use super::*;

/// A tar stream of raw parts, to make what no writer makes.
#[derive(Default)]
pub(super) struct Raw {
    bytes: Vec<u8>,
}

impl Raw {
    pub(super) fn entry(mut self, kind: u8, name: &[u8], link: &[u8], content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(kind));
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.block(content)
    }

    pub(super) fn block(mut self, content: &[u8]) -> Self {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn file(self, name: &str) -> Self {
        self.entry(b'0', name.as_bytes(), b"", b"x")
    }

    pub(super) fn gzip(self) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&self.bytes).unwrap();
        gzip.finish().unwrap()
    }

    pub(super) fn end(self) -> Vec<u8> {
        self.block(&[0; 1024]).gzip()
    }
}

const TOP: &str = "static-pod-resources/etcd-pod-1";

fn errors(bytes: &[u8]) -> Vec<Finding> {
    let report = check(bytes);
    let mut errors = report.findings;
    errors.retain(|f| f.severity == Severity::Error);
    assert!(errors.iter().all(|f| f.layer == Layer::Archive));
    errors
}

#[test]
fn hostile_entries_are_found_and_placed() {
    let name = |name: &str| format!("{TOP}/{name}");
    let cases: Vec<(&str, Raw)> = vec![
        ("absolute", Raw::default().file("/etc/passwd")),
        ("\"..\"", Raw::default().file(&name("../../../x"))),
        ("\".\"", Raw::default().file(&format!("./{TOP}/x"))),
        ("empty name", Raw::default().file("")),
        ("another", Raw::default().file("manifests/evil.yaml")),
        ("another", Raw::default().file("static-pod-resources2/x")),
        (
            "character device",
            Raw::default().entry(b'3', name("d").as_bytes(), b"", b""),
        ),
        (
            "block device",
            Raw::default().entry(b'4', name("d").as_bytes(), b"", b""),
        ),
        (
            "named pipe",
            Raw::default().entry(b'6', name("d").as_bytes(), b"", b""),
        ),
        (
            "type 'Z'",
            Raw::default().entry(b'Z', name("d").as_bytes(), b"", b""),
        ),
        (
            "sparse",
            Raw::default().entry(b'S', name("d").as_bytes(), b"", b""),
        ),
        ("ends in a slash", Raw::default().file(&name("d/"))),
        (
            "none",
            Raw::default().entry(b'2', name("l").as_bytes(), b"", b""),
        ),
        (
            "-> /etc/shadow",
            Raw::default().entry(b'2', name("l").as_bytes(), b"/etc/shadow", b""),
        ),
        (
            "-> ../../../x",
            Raw::default().entry(b'2', name("l").as_bytes(), b"../../../x", b""),
        ),
        (
            "-> ../../manifests",
            Raw::default().entry(b'2', name("l").as_bytes(), b"../../manifests", b""),
        ),
        (
            "absolute",
            Raw::default().entry(b'1', name("l").as_bytes(), b"/etc/shadow", b""),
        ),
        (
            "\"..\"",
            Raw::default().entry(b'1', name("l").as_bytes(), b"../x", b""),
        ),
        (
            "does not",
            Raw::default().entry(b'1', name("l").as_bytes(), b"absent", b""),
        ),
        (
            "second entry",
            Raw::default().file(&name("a")).file(&name("a")),
        ),
        (
            "below a file",
            Raw::default().file(&name("a")).file(&name("a/b")),
        ),
        (
            "below a symbolic link",
            Raw::default()
                .entry(b'2', name("a").as_bytes(), b".", b"")
                .file(&name("a/b")),
        ),
        (
            "as something else",
            Raw::default().file(&name("a/b")).file(&name("a")),
        ),
        (
            "1 bytes",
            Raw::default().entry(b'5', name("d").as_bytes(), b"", b"x"),
        ),
        (
            "one",
            Raw::default()
                .entry(b'g', b"g", b"", b"12 comment=\n")
                .file(&name("a")),
        ),
        (
            "two",
            Raw::default()
                .entry(b'L', b"L", b"", b"a")
                .entry(b'L', b"L", b"", b"a")
                .file("a"),
        ),
        (
            "absolute",
            Raw::default()
                .entry(b'L', b"L", b"", b"/etc/x\0")
                .file(&name("a")),
        ),
        ("the end", Raw::default().entry(b'L', b"L", b"", b"a\0")),
        (
            "another PAX size",
            Raw::default()
                .entry(b'x', b"x", b"", b"10 size=7\n")
                .file(&name("a")),
        ),
        (
            "\"..\"",
            Raw::default()
                .entry(b'x', b"x", b"", b"11 path=..\n")
                .file(&name("a")),
        ),
        (
            "length does not fit",
            Raw::default()
                .entry(b'x', b"x", b"", b"99 a=b\n")
                .file(&name("a")),
        ),
        (
            "owner",
            Raw::default()
                .entry(b'x', b"x", b"", b"19 uid=99999999999\n")
                .file(&name("a")),
        ),
    ];
    for (expected, raw) in cases {
        let found = errors(&raw.end());
        let first = found
            .first()
            .unwrap_or_else(|| panic!("nothing found for {expected}"));
        let text = first.to_string();
        let placed = first.place.is_some() || text.contains("->");
        let right = text.contains(expected) || (expected == "owner" && text.contains("uid"));
        assert!(placed && right, "{expected}: {text}");
    }
    // Entries after a harmless-looking bad one are still looked at.
    let found = errors(&Raw::default().file("/x").file("/y").end());
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].place, Some(Place::Unpacked(1024)));
    let looping = Raw::default()
        .entry(b'2', name("l").as_bytes(), b"l", b"")
        .end();
    assert_eq!(check(&looping).findings[0].severity, Severity::Warning);
}

#[test]
fn the_streams_ends_are_checked() {
    let one = || Raw::default().file(&format!("{TOP}/a"));
    assert_eq!(errors(&one().end()), []);
    assert_eq!(errors(&one().block(&[0; 10_240]).gzip()), []);
    for (bad, why) in [
        (one().gzip(), "no zero block"),
        (one().block(&[0; 512]).gzip(), "one zero block"),
        (
            one().block(&[0; 1024]).block(b"x").gzip(),
            "bytes after the end",
        ),
        (
            one().block(&[0; 512]).file("b").end(),
            "an entry after a zero block",
        ),
        (
            [one().end(), b"x".to_vec()].concat(),
            "a byte after the gzip stream",
        ),
        ([one().end(), one().end()].concat(), "a second gzip member"),
        (Vec::new(), "nothing at all"),
        (b"not gzip at all".to_vec(), "no gzip"),
        (Raw::default().block(b"no tar").gzip(), "no tar"),
    ] {
        assert_eq!(errors(&bad).len(), 1, "{why}");
    }
    let mut trailing = one().end();
    let end = trailing.len() as u64;
    trailing.push(0);
    assert_eq!(errors(&trailing)[0].place, Some(Place::Offset(end)));
    assert_eq!(check(&Raw::default().end()).contents.entries, []);
}

#[test]
fn every_truncation_is_found() {
    let (bytes, contents) = written(&Tree::new().selection());
    for length in 0..bytes.len() {
        let report = check(&bytes[..length]);
        assert!(!report.findings.is_empty(), "cut to {length}");
        assert!(report.contents.entries.len() <= contents.entries.len());
    }
}

#[test]
fn no_flipped_bit_passes_as_other_content() {
    let tree = Tree::new();
    let (bytes, contents) = written(&tree.selection());
    // A gzip header has bits without meaning, and two codings may unpack to the same bytes; what
    // must not be is other content without a finding.
    for byte in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[byte] ^= 1 << bit;
            let report = check(&flipped);
            let harmless = report.contents.entries == contents.entries;
            assert!(
                !report.findings.is_empty() || harmless,
                "byte {byte} bit {bit}"
            );
        }
    }
    // Inside of the gzip stream, where its checksum does not help, tar's own must.
    let mut tar = Vec::new();
    GzDecoder::new(bytes.as_slice())
        .read_to_end(&mut tar)
        .unwrap();
    for byte in 0..tar.len().min(20_000) {
        let mut flipped = tar.clone();
        flipped[byte] ^= 1 << (byte % 8);
        let report = check(&Raw { bytes: flipped }.gzip());
        // Contents and long names have no checksum but gzip's.
        let count = report.contents.entries.len();
        assert!(
            !report.findings.is_empty() || count == contents.entries.len(),
            "byte {byte}"
        );
    }
}

#[test]
fn bombs_stop_at_the_limits() {
    let name = format!("{TOP}/a");
    let small = |change: fn(&mut Rules)| {
        let mut rules = rules();
        change(&mut rules);
        rules
    };
    let big = Raw::default()
        .entry(b'0', name.as_bytes(), b"", &vec![0; 3 << 20])
        .end();
    let unpacked = small(|r| r.max_unpacked = 1 << 20);
    let report = check_archive(big.as_slice(), &unpacked).unwrap();
    assert!(
        report.findings[0]
            .expected
            .contains("1048576 bytes unpacked"),
        "{report:?}"
    );
    let file = small(|r| r.max_file = 1 << 20);
    let report = check_archive(big.as_slice(), &file).unwrap();
    assert!(
        report.findings[0].expected.contains("files of at most"),
        "{report:?}"
    );

    let mut many = Raw::default();
    for i in 0..50 {
        many = many.file(&format!("{TOP}/{i}"));
    }
    let many = many.end();
    let entries = small(|r| r.max_entries = 49);
    let report = check_archive(many.as_slice(), &entries).unwrap();
    assert!(
        report.findings[0].expected.contains("at most 49 entries"),
        "{report:?}"
    );
    let kept = small(|r| r.max_kept = 5_000);
    let report = check_archive(many.as_slice(), &kept).unwrap();
    assert!(
        report.findings[0].expected.contains("names and attributes"),
        "{report:?}"
    );

    // A name of two megabytes is never read.
    let long = Raw::default()
        .entry(b'L', b"L", b"", &vec![b'a'; 2 << 20])
        .file("a")
        .end();
    assert!(
        errors(&long)[0]
            .expected
            .contains("extension header of at most")
    );
    // A header that promises more than there is.
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    for size in [u64::MAX, u64::MAX - 511, 1 << 62, 200 << 20] {
        header.set_size(size);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        let raw = Raw {
            bytes: header.as_bytes().to_vec(),
        };
        assert_eq!(errors(&raw.block(b"x").end()).len(), 1, "{size}");
    }
    // A gigabyte of zeros after the end is rejected, too.
    let mut zeros = GzEncoder::new(Vec::new(), Compression::fast());
    io::copy(&mut io::repeat(0).take(4 << 20), &mut zeros).unwrap();
    let report = check_archive(zeros.finish().unwrap().as_slice(), &unpacked).unwrap();
    assert!(
        report.findings[0].expected.contains("unpacked"),
        "{report:?}"
    );
}

#[test]
fn an_input_that_cannot_be_read_is_an_error_and_not_a_finding() {
    struct Broken(io::Cursor<Vec<u8>>, usize);
    impl Read for Broken {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let room = self.1.min(buf.len());
            let count = self.0.read(&mut buf[..room])?;
            self.1 -= count;
            if count == 0 {
                Err(io::Error::from_raw_os_error(5))
            } else {
                Ok(count)
            }
        }
    }
    let (bytes, _) = written(&Tree::new().selection());
    for length in [0, 5, bytes.len() / 2, bytes.len() - 1] {
        let failure = check_archive(Broken(io::Cursor::new(bytes.clone()), length), &rules());
        assert_eq!(failure.unwrap_err().kind(), Kind::Store, "{length}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let raw = Raw { bytes: bytes.clone() };
        prop_assert!(!check(&raw.gzip()).findings.is_empty());
        check(&bytes);
    }
}
