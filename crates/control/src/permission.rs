//! Who may ask what: nobody speaks for an agent or a control node but itself, and control nodes alone say to each other what they
//! say. Pure. It must not know how it is proved who asks.
//!
//! What clients want, any agent may ask for: clients may come to any.

use meta::State;
use meta::command::Command;
use meta::ids::Incarnation;
use meta::view::Whose;
use rpc::group::GroupRequest;
use rpc::peer::PeerRequest;
use rpc::{Call, Speaker};

/// What is to be done about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// It depends on what is not applied here yet.
    NotKnownYet,
    /// It is not the caller's to ask; why.
    Refused(String),
}

/// Whether somebody may ask this, as far as `state` knows.
pub fn judge(state: &State, speaker: &Speaker, call: &Call) -> Verdict {
    match speaker {
        Speaker::Believed => Verdict::Allowed,
        Speaker::Agent(name) | Speaker::Relayed { agent: name, .. } => of_agent(state, name, call),
        Speaker::ControlNode(name) => of_control_node(state, name, call),
    }
}

fn of_agent(state: &State, name: &str, call: &Call) -> Verdict {
    let incarnation = match call {
        Call::Peer(_) => return refused("only control nodes ask that of each other"),
        Call::Present { incarnation, .. } => *incarnation,
        Call::Group(GroupRequest::Commit(commit)) => match commit.by {
            Some(incarnation) => incarnation,
            None => return refused("an agent says by which of its runs it passes a commit on"),
        },
        Call::Propose(command) => match &**command {
            Command::RegisterControlNode(_) => {
                return refused("an agent registers no control node");
            }
            Command::RegisterAgent(agent) => return of_name("agent", &agent.name, name),
            Command::DrainAgent { incarnation } | Command::FenceAgent { incarnation } => {
                *incarnation
            }
            Command::CommitFile(file) => file.file.incarnation,
            Command::SkipFile { file } => file.incarnation,
            Command::DropCopies(told) => told.by,
            Command::BucketCompared(told) => told.by,
            _ => return Verdict::Allowed,
        },
        _ => return Verdict::Allowed,
    };
    of_incarnation(state, incarnation, name)
}

fn of_control_node(state: &State, name: &str, call: &Call) -> Verdict {
    match call {
        Call::Peer(PeerRequest::Follows(follower)) => {
            let mut nodes = state.control_nodes();
            match nodes.find(|node| node.nonce == follower.nonce) {
                Some(node) => of_name("control node", &node.name, name),
                None => Verdict::Allowed,
            }
        }
        Call::Propose(command) => match &**command {
            Command::RegisterControlNode(node) => of_name("control node", &node.name, name),
            _ => refused("only agents propose that"),
        },
        Call::Present { .. } | Call::Group(_) | Call::Heartbeats(_) => {
            refused("only agents ask that")
        }
        Call::Peer(
            PeerRequest::Name
            | PeerRequest::Succeed { .. }
            | PeerRequest::Asked
            | PeerRequest::CanStore
            | PeerRequest::Progress { .. }
            | PeerRequest::Condition,
        )
        | Call::Check(_)
        | Call::Barrier
        | Call::View { .. }
        | Call::Locate { .. }
        | Call::Bounds(_)
        | Call::FindTime { .. }
        | Call::Collectable { .. }
        | Call::Short { .. }
        | Call::Stored(_)
        | Call::Fates(_)
        | Call::WhoLeads => Verdict::Allowed,
    }
}

fn of_incarnation(state: &State, incarnation: Incarnation, name: &str) -> Verdict {
    match state.whose(incarnation) {
        Whose::Of(agent) => of_name("agent", &agent.name, name),
        // Whatever is proposed in its name has no effect, and whoever proposes it is told that.
        Whose::Nobodys => Verdict::Allowed,
        Whose::NotGivenYet => Verdict::NotKnownYet,
    }
}

fn of_name(role: &str, named: &str, name: &str) -> Verdict {
    match named == name {
        true => Verdict::Allowed,
        false => refused(&format!("only {role} {named} itself asks that")),
    }
}

fn refused(why: &str) -> Verdict {
    Verdict::Refused(why.to_owned())
}

#[cfg(test)]
mod tests;
