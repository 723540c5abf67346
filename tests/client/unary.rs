//! Calls with one answer against the fake: etcd's answers, other answers, and answers of something
//! in between are told apart.

use etcd_dr::error::{Failure, Kind};
use etcd_dr::etcd::client::{AlarmKind, HashKvAnswer};
use etcd_dr::etcd::ids::MemberId;

use crate::fake::{Step, connect};

/// A message in gRPC's framing.
fn raw(message: &[u8]) -> Step {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    Step::Raw(framed)
}

async fn no_status(script: Vec<Step>, words: &[&str]) -> Failure {
    let failure = connect(script).await.status().await.unwrap_err();
    let text = failure.to_string();
    assert_eq!(failure.kind(), Kind::Unreachable, "{text}");
    for word in ["asking etcd at http://127.0.0.1:", "for its status"] {
        assert!(text.contains(word), "{word:?} in {text}");
    }
    for word in words {
        assert!(text.contains(word), "{word:?} in {text}");
    }
    assert!(!text.contains("transport error"), "{text}");
    failure
}

#[tokio::test]
async fn an_answer_that_is_not_etcds_is_named() {
    let foreign = &["not an answer from etcd"];
    let end = Step::Status(0, "");
    no_status(vec![raw(&[0xff; 20]), end.clone()], foreign).await;
    no_status(vec![Step::Raw(vec![1, 0, 0, 0, 0]), end.clone()], foreign).await;
    no_status(vec![Step::Raw(vec![0, 255, 255, 255, 255])], foreign).await;
    no_status(
        vec![Step::Raw(vec![0, 0, 0, 0, 9, 1]), end.clone()],
        foreign,
    )
    .await;
    no_status(vec![end], foreign).await;
    no_status(vec![raw(&[])], foreign).await;
}

#[tokio::test]
async fn a_refusal_after_the_reply_has_begun_is_etcds() {
    let denied = Step::Status(7, "not%20you%1b[2J");
    let failure = no_status(vec![denied.clone()], &["permission denied: not you"]).await;
    assert!(!failure.to_string().contains('\u{1b}'));
    no_status(vec![raw(&[]), denied], &["permission denied: not you"]).await;
    no_status(vec![Step::Reset], &["the connection broke"]).await;
}

#[tokio::test]
async fn a_missing_revision_is_an_answer_past_or_future() {
    for (message, answer) in [
        (
            "etcdserver: mvcc: required revision has been compacted",
            HashKvAnswer::Compacted,
        ),
        (
            "etcdserver: mvcc: required revision is a future revision",
            HashKvAnswer::Future,
        ),
    ] {
        let connection = connect(vec![Step::Status(11, message)]).await;
        assert_eq!(connection.hash_kv(7).await.unwrap(), answer);
    }
}

#[tokio::test]
async fn an_alarm_of_a_newer_server_keeps_its_number() {
    // One alarm: member 5, kind 99.
    let connection = connect(vec![
        raw(&[0x12, 4, 0x08, 5, 0x10, 99]),
        Step::Status(0, ""),
    ])
    .await;
    let alarms = connection.alarms().await.unwrap();
    assert_eq!(alarms.len(), 1);
    assert_eq!(alarms[0].member_id, MemberId(5));
    assert_eq!(alarms[0].kind, AlarmKind::Other(99));
}
