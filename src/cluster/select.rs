//! Finds a member by its full name, id or peer URL.

use crate::error::{Fact, Failure, Result};
use crate::etcd::ids::MemberId;
use crate::etcd::membership::Member;

use super::peer_url;

/// Nothing is called so.
pub const MEMBER_UNKNOWN: &str = "member-unknown";
/// More than one member is called so.
pub const MEMBER_AMBIGUOUS: &str = "member-ambiguous";

/// Finds the one member that a word names: its name, its id as etcdctl prints them (hexadecimal,
/// or decimal in its JSON; with or without `0x` or leading zeros), or one of its peer URLs. A
/// member that has not started has no name.
///
/// # Errors
/// [`MEMBER_UNKNOWN`] or [`MEMBER_AMBIGUOUS`], with the candidates; neither can be allowed.
pub fn select<'m>(members: &'m [Member], word: &str) -> Result<&'m Member> {
    let word = word.trim();
    let ids = MemberId::readings(word);
    let fits = |member: &&Member| {
        (!word.is_empty() && member.name == word)
            || ids.contains(&member.id)
            || member.peer_urls.iter().any(|url| peer_url::same(url, word))
    };
    let found: Vec<&Member> = members.iter().filter(fits).collect();
    let doing = format!("looking for member {word:?}");
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(refusal(
            MEMBER_UNKNOWN,
            "no member has this name, id or peer URL".to_owned(),
            members.iter(),
        )
        .doing(doing)),
        several => Err(refusal(
            MEMBER_AMBIGUOUS,
            format!(
                "it matches {} members; an id matches only one",
                several.len()
            ),
            several.iter().copied(),
        )
        .doing(doing)),
    }
}

fn refusal<'m>(
    name: &'static str,
    why: String,
    candidates: impl Iterator<Item = &'m Member>,
) -> Failure {
    Failure::refused_for_good(name, why).with(Fact::Candidates(candidates.map(described).collect()))
}

/// A member as a candidate: what it can be named by.
pub fn described(member: &Member) -> String {
    let name = if member.name.is_empty() {
        "unstarted member"
    } else {
        &member.name
    };
    format!("{name} ({}, {})", member.id, member.peer_urls.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, url: &str) -> Member {
        Member {
            id: MemberId(id),
            name: name.to_owned(),
            peer_urls: vec![url.to_owned()],
            client_urls: Vec::new(),
            is_learner: false,
        }
    }

    fn members() -> Vec<Member> {
        vec![
            member(0x067d_d97d_af3d_ed3f, "m0", "https://10.0.0.1:2380"),
            member(0x8e9e_05c5_2164_694d, "m0.example", "https://10.0.0.2:2380"),
            member(0x10, "", "https://10.0.0.3:2380"),
            member(0x1010, "twin", "https://10.0.0.4:2380"),
            member(0x1011, "twin", "https://10.0.0.5:2380"),
            member(0x1012, "1011", "https://10.0.0.6:2380"),
        ]
    }

    #[test]
    fn only_the_whole_of_it_fits() {
        let members = members();
        let found = |word: &str| {
            select(&members, word)
                .map(|member| member.id.0)
                .map_err(|e| e.refusal())
        };
        let decimal = 0x067d_d97d_af3d_ed3f_u64.to_string();
        for word in [
            "m0",
            "67dd97daf3ded3f",
            "067dd97daf3ded3f",
            "0x67dd97daf3ded3f",
            decimal.as_str(),
            "https://10.0.0.1:2380",
            "https://10.0.0.1:2380/",
        ] {
            assert_eq!(found(word), Ok(0x067d_d97d_af3d_ed3f), "{word}");
        }
        assert_eq!(found("8e9e05c52164694d"), Ok(0x8e9e_05c5_2164_694d));
        assert_eq!(found("https://10.0.0.3:2380"), Ok(0x10));
        assert_eq!(found("10"), Ok(0x10));
        assert_eq!(found("16"), Ok(0x10));
        for word in ["m", "m0.", "m0.exampl", "", "  ", "10.0.0.1", "M0"] {
            assert_eq!(found(word), Err(Some(MEMBER_UNKNOWN)), "{word:?}");
        }
        // A name of two members, and a name that is another's id.
        for word in ["twin", "1011"] {
            assert_eq!(found(word), Err(Some(MEMBER_AMBIGUOUS)), "{word}");
        }
        assert_eq!(found("0x1011"), Ok(0x1011));
    }

    #[test]
    fn candidates_are_listed() {
        let members = members();
        let failure = select(&members, "nobody").unwrap_err();
        let Some(Fact::Candidates(all)) = failure.facts().get(1) else {
            panic!("{failure:?}");
        };
        assert_eq!(all.len(), 6);
        assert!(all.contains(&"unstarted member (10, https://10.0.0.3:2380)".to_owned()));
    }
}
