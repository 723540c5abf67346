//! Each parser of bytes from outside takes time and memory in proportion to its input: a document of
//! four times the length takes at most nine times as long, and no parser takes memory by a size that the input
//! announces.
//!
//! The tests of the parsers know what each of them reads; here are the forms that repeat, nest or announce.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_dr_fuzz::{
    age_file, archive, bbolt, documents, inspect, journal, key_value, known_hosts, listing, object,
    raft_snap, request, seal_records, wal, yaml,
};
use peak_alloc::PeakAlloc;
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// One at a time: the allocator counts for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes of memory a byte of input: a YAML or JSON document of many small values takes the most.
const A_BYTE: usize = 320;
/// Bytes of memory that any input may take.
const FLOOR: usize = 12 << 20;

/// Processor time of one call, the least of three.
fn cost(target: fn(&[u8]), input: &[u8]) -> Duration {
    let spent = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a time");
    let once = |_| {
        let before = spent();
        target(input);
        spent() - before
    };
    (0..3).map(once).min().expect("three")
}

/// Bytes allocated at most at one time in one call, above what was allocated before.
fn peak(target: fn(&[u8]), input: &[u8]) -> usize {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    target(input);
    ALLOCATED.peak_usage().saturating_sub(before)
}

/// Holds both bounds for a form of input of any length.
fn hold(name: &str, target: fn(&[u8]), form: &dyn Fn(usize) -> Vec<u8>) {
    let (short, long) = (form(16 << 10), form(64 << 10));
    let taken = peak(target, &long);
    assert!(
        taken <= FLOOR + A_BYTE * long.len(),
        "{name}: {taken} bytes of memory for {} of input: {:.60}",
        long.len(),
        String::from_utf8_lossy(&long)
    );
    // Four is linear and sixteen quadratic. What is too short to be timed is neither.
    let linear = (0..5).any(|_| {
        let (short, long) = (cost(target, &short), cost(target, &long));
        long < short * 9 || long < Duration::from_micros(300)
    });
    assert!(
        linear,
        "{name}: {:?} and {:?} for {} and {} bytes: {:.60}",
        cost(target, &short),
        cost(target, &long),
        short.len(),
        long.len(),
        String::from_utf8_lossy(&long)
    );
}

/// Text that repeats a unit between a beginning and an end.
fn repeat(before: &str, unit: &str, after: &str, length: usize) -> Vec<u8> {
    let times = length.saturating_sub(before.len() + after.len()) / unit.len() + 1;
    format!("{before}{}{after}", unit.repeat(times)).into_bytes()
}

/// Lines that differ, up to a length.
fn numbered(before: &str, line: fn(usize) -> String, after: &str, length: usize) -> Vec<u8> {
    let mut text = before.to_owned();
    for number in 0.. {
        if text.len() >= length {
            break;
        }
        text.push_str(&line(number));
    }
    text.push_str(after);
    text.into_bytes()
}

type Line = fn(usize) -> String;

/// Holds the bounds for texts of both forms.
fn hold_texts(
    name: &str,
    target: fn(&[u8]),
    repeated: &[(&str, &str, &str)],
    lines: &[(&str, Line, &str)],
) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (before, unit, after) in repeated {
        hold(name, target, &|length| repeat(before, unit, after, length));
    }
    for (before, line, after) in lines {
        hold(name, target, &|length| {
            numbered(before, *line, after, length)
        });
    }
}

#[test]
fn yaml_documents() {
    let repeated = [
        ("a: &a x\nb: [", "*a,", "]"),
        ("", "- a\n", ""),
        ("", "[", ""),
        ("", "? ", ""),
        ("", "{a: ", ""),
        ("a: \"", "\\n", "\""),
    ];
    let lines: [(&str, Line, &str); 2] = [
        ("", |i| format!("a{i}: x\n"), ""),
        ("", |i| format!("- &a{i} x\n"), ""),
    ];
    hold_texts("yaml", yaml, &repeated, &lines);
}

