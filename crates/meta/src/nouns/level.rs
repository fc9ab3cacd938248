//! The feature level: which behaviour and fields are in force, for all replicas at the same entry.
//! It must not know what a feature does.

use super::member::Members;
use crate::terms::reply::Refusal;

/// Checks whether the level may be raised: every member must support the new one.
pub(crate) fn check(current: u32, members: &Members, level: u32) -> Result<(), Refusal> {
    if level <= current {
        return Err(Refusal::LevelBehind { level: current });
    }
    if members.control_nodes.is_empty() {
        return Err(Refusal::UnknownControlNode);
    }
    match members.find_behind(level) {
        Some((name, supported)) => Err(Refusal::LevelAhead { name, supported }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::command::ControlNode;
    use crate::terms::level::Level;
    use crate::terms::level::one::LEVEL as ONE;
    use crate::terms::reply::Reply;

    const TWO: Level = Level { number: 2, ..ONE };

    #[test]
    fn the_level_rises_only_when_everyone_supports_it_and_never_falls() {
        let mut members = Members::default();
        let node = |name: &str, level| ControlNode {
            nonce: 1,
            name: name.to_owned(),
            claims_as: name.to_owned(),
            address: "c:1".to_owned(),
            region: "r".to_owned(),
            zone: "z".to_owned(),
            level,
        };
        members.register_control_node(&ONE, &node("a", 2));
        members.register_control_node(&ONE, &node("b", 1));
        let behind = Refusal::LevelAhead {
            name: "b".to_owned(),
            supported: 1,
        };
        assert_eq!(check(1, &members, 2), Err(behind));
        members.register_control_node(&ONE, &node("b", 2));
        assert_eq!(check(1, &members, 2), Ok(()));
        let reply = members.register_control_node(&TWO, &node("c", 1));
        assert_eq!(
            reply,
            Reply::Refused(Refusal::LevelUnsupported { level: 2 })
        );
        for level in [1, 2] {
            let behind = Refusal::LevelBehind { level: 2 };
            assert_eq!(check(2, &members, level), Err(behind));
        }
    }
}
