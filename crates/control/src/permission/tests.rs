//! Certificates of the wrong role and name, and what they are refused.

use meta::command::{ControlNode, RegisterAgent};
use meta::commit::{BatchColumns, CommitFile, SliceColumns};
use meta::ids::{EntryId, FileId, Stamp};
use meta::level::Levels;
use meta::reply::Reply;
use rpc::group::GroupRequest;
use rpc::peer::{Follower, Reason};
use rpc::{Answer, Asked, Error, Position, Served};

use super::*;
use crate::start::tests::{bucket, settings, started};

fn agent(name: &str) -> RegisterAgent {
    RegisterAgent {
        nonce: 1,
        name: name.to_owned(),
        listeners: meta::endpoint::Endpoint::alone("h", 1),
        region: "r".to_owned(),
        zone: String::new(),
        neighbour_address: String::new(),
        level: 1,
    }
}

fn control_node(name: &str, nonce: u128) -> ControlNode {
    ControlNode {
        nonce,
        name: name.to_owned(),
        claims_as: format!("{name}, process 7"),
        address: format!("{name}:1"),
        region: "r".to_owned(),
        zone: String::new(),
        level: 1,
    }
}

fn apply(state: &mut State, command: &Command) -> Reply {
    let (entry, stamp) = (EntryId::default(), Stamp::default());
    state.apply(entry, stamp, command).reply
}

fn register(state: &mut State, name: &str) -> Incarnation {
    match apply(state, &Command::RegisterAgent(agent(name))) {
        Reply::Registered { incarnation, .. } => incarnation,
        other => panic!("{other:?}"),
    }
}

fn propose(command: Command) -> Call {
    Call::Propose(Box::new(command))
}

fn commit(file: FileId) -> Command {
    Command::CommitFile(CommitFile {
        file,
        nonce: 0,
        length: 1,
        checksum: 0,
        placement: vec![0],
        slices: SliceColumns::default(),
        batches: BatchColumns::default(),
    })
}

fn present(incarnation: Incarnation) -> Call {
    let version = "0.1.0".to_owned();
    Call::Present {
        incarnation,
        buckets: 1,
        version,
    }
}

/// Whatever is said in the name of an incarnation.
fn of_incarnation(incarnation: Incarnation) -> [Call; 6] {
    let number = 1;
    let file = FileId {
        incarnation,
        number,
    };
    [
        present(incarnation),
        propose(Command::DrainAgent { incarnation }),
        propose(Command::FenceAgent { incarnation }),
        propose(commit(file)),
        propose(Command::SkipFile { file }),
        commit_offsets(Some(incarnation)),
    ]
}

fn commit_offsets(by: Option<Incarnation>) -> Call {
    Call::Group(GroupRequest::Commit(rpc::group::CommitOffsets {
        group: "g".to_owned(),
        by,
        member: String::new(),
        instance: None,
        generation: -1,
        topics: Vec::new(),
    }))
}

fn is_refused(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Refused(_))
}

#[test]
fn an_agent_speaks_for_itself_alone() {
    let mut state = State::genesis_of(Levels::KNOWN, "AAAAAAAAAAAAAAAAAAAAAA".to_owned());
    let (a, b) = (Speaker::Agent("a".into()), Speaker::Agent("b".into()));
    let first = register(&mut state, "a");
    for call in of_incarnation(first) {
        assert_eq!(judge(&state, &a, &call), Verdict::Allowed, "{call:?}");
        assert!(is_refused(&judge(&state, &b, &call)), "{call:?}");
        assert_eq!(judge(&state, &Speaker::Believed, &call), Verdict::Allowed);
    }
    // Nobody takes what the next agent will be given.
    for call in of_incarnation(Incarnation(first.0 + 1)) {
        assert_eq!(judge(&state, &b, &call), Verdict::NotKnownYet, "{call:?}");
    }
    // One that has ended is nobody's, and the state machine says so.
    apply(&mut state, &Command::FenceAgent { incarnation: first });
    for call in of_incarnation(first) {
        assert_eq!(judge(&state, &b, &call), Verdict::Allowed, "{call:?}");
    }
    assert!(is_refused(&judge(&state, &a, &commit_offsets(None))));
    let register = propose(Command::RegisterAgent(agent("a")));
    assert_eq!(judge(&state, &a, &register), Verdict::Allowed);
    assert!(is_refused(&judge(&state, &b, &register)));
    // Clients come to any agent.
    let group = Call::Group(GroupRequest::Fetch(Vec::new()));
    let topic = propose(Command::AllocateProducer { known: None });
    for call in [group, topic, Call::Barrier, Call::Heartbeats(Vec::new())] {
        assert_eq!(judge(&state, &b, &call), Verdict::Allowed, "{call:?}");
    }
}

