//! The download against the fake: each way a stream can go wrong, and the odd ways it can be
//! right.

use std::io::{self, Write};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use etcd_dr::error::{Failure, Kind};
use etcd_dr::etcd::download::{DownloadOptions, Downloaded, Progress, SnapshotSink, download};
use sha2::{Digest, Sha256};

use crate::fake::{Message, Step, connect, database, framed, honest, send};

fn quick() -> DownloadOptions {
    let mut options = DownloadOptions::default();
    options.stall_timeout = Duration::from_millis(400);
    options
}

async fn take(script: Vec<Step>) -> Result<(Vec<u8>, Downloaded), Failure> {
    download(&connect(script).await, Vec::new(), &quick()).await
}

async fn refused(script: Vec<Step>, kind: Kind, word: &str) -> Failure {
    let failure = take(script).await.map(|(_, downloaded)| downloaded);
    let failure = failure.expect_err("the stream is bad");
    assert_eq!(failure.kind(), kind, "{failure}");
    assert!(failure.to_string().contains(word), "{word:?} in {failure}");
    assert!(
        failure
            .to_string()
            .contains("downloading the snapshot from http://127.0.0.1:"),
        "{failure}"
    );
    failure
}

fn whole(database: &[u8]) -> Vec<u8> {
    [database, Sha256::digest(database).as_slice()].concat()
}

async fn accepted(script: Vec<Step>, database: &[u8]) -> Downloaded {
    let (file, downloaded) = take(script).await.unwrap();
    let expected = whole(database);
    assert!(file == expected, "{} bytes received", file.len());
    assert_eq!(downloaded.size, expected.len() as u64);
    assert_eq!(downloaded.file_sha256, *Sha256::digest(&expected));
    assert_eq!(downloaded.database_sha256, *Sha256::digest(database));
    downloaded
}

#[tokio::test]
async fn both_server_generations_are_accepted() {
    let database = database(300 * 512);
    let old = accepted(honest(&database, 32 << 10, ""), &database).await;
    assert_eq!(old.storage_version, None);
    let new = accepted(honest(&database, 32 << 10, "3.6.0"), &database).await;
    assert_eq!(new.storage_version.as_deref(), Some("3.6.0"));
}

#[tokio::test]
async fn blobs_may_have_any_size() {
    let database = database(5 * 512);
    for piece in [1, 7, 31, 33, 511, 2560] {
        accepted(honest(&database, piece, ""), &database).await;
    }
    let large = self::database(6 << 20);
    accepted(honest(&large, 3 << 20, ""), &large).await;
}

#[tokio::test]
async fn the_digest_may_be_split_or_merged_with_data() {
    let database = database(2048);
    let digest = Sha256::digest(&database);
    let end = Step::Status(0, "");
    let merged = vec![send(0, &whole(&database), ""), end.clone()];
    // Such a server counts the digest in.
    accepted(merged, &database).await;
    let split = vec![
        send(24, &database[..2024], ""),
        send(0, &[&database[2024..], &digest[..5]].concat(), ""),
        send(0, &digest[5..6], ""),
        send(0, &[], ""),
        send(0, &digest[6..], ""),
        end,
    ];
    accepted(split, &database).await;
}

#[tokio::test]
async fn messages_may_be_cut_anywhere_on_the_way() {
    let database = database(1024);
    let mut bytes = framed(&Message {
        remaining_bytes: 0,
        blob: database.clone(),
        version: "3.6.0".to_owned(),
    });
    bytes.extend(framed(&Message {
        blob: Sha256::digest(&database).to_vec(),
        ..Default::default()
    }));
    let mut script: Vec<Step> = bytes.chunks(3).map(|cut| Step::Raw(cut.to_vec())).collect();
    script.push(Step::Status(0, ""));
    accepted(script, &database).await;
}