#[test]
fn heads_of_encrypted_copies() {
    let line = "A".repeat(43);
    let head = "age-encryption.org/v1\n";
    let stanza = format!("-> X25519 {line}\n{line}\n");
    let full = format!("{}\n", "A".repeat(64));
    let repeated = [
        (head, stanza.as_str(), "--- AAAA\n"),
        (head, "-> a b c\n\n", "--- AAAA\n"),
        ("age-encryption.org/v1\n-> X25519 A\n", full.as_str(), ""),
        (head, "-> ", ""),
        ("age-encryption.org/v1\n-> x ", "a ", "\n"),
        ("-----BEGIN AGE ENCRYPTED FILE-----\n", full.as_str(), ""),
        ("", "\n", ""),
    ];
    hold_texts("age_file", age_file, &repeated, &[]);
}

#[test]
fn known_host_files() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBIM0eKmOmoBLv8vW5V5oGZ0gkXEnIPN5v3qP9RKHfCE\n";
    let plain = format!("nas.example {key}");
    let hashed = format!("|1|JfKTdBh7rNbXkVAQCRp4OQoPfmI=|USECr3SWf1JUPsms5AqfD5QfxkM= {key}");
    let after = format!(" {key}");
    let repeated = [
        ("", plain.as_str(), ""),
        ("", hashed.as_str(), ""),
        ("", "a*,", after.as_str()),
        ("", "*", after.as_str()),
        ("", "*?", after.as_str()),
        ("", "@revoked ", ""),
        ("nas.example ssh-ed25519 ", "A", "\n"),
    ];
    hold_texts("known_hosts", known_hosts, &repeated, &[]);
}

#[test]
fn pages_of_a_listing() {
    let root = "<?xml version=\"1.0\"?><ListBucketResult>";
    let object = "<Contents><Key>c/n/backup-1/backup.json</Key><Size>7</Size></Contents>";
    let repeated = [
        (root, object, "</ListBucketResult>"),
        (root, "<a>", ""),
        (root, "&amp;", ""),
        (
            "<?xml version=\"1.0\"?><!DOCTYPE a [",
            "<!ENTITY a \"aaaa\">",
            "]><a/>",
        ),
        ("<a ", "b=\"c\" ", "/>"),
        ("<!--", "-", ""),
        ("{\"items\":[", "{\"name\":\"a\"},", "{}]}"),
        ("", "[", ""),
    ];
    let lines: [(&str, Line, &str); 1] = [("<a ", |i| format!("b{i}=\"c\" "), "/>")];
    hold_texts("listing", listing, &repeated, &lines);
}

#[test]
fn manifests_and_indexes() {
    let begin = r#"{"schemaVersion":1,"manifestSha256":"00","objects":["#;
    let object = r#"{"file":"a","object":"b","size":1,"sha256":"00"},"#;
    let manifest =
        r#"{"schemaVersion":1,"tool":{"name":"x","version":"0"},"id":"backup-1","files":["#;
    let file = r#"{"kind":"snapshot","name":"a","size":18446744073709551615,"sha256":"00"},"#;
    let repeated = [
        (begin, object, "{}]}"),
        (manifest, file, "{}]}"),
        ("", "[", ""),
        ("", "{\"a\":", ""),
        ("\"", "\\u0000", "\""),
        ("", "9", ""),
    ];
    let lines: [(&str, Line, &str); 1] = [("{", |i| format!("\"a{i}\":{i},"), "\"z\":0}")];
    hold_texts("documents", documents, &repeated, &lines);
}