#[test]
fn control_nodes_alone_ask_what_they_ask_of_each_other_and_each_for_itself() {
    let mut state = State::genesis_of(Levels::KNOWN, "AAAAAAAAAAAAAAAAAAAAAA".to_owned());
    let (c, d) = ("c".to_owned(), "d".to_owned());
    let (c, d) = (Speaker::ControlNode(c), Speaker::ControlNode(d));
    let register = Command::RegisterControlNode(control_node("c", 7));
    apply(&mut state, &register);
    let follows = Call::Peer(PeerRequest::Follows(Follower {
        nonce: 7,
        version: "0.1.0".to_owned(),
        applied: Position(1),
        current_millis_ago: None,
    }));
    let of_all = [
        Call::Peer(PeerRequest::Name),
        Call::Peer(PeerRequest::Succeed {
            claim: 1,
            reason: Reason::Ended,
            given_up: 0,
        }),
        Call::Peer(PeerRequest::Asked),
        Call::Peer(PeerRequest::Condition),
        Call::Peer(PeerRequest::Progress { slot: 9 }),
    ];
    let of_one = [follows, propose(register)];
    let agent_c = Speaker::Agent("c".into());
    for call in of_all.iter().chain(&of_one) {
        assert_eq!(judge(&state, &c, call), Verdict::Allowed, "{call:?}");
        assert!(is_refused(&judge(&state, &agent_c, call)), "{call:?}");
    }
    for call in &of_all {
        assert_eq!(judge(&state, &d, call), Verdict::Allowed, "{call:?}");
    }
    for call in &of_one {
        assert!(is_refused(&judge(&state, &d, call)), "{call:?}");
    }
    // It is no agent.
    let incarnation = {
        let Reply::Registered { incarnation, .. } =
            apply(&mut state, &Command::RegisterAgent(agent("c")))
        else {
            panic!("it is new")
        };
        incarnation
    };
    for call in of_incarnation(incarnation) {
        assert!(is_refused(&judge(&state, &c, &call)), "{call:?}");
    }
    let register = propose(Command::RegisterAgent(agent("c")));
    assert!(is_refused(&judge(&state, &c, &register)));
}

#[tokio::test]
async fn a_node_does_nothing_of_what_is_not_the_callers_to_ask() {
    let (node, _tasks) = started(&bucket(), &settings(&[], None)).await;
    let (a, b) = (Speaker::Agent("a".into()), Speaker::Agent("b".into()));
    let register = propose(Command::RegisterAgent(agent("a")));
    let refused = |outcome: Result<Answer, Error>| match outcome {
        Err(Error::Refused { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let why = refused(
        node.serve(register.clone(), Asked::by(b.clone()))
            .await
            .outcome,
    );
    assert!(why.contains("only agent a itself"), "{why}");
    node.serve(register, Asked::by(a.clone()))
        .await
        .outcome
        .expect("its own");
    let incarnation = |state: &State| state.agents().next().map(|agent| agent.incarnation);
    let first = node.with_state(incarnation).expect("it is registered");
    for incarnation in [first, Incarnation(first.0 + 1)] {
        for call in of_incarnation(incarnation) {
            refused(node.serve(call, Asked::by(b.clone())).await.outcome);
        }
    }
    assert_eq!(node.with_state(incarnation), Some(first));
    // Who passes a call on says no more than whom it names may say.
    let by_way_of_c = |agent: &str| Speaker::Relayed {
        agent: agent.to_owned(),
        by: "c".to_owned(),
    };
    for call in of_incarnation(first) {
        let asked = Asked::by(by_way_of_c("b"));
        refused(node.serve(call, asked).await.outcome);
    }
    let present = present(first);
    let asked = Asked::by(by_way_of_c("a"));
    assert!(node.serve(present, asked).await.outcome.is_ok());
    let end = propose(Command::FenceAgent { incarnation: first });
    node.serve(end, Asked::by(a.clone()))
        .await
        .outcome
        .expect("its own");
    assert_eq!(node.with_state(incarnation), None);
}
