//! Versions of etcd as servers, databases and image names write them.

use std::fmt;
use std::str::FromStr;

/// A version such as `3.5.16`. What follows the numbers (`-0`, `+build`) is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    /// The first number.
    pub major: u64,
    /// The second.
    pub minor: u64,
    /// The third; 0 if none is written.
    pub patch: u64,
}

impl Release {
    /// A version by its numbers.
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// The first release of a minor version.
    pub const fn first(major: u64, minor: u64) -> Self {
        Self::new(major, minor, 0)
    }

    /// Major and minor.
    pub fn line(self) -> (u64, u64) {
        (self.major, self.minor)
    }
}

/// Not a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRelease;

impl FromStr for Release {
    type Err = NoRelease;

    /// Reads `3.5`, `3.5.16`, `v3.5.16` and `3.5.16-0`.
    fn from_str(text: &str) -> Result<Self, NoRelease> {
        let number = |part: Option<&str>| {
            let part = part.filter(|part| !part.is_empty())?;
            let plain = part.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| part.parse().ok())?
        };
        let text = text.strip_prefix('v').unwrap_or(text);
        let numbers = text.split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.');
        let (major, minor) = (number(parts.next()), number(parts.next()));
        let patch = match parts.next() {
            None => Some(0),
            patch => number(patch),
        };
        match (major, minor, patch, parts.next()) {
            (Some(major), Some(minor), Some(patch), None) => Ok(Self::new(major, minor, patch)),
            _ => Err(NoRelease),
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_written() {
        for (text, release) in [
            ("3.5", Release::first(3, 5)),
            ("3.5.16", Release::new(3, 5, 16)),
            ("v3.6.4-0", Release::new(3, 6, 4)),
            ("3.7.0-rc.1+git", Release::first(3, 7)),
        ] {
            assert_eq!(text.parse(), Ok(release), "{text}");
        }
        for text in ["", "3", "3.", "3.x", "3.5.16.1", "-3.5", "3.5.+1", "latest"] {
            assert_eq!(text.parse::<Release>(), Err(NoRelease), "{text}");
        }
    }
}
