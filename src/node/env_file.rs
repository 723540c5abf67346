//! `etcd.env`: the variables OpenShift's etcd scripts source, read without a shell.
//!
//! The operator writes one `export NAME="value"` a line, the value in Go's `%q` quoting
//! (cluster-etcd-operator, `pkg/operator/scriptcontroller`; Go language specification, "String
//! literals"). Hand-made files may leave `export` out, use single quotes or none. Nothing is ever
//! executed or expanded: a `$` in double quotes stays a `$`, as Go meant it, and where a bare word
//! would make a shell act, the line is refused.

use std::fmt;

/// Longer files are not read.
pub const MAX_BYTES: u64 = 1 << 20;

/// One variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value, unquoted.
    pub value: String,
    /// The line it stands on, from 1.
    pub line: usize,
}

/// The variables of a file in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvFile {
    variables: Vec<Variable>,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFileError {
    /// The line, from 1.
    pub line: usize,
    /// What should stand there.
    pub expected: &'static str,
    /// What stands there.
    pub found: String,
}

impl fmt::Display for EnvFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}: expected {}, found {}",
            self.line, self.expected, self.found
        )
    }
}

impl std::error::Error for EnvFileError {}

impl EnvFile {
    /// Reads a whole file.
    pub fn parse(text: &[u8]) -> Result<Self, EnvFileError> {
        let mut variables = Vec::new();
        for (index, line) in text.split(|b| *b == b'\n').enumerate() {
            let mut cursor = Cursor {
                rest: line,
                line: index + 1,
            };
            if let Some((name, value)) = cursor.assignment()? {
                variables.push(Variable {
                    name,
                    value,
                    line: index + 1,
                });
            }
        }
        Ok(Self { variables })
    }

    /// The value of a name; of several the last, as sourcing leaves it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .iter()
            .rev()
            .find(|variable| variable.name == name)
            .map(|variable| variable.value.as_str())
    }

    /// All variables, in the file's order.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }
}

/// What is left of one line.
struct Cursor<'a> {
    rest: &'a [u8],
    line: usize,
}

