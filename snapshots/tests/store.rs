//! The store, in a folder and, where AMBIENT_TEST_S3 names an S3-compatible store (scripts/with-s3), in a bucket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use ambient_snapshots::{Key, Limits, Place, S3, SnapshotStore, StoreError};
use tempfile::TempDir;

const LIMITS: Limits = Limits { pack: 64 << 20, session: 1 << 30 };
const PROJECT: &str = "3MPRBY3LpC4o66HBKBbrVbd0zsU";

/// Buckets of this process.
static BUCKETS: AtomicUsize = AtomicUsize::new(0);

fn open(place: Place, folder: &Path) -> SnapshotStore {
    SnapshotStore::open(place, LIMITS, &folder.join("scratch")).unwrap()
}

/// A bucket that is empty; none where there is no such store.
async fn bucket() -> Option<S3> {
    let Ok(endpoint) = std::env::var("AMBIENT_TEST_S3") else {
        println!("skipped: AMBIENT_TEST_S3 names no S3-compatible store (scripts/with-s3)");
        return None;
    };
    let bucket = format!("packs-{}-{}", std::process::id(), BUCKETS.fetch_add(1, Ordering::Relaxed));
    let made = std::process::Command::new("curl")
        .args(["--silent", "--fail", "--noproxy", "*", "-X", "PUT", &format!("{endpoint}/{bucket}")])
        .status();
    assert!(made.unwrap().success());
    let credentials = Some(("id".to_owned(), "secret".to_owned()));
    Some(S3 { bucket, prefix: "a/b".to_owned(), endpoint: Some(endpoint), region: "us-east-1".to_owned(), credentials })
}

async fn put(store: &SnapshotStore, key: Key<'_>, content: &[u8]) -> Result<(), StoreError> {
    let mut incoming = store.incoming()?;
    for piece in content.chunks(100_000) {
        incoming.write(piece).await?;
    }
    assert_eq!(incoming.bytes(), content.len() as u64);
    store.put(key, incoming).await
}

/// What both kinds promise.
async fn keeps_packs(store: SnapshotStore, folder: &TempDir) {
    store.check().await.unwrap();
    let (pack, other, commit) = ("a".repeat(64), "b".repeat(64), "c".repeat(40));
    let turn = |session| Key::Turn { project: PROJECT, session, pack: &pack };
    let base = Key::Base { project: PROJECT, commit: &commit };
    assert_eq!(store.written(turn("s1")).await.unwrap(), None);
    assert!(matches!(store.fetch(turn("s1"), &folder.path().join("none")).await, Err(StoreError::NotFound)));
    // Written twice, and in several parts.
    let large: Vec<u8> = (0..20_000_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    for content in [&b"first"[..], b"first", &large] {
        put(&store, turn("s1"), content).await.unwrap();
    }
    put(&store, Key::Turn { project: PROJECT, session: "s1", pack: &other }, b"").await.unwrap();
    put(&store, turn("s2"), b"two").await.unwrap();
    put(&store, base, b"base").await.unwrap();
    let copy = folder.path().join("copy");
    assert_eq!(store.fetch(turn("s1"), &copy).await.unwrap(), large.len() as u64);
    assert_eq!(std::fs::read(&copy).unwrap(), large);
    assert!(store.written(base).await.unwrap().is_some());
    assert_eq!(store.session_bytes(PROJECT, "s1").await.unwrap(), large.len() as u64);
    assert_eq!(store.session_bytes(PROJECT, "s").await.unwrap(), 0, "not by the beginning of a name");
    let (sessions, bases) = store.contents().await.unwrap();
    let told: Vec<_> = sessions.iter().map(|packs| (&*packs.session, packs.bytes)).collect();
    assert_eq!(told, [("s1", large.len() as u64), ("s2", 3)]);
    assert_eq!(
        bases.iter().map(|(project, commit, _)| (&**project, &**commit)).collect::<Vec<_>>(),
        [(PROJECT, &*commit)]
    );
    assert_eq!(store.remove_session(PROJECT, "s1").await.unwrap(), 2);
    assert_eq!(store.remove_session(PROJECT, "s1").await.unwrap(), 0);
    assert_eq!(store.written(turn("s1")).await.unwrap(), None);
    assert!(store.written(turn("s2")).await.unwrap().is_some());
    store.remove_base(PROJECT, &commit).await.unwrap();
    store.remove_base(PROJECT, &commit).await.unwrap();
    assert_eq!(store.remove_project(PROJECT).await.unwrap(), 1);
    assert_eq!(store.contents().await.unwrap(), (Vec::new(), Vec::new()));
    for odd in ["", "..", "a/b", "../x"] {
        assert!(store.remove_session(odd, "s").await.is_err() && store.remove_project(odd).await.is_err(), "{odd}");
    }
    let scratch = std::fs::read_dir(folder.path().join("scratch")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read_dir(scratch).unwrap().count(), 1, "what came in is gone; its lock is there");
}

#[tokio::test]
async fn a_folder_keeps_packs_and_is_closed_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("packs");
    keeps_packs(open(Place::Folder(place.clone()), folder.path()), &folder).await;
    assert_eq!(place.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0, "no empty folders are left");
}

