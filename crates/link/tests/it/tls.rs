//! Links by TLS: who is let in, who is not and what is said about it, and certificates that are exchanged while connections stand.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use link::keys::{Credentials, Keys, Named, Pem, Security};
use link::process::{Process, Role};
use link::reception::{self, Reception};
use link::watch::Sign;
use link::{Caller, Cluster, Relay};
use meta::level::Levels;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use rpc::{Call, Control, Error, Relay as _, Speaker};

use crate::{CLUSTER, Running, agent, cluster_by, serve_at, until};

/// A CA, with its certificate in PEM.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM.
struct Leaf {
    certificate: String,
    key: String,
}

const DAY_S: i64 = 86_400;

/// From ten days ago until so many seconds from now.
fn valid_for(params: &mut CertificateParams, seconds: i64) {
    let now = i64::try_from(host::clock::wall_millis() / 1_000).unwrap();
    let at =
        |second: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(second.unsigned_abs());
    params.not_before = at(now - 10 * DAY_S);
    params.not_after = at(now + seconds);
}

pub(crate) fn ca(name: &str) -> Ca {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    valid_for(&mut params, 100 * DAY_S);
    let pem = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    Ca { issuer, pem }
}

pub(crate) fn control(name: &str) -> Process {
    Process {
        role: Role::Control,
        name: name.to_owned(),
    }
}