impl Cursor<'_> {
    fn assignment(&mut self) -> Result<Option<(String, String)>, EnvFileError> {
        self.skip_blanks();
        if self.at_end() {
            return Ok(None);
        }
        let mut name = self.name()?;
        if name == "export" && self.peek().is_some_and(is_blank) {
            self.skip_blanks();
            name = self.name()?;
        }
        if self.peek() != Some(b'=') {
            return Err(self.wrong("\"=\" right after the variable's name"));
        }
        self.advance();
        let bytes = match self.peek() {
            Some(b'"') => self.double_quoted()?,
            Some(b'\'') => self.single_quoted()?,
            _ => self.bare_word()?,
        };
        if self.peek() == Some(b';') {
            self.advance();
        } else if !self.peek().is_none_or(is_blank) {
            return Err(self.wrong("the end of the value"));
        }
        self.skip_blanks();
        if !self.at_end() {
            return Err(self.wrong("nothing but a comment after the value"));
        }
        if bytes.contains(&0) {
            return Err(self.bad("a value without zero bytes", "a zero byte"));
        }
        let value =
            String::from_utf8(bytes).map_err(|_| self.bad("a value in UTF-8", "other bytes"))?;
        Ok(Some((name, value)))
    }

    fn name(&mut self) -> Result<String, EnvFileError> {
        let mut name = String::new();
        while let Some(byte) = self.peek() {
            let fits = byte == b'_'
                || byte.is_ascii_alphabetic()
                || (byte.is_ascii_digit() && !name.is_empty());
            if !fits {
                break;
            }
            name.push(char::from(byte));
            self.advance();
        }
        if name.is_empty() {
            return Err(self.wrong("a variable's name"));
        }
        Ok(name)
    }

    fn double_quoted(&mut self) -> Result<Vec<u8>, EnvFileError> {
        self.advance();
        let mut out = Vec::new();
        loop {
            match self.take() {
                None => return Err(self.bad("a closing double quote", "the end of the line")),
                Some(b'"') => return Ok(out),
                Some(b'\\') => self.escape(&mut out)?,
                Some(byte) => out.push(byte),
            }
        }
    }

    /// Go's escapes, and the two more that a shell knows in double quotes: `\$` and a backtick.
    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), EnvFileError> {
        let Some(kind) = self.take() else {
            return Err(self.bad("an escaped character", "the end of the line"));
        };
        match kind {
            b'a' => out.push(0x07),
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(0x0b),
            b'\\' | b'"' | b'$' | b'`' => out.push(kind),
            b'x' => {
                let byte = self.digits(2, 16, 0)?;
                out.push(u8::try_from(byte).map_err(|_| self.bad("a byte", "a larger number"))?);
            }
            b'u' => self.code_point(4, out)?,
            b'U' => self.code_point(8, out)?,
            b'0'..=b'7' => {
                let byte = self.digits(2, 8, u32::from(kind - b'0'))?;
                let byte = u8::try_from(byte)
                    .map_err(|_| self.bad("an octal byte up to 377", "a larger number"))?;
                out.push(byte);
            }
            other => {
                let found = format!("\\{}", char::from(other).escape_default());
                return Err(self.bad("an escape of Go's", found));
            }
        }
        Ok(())
    }

    fn code_point(&mut self, width: usize, out: &mut Vec<u8>) -> Result<(), EnvFileError> {
        let number = self.digits(width, 16, 0)?;
        let Some(c) = char::from_u32(number) else {
            return Err(self.bad("a Unicode character", format!("U+{number:04X}")));
        };
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn digits(&mut self, width: usize, radix: u32, start: u32) -> Result<u32, EnvFileError> {
        let mut number = start;
        for _ in 0..width {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(radix));
            let Some(digit) = digit else {
                return Err(self.wrong("a digit of an escape"));
            };
            self.advance();
            // Eight hexadecimal digits fill a u32 exactly, so this cannot overflow.
            number = number.wrapping_mul(radix).wrapping_add(digit);
        }
        Ok(number)
    }

    fn single_quoted(&mut self) -> Result<Vec<u8>, EnvFileError> {
        self.advance();
        let mut out = Vec::new();
        loop {
            match self.take() {
                None => return Err(self.bad("a closing single quote", "the end of the line")),
                Some(b'\'') => return Ok(out),
                Some(byte) => out.push(byte),
            }
        }
    }

    fn bare_word(&mut self) -> Result<Vec<u8>, EnvFileError> {
        let mut out = Vec::new();
        while let Some(byte) = self.peek() {
            if is_blank(byte) || byte == b';' {
                break;
            }
            // Brackets are common in IPv6 URLs, and no shell expands them in an assignment.
            if b"$`\\\"'()<>|&".contains(&byte) {
                return Err(self.wrong("a word without special characters, or quotes"));
            }
            out.push(byte);
            self.advance();
        }
        Ok(out)
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(is_blank) {
            self.advance();
        }
    }

    fn at_end(&self) -> bool {
        matches!(self.peek(), None | Some(b'#'))
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn advance(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.advance();
        byte
    }

    fn bad(&self, expected: &'static str, found: impl Into<String>) -> EnvFileError {
        EnvFileError {
            line: self.line,
            expected,
            found: found.into(),
        }
    }

    /// The line's own text may hold a secret, so only the next character is shown.
    fn wrong(&self, expected: &'static str) -> EnvFileError {
        let found = match self.peek() {
            None => "the end of the line".to_owned(),
            Some(byte) => format!("\"{}\"", char::from(byte).escape_default()),
        };
        self.bad(expected, found)
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Result<String, EnvFileError> {
        let file = EnvFile::parse(format!("export X={text}\n").as_bytes())?;
        Ok(file.get("X").unwrap().to_owned())
    }

    /// Go's `strconv.Quote`, for what needs no table of printable characters: all that is not
    /// printable ASCII is escaped by the widest form that fits.
    fn go_quote_to_ascii(text: &str) -> String {
        let mut out = String::from("\"");
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\u{7}' => out.push_str("\\a"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{b}' => out.push_str("\\v"),
                ' '..='~' => out.push(c),
                c if u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
                c if u32::from(c) < 0x10000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
            }
        }
        out.push('"');
        out
    }

    #[test]
    fn the_operators_own_lines_are_read() {
        let file = EnvFile::parse(
            b"export ALL_ETCD_ENDPOINTS=\"https://192.168.10.10:2379,https://[fd00::10]:2379\"\n\
              # comment\n\n  export NODE_master_0_ETCD_NAME=\"master-0.ocp.example.com\"  \r\n",
        )
        .unwrap();
        assert_eq!(
            file.get("ALL_ETCD_ENDPOINTS"),
            Some("https://192.168.10.10:2379,https://[fd00::10]:2379")
        );
        assert_eq!(
            file.get("NODE_master_0_ETCD_NAME"),
            Some("master-0.ocp.example.com")
        );
        assert_eq!(file.variables()[1].line, 4);
        assert_eq!(file.get("ABSENT"), None);
    }

    #[test]
    fn every_escape_of_go_is_known() {
        assert_eq!(
            value(r#""\a\b\f\n\r\t\v\\\"\x41\101\u00e9\U0001F600""#).unwrap(),
            "\u{7}\u{8}\u{c}\n\r\t\u{b}\\\"AA\u{e9}\u{1f600}"
        );
        assert_eq!(value(r#""\xc3\xa9""#).unwrap(), "\u{e9}");
    }

    #[test]
    fn sourced_forms_are_read_and_never_expanded() {
        assert_eq!(value("'a \\n $b'").unwrap(), "a \\n $b");
        assert_eq!(
            value("https://[fd00::1]:2379 # end").unwrap(),
            "https://[fd00::1]:2379"
        );
        assert_eq!(value("").unwrap(), "");
        assert_eq!(
            value(r#""$(reboot) ${HOME} \$x""#).unwrap(),
            "$(reboot) ${HOME} $x"
        );
        assert_eq!(value("\"a#b\";").unwrap(), "a#b");
        let file = EnvFile::parse(b"A=1\nA=2").unwrap();
        assert_eq!(file.get("A"), Some("2"));
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, line) in [
            ("A=1\nB\n", 2),
            ("A=\"x", 1),
            ("A='x", 1),
            ("\n\nA=\"\\q\"", 3),
            ("A=\"\\x4\"", 1),
            ("A=\"\\400\"", 1),
            ("A=\"\\ud800\"", 1),
            ("A=\"\\UFFFFFFFF\"", 1),
            ("A=\"\\xff\"", 1),
            ("A=\"\\x00\"", 1),
            ("A=\"\\", 1),
            ("A=$(reboot)", 1),
            ("A=`reboot`", 1),
            ("A=1 reboot", 1),
            ("A=\"1\"2", 1),
            ("1A=2", 1),
            ("A =1", 1),
            ("reboot", 1),
            ("export", 1),
            ("\u{0}", 1),
        ] {
            assert_eq!(
                EnvFile::parse(text.as_bytes()).unwrap_err().line,
                line,
                "{text:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_go_quotes_reads_back(text in "[^\u{0}]*") {
            prop_assert_eq!(value(&go_quote_to_ascii(&text)).unwrap(), text);
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = EnvFile::parse(&bytes);
            let mut line = b"A=\"".to_vec();
            line.extend_from_slice(&bytes);
            let _ = EnvFile::parse(&line);
        }
    }
}
