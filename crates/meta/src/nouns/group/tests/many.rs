//! Groups of very many members: work that grows with the square of their number takes minutes here.

use super::*;

const MEMBERS: u32 = 6_000;
const PROTOCOLS: u32 = 20;

/// A member that supports all protocols; the last one of the group supports the last protocol alone, so that each
/// member's favourites are looked at in vain.
fn join_of(number: u32) -> Join {
    let first = if number == MEMBERS - 1 {
        PROTOCOLS - 1
    } else {
        0
    };
    let protocols = (first..PROTOCOLS).map(|protocol| Protocol {
        name: format!("protocol-{protocol:02}"),
        metadata: Bytes::from_static(b"topics"),
    });
    Join {
        protocols: protocols.collect(),
        members_max: MEMBERS,
        ..new(&format!("member-{number:04}"))
    }
}

#[test]
fn a_group_of_thousands_forms_by_counts() {
    let mut groups = Groups::default();
    let mut apply = |action| {
        let command = Command {
            group: "g".to_owned(),
            action,
        };
        groups.apply(Stamp::default(), RULES, &command).0
    };
    for number in 0..MEMBERS {
        let reply = apply(Action::Join(join_of(number)));
        assert_eq!(reply, Reply::Join(Ok(JoinOutcome::Waits { generation: 0 })));
    }
    let reply = apply(Action::CompleteJoin { generation: 0 });
    assert_eq!(reply, Reply::CompleteJoin(Completion::Completed));
    let group = groups.get("g").expect("it exists");
    assert_eq!(group.protocol(), Some("protocol-19"));
    assert_eq!(group.members().len(), MEMBERS as usize);
    groups.assert_invariants();
}
