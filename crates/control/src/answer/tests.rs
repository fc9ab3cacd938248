//! How every kind of call is answered.

use std::collections::{BTreeMap, BTreeSet};

use meta::command::{
    BucketCompared, ConfigChanges, ControlNode, CreateTopic, DropCopies, Placement, RegisterAgent,
};
use meta::commit::FileReply;
use meta::commit::{Batch, CommitFile};
use meta::ids::{AgentId, EntryId, FileId, Incarnation, PartitionId, ProducerId, Stamp, TopicId};
use meta::places::Located;
use meta::places::TimeQuery;
use meta::refusal::{Refusal as MemberRefusal, TopicRefusal};

use super::*;

const TOPIC: TopicId = TopicId(7);
const AGENT: Incarnation = Incarnation(1);
const ENTRY: EntryId = EntryId { index: 1, nonce: 0 };

fn stamp(ticks_millis: u64) -> Stamp {
    Stamp {
        wall_millis: 1_764_000_000_000 + ticks_millis,
        ticks_millis,
    }
}

fn agent() -> Command {
    Command::RegisterAgent(RegisterAgent {
        nonce: 1,
        name: "a".to_owned(),
        listeners: meta::endpoint::Endpoint::alone("h", 9092),
        region: "r".to_owned(),
        zone: "z".to_owned(),
        neighbour_address: String::new(),
        level: 1,
    })
}

fn control_node() -> ControlNode {
    ControlNode {
        nonce: 1,
        name: "c".to_owned(),
        claims_as: "c at c:7000".to_owned(),
        address: "c:7000".to_owned(),
        region: "r".to_owned(),
        zone: "z".to_owned(),
        level: 1,
    }
}

fn topic(name: &str) -> CreateTopic {
    CreateTopic {
        id: TOPIC,
        name: name.to_owned(),
        partitions: 1,
        configs: BTreeMap::new(),
        replication_factor: 0,
    }
}

fn file(number: u64) -> FileId {
    FileId {
        incarnation: AGENT,
        number,
    }
}

fn reference(number: u64) -> FileRef {
    FileRef {
        file: file(number),
        nonce: 0,
    }
}

/// A cluster with an agent, a topic, and a file with three records.
fn state() -> State {
    let mut state = State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned());
    let mut commit = CommitFile {
        file: file(0),
        length: 100,
        placement: vec![0],
        ..CommitFile::default()
    };
    commit.push_slice(PartitionId(1), 16);
    commit.push_batch(Batch {
        records: 3,
        bytes: 70,
        max_timestamp: 1_000,
        time_source: meta::commit::TimeSource::Records,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
    });
    for command in [
        agent(),
        Command::CreateTopic(topic("t")),
        Command::CommitFile(commit),
    ] {
        state.apply(ENTRY, stamp(1), &command);
    }
    state
}

fn propose(command: Command) -> Call {
    Call::Propose(Box::new(command))
}

const APPLIED: Freshness = Freshness::Applied(Position(9));

#[test]
fn what_must_be_current_is_looked_at_again_once_it_is() {
    let state = state();
    let create = Command::CreateTopic(topic("new"));
    let bounds = meta::places::Bounds {
        log_start: 0,
        high_watermark: 3,
    };
    let ids = vec![PartitionId(1), PartitionId(2)];
    for (call, answer) in [
        (Call::Barrier, Return::Done),
        (Call::Bounds(ids), Return::Bounds(vec![Some(bounds), None])),
        (
            Call::Fates(vec![reference(0), reference(5)]),
            Return::Fates(vec![Fate::Live, Fate::Undecided]),
        ),
    ] {
        let asked = step(&state, call.clone(), APPLIED);
        assert_eq!(asked, Ok(Step::Current(call.clone())));
        assert_eq!(
            step(&state, call, Freshness::Current),
            Ok(Step::Now(answer))
        );
    }
    let check = Call::Check(Box::new(create));
    let asked = step(&state, check.clone(), APPLIED);
    assert_eq!(asked, Ok(Step::Current(check.clone())));
    let refused = step(&state, check, Freshness::Current);
    assert!(matches!(
        refused,
        Err(Error::Topic(TopicRefusal::Policy { .. }))
    ));
}