#[test]
fn journals() {
    let record = |json: &str| format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()));
    let steps = r#"{"time":"2026-11-21T06:15:30Z","record":"begin","schema":1,"tool":"0","id":"a","kind":"restore","about":{},"steps":["x"]}"#;
    let begin = record(steps);
    let doing = record(r#"{"time":"2026-11-21T06:15:30Z","record":"doing","step":0}"#);
    let far =
        record(r#"{"time":"2026-11-21T06:15:30Z","record":"doing","step":18446744073709551615}"#);
    let repeated = [
        (begin.as_str(), doing.as_str(), ""),
        (begin.as_str(), far.as_str(), ""),
        (begin.as_str(), "\0", ""),
        ("", begin.as_str(), ""),
        ("", "\n", ""),
    ];
    hold_texts("journal", journal, &repeated, &[]);
    let sealed: fn(&[u8]) = |data| journal(&seal_records(data));
    hold_texts("journal", sealed, &[("00000000 ", "[", "\n")], &[]);
}

/// The block that begins an entry of an archive.
fn tar_header(name: &str, kind: u8, size: u64) -> Vec<u8> {
    tar_link(name, kind, size, None)
}

/// The same for an entry that leads to another.
fn tar_link(name: &str, kind: u8, size: u64, target: Option<String>) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).expect("a short name");
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o600);
    header.set_size(size);
    if let Some(target) = target {
        header.set_link_name(target).expect("a short name");
    }
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn archives() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let packed = |tar: Vec<u8>| {
        let mut stored = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        std::io::Write::write_all(&mut stored, &tar).expect("memory");
        stored.finish().expect("memory")
    };
    type Entry = fn(usize) -> Vec<u8>;
    let entries: [Entry; 6] = [
        |i| tar_header(&format!("static-pod-resources/{i}"), b'0', 0),
        |i| tar_header(&format!("static-pod-resources/{i}"), b'5', 0),
        // Links, each to the one before.
        |i| {
            let target = format!("l{}", i.saturating_sub(1));
            tar_link(&format!("l{i}"), b'2', 0, Some(target))
        },
        // Entries that announce what does not follow: a file, a long name, a pax header.
        |_| tar_header("a", b'0', 0o77_777_777_777),
        |_| tar_header("a", b'L', 0o77_777_777_777),
        |_| tar_header("a", b'x', 0o77_777_777_777),
    ];
    for entry in entries {
        hold("archive", archive, &|length| {
            packed((0..length / 512).flat_map(entry).collect())
        });
    }
    // Megabytes of zeros in kilobytes: what is unpacked has a bound.
    hold("archive", archive, &|length| {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gz, &vec![0; length * 512]).expect("memory");
        gz.finish().expect("memory")
    });
}

/// A length-delimited field of protobuf (Protocol Buffers, "Encoding").
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length > 0x7f {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
    out
}

#[test]
fn stored_objects() {
    let repeated = [
        ("", "[", ""),
        ("", "{\"a\":", ""),
        (
            "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"data\":[",
            "0,",
            "0]}",
        ),
        ("kind: X\na: ", "[", ""),
        ("kind: X\na: &a x\nb: [", "*a,", "]"),
        ("k8s:enc:secretbox:v1:key1:", "x", ""),
        ("k8s:enc:", "a:", ""),
    ];
    let lines: [(&str, Line, &str); 1] = [(
        "{\"apiVersion\":\"example.com/v1\",\"kind\":\"Widget\"",
        |i| format!(",\"a{i}\":{{}}"),
        "}",
    )];
    hold_texts("object", object, &repeated, &lines);
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Entries of a map, an unknown field, names, and messages within messages.
    let entry = field(2, &[field(1, b"a"), field(2, b"b")].concat());
    let units: [(&str, Vec<u8>); 4] = [
        ("ConfigMap", entry),
        ("ConfigMap", field(9, b"x")),
        ("Pod", field(1, &field(1, b"a"))),
        ("Pod", field(2, &field(2, &field(1, b"a")))),
    ];
    for (kind, unit) in &units {
        hold("object", object, &|length| {
            let type_meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
            let raw = unit.repeat(length / unit.len());
            [b"k8s\0".to_vec(), field(1, &type_meta), field(2, &raw)].concat()
        });
    }
    // Messages nested as deep as the bytes go, in protobuf and in CBOR.
    hold("object", object, &|length| {
        let mut raw = Vec::new();
        while raw.len() < length.min(20_000) {
            raw = field(1, &raw);
        }
        [b"k8s\0".to_vec(), field(2, &raw)].concat()
    });
    for item in [0x81, 0xa1, 0x9f, 0xc1] {
        hold("object", object, &|length| {
            [b"\xd9\xd9\xf7".to_vec(), vec![item; length]].concat()
        });
    }
}

#[test]
fn records_that_announce_gigabytes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let targets: [(&str, fn(&[u8])); 6] = [
        ("wal", wal),
        ("raft_snap", raft_snap),
        ("request", request),
        ("key_value", key_value),
        ("bbolt", bbolt),
        ("inspect", inspect),
    ];
    // Lengths as protobuf's varints and as little-endian words, in every field that has one.
    let varint = [0x12, 0xff, 0xff, 0xff, 0xff, 0x07];
    let nested = [0x22, 0x7f, 0x0a, 0x7d];
    let words = [0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0x84];
    for (name, target) in targets {
        for unit in [&varint[..], &nested[..], &words[..], &[0][..], &[0xff][..]] {
            hold(name, target, &|length| unit.repeat(length / unit.len()));
        }
    }
}