#[tokio::test]
async fn a_stream_that_ends_early_reports_how_far_it_came() {
    let database = database(100 * 512);
    let mut script = honest(&database, 4096, "");
    script.truncate(5);
    script.push(Step::Status(0, ""));
    let failure = refused(script, Kind::Unreachable, "before the database's end").await;
    assert!(
        failure.to_string().contains("after 20480 of 51232 bytes"),
        "{failure}"
    );

    let mut script = honest(&database, 4096, "");
    script.truncate(5);
    script.push(Step::Raw(vec![0, 0, 0, 1, 0, 0x10]));
    script.push(Step::Status(0, ""));
    refused(script, Kind::Unreachable, "within a message").await;

    let nothing = vec![Step::Status(0, "")];
    refused(nothing, Kind::Unreachable, "before the first message").await;

    let digest = Sha256::digest(&database);
    let half_a_digest = vec![
        send(0, &database, ""),
        send(0, &digest[..16], ""),
        Step::Status(0, ""),
    ];
    refused(half_a_digest, Kind::Unreachable, "within the trailer").await;
}

#[tokio::test]
async fn a_stream_without_a_status_is_not_complete() {
    let mut script = honest(&database(2048), 512, "");
    script.pop();
    refused(script, Kind::Unreachable, "after 2080 of 2080 bytes").await;
}

#[tokio::test]
async fn a_broken_stream_is_an_error() {
    let mut script = honest(&database(2048), 512, "");
    script.truncate(2);
    script.push(Step::Reset);
    refused(script, Kind::Unreachable, "after ").await;
}

#[tokio::test]
async fn the_servers_own_error_is_passed_on() {
    let mut script = honest(&database(2048), 512, "");
    script.truncate(2);
    script.push(Step::Status(14, "etcdserver:%20server%20stopped%1b[2J"));
    let failure = refused(script, Kind::Unreachable, "etcdserver: server stopped").await;
    assert!(!failure.to_string().contains('\u{1b}'));
    let at_once = vec![Step::Status(7, "permission denied")];
    refused(at_once, Kind::Unreachable, "permission denied").await;
}

#[tokio::test]
async fn a_wrong_or_missing_trailer_is_a_bad_backup() {
    let database = database(2048);
    let wrong = vec![
        send(0, &database, ""),
        send(0, &[9; 32], ""),
        Step::Status(0, ""),
    ];
    refused(wrong, Kind::BadBackup, "the trailer is wrong").await;
    let none = vec![send(0, &database, ""), Step::Status(0, "")];
    refused(none, Kind::BadBackup, "no trailer").await;
    let odd = self::database(1000);
    let script = honest(&odd, 500, "");
    refused(script, Kind::BadBackup, "multiple of 512").await;
}

#[tokio::test]
async fn more_than_announced_is_stopped() {
    let database = database(2048);
    let mut script = honest(&database, 512, "");
    script.pop();
    script.push(send(0, &[0; 64], ""));
    script.push(Step::Status(0, ""));
    refused(script, Kind::BadBackup, "but sent more").await;
    // Without a byte for the file, a further message does no harm.
    let mut script = honest(&database, 512, "");
    script.pop();
    script.push(send(0, &[], "3.6.0"));
    script.push(Step::Status(0, ""));
    accepted(script, &database).await;
}

#[tokio::test]
async fn sizes_that_cannot_be_are_refused() {
    let database = database(2048);
    let digest = Sha256::digest(&database);
    let overflow = vec![send(u64::MAX, &database, "")];
    refused(overflow, Kind::Unreachable, "beyond 64 bits").await;
    let huge = vec![
        send(1 << 60, &database, ""),
        send(0, &digest, ""),
        Step::Status(0, ""),
    ];
    refused(huge, Kind::BadBackup, "announced a database of").await;
}

#[tokio::test]
async fn what_is_not_etcds_is_refused() {
    let compressed = vec![Step::Raw(vec![1, 0, 0, 0, 0])];
    refused(compressed, Kind::Unreachable, "message 1 is not etcd's").await;
    let endless = vec![Step::Raw(
        [vec![0, 255, 255, 255, 255], vec![0xff; 20]].concat(),
    )];
    refused(endless, Kind::Unreachable, "64 bits").await;
}

