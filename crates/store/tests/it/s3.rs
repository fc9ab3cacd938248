//! The S3 bucket against the in-memory server, and the server against a client's wider use of S3.

use std::sync::Arc;
use std::time::Duration;

use bench::s3::{Config, Server};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};
use store::bucket::{Bucket, Key, Payload, Put};
use store::open::{Options, open};
use store::{conformance, marker, probe};

pub(crate) async fn server(config: Config) -> Server {
    let address = ([127, 0, 0, 1], 0).into();
    Server::start(address, config).await.expect("a server")
}

pub(crate) async fn bucket(server: &Server, name: &str) -> Arc<dyn Bucket> {
    let options = Options {
        request_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(2),
        environment: Vec::new(),
    };
    let url = server.bucket_url(name);
    open(&url, &options).await.expect("a bucket")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_conforms_and_sends_right_checksums() {
    let config = Config {
        verify_checksums: true,
        ..Config::default()
    };
    let server = server(config).await;
    let bucket = bucket(&server, "bucket/some/prefix").await;
    probe::run(&bucket).await.expect("the probe passes");
    conformance::run(Arc::clone(&bucket)).await;
    assert_eq!(server.stats().objects, 0, "everything was cleaned up");
}

#[tokio::test]
async fn two_prefixes_of_one_bucket_do_not_see_each_other() {
    let server = server(Config::default()).await;
    let one = bucket(&server, "bucket/one").await;
    let two = bucket(&server, "bucket/two").await;
    let mark = |cluster: &str| marker::Marker {
        cluster: cluster.to_owned(),
        created_ms: 1,
        bucket: 0,
        generation: 7,
        siblings: Vec::new(),
        journal: None,
    };
    marker::claim(one.as_ref(), &mark("c1"))
        .await
        .expect("claimed");
    marker::claim(two.as_ref(), &mark("c2"))
        .await
        .expect("claimed");
    let found = one.list("", None, 10).await.expect("listed");
    assert_eq!(found.len(), 1);
    let outside = bucket(&server, "bucket").await;
    let refused = marker::claim(outside.as_ref(), &mark("c3")).await;
    assert!(matches!(refused, Err(marker::Error::NotOurs { .. })));
}

#[tokio::test]
async fn more_objects_than_one_page_are_listed() {
    let server = server(Config::default()).await;
    let bucket = bucket(&server, "bucket").await;
    for number in 0..1_205 {
        let key = Key::new(format!("many/{number:05}")).expect("a key");
        let put = bucket.put_new(&key, Payload::default()).await;
        assert_eq!(put, Ok(Put::Created));
    }
    let listed = bucket.list("many/", None, 5_000).await.expect("listed");
    assert_eq!(listed.len(), 1_205);
    let listed = bucket.list("many/", None, 1_100).await.expect("listed");
    assert_eq!(listed.len(), 1_100);
}

/// What the server offers beyond what our own bucket uses.
#[tokio::test]
async fn the_server_does_multipart_bulk_deletion_and_compare_and_set() {
    let server = server(Config::default()).await;
    let client = AmazonS3Builder::new()
        .with_endpoint(format!("http://{}", server.address()))
        .with_allow_http(true)
        .with_skip_signature(true)
        .with_bucket_name("b")
        .build()
        .expect("a client");
    let path = Path::from("large");
    let part = Bytes::from(vec![1; 5 << 20]);
    let mut upload = client.put_multipart(&path).await.expect("started");
    upload
        .put_part(part.clone().into())
        .await
        .expect("first part");
    upload
        .put_part(Bytes::from_static(b"end").into())
        .await
        .expect("second part");
    upload.complete().await.expect("completed");
    let whole = client.get(&path).await.expect("there");
    let whole = whole.bytes().await.expect("read");
    assert_eq!(whole.len(), part.len() + 3);
    assert!(whole.ends_with(b"end"));
    let mut upload = client
        .put_multipart(&Path::from("never"))
        .await
        .expect("started");
    upload.put_part(part.into()).await.expect("a part");
    upload.abort().await.expect("aborted");
    assert_eq!(server.stats().objects, 1, "no parts are left");

    let first = client.head(&path).await.expect("there");
    let version = UpdateVersion {
        e_tag: first.e_tag,
        version: None,
    };
    let update = || client.put_opts(&path, "new".into(), PutMode::Update(version.clone()).into());
    assert!(update().await.is_ok());
    let stale = update().await;
    assert!(matches!(
        stale,
        Err(object_store::Error::Precondition { .. })
    ));

    for name in ["d/1", "d/e/2", "d/e/3", "f"] {
        client
            .put(&Path::from(name), "x".into())
            .await
            .expect("put");
    }
    let level = client.list_with_delimiter(Some(&Path::from("d"))).await;
    let level = level.expect("listed");
    assert_eq!(level.objects.len(), 1);
    assert_eq!(level.common_prefixes, [Path::from("d/e")]);
    let all = client.list(None).map_ok(|meta| meta.location);
    let deleted: Vec<Path> = client
        .delete_stream(Box::pin(all))
        .try_collect()
        .await
        .expect("deleted");
    assert_eq!((deleted.len(), server.stats().objects), (5, 0));
}
