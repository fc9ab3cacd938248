//! What only a directory can get wrong: order on disk, leftovers, vanished mounts.

use super::*;

fn open() -> (tempfile::TempDir, Directory) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let bucket = Directory::open(place.path().join("bucket")).expect("a bucket");
    (place, bucket)
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

#[tokio::test]
async fn what_was_created_is_there_after_opening_again() {
    let (_place, bucket) = open();
    let body = Payload::new(vec![
        Bytes::new(),
        Bytes::from_static(b"ab"),
        Bytes::new(),
        Bytes::from_static(b"c"),
    ]);
    assert_eq!(bucket.put_new(&key("a/b/c"), body).await, Ok(Put::Created));
    let again = Directory::open(bucket.root()).expect("the same bucket");
    assert_eq!(
        again.get(&key("a/b/c")).await,
        Ok(Some(Bytes::from_static(b"abc")))
    );
    let staged = fs::read_dir(bucket.root().join(STAGING)).expect("staging");
    assert_eq!(staged.count(), 0, "nothing stays in the staging directory");
}

#[tokio::test]
async fn a_bucket_that_vanished_is_an_error_and_not_empty() {
    let (_place, bucket) = open();
    bucket.put_new(&key("x"), Payload::default()).await.unwrap();
    fs::remove_dir_all(bucket.root()).expect("removed");
    for result in [
        bucket.get(&key("x")).await.map(|_| ()),
        bucket.head(&key("x")).await.map(|_| ()),
        bucket.list("", None, 10).await.map(|_| ()),
        bucket.delete(&key("x")).await,
    ] {
        assert!(matches!(result, Err(Error::Definite { .. })), "{result:?}");
    }
}

#[tokio::test]
async fn listings_follow_the_order_of_keys_not_of_names() {
    let (_place, bucket) = open();
    let keys = ["a-b", "a.b", "a/b", "a/b-c/d", "a/b.c", "a0", "b/a"];
    for text in keys {
        // "a/b" is an object here, so the listing must enter "a/b-c" as a directory and not "a/b".
        bucket
            .put_new(&key(text), Payload::default())
            .await
            .unwrap();
    }
    fs::write(bucket.root().join("Foreign File"), b"?").expect("written");
    let listed = bucket.list("", None, 100).await.unwrap();
    let listed: Vec<String> = listed.iter().map(|meta| meta.key.to_string()).collect();
    let mut sorted = keys.map(str::to_owned);
    sorted.sort();
    assert_eq!(listed, sorted);
    let paged = bucket.list("a", Some(&key("a/b")), 2).await.unwrap();
    let paged: Vec<String> = paged.iter().map(|meta| meta.key.to_string()).collect();
    assert_eq!(paged, ["a/b-c/d", "a/b.c"]);
}

#[test]
fn a_directory_that_cannot_be_made_is_refused_with_its_path() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("file");
    fs::write(&file, b"").expect("written");
    let error = Directory::open(file.join("bucket")).expect_err("a file is no directory");
    assert!(error.to_string().contains("file/bucket"), "{error}");
}
