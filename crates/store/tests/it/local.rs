//! The buckets that need no server.

use std::sync::Arc;

use store::bucket::Bucket;
use store::directory::Directory;
use store::memory::Memory;
use store::{conformance, probe};

async fn conforms(bucket: Arc<dyn Bucket>) {
    probe::run(&bucket).await.expect("the probe passes");
    conformance::run(Arc::clone(&bucket)).await;
    let left = bucket.list("", None, 10).await.expect("listed");
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_conforms() {
    conforms(Arc::new(Memory::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_directory_conforms() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let bucket = Directory::open(place.path().join("bucket")).expect("a bucket");
    conforms(Arc::new(bucket)).await;
}