impl Ca {
    fn issue_uri(&self, uri: String, seconds: i64) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        valid_for(&mut params, seconds);
        Leaf {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn issue(&self, process: &Process) -> Leaf {
        self.issue_uri(process.uri(), 50 * DAY_S)
    }
}

/// What `process` shows, and that it believes certificates of these CAs.
fn credentials(process: &Process, leaf: &Leaf, ca: &str) -> Credentials {
    read(process, leaf, ca).unwrap()
}

fn read(process: &Process, leaf: &Leaf, ca: &str) -> Result<Credentials, String> {
    let pem = Pem {
        ca: ca.as_bytes(),
        certificate: leaf.certificate.as_bytes(),
        key: leaf.key.as_bytes(),
    };
    Credentials::read(process, &pem).map_err(|refused| refused.to_string())
}

pub(crate) fn keys(process: &Process, ca: &Ca) -> Keys {
    Keys::new(credentials(process, &ca.issue(process), &ca.pem))
}

async fn serve(keys: &Keys) -> Running {
    let any = ([127, 0, 0, 1], 0).into();
    serve_at(any, CLUSTER, Security::Tls(keys.clone())).await
}

/// What a caller is told for its call.
async fn called(process: Process, security: Security, node: &Running) -> Result<(), String> {
    let (cluster, _found) = cluster_by(process, security, &[&node.address]);
    match cluster.call(Call::Barrier).await {
        Ok(_) => Ok(()),
        Err(Error::Unavailable { reason }) => Err(reason),
        Err(other) => panic!("nobody can have acted upon it, yet the outcome is {other:?}"),
    }
}

async fn refusal(process: Process, security: Security, node: &Running) -> String {
    let why = called(process, security, node).await;
    why.expect_err("it must not be let in")
}

/// How nodes at these addresses receive a control node.
async fn received(keys: Security, addresses: &[&str]) -> Reception {
    let caller = Caller {
        cluster_id: CLUSTER.to_owned(),
        process: control("e"),
        security: keys,
    };
    let addresses = addresses.iter().map(|address| (*address).to_owned());
    reception::introduce(addresses.collect(), &caller, Levels::KNOWN).await
}

#[tokio::test]
async fn a_control_node_is_received_by_those_who_believe_it_and_turned_away_by_others() {
    let (ours, others) = (ca("ours"), ca("others"));
    let node = serve(&keys(&control("c"), &ours)).await;
    let foreign = serve(&keys(&control("d"), &others)).await;
    let own = || Security::Tls(keys(&control("e"), &ours));
    let nobody = host::net::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let closed = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    assert_eq!(received(own(), &[]).await, Reception::Alone);
    assert_eq!(received(own(), &[&closed]).await, Reception::Alone);
    let Reception::Rejected(why) = received(own(), &[&closed, &foreign.address]).await else {
        panic!("nobody believes it");
    };
    assert!(why.contains("of another CA"), "{why}");
    let all = [&*closed, &foreign.address, &node.address];
    assert_eq!(received(own(), &all).await, Reception::Admitted);
    let without = received(Security::Plaintext, &[&node.address]).await;
    let Reception::Rejected(why) = without else {
        panic!("it has no certificate: {without:?}");
    };
    assert!(why.contains("--tls-dir"), "{why}");
}

#[tokio::test]
async fn processes_of_one_ca_talk() {
    let ca = ca("one");
    let node = serve(&keys(&control("c"), &ca)).await;
    for process in [agent("a"), control("d")] {
        let security = Security::Tls(keys(&process, &ca));
        assert_eq!(called(process, security, &node).await, Ok(()));
    }
    let spoke = std::mem::take(&mut *node.node.spoke.lock().unwrap());
    let (a, d) = ("a".to_owned(), "d".to_owned());
    assert_eq!(spoke, [Speaker::Agent(a), Speaker::ControlNode(d)]);
}

#[tokio::test]
async fn only_control_nodes_pass_on_what_agents_ask_and_both_are_known() {
    let ca = ca("one");
    let node = serve(&keys(&control("c"), &ca)).await;
    let pass_on = |process: Process| {
        let caller = Caller {
            cluster_id: CLUSTER.to_owned(),
            security: Security::Tls(keys(&process, &ca)),
            process,
        };
        let relay = Relay::new(&caller, Levels::KNOWN).unwrap();
        let (address, level) = (node.address.clone(), Levels::KNOWN.first());
        async move {
            let within = Some(Duration::from_secs(10));
            let asked = rpc::Asked::by(rpc::Speaker::Agent("a".to_owned()));
            let passed = relay.pass_on(&address, level, &Call::Barrier, "a", &asked, within);
            passed.await.map(drop)
        }
    };
    assert_eq!(pass_on(control("d")).await, Ok(()));
    let refused = pass_on(agent("b")).await;
    let Err(Error::Unavailable { reason }) = refused else {
        panic!("{refused:?}")
    };
    assert!(reason.contains("only control nodes pass on"), "{reason}");
    let spoke = std::mem::take(&mut *node.node.spoke.lock().unwrap());
    let (agent, by) = ("a".to_owned(), "d".to_owned());
    assert_eq!(spoke, [Speaker::Relayed { agent, by }]);
}

#[tokio::test]
async fn each_end_refuses_a_certificate_of_another_ca_and_says_so() {
    let (own, other) = (ca("own"), ca("other"));
    let node = serve(&keys(&control("c"), &own)).await;
    let stranger = Security::Tls(keys(&agent("a"), &other));
    let twin = Security::Tls(keys(&agent("a"), &ca("own")));
    let both = format!("{}{}", own.pem, other.pem);
    let believing = credentials(&agent("a"), &other.issue(&agent("a")), &both);
    let believing = Security::Tls(Keys::new(believing));
    let (of_stranger, of_twin, of_believing) = tokio::join!(
        refusal(agent("a"), stranger, &node),
        refusal(agent("a"), twin, &node),
        refusal(agent("a"), believing, &node)
    );
    // A CA that has the same name is another one, too.
    for why in [of_stranger, of_twin] {
        assert!(why.contains("its certificate is of another CA"), "{why}");
    }
    // One that believes the node, but that the node does not believe.
    let why = of_believing;
    assert!(
        why.contains("refuses the certificate of this process, which is of another CA"),
        "{why}"
    );
}

#[tokio::test]
async fn an_end_that_speaks_no_tls_is_told_from_one_that_does() {
    let ca = ca("one");
    let secure = serve(&keys(&control("c"), &ca)).await;
    let any = ([127, 0, 0, 1], 0).into();
    let open = serve_at(any, CLUSTER, Security::Plaintext).await;
    let (plain, _found) = cluster_by(agent("a"), Security::Plaintext, &[&secure.address]);
    let by_tls = Security::Tls(keys(&agent("a"), &ca));
    let (of_plain, why) = tokio::join!(
        plain.call(Call::Barrier),
        refusal(agent("a"), by_tls, &open)
    );
    assert!(of_plain.is_err(), "{of_plain:?}");
    assert_eq!(secure.node.calls.load(SeqCst), 0);
    assert!(why.contains("it speaks no TLS"), "{why}");
}

#[tokio::test]
async fn a_caller_is_who_its_certificate_says() {
    let ca = ca("one");
    let node = serve(&keys(&control("c"), &ca)).await;
    let stolen = Security::Tls(keys(&agent("a"), &ca));
    let (one, two) = tokio::join!(
        refusal(agent("b"), stolen.clone(), &node),
        refusal(control("a"), stolen.clone(), &node)
    );
    for why in [one, two] {
        assert!(why.contains("is that of agent a"), "{why}");
    }
    assert_eq!(called(agent("a"), stolen, &node).await, Ok(()));
}

#[tokio::test]
async fn a_certificate_may_lead_to_the_ca_by_way_of_another() {
    let root = ca("root");
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "between");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    valid_for(&mut params, 10 * DAY_S);
    let pem = params.signed_by(&key, &root.issuer).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let between = Ca { issuer, pem };
    let chained = |process: &Process| {
        let mut leaf = between.issue(process);
        leaf.certificate.push_str(&between.pem);
        Keys::new(credentials(process, &leaf, &root.pem))
    };
    let of_node = chained(&control("c"));
    // It holds no longer than the CA on the way.
    assert!((9..=10).contains(&of_node.named().days_left()));
    let node = serve(&of_node).await;
    let security = Security::Tls(chained(&agent("a")));
    assert_eq!(called(agent("a"), security, &node).await, Ok(()));
}

