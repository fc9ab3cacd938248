//! The feature level: which behaviour and which fields are switched on, for all replicas at the
//! same entry. It must not know what a feature does.

use super::member::Members;
use crate::terms::reply::{Refusal, Reply};

/// Raises the level, if everyone who takes part supports the new one.
pub(crate) fn raise(current: &mut u32, members: &Members, level: u32) -> Reply {
    if level <= *current {
        return Reply::Refused(Refusal::LevelBehind { level: *current });
    }
    if members.control_nodes.is_empty() {
        return Reply::Refused(Refusal::UnknownControlNode);
    }
    if let Some((name, supported)) = members.find_behind(level) {
        return Reply::Refused(Refusal::LevelAhead { name, supported });
    }
    *current = level;
    Reply::Done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::command::ControlNode;

    #[test]
    fn the_level_rises_only_when_everyone_supports_it_and_never_falls() {
        let mut members = Members::default();
        let mut level = 1;
        let node = |name: &str, level| ControlNode {
            nonce: 1,
            name: name.to_owned(),
            address: "c:1".to_owned(),
            region: "r".to_owned(),
            zone: "z".to_owned(),
            level,
        };
        members.register_control_node(1, &node("a", 2));
        members.register_control_node(1, &node("b", 1));
        let reply = raise(&mut level, &members, 2);
        let behind = Refusal::LevelAhead {
            name: "b".to_owned(),
            supported: 1,
        };
        assert_eq!((reply, level), (Reply::Refused(behind), 1));
        members.register_control_node(1, &node("b", 2));
        assert_eq!((raise(&mut level, &members, 2), level), (Reply::Done, 2));
        let reply = members.register_control_node(2, &node("c", 1));
        assert_eq!(
            reply,
            Reply::Refused(Refusal::LevelUnsupported { level: 2 })
        );
        let reply = raise(&mut level, &members, 1);
        assert_eq!(reply, Reply::Refused(Refusal::LevelBehind { level: 2 }));
    }
}
