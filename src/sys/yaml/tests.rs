use super::*;
use serde_json::json;

fn read(text: impl AsRef<[u8]>) -> Value {
    from_slice(text.as_ref()).unwrap()
}

#[test]
fn what_kubernetes_reads_is_read() {
    let plain = json!({"a": "1", "b": ["x"]});
    for text in [
        "a: '1'\nb: [x]\n",
        "\u{feff}a: '1'\nb: [x]\n",
        "---\na: '1'\nb: [x]\n",
        "# managed\n---\na: '1'\nb: [x]\n---\n",
        "a: '1'\nb: [x]\n...\n",
        "a: '1'\nb: [x]\n---\nc: 1\n",
        "a: '1'\r\nb:\r\n- x\r\n",
        "{\"a\": \"1\", \"b\": [\"x\"]}",
        "\u{feff} {\"a\": \"1\", \"b\": [\"x\"]}\n",
        "{a: '1', b: [x]}",
        "a: '0'\nb: [x]\na: '1'\n",
        "{\"a\": 0, \"b\": [\"x\"], \"a\": \"1\"}",
        "a: !x '1'\nb: !!seq [!y x]\n",
        "%YAML 1.1\n---\na: '1'\nb: [x]\n",
        "z: &z {a: '1'}\n",
    ] {
        let expected = match text.starts_with("z:") {
            true => json!({"z": {"a": "1"}}),
            false => plain.clone(),
        };
        assert_eq!(read(text), expected, "{text:?}");
    }
    let wide = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
        let text = "\u{feff}a: '1'\nb: [x]\n";
        text.encode_utf16().flat_map(unit).collect()
    };
    assert_eq!(read(wide(u16::to_le_bytes)), plain);
    assert_eq!(read(wide(u16::to_be_bytes)), plain);
    assert_eq!(read(""), Value::Null);
    assert_eq!(read("---\n---\na: 1\n"), Value::Null);
    assert_eq!(
        read("1: a\ntrue: b\n~: c\n"),
        json!({"1": "a", "true": "b", "null": "c"})
    );
}

#[test]
fn marks_in_comments_and_texts_are_not_aliases() {
    for text in [
        "# see R&D and *D for details\na: x\n",
        "a: x # &D *D\n",
        "a: 'x'\nb: '&D *D'\n",
        "a: x\nb: |\n  case $1 in a) x && y 2>&1 & ;; *) rm -f *.db &x *x;; esac\n",
        "a: x\nb: \"*x\"\nc: a&x *x\n",
    ] {
        assert_eq!(read(text)["a"], "x", "{text}");
    }
}

#[test]
fn aliases_are_replaced_within_bounds() {
    let text = "a: &x {k: 1, l: 2}\nb: *x\nc: {<<: *x, k: 3}\nd: {k: 4, <<: [*x, {m: 5}]}\n";
    let expected = json!({
        "a": {"k": 1, "l": 2},
        "b": {"k": 1, "l": 2},
        "c": {"k": 3, "l": 2},
        "d": {"k": 4, "l": 2, "m": 5},
    });
    assert_eq!(read(text), expected);
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(500_000),
        "*a,".repeat(160_000)
    );
    let mut laughs = "a: &a0 [x, x]\n".to_owned();
    for i in 1..60 {
        laughs.push_str(&format!("b{i}: &a{i} [*a{}, *a{}]\n", i - 1, i - 1));
    }
    for text in [long, laughs] {
        let failure = from_slice::<Value>(text.as_bytes()).unwrap_err();
        assert!(matches!(failure, YamlError::Aliases), "{failure}");
    }
    for text in ["a: *x\n", "a: &x [*x]\n", "a: ["] {
        let failure = from_slice::<Value>(text.as_bytes()).unwrap_err();
        assert!(matches!(failure, YamlError::Parse(_)), "{text}");
    }
}

#[test]
fn many_open_brackets_are_refused_and_closed_ones_are_not() {
    let nested = |times: usize| format!("a: {}\n", "[".repeat(times));
    let failure = from_slice::<Value>(nested(600).as_bytes()).unwrap_err();
    assert!(matches!(failure, YamlError::Brackets), "{failure}");
    let failure = from_slice::<Value>(nested(512).as_bytes()).unwrap_err();
    assert!(matches!(failure, YamlError::Parse(_)), "{failure}");
    let closed = format!("a: [{}]\nb: '{}'\n", "[{}],".repeat(2000), "[".repeat(500));
    assert_eq!(read(&closed)["a"].as_array().map(Vec::len), Some(2000));
}

/// The processor time that reading takes: the least of several runs, as interruptions only add.
fn cost(text: &str) -> std::time::Duration {
    use rustix::time::{ClockId, clock_gettime};
    // Other work of the machine does not count.
    let spent = || {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        std::time::Duration::try_from(spent).unwrap()
    };
    let once = |_| {
        let before = spent();
        let _ = from_slice::<Value>(text.as_bytes());
        spent() - before
    };
    (0..3).map(once).min().unwrap()
}

#[test]
fn a_document_of_four_times_the_length_takes_no_more_than_that() {
    let repeated: [(&str, &str, &str); 28] = [
        ("a: ", "&", ""),
        ("a: ", "*", ""),
        ("a: &", "x", "\n"),
        ("a: ", "&x ", "\n"),
        ("[", "&x *x, ", "]"),
        ("", "[", ""),
        ("", "{", ""),
        ("", "[{", ""),
        ("", "{a: ", ""),
        ("", "{\"a\":", ""),
        ("", "{a: [", ""),
        ("a: ", "[b, ", ""),
        ("", "- ", ""),
        ("", "? ", ""),
        ("", "a: ", ""),
        ("", "!", ""),
        ("a: ", "!x ", ""),
        ("", "%TAG !a! b\n", "---\na"),
        ("", "---\n", ""),
        ("", "#", ""),
        ("'", "''", "'"),
        ("\"", "\\n", "\""),
        ("a: |\n", " x\n", ""),
        ("a: >\n", " x\n\n", ""),
        ("a: x\n", " x\n", ""),
        ("", "- a\n", ""),
        ("{", "a: b, ", "}"),
        ("", " ", ""),
    ];
    let numbered: [fn(usize) -> String; 4] = [
        |i| format!("- &a{i} x\n"),
        |i| format!("a{i}: x\n"),
        |i| format!("%TAG !a{i}! b\n"),
        |i| format!("{}a:\n", " ".repeat(i)),
    ];
    let times = |length: usize, unit: usize| length / unit + 1;
    let mut documents: Vec<Box<dyn Fn(usize) -> String>> = Vec::new();
    for (before, unit, after) in repeated {
        documents.push(Box::new(move |length| {
            format!("{before}{}{after}", unit.repeat(times(length, unit.len())))
        }));
    }
    for line in numbered {
        documents.push(Box::new(move |length| {
            let mut text = String::new();
            for i in 0.. {
                if text.len() >= length {
                    break;
                }
                text.push_str(&line(i));
            }
            text
        }));
    }
    for document in documents {
        let (short, long) = (document(8 << 10), document(32 << 10));
        // Four is linear and sixteen quadratic. A busy machine is asked again.
        let linear = (0..5).any(|_| cost(&long) < cost(&short) * 9);
        assert!(
            linear,
            "{:.20}: {:?}, {:?}",
            short,
            cost(&short),
            cost(&long)
        );
    }
}