#[tokio::test]
async fn an_agent_cannot_pass_for_a_control_node() {
    let ca = ca("one");
    let node = serve(&keys(&agent("b"), &ca)).await;
    let why = refusal(agent("a"), Security::Tls(keys(&agent("a"), &ca)), &node).await;
    assert!(why.contains("its certificate is that of agent b"), "{why}");
}

#[test]
fn what_cannot_be_used_is_refused_with_what_to_do() {
    let (own, other) = (ca("own"), ca("other"));
    let leaf = own.issue(&agent("a"));
    let refused = |leaf: &Leaf, ca: &str| read(&agent("a"), leaf, ca).err().unwrap();
    let why = refused(&leaf, &other.pem);
    assert!(why.contains("is of another CA"), "{why}");
    let why = refused(&own.issue_uri(agent("a").uri(), -3 * DAY_S), &own.pem);
    assert!(why.contains("has expired: issue another"), "{why}");
    let why = refused(&own.issue(&agent("b")), &own.pem);
    assert!(why.contains("is that of agent b"), "{why}");
    let why = refused(&own.issue(&control("a")), &own.pem);
    assert!(why.contains("--role agent --name a"), "{why}");
    let why = refused(&own.issue_uri("https://a".to_owned(), DAY_S), &own.pem);
    assert!(why.contains("names no process"), "{why}");
    let key = own.issue(&agent("a")).key;
    let certificate = leaf.certificate.clone();
    let why = refused(&Leaf { certificate, key }, &own.pem);
    assert!(why.contains("the key is not the certificate's"), "{why}");
    let why = refused(&leaf, &leaf.key);
    assert!(why.contains("CA's file holds no certificate"), "{why}");
    let empty = Leaf {
        certificate: String::new(),
        key: String::new(),
    };
    let why = refused(&empty, &own.pem);
    assert!(why.contains("holds no certificate"), "{why}");
}

#[test]
fn the_days_that_a_certificate_has_left_are_told() {
    let ca = ca("one");
    for (days, left) in [(50, 49..=50), (-3, -4..=-3)] {
        let leaf = ca.issue_uri(agent("a").uri(), days * DAY_S);
        let named = Named::read(ca.pem.as_bytes(), leaf.certificate.as_bytes()).unwrap();
        assert_eq!(named.process, agent("a"));
        assert!(left.contains(&named.days_left()), "{named:?}");
    }
}

#[tokio::test]
async fn new_certificates_serve_new_connections_and_those_that_stand_go_on() {
    let (old, new) = (ca("old"), ca("new"));
    let both = format!("{}{}", old.pem, new.pem);
    let (c, a) = (control("c"), agent("a"));
    let of_node = keys(&c, &old);
    let of_agent = keys(&a, &old);
    let node = serve(&of_node).await;
    let security = Security::Tls(of_agent.clone());
    let (cluster, _found) = cluster_by(a.clone(), security.clone(), &[&node.address]);
    cluster.call(Call::Barrier).await.unwrap();
    // Every process believes both, then each is given its new certificate, then the old CA goes.
    of_node.replace(credentials(&c, &old.issue(&c), &both));
    of_agent.replace(credentials(&a, &old.issue(&a), &both));
    of_node.replace(credentials(&c, &new.issue(&c), &both));
    cluster.call(Call::Barrier).await.unwrap();
    of_agent.replace(credentials(&a, &new.issue(&a), &both));
    assert_eq!(called(a.clone(), security.clone(), &node).await, Ok(()));
    of_node.replace(credentials(&c, &new.issue(&c), &new.pem));
    of_agent.replace(credentials(&a, &new.issue(&a), &new.pem));
    cluster.call(Call::Barrier).await.unwrap();
    assert_eq!(called(a, security, &node).await, Ok(()));
}

