//! Flags in a program's words: `--name=value` or `--name value`, with one dash or two, as the
//! programs of Kubernetes and etcd take them (Go's package `flag`).

/// A flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag<'a> {
    /// Its name, without dashes.
    pub(super) name: &'a str,
    /// Its value, if it has one.
    pub(super) value: Option<&'a str>,
}

/// The flags among words, in their order.
pub(super) fn flags<'a>(words: impl Iterator<Item = &'a str>) -> impl Iterator<Item = Flag<'a>> {
    let mut words = words.peekable();
    std::iter::from_fn(move || {
        loop {
            let word = words.next()?;
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                continue;
            };
            return Some(match flag.split_once('=') {
                Some((name, value)) => Flag {
                    name,
                    value: Some(value),
                },
                None => Flag {
                    name: flag,
                    value: words.next_if(|next| !next.starts_with('-')),
                },
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_write_a_flag_is_read() {
        let words = "etcd --a=1 -b=2 --c 3 --d -e --f= 4 --g";
        let found: Vec<_> = flags(words.split(' '))
            .map(|flag| (flag.name, flag.value))
            .collect();
        let expected = [
            ("a", Some("1")),
            ("b", Some("2")),
            ("c", Some("3")),
            ("d", None),
            ("e", None),
            ("f", Some("")),
            ("g", None),
        ];
        assert_eq!(found, expected);
    }
}
