//! Every kind of message as bytes and back, and bytes that are none.

use std::sync::Arc;

use meta::command::CreateTopic;
use meta::config::Configs;

use super::*;

const PAGE: &str = include_str!("../../../../docs/formats/rpc.md");

const ONE: &Level = &meta::level::one::LEVEL;

fn written_call(call: &Call) -> Vec<u8> {
    encode_call(ONE, call).expect("level 1 has it")
}

fn written_answer(answer: &Result<Answer, Error>) -> Vec<u8> {
    encode_answer(ONE, answer).expect("level 1 has it")
}

fn written_told(told: &Told) -> Vec<u8> {
    encode_told(ONE, told).expect("level 1 has it")
}

fn follower() -> Follower {
    Follower {
        nonce: 1 << 100,
        version: text("0.1.0"),
        applied: Position(300),
        current_millis_ago: Some(7),
    }
}

fn roster() -> Roster {
    Roster {
        leader: text("control-1, process 7"),
        version: text("0.1.0"),
        listens_millis: 14_000,
        agents: vec![HeardAgent {
            incarnation: Incarnation(9),
            version: text("0.2.0"),
            silent_millis: 300,
        }],
        followers: vec![HeardFollower {
            said: follower(),
            silent_millis: 1_000,
            entries_behind: 2,
        }],
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn file() -> FileId {
    FileId {
        incarnation: Incarnation(3),
        number: 300,
    }
}

fn place() -> SlicePlace {
    SlicePlace {
        file: file(),
        nonce: 0xdead_beef,
        file_length: 1 << 40,
        position: 16,
        length: 70_000,
        base_offset: 7,
        last_offset: 9,
        max_timestamp: -1,
    }
}

fn reference() -> FileRef {
    FileRef {
        file: file(),
        nonce: 1,
    }
}

fn configs() -> Configs {
    [("retention.ms", "9"), ("flush.ms", "1")]
        .map(|(name, value)| (text(name), text(value)))
        .into()
}

fn join() -> Join {
    Join {
        member: String::new(),
        admitted: false,
        instance: Some(text("i")),
        client_id: text("c"),
        client_host: text("/127.0.0.1"),
        session_timeout_millis: 10_000,
        rebalance_timeout_millis: u32::MAX,
        protocol_type: text("consumer"),
        protocols: vec![Protocol {
            name: text("range"),
            metadata: Bytes::from_static(b"topics"),
        }],
        can_skip_assignment: true,
        members_max: 5,
    }
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        group: "g".to_owned(),
        member: "m".to_owned(),
        instance: None,
        generation: -1,
    }
}

fn group_requests() -> Vec<GroupRequest> {
    let group = || text("g");
    vec![
        GroupRequest::Join(JoinGroup {
            group: group(),
            join: join(),
            fresh_member: text("c-1"),
            id_required: true,
        }),
        GroupRequest::Sync {
            group: group(),
            sync: Sync {
                member: text("m"),
                instance: None,
                generation: 4,
                protocol_type: Some(text("consumer")),
                protocol: None,
                assignments: vec![(text("m"), Bytes::from_static(b"work"))],
            },
        },
        GroupRequest::Heartbeat(heartbeat()),
        GroupRequest::Leave {
            group: group(),
            members: vec![Leaving {
                member: text("m"),
                instance: Some(text("i")),
            }],
        },
        GroupRequest::Commit(CommitOffsets {
            by: None,
            group: group(),
            member: text("m"),
            instance: None,
            generation: 4,
            topics: vec![(
                TopicName::Id(TopicId(u128::MAX)),
                vec![CommitPartition {
                    partition: 0,
                    offset: i64::MAX,
                    leader_epoch: -1,
                    metadata: text("note"),
                }],
            )],
        }),
        GroupRequest::Fetch(vec![FetchGroup {
            group: group(),
            topics: Some(vec![(TopicName::Name(text("t")), vec![0, -1])]),
        }]),
        GroupRequest::Describe(vec![group()]),
        GroupRequest::List(vec![text("Stable")]),
    ]
}

fn calls() -> Vec<Call> {
    let create = Command::CreateTopic(CreateTopic {
        id: TopicId(7),
        name: text("t"),
        partitions: 2,
        configs: configs(),
        replication_factor: 3,
    });
    let partition = PartitionId(300);
    let at = Position(1_000);
    let wanted = vec![Locate {
        partition,
        offset: 5,
        max_bytes: 1 << 20,
    }];
    let mut calls = vec![
        Call::Propose(Box::new(create.clone())),
        Call::Check(Box::new(create)),
        Call::Barrier,
        Call::View { known: Some(3), at },
        Call::Locate { wanted, at },
        Call::Bounds(vec![partition]),
        Call::FindTime {
            partition,
            query: TimeQuery::AtOrAfter(-2),
            at,
        },
        Call::FindTime {
            partition,
            query: TimeQuery::Largest,
            at,
        },
        Call::Collectable {
            bucket: 2,
            limit: 500,
        },
        Call::Fates(vec![reference()]),
        Call::Short {
            bucket: 2,
            after: Some((1 << 40, reference().file)),
            limit: 500,
        },
        Call::Stored(WantedFiles::File(reference())),
        Call::Stored(WantedFiles::LastIn { bucket: 1 }),
        Call::Stored(WantedFiles::In {
            bucket: 2,
            after: Some(reference().file),
        }),
        Call::Present {
            incarnation: Incarnation(9),
            buckets: 0b101,
            version: text("0.1.0"),
        },
        Call::Heartbeats(Vec::new()),
        Call::Heartbeats(vec![heartbeat(), heartbeat()]),
        Call::Peer(PeerRequest::Name),
        Call::Peer(PeerRequest::Follows(follower())),
        Call::Peer(PeerRequest::Succeed {
            claim: 300,
            reason: Reason::Preferred,
            given_up: 2,
        }),
        Call::Peer(PeerRequest::Asked),
        Call::Peer(PeerRequest::Condition),
        Call::Peer(PeerRequest::Progress { slot: 300 }),
    ];
    calls.extend(group_requests().into_iter().map(Call::Group));
    calls
}

fn group_replies() -> Vec<GroupReply> {
    let refused = GroupError::Refused(Refusal::IllegalGeneration);
    let joined = Joined {
        generation: 4,
        protocol_type: text("consumer"),
        protocol: text("range"),
        leader: text("m"),
        skip_assignment: false,
        members: vec![JoinedMember {
            member: text("m"),
            instance: None,
            metadata: Bytes::from_static(b"topics"),
        }],
    };
    let fetched = FetchedTopic {
        topic: TopicName::Name(text("t")),
        id: Some(TopicId(7)),
        partitions: vec![FetchedPartition {
            partition: 0,
            offset: -1,
            leader_epoch: -1,
            metadata: String::new(),
            error: Some(GroupError::UnknownTopicId),
        }],
    };
    let described = DescribedGroup {
        group: text("g"),
        error: None,
        exists: true,
        state: text("Stable"),
        protocol_type: text("consumer"),
        protocol: text("range"),
        members: vec![DescribedMember {
            member: text("m"),
            instance: None,
            client_id: text("c"),
            client_host: text("/h"),
            metadata: Bytes::new(),
            assignment: Bytes::from_static(b"work"),
        }],
    };
    vec![
        GroupReply::Join(Ok(JoinedGroup {
            member: text("m"),
            joined,
        })),
        GroupReply::Join(Err(JoinRefusal {
            error: GroupError::MemberIdRequired,
            member: text("c-1"),
        })),
        GroupReply::Sync(Ok(Synced {
            protocol_type: text("consumer"),
            protocol: text("range"),
            assignment: Bytes::from_static(b"work"),
        })),
        GroupReply::Heartbeat(Ok(())),
        GroupReply::Heartbeat(Err(GroupError::NotCoordinator)),
        GroupReply::Leave(Ok(vec![Ok(()), Err(refused)])),
        GroupReply::Commit(vec![Err(GroupError::NoRoom), Ok(())]),
        GroupReply::Fetch(vec![FetchedGroup {
            group: text("g"),
            topics: Ok(vec![fetched]),
        }]),
        GroupReply::Describe(Ok(vec![described])),
        GroupReply::List(Ok(vec![ListedGroup {
            group: text("g"),
            protocol_type: text("consumer"),
            state: text("Empty"),
        }])),
    ]
}

fn view() -> ViewChange {
    let topic = Topic {
        id: TopicId(7),
        name: text("t"),
        partitions: vec![PartitionId(1), PartitionId(2)],
        configs: configs(),
        replication_factor: 3,
        version: 12,
    };
    ViewChange {
        version: 12,
        level: 1,
        whole: false,
        topics: vec![Arc::new(topic)],
        deleted: vec![TopicId(8)],
        agents: Some(vec![Agent {
            id: AgentId(1),
            name: text("a"),
            listeners: meta::endpoint::Endpoint::alone("h", 9092),
            region: text("r"),
            zone: text("z"),
            neighbour_address: text("h:7072"),
            level: 1,
            incarnation: Incarnation(3),
            drains: false,
            cut_off: true,
        }]),
        cluster_configs: Some(Arc::new(configs())),
    }
}

fn answers() -> Vec<Result<Answer, Error>> {
    let outcomes = [
        BatchOutcome::Accepted {
            base_offset: 7,
            log_start: 0,
        },
        BatchOutcome::OutOfOrder,
    ];
    let found = Located::Found {
        log_start: 0,
        high_watermark: 10,
        places: vec![place()],
    };
    let outside = Located::OutOfRange {
        log_start: 3,
        high_watermark: 10,
    };
    let mut values = vec![
        Return::Done,
        Return::OneIsLost,
        Return::Roster(Box::new(roster())),
        Return::Condition(Condition {
            wall_millis: 1_700_000_000_000,
            is_clock_wrong: true,
            commit_micros: Some(12_500),
        }),
        Return::Asked(true),
        Return::CanStore(false),
        Return::Progress(Progress {
            name: text("c"),
            version: text("0.1.0"),
            applied: Position(300),
        }),
        Return::Registered(Registered {
            agent: AgentId(1),
            incarnation: Incarnation(3),
            cluster_id: text("AAAAAAAAAAAAAAAAAAAAAA"),
        }),
        Return::File(FileReply::Committed {
            outcomes: Arc::new(outcomes),
        }),
        Return::File(FileReply::Gap { expected: 4 }),
        Return::Producer {
            id: ProducerId(1_000),
            epoch: 2,
        },
        Return::View(None),
        Return::View(Some(Box::new(view()))),
        Return::Located(vec![found, outside, Located::UnknownPartition]),
        Return::Bounds(vec![
            None,
            Some(Bounds {
                log_start: 0,
                high_watermark: 10,
            }),
        ]),
        Return::Place(Some(place())),
        Return::Collectable(vec![reference()]),
        Return::Fates(vec![
            Fate::Live,
            Fate::Tombstoned,
            Fate::Undecided,
            Fate::Dead,
        ]),
        Return::Short {
            wall_millis: 1 << 41,
            files: vec![StoredFile {
                committed_wall_millis: 1 << 40,
                file: reference(),
                length: 100,
                checksum: 7,
                held: vec![0, 2],
                is_held_enough: true,
            }],
        },
        Return::Stored(StoredFiles {
            files: Vec::new(),
            more_after: Some(reference().file),
            suspects: vec![(2, 1 << 40)],
        }),
        Return::Heartbeats(vec![Ok(()), Err(GroupError::NotCoordinator)]),
        Return::Named(Named {
            name: text("c"),
            nonce: 1 << 100,
            is_registered: true,
        }),
    ];
    values.extend(group_replies().into_iter().map(Return::Group));
    let errors = [
        Error::NotLeader {
            leader: Some(Leader {
                name: text("c2"),
                address: Some(text("10.0.0.2:7000")),
                claim: 1 << 40,
            }),
        },
        Error::NotLeader { leader: None },
        Error::Busy,
        Error::Unavailable { reason: text("u") },
        Error::Unknown { reason: text("?") },
        Error::Topic(TopicRefusal::Exists { name: text("t") }),
        Error::Topic(TopicRefusal::Unknown),
        Error::Refused { reason: text("no") },
    ];
    let at = Position(u64::MAX);
    let values = values.into_iter().map(|value| Ok(Answer { at, value }));
    values.chain(errors.map(Err)).collect()
}

fn told() -> Told {
    let partition = PartitionId(1);
    let notices = vec![
        Notice::Advanced {
            partition,
            high_watermark: 10,
            place: place(),
        },
        Notice::LogStart {
            partition,
            log_start: 3,
        },
        Notice::View { version: 12 },
        Notice::Anything,
    ];
    Told {
        from: Position(999),
        to: Position(1_000),
        age_millis: 0,
        notices,
    }
}

fn growth() -> Growth {
    let entries = [(8, &b"one"[..]), (9, &b"another"[..])];
    let entries = entries.map(|(at, bytes)| JournalEntry {
        at: Position(at),
        bytes: Bytes::from_static(bytes),
    });
    Growth {
        to: Position(9),
        entries: entries.to_vec(),
    }
}

fn written_growth(growth: &Growth) -> Vec<u8> {
    encode_growth(ONE, growth).expect("level 1 has it")
}

/// Every message of these tests.
fn messages() -> Vec<Vec<u8>> {
    let calls = calls();
    let calls = calls.iter().map(written_call);
    let answers = answers();
    let answers = answers.iter().map(written_answer);
    calls
        .chain(answers)
        .chain([written_told(&told()), written_growth(&growth())])
        .collect()
}

#[test]
fn every_message_comes_back() {
    for call in calls() {
        assert_eq!(decode_call(written_call(&call).into()), Ok(call));
    }
    for answer in answers() {
        assert_eq!(decode_answer(written_answer(&answer).into()), Ok(answer));
    }
    assert_eq!(decode_told(written_told(&told()).into()), Ok(told()));
    let written = written_growth(&growth());
    assert_eq!(decode_growth(written.into()), Ok(growth()));
}

#[test]
fn a_command_that_the_level_does_not_have_is_not_sent() {
    const NOTHING: &Level = &Level {
        number: 0,
        ..meta::level::one::LEVEL
    };
    let too_new = TooNew::ForLevel { since: 1, level: 0 };
    let propose = Call::Propose(Box::new(Command::Housekeep));
    assert_eq!(encode_call(NOTHING, &propose), Err(too_new));
    assert!(encode_call(NOTHING, &Call::Barrier).is_ok());
}

#[test]
fn a_message_that_is_cut_or_too_long_is_none() {
    for call in calls() {
        let message = written_call(&call);
        for end in 0..message.len() {
            assert!(
                decode_call(message[..end].to_vec().into()).is_err(),
                "{call:?}"
            );
        }
        let longer = [message, vec![0]].concat();
        assert_eq!(decode_call(longer.into()), Err(Malformed::Long));
    }
}

/// Whatever bytes are taken for a message are the only form of it.
fn assert_only_form(bytes: &[u8]) {
    let message = || Bytes::copy_from_slice(bytes);
    if let Ok(call) = decode_call(message()) {
        assert_eq!(written_call(&call), bytes);
    }
    if let Ok(answer) = decode_answer(message()) {
        assert_eq!(written_answer(&answer), bytes);
    }
    if let Ok(growth) = decode_growth(message()) {
        assert_eq!(written_growth(&growth), bytes);
    }
    if let Ok(told) = decode_told(message()) {
        assert_eq!(written_told(&told), bytes);
    }
}

#[test]
fn bytes_that_were_changed_are_no_message_or_another_one() {
    let mut draw = 1_u64;
    let mut roll = |sides: usize| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (draw >> 33) as usize % sides
    };
    for message in messages() {
        for _ in 0..300 {
            let mut changed = message.clone();
            for _ in 0..=roll(3) {
                let at = roll(changed.len());
                match roll(4) {
                    0 => changed[at] = roll(256) as u8,
                    1 => changed[at] ^= 1 << roll(8),
                    2 => changed.insert(at, roll(256) as u8),
                    _ if changed.len() > 1 => drop(changed.remove(at)),
                    _ => {}
                }
            }
            assert_only_form(&changed);
        }
    }
}