#[tokio::test]
async fn an_s3_compatible_store_keeps_packs() {
    let Some(s3) = bucket().await else { return };
    let folder = tempfile::tempdir().unwrap();
    keeps_packs(open(Place::S3(s3), folder.path()), &folder).await;
}

#[tokio::test]
async fn servers_share_a_bucket() {
    let Some(s3) = bucket().await else { return };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = Key::Turn { project: PROJECT, session: "s", pack: &"a".repeat(64) };
    put(&open(Place::S3(s3.clone()), one.path()), key, b"shared").await.unwrap();
    let copy = two.path().join("copy");
    open(Place::S3(s3), two.path()).fetch(key, &copy).await.unwrap();
    assert_eq!(std::fs::read(copy).unwrap(), b"shared");
}

#[tokio::test]
async fn a_bucket_that_is_missing_is_told_by_its_name_of_the_fault() {
    let Some(s3) = bucket().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = open(Place::S3(S3 { bucket: "absent-bucket".to_owned(), ..s3 }), folder.path());
    let error = store.check().await.unwrap_err().to_string();
    assert!(error.contains("NoSuchBucket") || error.contains("not in the snapshot store"), "{error}");
}

#[tokio::test]
async fn a_store_that_is_away_is_told_in_time_and_then_left_alone() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let s3 = S3 {
        bucket: "packs".to_owned(),
        prefix: String::new(),
        endpoint: Some(endpoint),
        region: "us-east-1".to_owned(),
        credentials: Some(("id".to_owned(), "secret".to_owned())),
    };
    let folder = tempfile::tempdir().unwrap();
    let store = open(Place::S3(s3), folder.path());
    let key = Key::Turn { project: PROJECT, session: "s", pack: &"a".repeat(64) };
    let began = Instant::now();
    let error = put(&store, key, b"x").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)) && error.to_string().contains("refused"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20));
    let again = Instant::now();
    assert!(matches!(put(&store, key, b"x").await, Err(StoreError::Unavailable(_))));
    assert!(again.elapsed() < Duration::from_millis(200), "it is not asked again at once");
}

#[tokio::test]
async fn a_pack_above_the_limit_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().join("packs"));
    let key = Key::Turn { project: PROJECT, session: "s", pack: &"a".repeat(64) };
    put(&open(place.clone(), folder.path()), key, &[0; 100]).await.unwrap();
    let limits = Limits { pack: 99, ..LIMITS };
    let small = SnapshotStore::open(place, limits, &folder.path().join("other")).unwrap();
    let fetched = small.fetch(key, &folder.path().join("copy")).await;
    assert!(matches!(fetched, Err(StoreError::TooLarge(_))));
}
