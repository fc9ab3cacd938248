//! What a leader sees to so that builds of several levels go together: that it is known with its own level, and that the
//! level rises once everybody supports a higher one. Pure.

use meta::State;
use meta::command::{Command, ControlNode};

/// What a control node says of itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// It stays the same from start to start.
    pub name: String,
    /// Where agents and other control nodes reach it.
    pub address: String,
    pub region: String,
    pub zone: String,
}

/// What the leader, who is `own`, is to propose next; `None` if all is as it should be. Whoever is gone holds a level back
/// until it is fenced (`FenceAgent`) or forgotten (`RemoveControlNode`). An operator may want it to go up to `level_max` only, so
/// that the release before can come back.
pub fn proposal(state: &State, own: &ControlNode, level_max: u32) -> Option<Command> {
    let mut nodes = state.control_nodes();
    let known = nodes.find(|node| node.name == own.name);
    // A lead that changes nothing is registered already: each entry costs.
    let nonce = own.nonce;
    if known.is_none_or(|known| {
        ControlNode {
            nonce,
            ..known.clone()
        } != *own
    }) {
        return Some(Command::RegisterControlNode(own.clone()));
    }
    let higher = (state.level().number + 1..=own.level.min(level_max)).rev();
    let mut supported = higher.filter(|level| state.check_feature_level(*level).is_ok());
    let level = supported.next()?;
    Some(Command::SetFeatureLevel { level })
}

#[cfg(test)]
mod tests {
    use meta::command::RegisterAgent;
    use meta::ids::{EntryId, Incarnation, Stamp};
    use meta::level::Levels;
    use meta::level::{Level, one::LEVEL as ONE};
    use meta::reply::Reply;

    use super::*;

    const TWO: Level = Level { number: 2, ..ONE };
    const THREE: Level = Level { number: 3, ..ONE };

    /// A cluster of which this build knows three levels.
    fn cluster() -> State {
        const LATER: Levels = Levels::new(&[ONE, TWO, THREE]);
        State::genesis_of(LATER, "AAAAAAAAAAAAAAAAAAAAAA".to_owned())
    }

    fn node(name: &str, level: u32) -> ControlNode {
        ControlNode {
            nonce: 9,
            name: name.to_owned(),
            claims_as: format!("{name}, process 7"),
            address: format!("{name}:1"),
            region: "r".to_owned(),
            zone: String::new(),
            level,
        }
    }

    fn apply(state: &mut State, command: &Command) -> Reply {
        state
            .apply(EntryId::default(), Stamp::default(), command)
            .reply
    }

    /// Applies what a leader proposes until it has nothing to propose; the level then.
    fn settle(state: &mut State, own: &ControlNode) -> u32 {
        while let Some(command) = proposal(state, own, u32::MAX) {
            assert_eq!(apply(state, &command), Reply::Done);
        }
        state.level().number
    }

    fn agent(state: &mut State, name: &str, level: u32) -> Incarnation {
        let agent = RegisterAgent {
            nonce: 1,
            name: name.to_owned(),
            listeners: meta::endpoint::Endpoint::alone("h", 1),
            region: "r".to_owned(),
            zone: String::new(),
            neighbour_address: String::new(),
            level,
        };
        match apply(state, &Command::RegisterAgent(agent)) {
            Reply::Registered { incarnation, .. } => incarnation,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_leader_is_registered_once_and_again_only_if_something_about_it_changed() {
        let mut state = cluster();
        let own = node("a", 3);
        settle(&mut state, &own);
        let later = ControlNode {
            nonce: 10,
            ..own.clone()
        };
        assert_eq!(proposal(&state, &later, u32::MAX), None, "a later start");
        let other_process = ControlNode {
            claims_as: "a, process 8".to_owned(),
            ..later
        };
        settle(&mut state, &other_process);
        let moved = ControlNode {
            nonce: 11,
            address: "elsewhere:1".to_owned(),
            ..other_process
        };
        settle(&mut state, &moved);
        let node = state.control_nodes().next().expect("it is registered");
        assert_eq!((&*node.address, node.level), ("elsewhere:1", 3));
        assert_eq!(node.claims_as, "a, process 8");
        let (name, nonce) = (node.name.clone(), node.nonce);
        apply(&mut state, &Command::RemoveControlNode { name, nonce });
        let again = proposal(&state, &moved, u32::MAX);
        assert!(
            matches!(again, Some(Command::RegisterControlNode(_))),
            "{again:?}"
        );
    }

    #[test]
    fn the_level_rises_as_far_as_everybody_supports_and_who_is_gone_holds_it_back_no_more() {
        let mut state = cluster();
        let old = agent(&mut state, "old", 1);
        let middle = agent(&mut state, "middle", 2);
        let other = ControlNode {
            nonce: 5,
            ..node("b", 2)
        };
        apply(&mut state, &Command::RegisterControlNode(other));
        let own = node("a", 3);
        assert_eq!(settle(&mut state, &own), 1);
        apply(&mut state, &Command::FenceAgent { incarnation: old });
        assert_eq!(proposal(&state, &own, 1), None, "the operator holds it");
        assert_eq!(settle(&mut state, &own), 2);
        apply(
            &mut state,
            &Command::FenceAgent {
                incarnation: middle,
            },
        );
        assert_eq!(settle(&mut state, &own), 2, "b does not support level 3");
        let name = "b".to_owned();
        apply(&mut state, &Command::RemoveControlNode { name, nonce: 5 });
        assert_eq!(settle(&mut state, &own), 3);
    }
}