#[test]
fn a_number_has_one_form() {
    for (bytes, number) in [
        (&[0_u8][..], Ok(0)),
        (&[0x7f], Ok(127)),
        (&[0x80, 1], Ok(128)),
        (&[0x80, 0], Err(Malformed::Number)),
        (&[0xff; 10], Err(Malformed::Number)),
        (&[0x80], Err(Malformed::Short)),
    ] {
        let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
        assert_eq!(u64::take(&mut reader), number, "{bytes:?}");
    }
    for number in [0, -1, 1, i64::MIN, i64::MAX, -65, 64] {
        let mut bytes = Writer::new(ONE);
        number.put(&mut bytes);
        let bytes = bytes.end().expect("a number is of every level");
        let mut reader = Reader::new(bytes.into());
        assert_eq!(i64::take(&mut reader), Ok(number));
    }
}

#[test]
fn a_list_that_is_not_there_takes_no_memory() {
    let mut message = Writer::new(ONE);
    message.push(6);
    u64::MAX.put(&mut message);
    let message = message.end().expect("a number is of every level");
    assert_eq!(decode_call(message.into()), Err(Malformed::Short));
}

/// The bytes of an example of the page.
fn example(name: &str) -> Vec<u8> {
    let lines = PAGE.lines().skip_while(|line| *line != name).skip(1);
    let hex = lines
        .take_while(|line| line.starts_with("  "))
        .collect::<String>();
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(pair, 16).expect("two digits")
    };
    digits.chunks(2).map(byte).collect()
}

#[test]
fn the_examples_of_the_page_are_what_they_are_said_to_be() {
    let call = Call::Locate {
        wanted: vec![Locate {
            partition: PartitionId(300),
            offset: 5,
            max_bytes: 1 << 20,
        }],
        at: Position(1_000),
    };
    assert_eq!(written_call(&call), example("Locate"));
    let agent = meta::command::RegisterAgent {
        nonce: 7,
        name: text("a"),
        listeners: meta::endpoint::Endpoint::alone("h", 9092),
        region: text("r"),
        zone: text("z"),
        neighbour_address: String::new(),
        level: 1,
    };
    let register = Call::Propose(Box::new(Command::RegisterAgent(agent)));
    assert_eq!(written_call(&register), example("Register"));
    let found = Located::Found {
        log_start: 0,
        high_watermark: 10,
        places: vec![place()],
    };
    let answer = Ok(Answer {
        at: Position(1_000),
        value: Return::Located(vec![found]),
    });
    assert_eq!(written_answer(&answer), example("Located"));
    let elsewhere = Err(Error::NotLeader {
        leader: Some(Leader {
            name: text("c2"),
            address: None,
            claim: 300,
        }),
    });
    assert_eq!(written_answer(&elsewhere), example("NotLeader"));
}