#[tokio::test]
async fn a_stall_is_noticed_and_a_slow_stream_is_not_one() {
    let database = database(4 * 512);
    let mut stalled = honest(&database, 512, "");
    stalled.insert(2, Step::Wait(Duration::from_secs(30)));
    let start = Instant::now();
    let failure = refused(stalled, Kind::Unreachable, "stalled: no byte received for").await;
    assert!(start.elapsed() < Duration::from_secs(25));
    assert!(
        failure.to_string().contains("after 1024 of 2080 bytes"),
        "{failure}"
    );

    // One message takes longer than the limit, but the server is never silent for that time: two
    // seconds, so that a busy machine is not silent either.
    let mut options = quick();
    options.stall_timeout = Duration::from_secs(2);
    let database = self::database(8 * 512);
    let mut slow: Vec<Step> = framed(&Message {
        blob: database.clone(),
        ..Default::default()
    })
    .chunks(200)
    .flat_map(|cut| {
        [
            Step::Raw(cut.to_vec()),
            Step::Wait(Duration::from_millis(150)),
        ]
    })
    .collect();
    slow.push(send(0, &Sha256::digest(&database), ""));
    slow.push(Step::Status(0, ""));
    let (file, _) = download(&connect(slow).await, Vec::new(), &options)
        .await
        .unwrap();
    assert!(file == whole(&database), "{} bytes received", file.len());
}

/// What keeps a connection busy and brings next to nothing of the database.
#[tokio::test]
async fn a_trickle_is_a_stall() {
    let database = database(8 * 512);
    let empty = framed(&Message::default());
    let first = send(4096, &database[..512], "");
    let steps = |raw: Vec<u8>| -> Vec<Step> {
        let pair = [Step::Raw(raw), Step::Wait(Duration::from_millis(50))];
        let trickle = std::iter::repeat_n(pair, 600).flatten();
        [first.clone()].into_iter().chain(trickle).collect()
    };
    let start = Instant::now();
    refused(steps(empty), Kind::Unreachable, "stalled: no byte received").await;
    // One byte of a long message at a time.
    let mut message = framed(&Message {
        blob: database.clone(),
        ..Default::default()
    });
    message.truncate(20);
    let mut bytes = steps(b"x".to_vec());
    bytes.insert(1, Step::Raw(message));
    refused(bytes, Kind::Unreachable, "stalled: only").await;
    assert!(start.elapsed() < Duration::from_secs(25));
}

#[tokio::test]
async fn who_is_asked_about_the_announced_size_can_refuse_it() {
    let database = database(4 * 512);
    let mut options = quick();
    let (sender, asked) = mpsc::channel();
    options.on_announced = Some(std::sync::Arc::new(move |size| {
        sender.send(size).expect("the test listens");
        Err(Failure::new(Kind::Store, "no room for that"))
    }));
    let connection = connect(honest(&database, 512, "")).await;
    let (sink, dropped) = odd(|bytes| Ok(bytes.len()));
    let refused = download(&connection, sink, &options).await.map(drop);
    let failure = refused.expect_err("it was refused");
    assert_eq!(failure.kind(), Kind::Store);
    assert!(
        failure.to_string().contains("no room for that"),
        "{failure}"
    );
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [2048 + 32]);
    assert!(dropped.recv().is_err(), "the sink is gone");
}

#[tokio::test]
async fn the_rate_is_kept() {
    let database = database(400 << 10);
    let mut options = quick();
    options.max_rate = NonZeroU64::new(400 << 10);
    let connection = connect(honest(&database, 8 << 10, "")).await;
    let (_, downloaded) = download(&connection, Vec::new(), &options).await.unwrap();
    let seconds = downloaded.elapsed.as_secs_f64();
    assert!((0.7..3.0).contains(&seconds), "{seconds}");
}

/// A sink that does what a test wants with each write, and tells when it is dropped.
struct Odd<F> {
    write: F,
    _dropped: mpsc::Sender<()>,
}

impl<F: FnMut(&[u8]) -> io::Result<usize> + Send + 'static> Write for Odd<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.write)(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&[u8]) -> io::Result<usize> + Send + 'static> SnapshotSink for Odd<F> {}

