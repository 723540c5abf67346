//! What every store promises, asked of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use etcd_dr::error::{Kind, Result};
use etcd_dr::store::objects::{self, Listed};
use etcd_dr::store::{Address, Settings, Store};
use futures_util::StreamExt;

use testbench::s3::{BUCKET, S3, variables};

async fn names(store: &dyn Store, folder: &str) -> Vec<String> {
    let listed = store.list(folder).await.expect("a listing");
    listed.into_iter().map(|object| object.name).collect()
}

async fn read(store: &dyn Store, name: &str) -> Option<Vec<u8>> {
    let mut body = store.read(name, u64::MAX).await.expect("a read")?;
    let mut content = Vec::new();
    while let Some(piece) = body.next().await {
        content.extend_from_slice(&piece.expect("a piece"));
    }
    Some(content)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 % 251) as u8).collect()
}

/// What a service makes of the condition that a claim has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claims {
    /// One of many at one moment wins.
    Exclude,
    /// It looks first and writes then: of several at one moment more than one may win.
    Race,
    /// Nothing.
    Ignored,
}

/// The whole suite, on a store that is empty.
pub async fn conforms(store: Arc<dyn Store>, expected: Claims) -> Result<()> {
    let store = store.as_ref();
    assert_eq!(names(store, "").await, [""; 0]);
    assert_eq!(read(store, "a/b/c").await, None);
    store.remove("a/b/c").await?;
    store.remove_folder("a/b").await?;

    for (name, len) in [("a/b/c", 5), ("a/b/empty", 0), ("a/bc", 7), ("z", 1)] {
        objects::put(store, name, pattern(len)).await?;
        assert_eq!(read(store, name).await, Some(pattern(len)), "{name}");
    }
    let all = store.list("").await?;
    let sizes: Vec<(&str, u64)> = all
        .iter()
        .map(|Listed { name, size, .. }| (name.as_str(), *size))
        .collect();
    assert_eq!(
        sizes,
        [("a/b/c", 5), ("a/b/empty", 0), ("a/bc", 7), ("z", 1)]
    );
    assert_eq!(names(store, "a/b").await, ["a/b/c", "a/b/empty"]);
    assert_eq!(names(store, "none").await, [""; 0]);

    let top = store.level("").await?;
    assert_eq!(top.folders, ["a"]);
    assert_eq!(top.objects, all.into_iter().skip(3).collect::<Vec<_>>());
    let below = store.level("a").await?;
    assert_eq!(below.folders, ["a/b"]);
    assert_eq!(below.objects[0].name, "a/bc");
    assert_eq!(store.level("none").await?, objects::Level::default());

    objects::put(store, "a/b/c", pattern(9)).await?;
    assert_eq!(
        read(store, "a/b/c").await,
        Some(pattern(9)),
        "the later one is there"
    );

    large(store).await?;
    staged(store).await?;
    claims(store, expected).await?;
    for bad in ["", "/a", "a/../b", ".hidden", "a//b", "a b", "a\0"] {
        let failure = objects::put(store, bad, "x").await.expect_err(bad);
        assert_eq!(failure.kind(), Kind::Store, "{bad}");
    }

    for name in names(store, "").await {
        store.remove(&name).await?;
    }
    store.remove_folder("a").await?;
    assert_eq!(names(store, "").await, [""; 0]);
    Ok(())
}

/// More than two parts, written in pieces of odd sizes.
async fn large(store: &dyn Store) -> Result<()> {
    let content = pattern((20 << 20) + 3);
    let mut upload = store.stage("big", content.len() as u64).await?;
    for piece in content.chunks(777_777) {
        upload.write(Bytes::copy_from_slice(piece)).await?;
    }
    upload.commit().await?;
    assert!(
        read(store, "big").await == Some(content),
        "a large object differs"
    );
    store.remove("big").await
}

/// Without a commit nothing is there, however the upload ends.
async fn staged(store: &dyn Store) -> Result<()> {
    let before = names(store, "").await;
    for ending in 0..3 {
        let mut upload = store.stage("s/staged", 9 << 20).await?;
        upload.write(Bytes::from(pattern(9 << 20))).await?;
        assert_eq!(
            names(store, "").await,
            before,
            "it is listed before it is committed"
        );
        match ending {
            0 => upload.abort().await,
            1 => drop(upload),
            _ => upload.commit().await?,
        }
        let there = names(store, "s").await;
        assert_eq!(there.len(), usize::from(ending == 2), "{there:?}");
    }
    store.remove("s/staged").await
}

/// One of many wins, and what it wrote stays. A server that looks first and writes then lets
/// several win at once; what is there is of one that won.
async fn claims(store: &dyn Store, expected: Claims) -> Result<()> {
    let attempts = (0..16).map(|i| async move {
        let won = store.claim("c/claim", Bytes::from(format!("{i}"))).await;
        (i, won.expect("an answer"))
    });
    let all = futures_util::future::join_all(attempts).await;
    let won: BTreeMap<_, _> = all.into_iter().filter(|(_, won)| *won).collect();
    let only = expected == Claims::Exclude;
    assert!(won.len() == 1 || (!only && !won.is_empty()), "{won:?}");
    let there = read(store, "c/claim").await.expect("a claim");
    let there: i32 = String::from_utf8(there)
        .expect("text")
        .parse()
        .expect("a number");
    assert!(won.contains_key(&there), "{there} is there, {won:?} won");
    let late = store.claim("c/claim", Bytes::from_static(b"late")).await?;
    assert_eq!(late, expected == Claims::Ignored);
    Ok(())
}

#[tokio::test]
async fn a_directory_conforms_to_the_store_trait() {
    let dir = tempfile::tempdir().expect("a folder");
    let address = Address::parse(&format!("file://{}", dir.path().display())).expect("an address");
    let store = objects::open(&address, &Settings::default())
        .await
        .expect("a store");
    conforms(store, Claims::Exclude).await.expect("it conforms");
    let left = std::fs::read_dir(dir.path()).expect("it is there");
    let left: Vec<_> = left
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(
        left.iter().all(|name| name == "s" || name == "c"),
        "{left:?}"
    );
    let absent = Address::parse("file:///nowhere/at/all").expect("an address");
    let failure = objects::open(&absent, &Settings::default())
        .await
        .expect_err("none");
    assert_eq!(failure.kind(), Kind::Store);
}

#[tokio::test]
async fn a_bucket_conforms_to_the_store_trait() {
    let Some(server) = S3::start() else { return };
    let settings = Settings {
        variables: variables(server.address)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        ..Settings::default()
    };
    for url in [
        format!("s3://{BUCKET}"),
        format!("s3://{BUCKET}/some/path/"),
    ] {
        let address = Address::parse(&url).expect("an address");
        let store = objects::open(&address, &settings).await.expect("a store");
        conforms(store, Claims::Race).await.expect("it conforms");
    }
}
