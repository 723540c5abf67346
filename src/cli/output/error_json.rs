//! A failure as its document.

use serde_json::{Value, json};

use super::hints;
use super::json::SCHEMA_VERSION;
use crate::error::{Fact, Failure, Kind};

/// What failed once a result was there: `error` of the result's own document.
pub(crate) fn of_problems(command: &str, kind: Kind, problems: &[Failure]) -> Value {
    let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let facts = problems.iter().flat_map(Failure::facts).cloned();
    let whole = facts.fold(Failure::new(kind, messages.join("; ")), Failure::with);
    render(command, &whole)["error"].take()
}

/// A failure as its document.
pub(crate) fn render(command: &str, failure: &Failure) -> Value {
    let candidates = failure.facts().iter().find_map(|fact| match fact {
        Fact::Candidates(candidates) => Some(candidates.clone()),
        _ => None,
    });
    let remains = failure.facts().iter().find_map(|fact| match fact {
        Fact::MemberRemains(member) => Some(member.clone()),
        _ => None,
    });
    let mut document = json!({
        "schemaVersion": SCHEMA_VERSION,
        "command": command.split(' ').next(),
        "error": {
            "kind": failure.kind().word(),
            "exitCode": failure.kind().exit_code(),
            "message": failure.to_string(),
            "chain": failure.chain(),
            "refusal": failure.refusal(),
            "refusals": failure.refusals(),
            "candidates": candidates,
            "hint": hints::hint(command, failure),
        },
    });
    if let Some(member) = remains {
        document["error"]["memberRemains"] = member.into();
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_problems_are_one_error_with_all_their_facts() {
        let busy = Fact::Holder {
            pid: 7,
            doing: "prune".to_owned(),
        };
        let problems = [
            Failure::new(Kind::Store, "a"),
            Failure::new(Kind::Busy, "b").with(busy),
        ];
        let error = of_problems("backup", Kind::Partial, &problems);
        assert_eq!(error["kind"], "partial");
        assert_eq!(error["exitCode"], 10);
        assert_eq!(error["message"], "a; b");
        assert_eq!(error["hint"], "to see what it is doing: ps -fp 7");
    }
}