fn odd<F: FnMut(&[u8]) -> io::Result<usize> + Send + 'static>(
    write: F,
) -> (Odd<F>, mpsc::Receiver<()>) {
    let (dropped, receiver) = mpsc::channel();
    (
        Odd {
            write,
            _dropped: dropped,
        },
        receiver,
    )
}

#[tokio::test]
async fn a_sink_that_fails_ends_the_download() {
    let database = database(8 << 20);
    let mut room = 3 << 20;
    let (sink, _) = odd(move |bytes: &[u8]| {
        room -= i64::try_from(bytes.len()).unwrap();
        if room < 0 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(bytes.len())
    });
    let connection = connect(honest(&database, 32 << 10, "")).await;
    let failure = download(&connection, sink, &quick())
        .await
        .map(|(_, downloaded)| downloaded)
        .unwrap_err();
    assert_eq!(failure.kind(), Kind::Store);
    assert_eq!(failure.io_kind(), Some(io::ErrorKind::StorageFull));
}

#[tokio::test]
async fn a_sink_that_takes_no_byte_or_too_many_is_an_error() {
    let database = database(4096);
    for answer in [0, usize::MAX] {
        let (sink, _) = odd(move |_: &[u8]| Ok(answer));
        let connection = connect(honest(&database, 512, "")).await;
        let result = download(&connection, sink, &quick()).await;
        assert_eq!(result.map(|_| ()).unwrap_err().kind(), Kind::Store);
    }
}

#[tokio::test]
async fn a_sink_that_blocks_is_given_up() {
    let database = database(16 << 20);
    let (sink, _) = odd(|_: &[u8]| {
        std::thread::sleep(Duration::from_secs(20));
        Ok(0)
    });
    let connection = connect(honest(&database, 32 << 10, "")).await;
    let start = Instant::now();
    let failure = download(&connection, sink, &quick())
        .await
        .map(|(_, downloaded)| downloaded)
        .unwrap_err();
    assert_eq!(failure.kind(), Kind::Store);
    assert!(
        failure.to_string().contains("has accepted nothing"),
        "{failure}"
    );
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn dropping_the_download_stops_its_thread() {
    let database = database(64 << 20);
    let (sink, dropped) = odd(|bytes: &[u8]| {
        // All of it would take twenty seconds.
        std::thread::sleep(Duration::from_millis(10));
        Ok(bytes.len())
    });
    let connection = connect(honest(&database, 32 << 10, "")).await;
    let options = quick();
    let start = Instant::now();
    let given_up = tokio::time::timeout(
        Duration::from_millis(300),
        download(&connection, sink, &options),
    )
    .await;
    assert!(given_up.is_err());
    assert!(start.elapsed() < Duration::from_secs(8));
    // The sink's end of the channel goes with the sink, and that with the thread.
    assert_eq!(
        dropped.recv_timeout(Duration::from_secs(8)),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
}

#[tokio::test]
async fn a_slow_sink_holds_the_stream_back() {
    let database = database(32 << 20);
    let written = Arc::new(AtomicU64::new(0));
    let (sink, _) = {
        let written = written.clone();
        odd(move |bytes: &[u8]| {
            std::thread::sleep(Duration::from_micros(200));
            written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(bytes.len())
        })
    };
    let ahead = Arc::new(AtomicU64::new(0));
    let mut options = quick();
    options.on_progress = Some(Arc::new({
        let (ahead, written) = (ahead.clone(), written.clone());
        move |progress: Progress| {
            assert_eq!(progress.total, Some((32 << 20) + 32));
            let lead = progress.received - written.load(Ordering::Relaxed);
            ahead.fetch_max(lead, Ordering::Relaxed);
        }
    }));
    let connection = connect(honest(&database, 32 << 10, "")).await;
    let (_, downloaded) = download(&connection, sink, &options).await.unwrap();
    assert_eq!(written.load(Ordering::Relaxed), downloaded.size);
    let ahead = ahead.load(Ordering::Relaxed);
    assert!((1..=6 << 20).contains(&ahead), "{ahead} bytes under way");
}