#[test]
fn what_may_be_old_is_answered_from_what_is_applied_once_that_is_far_enough() {
    let state = state();
    let place = match state.locate(PartitionId(1), 0, 1, 1) {
        Located::Found { places, .. } => places[0],
        other => panic!("{other:?}"),
    };
    for at in [0, 9, 10] {
        let at = Position(at);
        let wanted = vec![Locate {
            partition: PartitionId(1),
            offset: 0,
            max_bytes: 1,
        }];
        let found = Located::Found {
            log_start: 0,
            high_watermark: 3,
            places: vec![place],
        };
        let find = Call::FindTime {
            partition: PartitionId(1),
            query: TimeQuery::Largest,
            at,
        };
        let known = Some(state.view_version());
        for (call, answer) in [
            (Call::View { known, at }, Return::View(None)),
            (Call::Locate { wanted, at }, Return::Located(vec![found])),
            (find, Return::Place(Some(place))),
        ] {
            let expected = if at > Position(9) {
                Step::Reach(at, call.clone())
            } else {
                Step::Now(answer)
            };
            assert_eq!(step(&state, call, APPLIED), Ok(expected));
        }
    }
}

#[test]
fn nothing_is_said_not_to_exist_by_a_node_that_may_be_far_behind() {
    let state = state();
    let old = Freshness::Unconfirmed(Position(9));
    let at = Position(0);
    let locate = |partition, offset| Call::Locate {
        wanted: vec![Locate {
            partition: PartitionId(partition),
            offset,
            max_bytes: 1,
        }],
        at,
    };
    let find = |partition, query| Call::FindTime {
        partition: PartitionId(partition),
        query,
        at,
    };
    for absent in [
        locate(1, 4),
        locate(2, 0),
        find(1, TimeQuery::AtOrAfter(2_000)),
        find(2, TimeQuery::Largest),
    ] {
        let asked = step(&state, absent.clone(), old);
        assert_eq!(asked, Ok(Step::Current(absent.clone())));
        for freshness in [APPLIED, Freshness::Current] {
            let told = step(&state, absent.clone(), freshness);
            assert!(matches!(told, Ok(Step::Now(_))), "{told:?}");
        }
    }
    let known = None;
    for there in [
        locate(1, 0),
        locate(1, 3),
        find(1, TimeQuery::Largest),
        Call::View { known, at },
    ] {
        let told = step(&state, there.clone(), old);
        assert!(matches!(told, Ok(Step::Now(_))), "{told:?}");
        assert_eq!(told, step(&state, there, APPLIED));
    }
    let beyond = Call::Locate {
        wanted: Vec::new(),
        at: Position(10),
    };
    let reach = Step::Reach(Position(10), beyond.clone());
    assert_eq!(step(&state, beyond, old), Ok(reach));
}

