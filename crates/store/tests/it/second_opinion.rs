//! The S3 bucket against a server that others wrote: versitygw, which checks signatures and keeps
//! to S3's conditions. Runs only where `SEAWAY_VERSITYGW` names its binary; `./test` installs it.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use store::bucket::{Payload, Put};
use store::open::{Options, open};
use store::{conformance, probe};

struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn versitygw_agrees() {
    let Some(binary) = std::env::var_os("SEAWAY_VERSITYGW") else {
        eprintln!("skipped: SEAWAY_VERSITYGW does not name a versitygw binary");
        return;
    };
    let place = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(place.path().join("bucket")).expect("a bucket");
    // Another process may take a port that the system handed out; nobody else asks for this one.
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its number").port()
    };
    let gateway = Command::new(binary)
        .args(["--port", &format!("127.0.0.1:{port}")])
        .args(["--access", "user", "--secret", "password"])
        .args(["--region", "us-east-1", "--iam-cache-disable", "--quiet"])
        .arg("posix")
        .arg(place.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("versitygw starts");
    let _gateway = Gateway(gateway);
    let options = Options {
        request_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(2),
        environment: vec![
            ("AWS_ACCESS_KEY_ID".to_owned(), "user".to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "password".to_owned()),
        ],
    };
    let url = format!(
        "s3://bucket/prefix?endpoint=http://127.0.0.1:{port}&region=us-east-1&allow_http=true"
    );
    let bucket = open(&url, &options).await.expect("a bucket");
    let mut attempts = 0;
    while let Err(error) = bucket.list("", None, 1).await {
        attempts += 1;
        assert!(attempts < 200, "versitygw is not ready after 10 s: {error}");
        host::clock::sleep(Duration::from_millis(50)).await;
    }
    probe::run(&bucket).await.expect("the probe passes");
    conformance::run(Arc::clone(&bucket)).await;

    let mut stranger = options;
    stranger.environment[1].1 = "wrong".to_owned();
    let refused = open(&url, &stranger).await.expect("a bucket");
    let key = store::bucket::Key::new("stranger").expect("a key");
    let listed = refused.list("", None, 1).await.map(drop);
    let written = refused.put_new(&key, vec![1].into()).await.map(drop);
    for refused in [listed, written] {
        let expected = matches!(refused, Err(store::bucket::Error::Definite { .. }));
        assert!(expected, "a wrong secret gave {refused:?}");
    }

    // A payload altered after its checksum was computed must not be stored.
    let key = store::bucket::Key::new("altered").expect("a key");
    let whole = Payload::from(b"whole".to_vec());
    let altered = Payload::from(b"whale".to_vec()).with_checksum(whole.checksum());
    let refused = bucket.put_new(&key, altered).await;
    assert!(refused.is_err(), "altered bytes gave {refused:?}");
    assert_eq!(bucket.head(&key).await, Ok(None));
    assert_eq!(bucket.put_new(&key, whole).await, Ok(Put::Created));
}
