//! Who is let in, and whose a prefix is.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use etcd::security::{Own, Security, Tls, User};
use etcd::{Etcd, Refusal};
use journal::engine::{Append, End, Engine};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use serde_json::json;

use crate::server::{Servers, admit};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_prefix_is_one_clusters_and_one_that_lost_its_keys_is_nobodys_by_itself() {
    let Some(servers) = Servers::start(1) else {
        return;
    };
    let engine = servers.engine("shared");
    admit(&engine).await;
    assert_eq!(engine.admit(true).await, Ok(()), "again");
    assert_eq!(engine.admit(false).await, Ok(()), "and later");
    let location = servers.location("shared");
    let other = Etcd::new(&location, &Security::default(), "another", 0);
    for is_new in [true, false] {
        let refused = other.admit(is_new).await.expect_err("it is taken");
        let told = refused.to_string();
        assert!(
            matches!(refused, Refusal::Final(_)) && told.contains("ours"),
            "{told}"
        );
    }
    assert!(matches!(other.scan(1, 1).await.end, End::Undecided(_)));
    assert!(other.take(1, 1).await.is_err());
    // Somebody deletes all that there is, while a node leads.
    let taken = engine.take(1, 1).await;
    let tenure = taken.unwrap_or_else(|error| panic!("{error}")).tenure;
    assert_eq!(
        tenure.append(1, 1, Bytes::from_static(b"claim")).await,
        Append::Appended
    );
    tenure.confirmed();
    let all = json!({"key": "AA==", "range_end": "AA=="});
    servers
        .ask(0, "/v3/kv/deleterange", &all)
        .expect("an answer");
    let lost = tenure.append(2, 1, Bytes::from_static(b"entry")).await;
    assert!(matches!(lost, Append::Unknown(_)), "{lost:?}");
    let scan = engine.scan(2, 1).await;
    assert!(
        matches!(scan.end, End::Undecided(_)),
        "what is gone is not free: {scan:?}"
    );
    assert!(matches!(engine.admit(false).await, Err(Refusal::Final(_))));
    // A prefix below which somebody else keeps things is no new cluster's.
    let strange = json!({"key": "c3RyYW5nZS94", "value": "eA=="});
    servers.ask(0, "/v3/kv/put", &strange).expect("an answer");
    let refused = servers.engine("strange").admit(true).await;
    let told = refused.expect_err("it is in use").to_string();
    assert!(told.contains("strange/x"), "{told}");
}

/// Files of a CA, a certificate for a member and one for a client.
struct Certificates {
    ca: String,
    client: (String, String),
    flags: Vec<String>,
}

fn certificates(place: &Path) -> Certificates {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = CertifiedIssuer::self_signed(params, key).expect("a CA");
    let issue = |usage: ExtendedKeyUsagePurpose| {
        let names = vec!["127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("parameters");
        params.extended_key_usages = vec![usage, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &ca).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    };
    let server = issue(ExtendedKeyUsagePurpose::ServerAuth);
    let file = |name: &str, text: &str| {
        let path = place.join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_string_lossy().into_owned()
    };
    let flags = vec![
        format!("--trusted-ca-file={}", file("ca.pem", &ca.pem())),
        format!("--cert-file={}", file("server.pem", &server.0)),
        format!("--key-file={}", file("server.key", &server.1)),
        "--client-cert-auth".to_owned(),
    ];
    Certificates {
        ca: ca.pem(),
        client: issue(ExtendedKeyUsagePurpose::ClientAuth),
        flags,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn encrypted_connections_need_the_ca_and_a_certificate() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let Some(servers) = Servers::new(1) else {
        return;
    };
    let Certificates { ca, client, flags } = certificates(place.path());
    let mut servers = servers.with_tls(flags);
    servers.start_all();
    let own = Own {
        certificate: client.0.as_bytes(),
        key: client.1.as_bytes(),
    };
    let with = |tls: Tls| {
        let security = Security {
            tls: Some(tls),
            user: None,
        };
        Etcd::new(&servers.location("tls"), &security, "ours", 0)
    };
    let tls = Tls::new(ca.as_bytes(), Some(own)).expect("they fit");
    admit(&with(tls)).await;
    let anonymous = with(Tls::new(ca.as_bytes(), None).expect("a CA"));
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let stranger = certificates(elsewhere.path());
    let deceived = with(Tls::new(stranger.ca.as_bytes(), Some(own)).expect("a CA"));
    for engine in [anonymous, deceived, servers.engine("tls")] {
        let refused = engine.admit(true).await;
        assert!(matches!(refused, Err(Refusal::Waits(_))), "{refused:?}");
    }
    assert!(Tls::new(b"x", None).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_user_logs_in_and_again_when_etcd_has_forgotten_it() {
    let Some(mut servers) = Servers::start(1) else {
        return;
    };
    let anonymous = servers.engine("user");
    admit(&anonymous).await;
    for (path, body) in [
        (
            "/v3/auth/user/add",
            json!({"name": "root", "password": "secret"}),
        ),
        ("/v3/auth/role/add", json!({"name": "root"})),
        (
            "/v3/auth/user/grant",
            json!({"user": "root", "role": "root"}),
        ),
        ("/v3/auth/enable", json!({})),
    ] {
        servers.ask(0, path, &body).expect("an answer");
    }
    let refused = anonymous.admit(true).await.expect_err("it has no name");
    let told = refused.to_string();
    assert!(
        matches!(refused, Refusal::Final(_)) && told.contains("--journal-user"),
        "{told}"
    );
    let user = |password: &str| {
        let user = User {
            name: "root".to_owned(),
            password: password.to_owned(),
        };
        let security = Security {
            tls: None,
            user: Some(user),
        };
        Etcd::new(&servers.location("user"), &security, "ours", 0)
    };
    let wrong = user("wrong").admit(true).await;
    assert!(matches!(wrong, Err(Refusal::Final(_))), "{wrong:?}");
    let known = user("secret");
    assert_eq!(known.admit(true).await, Ok(()));
    assert_eq!(known.floor().await, Ok(0));
    // A member that starts again knows no logins.
    servers.kill(0);
    host::clock::sleep(Duration::from_millis(10)).await;
    servers.start_one(0);
    admit(&known).await;
    assert_eq!(known.floor().await, Ok(0));
}