#[test]
fn files_are_collected_at_a_current_state_if_there_seem_to_be_any() {
    let mut state = state();
    let call = Call::Collectable {
        bucket: 0,
        limit: 10,
    };
    let nothing = Ok(Step::Now(Return::Collectable(Vec::new())));
    assert_eq!(step(&state, call.clone(), APPLIED), nothing);
    let grace = ConfigChanges {
        set: BTreeMap::from([("file.delete.grace.ms".to_owned(), "0".to_owned())]),
        remove: BTreeSet::new(),
    };
    let replaces = state.configs_version();
    let changes = grace;
    state.apply(
        ENTRY,
        stamp(2),
        &Command::SetClusterConfigs { replaces, changes },
    );
    state.apply(ENTRY, stamp(2), &Command::DeleteTopic { id: TOPIC });
    state.apply(ENTRY, stamp(3), &Command::Housekeep);
    let asked = step(&state, call.clone(), APPLIED);
    assert_eq!(asked, Ok(Step::Current(call.clone())));
    match step(&state, call, Freshness::Current) {
        Ok(Step::Now(Return::Collectable(files))) => assert_eq!(files[0].file, file(0)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn others_have_proposed_what_is_theirs_and_nothing_else() {
    let state = state();
    let changes = ConfigChanges::default;
    let theirs = [
        agent(),
        Command::CommitFile(CommitFile::default()),
        Command::SkipFile { file: file(1) },
        Command::CreateTopic(topic("t")),
        Command::DeleteTopic { id: TOPIC },
        Command::CreatePartitions {
            id: TOPIC,
            total: 2,
        },
        Command::SetTopicConfigs {
            id: TOPIC,
            changes: changes(),
        },
        Command::SetClusterConfigs {
            replaces: 0,
            changes: changes(),
        },
        Command::AllocateProducer { known: None },
        Command::FilesDeleted {
            bucket: 0,
            files: BTreeSet::new(),
        },
        Command::AddCopies {
            bucket: 1,
            files: BTreeSet::new(),
        },
        Command::DropCopies(DropCopies {
            by: AGENT,
            bucket: 1,
            is_missing: true,
            files: BTreeSet::new(),
        }),
        Command::BucketCompared(BucketCompared {
            by: AGENT,
            bucket: 1,
            since_ticks: 1,
        }),
        Command::RegisterControlNode(control_node()),
        Command::DrainAgent { incarnation: AGENT },
        Command::FenceAgent { incarnation: AGENT },
    ];
    for command in theirs {
        let expected = Step::Propose(Box::new(command.clone()));
        assert_eq!(step(&state, propose(command), APPLIED), Ok(expected));
    }
    let others = [
        Command::Housekeep,
        Command::RemoveControlNode {
            name: "c".to_owned(),
            nonce: 1,
        },
        Command::SetFeatureLevel { level: 1 },
        Command::SetTime { wall_millis: 1 },
        Command::MarkBucket {
            bucket: 1,
            is_away: true,
        },
        Command::SetPlacement(Placement {
            number: 1,
            copies: 1,
            buckets: BTreeMap::new(),
        }),
        Command::Group(meta::group::Command {
            group: "g".to_owned(),
            action: meta::group::Action::Delete,
        }),
    ];
    for command in others {
        let refused = step(&state, propose(command.clone()), APPLIED);
        assert!(matches!(refused, Err(Error::Refused { .. })), "{command:?}");
    }
    let list = GroupRequest::List(Vec::new());
    let coordinated = step(&state, Call::Group(list.clone()), APPLIED);
    assert_eq!(coordinated, Ok(Step::Coordinate(list)));
    let version = || "0.1.0".to_owned();
    let present = Call::Present {
        incarnation: AGENT,
        buckets: 1,
        version: version(),
    };
    let attended = step(&state, present, APPLIED);
    assert_eq!(attended, Ok(Step::Attend(AGENT, Reached(1), version())));
}

#[test]
fn a_proposer_is_told_what_came_of_its_command() {
    let registered = Registered {
        agent: AgentId(1),
        incarnation: AGENT,
        cluster_id: state().cluster_id().to_owned(),
    };
    let (id, epoch) = (ProducerId(3), 4);
    for (reply, told) in [
        (Reply::Done, Return::Done),
        (Reply::Topic { id: TOPIC }, Return::Done),
        (
            Reply::Registered {
                agent: AgentId(1),
                incarnation: AGENT,
            },
            Return::Registered(registered),
        ),
        (
            Reply::File(FileReply::Skipped),
            Return::File(FileReply::Skipped),
        ),
        (
            Reply::Producer { id, epoch },
            Return::Producer { id, epoch },
        ),
        (
            Reply::Forgotten {
                refused: Vec::new(),
            },
            Return::Done,
        ),
        // A report that is repeated: its files were forgotten the first time.
        (
            Reply::Forgotten {
                refused: vec![(reference(0), Fate::Dead)],
            },
            Return::Done,
        ),
    ] {
        assert_eq!(conclude(&state(), reply), Ok(told));
    }
    let refused = conclude(&state(), Reply::TopicRefused(TopicRefusal::Unknown));
    assert_eq!(refused, Err(Error::Topic(TopicRefusal::Unknown)));
    let kept = vec![(reference(0), Fate::Live)];
    for reply in [
        Reply::Forgotten { refused: kept },
        Reply::Refused(MemberRefusal::Fenced),
    ] {
        let told = conclude(&state(), reply);
        assert!(matches!(told, Err(Error::Refused { .. })), "{told:?}");
    }
    let other = conclude(&state(), Reply::Housekept { more: true });
    assert!(matches!(other, Err(Error::Unknown { .. })));
}

#[test]
fn only_what_may_have_been_appended_is_not_definite() {
    let mut state = state();
    let cases = [
        (ProposeError::Unknown("late".to_owned()), false),
        (ProposeError::Definite(Refusal::Busy), true),
        (ProposeError::Definite(Refusal::Expired), true),
        (
            ProposeError::Definite(Refusal::Halted("damage".to_owned())),
            true,
        ),
        (
            ProposeError::Definite(Refusal::TooLarge { bytes: 2, max: 1 }),
            true,
        ),
    ];
    for (error, definite) in cases {
        assert_eq!(failed(&state, 0, error).is_definite(), definite);
    }
    let refusal = Refusal::NotLeader {
        leader: Some("c2".to_owned()),
    };
    let elsewhere = |state: &State| failed(state, 7, ProposeError::Definite(refusal.clone()));
    let leader = |address: Option<&str>| Error::NotLeader {
        leader: Some(Leader {
            name: "c2".to_owned(),
            address: address.map(str::to_owned),
            claim: 7,
        }),
    };
    assert_eq!(elsewhere(&state), leader(None));
    let told = elsewhere(&state).to_string();
    assert_eq!(told, "this control node does not lead: c2 does");
    let node = ControlNode {
        claims_as: "c2".to_owned(),
        address: "10.0.0.2:7000".to_owned(),
        ..control_node()
    };
    state.apply(ENTRY, stamp(2), &Command::RegisterControlNode(node));
    assert_eq!(elsewhere(&state), leader(Some("10.0.0.2:7000")));
}

#[test]
fn a_view_has_what_is_applied() {
    let state = state();
    let known = None;
    let at = Position(0);
    let view = match step(&state, Call::View { known, at }, APPLIED) {
        Ok(Step::Now(Return::View(Some(view)))) => view,
        other => panic!("{other:?}"),
    };
    assert_eq!(view.level, state.level().number);
    assert_eq!(view.version, state.view_version());
    assert!(view.whole);
    let agents = view.agents.iter().flatten();
    let agents: Vec<i32> = agents.map(|agent| agent.id.0).collect();
    let topics: Vec<&str> = view
        .topics
        .iter()
        .map(|topic| topic.name.as_str())
        .collect();
    assert_eq!((agents, topics), (vec![1], vec!["t"]));
}

#[test]
fn files_that_a_bucket_lacks_are_told_as_they_are_applied_up_to_what_was_asked_for() {
    let mut state = state();
    let bucket = |domain| meta::command::Bucket {
        domain,
        generation: 1,
    };
    let placement = Placement {
        number: state.placement().number + 1,
        copies: 1,
        buckets: [(0, bucket(0)), (1, bucket(1))].into(),
    };
    state.apply(ENTRY, stamp(2), &Command::SetPlacement(placement));
    for freshness in [APPLIED, Freshness::Unconfirmed(Position(9))] {
        let told = |bucket, after, limit| {
            let call = Call::Short {
                bucket,
                after,
                limit,
            };
            match step(&state, call, freshness) {
                Ok(Step::Now(Return::Short { wall_millis, files })) => {
                    assert_eq!(wall_millis, stamp(2).wall_millis);
                    files
                }
                other => panic!("{other:?}"),
            }
        };
        let files = told(1, None, u32::MAX);
        assert_eq!(files[0].file.file, file(0));
        assert_eq!(files[0].held, [0]);
        let last = files
            .last()
            .map(|last| (last.committed_wall_millis, last.file.file));
        assert_eq!(told(1, last, 10), []);
        assert_eq!(told(1, None, 0), []);
        assert_eq!(told(0, None, 10), []);
    }
}
