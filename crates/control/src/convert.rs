//! The state machine's values as agents see them. It decides nothing.

use std::sync::Arc;

use meta::file::Fate;
use meta::member::Agent;
use meta::query::{self, SlicePlace};
use meta::state::State;
use meta::topic::{Refusal, Topic};
use rpc::control::TopicRefusal;
use rpc::view::{AgentView, ClusterView, FileFate, Located, Place, TopicView};

/// Where a slice lies.
pub(crate) fn place(place: &SlicePlace) -> Place {
    Place {
        file: place.file,
        nonce: place.nonce,
        file_length: place.file_length,
        position: place.position,
        length: place.length,
        base_offset: place.base_offset,
        last_offset: place.last_offset,
        max_timestamp: place.max_timestamp,
    }
}

pub(crate) fn located(located: query::Located) -> Located {
    match located {
        query::Located::Found {
            log_start,
            high_watermark,
            places,
        } => Located::Found {
            log_start,
            high_watermark,
            places: places.iter().map(place).collect(),
        },
        query::Located::OutOfRange {
            log_start,
            high_watermark,
        } => Located::OutOfRange {
            log_start,
            high_watermark,
        },
        query::Located::UnknownPartition => Located::Unknown,
    }
}

/// What may be done with a file.
pub(crate) fn fate(fate: Fate) -> FileFate {
    match fate {
        Fate::Live => FileFate::Live,
        Fate::Tombstoned => FileFate::Tombstoned,
        Fate::Undecided => FileFate::Undecided,
        Fate::Dead => FileFate::Dead,
    }
}

/// Why a change of topics was refused.
pub(crate) fn refusal(refusal: &Refusal) -> TopicRefusal {
    let reason = refusal.to_string();
    match refusal {
        Refusal::Exists { .. } => TopicRefusal::Exists(reason),
        Refusal::Unknown => TopicRefusal::Unknown(reason),
        Refusal::InvalidName { .. } => TopicRefusal::InvalidName(reason),
        Refusal::InvalidPartitions { .. } => TopicRefusal::InvalidPartitions(reason),
        Refusal::InvalidConfig { .. } => TopicRefusal::InvalidConfig(reason),
        Refusal::Policy { .. } => TopicRefusal::Policy(reason),
    }
}

/// The agents and the topics, unless they are known.
pub(crate) fn view(state: &State, known: Option<u64>) -> Option<ClusterView> {
    let version = state.view_version();
    if known == Some(version) {
        return None;
    }
    let topics = state.topics();
    let topic = |topic: &Arc<Topic>| TopicView {
        topic: Arc::clone(topic),
        cluster_configs: Arc::clone(topics.cluster_configs()),
    };
    Some(ClusterView {
        cluster_id: state.cluster_id().to_owned(),
        agents: state.agents().map(agent).collect(),
        topics: topics.shared().map(topic).collect(),
        cluster_configs: Arc::clone(topics.cluster_configs()),
        version,
    })
}

fn agent(agent: &Agent) -> AgentView {
    AgentView {
        id: agent.id,
        host: agent.host.clone(),
        port: agent.port,
        region: agent.region.clone(),
        zone: agent.zone.clone(),
        incarnation: agent.incarnation,
    }
}