#[tokio::test]
async fn a_connection_ends_when_the_ca_of_its_other_end_is_believed_no_more() {
    let (own, other) = (ca("own"), ca("other"));
    let both = format!("{}{}", own.pem, other.pem);
    let c = control("c");
    let of_node = Keys::new(credentials(&c, &own.issue(&c), &both));
    let node = serve(&of_node).await;
    let stranger = credentials(&agent("a"), &other.issue(&agent("a")), &both);
    let security = Security::Tls(Keys::new(stranger));
    let (cluster, _found) = cluster_by(agent("a"), security, &[&node.address]);
    let call = cluster.call(Call::Bounds(Vec::new()));
    let mut call = std::pin::pin!(call);
    let waiting = until(|| node.node.waiting.load(SeqCst) == 1);
    tokio::select! {
        outcome = &mut call => panic!("nobody answers, yet there is {outcome:?}"),
        () = waiting => {}
    }
    of_node.replace(credentials(&c, &own.issue(&c), &own.pem));
    // What is in flight ends, and its caller does not come back.
    until(|| node.node.waiting.load(SeqCst) == 0).await;
    let outcome = call.await;
    assert!(matches!(outcome, Err(Error::Unknown { .. })), "{outcome:?}");
}

/// A caller and a node that are connected, with certificates that expire soon.
async fn connected_for_a_moment(ca: &Ca) -> (Keys, Keys, Running, Cluster) {
    // Making certificates and a connection may take longer than they hold.
    for seconds in [2, 4, 8, 16, 32] {
        let short = |process: &Process| {
            let leaf = ca.issue_uri(process.uri(), seconds);
            read(process, &leaf, &ca.pem).map(Keys::new)
        };
        let (Ok(of_node), Ok(of_agent)) = (short(&control("c")), short(&agent("a"))) else {
            continue;
        };
        let node = serve(&of_node).await;
        let security = Security::Tls(of_agent.clone());
        let (cluster, _found) = cluster_by(agent("a"), security, &[&node.address]);
        if cluster.call(Call::Barrier).await.is_ok() {
            return (of_node, of_agent, node, cluster);
        }
    }
    panic!("no connection came about within half a minute");
}

#[tokio::test]
async fn a_certificate_that_expires_ends_no_connection_and_makes_none() {
    let ca = ca("one");
    let (of_node, of_agent, node, cluster) = connected_for_a_moment(&ca).await;
    let expire_s = of_node.named().expires_s.max(of_agent.named().expires_s);
    until(|| host::clock::wall_millis() / 1_000 > expire_s).await;
    assert!(cluster.call(Call::Barrier).await.is_ok());
    let good = serve(&keys(&control("d"), &ca)).await;
    let (of_caller, of_called) = tokio::join!(
        refusal(agent("a"), Security::Tls(of_agent), &good),
        refusal(agent("b"), Security::Tls(keys(&agent("b"), &ca)), &node)
    );
    assert!(
        of_caller.contains("it refuses the certificate of this process as expired"),
        "{of_caller}"
    );
    assert!(
        of_called.contains("its certificate has expired: issue another"),
        "{of_called}"
    );
}

#[tokio::test]
async fn callers_that_connect_and_say_nothing_keep_no_other_out_for_long() {
    let ca = ca("one");
    let node = serve(&keys(&control("c"), &ca)).await;
    let mut silent = Vec::new();
    // More than may be about to begin.
    for _ in 0..300 {
        silent.push(host::net::dial(&node.address).await.unwrap());
    }
    let (cluster, _found) = cluster_by(
        agent("a"),
        Security::Tls(keys(&agent("a"), &ca)),
        &[&node.address],
    );
    while cluster.call(Call::Barrier).await.is_err() {}
    drop(silent);
}

#[tokio::test]
async fn how_the_journal_grows_is_told_to_control_nodes_alone() {
    let ca = ca("one");
    let node = serve(&keys(&control("c"), &ca)).await;
    let told = async |process: Process| {
        let (signs, mut shown) = tokio::sync::mpsc::unbounded_channel();
        let caller = Caller {
            cluster_id: CLUSTER.to_owned(),
            security: Security::Tls(keys(&process, &ca)),
            process,
        };
        let address = node.address.clone();
        let _watching = host::task::spawn("watch", async move {
            let tell = |sign| drop(signs.send(sign));
            link::watch::watch(address, &caller, Levels::KNOWN, tell).await;
        });
        host::clock::timeout(Duration::from_secs(1), shown.recv()).await
    };
    let sign = told(control("another")).await;
    assert!(matches!(sign, Ok(Some(Sign::Grew(_)))), "{sign:?}");
    assert!(told(agent("a")).await.is_err(), "an agent is told nothing");
}
