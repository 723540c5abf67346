//! Peer URLs as etcd takes them (`types.NewURLs`, client/pkg/types/urls.go): a scheme, a host and
//! a port, no path.

use crate::error::{Failure, Kind, Result};
use crate::node::endpoint::Endpoint;
use crate::sys::member_url::{Rules, TCP};

const RULES: Rules = Rules {
    schemes: TCP,
    default: None,
    slash: true,
};

/// Reads a comma-separated list; sorts it and removes duplicates, as etcd does.
///
/// # Errors
/// [`Kind::Usage`] if one is not valid, or the list is empty.
pub fn parse(texts: &[String]) -> Result<Vec<String>> {
    let mut urls = Vec::with_capacity(texts.len());
    for text in texts.iter().map(|text| text.trim()) {
        let usage = |why: &str| {
            Failure::new(Kind::Usage, why.to_owned())
                .doing(format!("reading the peer URL {text:?}"))
        };
        let url = Endpoint::read(text, RULES).map_err(|problem| {
            usage(&format!(
                "it {problem}: expected https://ADDRESS:2380 or http://ADDRESS:2380"
            ))
        })?;
        if url.ip().is_some_and(|ip| ip.is_unspecified()) {
            return Err(usage("no other member can reach an unspecified address"));
        }
        urls.push(url.to_string());
    }
    if urls.is_empty() {
        return Err(Failure::new(Kind::Usage, "no peer URL is given"));
    }
    urls.sort();
    urls.dedup();
    Ok(urls)
}

/// Whether two URLs mean the same place, however they are written.
pub fn same(a: &str, b: &str) -> bool {
    let key = |text: &str| {
        Endpoint::parse(text).map(|url| {
            let host = match url.ip() {
                Some(ip) => ip.to_string(),
                None => url.host.to_ascii_lowercase(),
            };
            (url.tls, host, url.port)
        })
    };
    match (key(a), key(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// The URLs at which no other machine finds a member, if all of them are such.
pub fn loopback(urls: &[String]) -> Option<String> {
    let places = urls.iter().filter_map(|url| Endpoint::parse(url));
    let own: Vec<bool> = places.map(|place| place.is_every_machine()).collect();
    (!own.is_empty() && own.iter().all(|own| *own)).then(|| urls.join(", "))
}

/// Whether two lists name the same places, in any order.
pub fn same_all(a: &[String], b: &[String]) -> bool {
    let within = |some: &[String], all: &[String]| {
        some.iter()
            .all(|url| all.iter().any(|other| same(url, other)))
    };
    within(a, b) && within(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_etcd_takes_is_taken() {
        let urls = parse(&list(&["https://10.0.0.2:2380/", "https://10.0.0.1:2380"])).unwrap();
        assert_eq!(
            urls,
            list(&["https://10.0.0.1:2380", "https://10.0.0.2:2380"])
        );
        for bad in [
            "10.0.0.1:2380",
            "https://10.0.0.1",
            "https://10.0.0.1:2380/members",
            "ftp://10.0.0.1:2380",
            "https://0.0.0.0:2380",
            "https://[::]:2380",
            "",
        ] {
            assert_eq!(
                parse(&list(&[bad])).unwrap_err().kind(),
                Kind::Usage,
                "{bad}"
            );
        }
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn spelling_does_not_matter() {
        assert!(same("https://[fd00:0::1]:2380", "https://[fd00::1]:2380/"));
        assert!(same("https://Etcd-0:2380", "https://etcd-0:2380"));
        assert!(!same("http://etcd-0:2380", "https://etcd-0:2380"));
        assert!(!same("https://etcd-0:2380", "https://etcd-0:2381"));
        let (a, b) = (list(&["http://a:1", "http://b:1"]), list(&["http://b:1"]));
        assert!(same_all(&a, &list(&["http://b:1/", "http://a:1"])));
        assert!(!same_all(&a, &b) && !same_all(&b, &a));
    }
}
