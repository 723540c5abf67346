//! Members and votes.

use std::fmt::Write as _;

use super::table::{Table, terminal_width};
use crate::cluster::quorum::Tally;
use crate::cluster::survey::MemberState;

/// The table of members.
pub(crate) fn table(states: &[MemberState]) -> String {
    let mut table = Table::new(&["MEMBER", "ID", "PEER URLS", "VOTES", "STATE"]);
    for state in states {
        let member = &state.member;
        let leads = state
            .status
            .as_ref()
            .is_some_and(|status| status.is_leader());
        let standing = match &state.trouble {
            None if leads => "leads".to_owned(),
            None => "healthy".to_owned(),
            Some(_) if !state.has_started() => "not started".to_owned(),
            Some(why) => why.clone(),
        };
        table.row(vec![
            if state.has_started() {
                member.name.clone()
            } else {
                "-".to_owned()
            },
            member.id.to_string(),
            member.peer_urls.join(","),
            if member.is_learner { "no" } else { "yes" }.to_owned(),
            standing,
        ]);
    }
    table.render(terminal_width())
}

/// The votes before and after a change.
pub(crate) fn votes(text: &mut String, before: &Tally, after: &Tally) {
    let _ = writeln!(text, "  before: {}", tally(before));
    let _ = writeln!(text, "  after:  {}", tally(after));
}

/// The votes in a sentence.
pub(crate) fn tally(tally: &Tally) -> String {
    let tolerance = match tally.tolerance {
        None => "quorum is LOST".to_owned(),
        Some(0) => "no further member may fail".to_owned(),
        Some(1) => "1 more may fail".to_owned(),
        Some(more) => format!("{more} more may fail"),
    };
    let learners = match tally.learners {
        0 => String::new(),
        1 => ", 1 learner".to_owned(),
        more => format!(", {more} learners"),
    };
    format!(
        "{} of {} voting members healthy, quorum {}, {tolerance}{learners}",
        tally.healthy, tally.voters, tally.quorum
    )
}
