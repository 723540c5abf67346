//! The address of a store: a URL.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::name::check_name;
use crate::error::{Failure, Kind, Result};
use crate::store::local::SET_PREFIX;

/// What kind of store an address means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `file:///path`: a directory, as a mounted share is.
    Directory,
    /// `s3://bucket/path`
    S3,
    /// `gs://bucket/path`
    Gcs,
    /// `az://container/path`
    Azure,
    /// `sftp://user@host:port/path`; `/~/path` is below the home directory
    Sftp,
}

/// The schemes, as they are written.
const SCHEMES: [(&str, Scheme); 5] = [
    ("file", Scheme::Directory),
    ("s3", Scheme::S3),
    ("gs", Scheme::Gcs),
    ("az", Scheme::Azure),
    ("sftp", Scheme::Sftp),
];

/// A store's URL, without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    url: Url,
    scheme: Scheme,
}

impl Address {
    /// Whether a text is meant as a URL and not as a path.
    pub fn is_url(text: &str) -> bool {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme);
        let known = scheme.is_some_and(|scheme| {
            let scheme = scheme.to_ascii_lowercase();
            SCHEMES.iter().any(|(word, _)| *word == scheme)
        });
        known || text.contains("://")
    }

    /// The URL of a directory.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the path is not absolute.
    pub fn of_directory(path: &Path) -> Result<Self> {
        let url = Url::from_file_path(path).map_err(|()| {
            let what = format!("expected an absolute path, found {}", path.display());
            Failure::new(Kind::Usage, what)
        })?;
        Ok(Self {
            url,
            scheme: Scheme::Directory,
        })
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the scheme is unknown, or the URL holds what it must not: a password,
    /// a query.
    pub fn parse(text: &str) -> Result<Self> {
        // A URL that was mistyped may hold a password: it is not shown whole.
        let usage = |what: &str| {
            let scheme = text.split(':').next().unwrap_or_default();
            Failure::new(
                Kind::Usage,
                format!("reading store URL {scheme}://...: {what}"),
            )
        };
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if scheme.is_some_and(|scheme| scheme.contains('/')) {
            return Err(usage(
                "expected s3, gs, az, sftp or file before ://, or a path without ://",
            ));
        }
        let (word, _) = text.split_once(':').unwrap_or_default();
        let word = word.to_ascii_lowercase();
        let known = SCHEMES.iter().find(|(scheme, _)| *scheme == word);
        let Some((_, scheme)) = known.copied() else {
            return Err(usage("the schemes are s3, gs, az, sftp and file"));
        };
        if !text.contains("://") {
            return Err(usage(match scheme {
                Scheme::Directory => "expected file:///PATH",
                Scheme::Sftp => "expected sftp://USER@HOST/PATH",
                _ => "expected two slashes and a bucket after the colon",
            }));
        }
        let url = Url::parse(text).map_err(|e| usage(&e.to_string()))?;
        if url.password().is_some() {
            return Err(usage("it must not contain a password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(usage("it must not contain ? or #"));
        }
        let host = url.host_str().unwrap_or_default();
        match scheme {
            Scheme::Directory if !host.is_empty() => {
                return Err(usage("expected file:///PATH"));
            }
            Scheme::Directory => {}
            _ if host.is_empty() => return Err(usage("it has no bucket and no host")),
            Scheme::Sftp => {}
            _ if !url.username().is_empty() || url.port().is_some() => {
                return Err(usage("expected a bucket, without a user and a port"));
            }
            _ => {}
        }
        let address = Self { url, scheme };
        if !matches!(scheme, Scheme::Directory | Scheme::Sftp) {
            for part in address.prefix().split('/').filter(|part| !part.is_empty()) {
                check_name(part).map_err(|_| usage("its path contains unsupported characters"))?;
            }
        }
        Ok(address)
    }

    /// What kind of store it is.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The user, where one is named: `svc%40corp.example` is `svc@corp.example`.
    pub fn user(&self) -> String {
        let user = percent_decode_str(self.url.username());
        user.decode_utf8_lossy().into_owned()
    }

    /// The port, where one is named.
    pub fn port(&self) -> Option<u16> {
        self.url.port()
    }

    /// The bucket, container or host.
    pub fn bucket(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The host as programs name it: without the brackets that a URL puts around an IPv6 address.
    pub fn host(&self) -> String {
        match self.url.host() {
            Some(Host::Ipv6(ip)) => ip.to_string(),
            Some(host) => host.to_string(),
            None => String::new(),
        }
    }

    /// The path within, without slashes at its ends.
    pub fn prefix(&self) -> &str {
        self.url.path().trim_matches('/')
    }

    /// The directory that a `file` or `sftp` URL means.
    pub fn path(&self) -> PathBuf {
        let local = match self.scheme {
            Scheme::Sftp => Url::parse(&format!("file://{}", self.url.path())).ok(),
            _ => Some(self.url.clone()),
        };
        local
            .and_then(|url| url.to_file_path().ok())
            .unwrap_or_else(|| Path::new(self.url.path()).to_owned())
    }

    /// The address of a set's store and the set's name, `<cluster>/<node>/backup-N` or `…/latest`,
    /// where the last parts of the path are one.
    ///
    /// # Errors
    /// [`Kind::Usage`] if they are not.
    pub fn split_set(&self, is_foreign: impl Fn(&str) -> bool) -> Result<(Self, String)> {
        let parts: Vec<&str> = self.url.path().trim_matches('/').split('/').collect();
        let last = parts.last().copied().unwrap_or_default();
        let ours = last.starts_with(SET_PREFIX) || last == "latest";
        // A snapshot of another program is an object in any folder.
        let length = if ours { 3 } else { 1 };
        let cut = parts.len().saturating_sub(length);
        let (before, set) = parts.split_at(cut);
        if set.len() != length || !ours && !is_foreign(last) {
            let what = format!("reading {self}: expected it to end in CLUSTER/NODE/backup-N");
            return Err(Failure::new(Kind::Usage, what));
        }
        let mut url = self.url.clone();
        url.set_path(&format!("/{}", before.join("/")));
        let store = Self {
            url,
            scheme: self.scheme,
        };
        Ok((store, set.join("/")))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_other_texts() {
        let address = Address::parse("s3://bucket/a/b/").unwrap();
        assert_eq!((address.bucket(), address.prefix()), ("bucket", "a/b"));
        assert_eq!(address.to_string(), "s3://bucket/a/b");
        assert_eq!(
            Address::parse("file:///mnt/x%20y").unwrap().path(),
            Path::new("/mnt/x y")
        );
        for bad in [
            "s3://",
            "s3:///x",
            "ftp://h/x",
            "s3://user:secret@bucket/x",
            "s3://b/x?sig=secret",
            "file://host/x",
            "gs://b/a b",
            "az://c/../x%2F",
            "s3://user@bucket/x",
            "sftp:///x",
            "sftp://u:secret@h/x",
        ] {
            let failure = Address::parse(bad).unwrap_err();
            assert_eq!(failure.kind(), Kind::Usage, "{bad}");
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
    }

    #[test]
    fn a_user_and_a_host_are_what_a_program_calls_them() {
        let address = Address::parse("sftp://svc%40corp.example@[2001:DB8::1]:2222/x").unwrap();
        assert_eq!(address.user(), "svc@corp.example");
        assert_eq!(address.host(), "2001:db8::1");
        assert_eq!(address.port(), Some(2222));
        assert_eq!(
            address.to_string(),
            "sftp://svc%40corp.example@[2001:db8::1]:2222/x"
        );
        let address = Address::parse("sftp://CORP%5Csvc@nas/x").unwrap();
        assert_eq!(
            (address.user().as_str(), address.host().as_str()),
            ("CORP\\svc", "nas")
        );
        // The last @ is the host's: nobody needs to know of the rest.
        let address = Address::parse("sftp://svc@corp.example@nas/x").unwrap();
        assert_eq!(
            (address.user().as_str(), address.host().as_str()),
            ("svc@corp.example", "nas")
        );
    }

    #[test]
    fn a_set_is_told_from_its_store() {
        let set = Address::parse("s3://bucket/p/q/c1/master-0/backup-12").unwrap();
        let (store, name) = set.split_set(|_| false).unwrap();
        assert_eq!(store.to_string(), "s3://bucket/p/q");
        assert_eq!(name, "c1/master-0/backup-12");
        let (store, _) = Address::parse("s3://bucket/c1/n/backup-1")
            .unwrap()
            .split_set(|_| false)
            .unwrap();
        assert_eq!(store.to_string(), "s3://bucket");
        assert!(
            Address::parse("s3://bucket/c1/n")
                .unwrap()
                .split_set(|_| false)
                .is_err()
        );
    }
}
