//! The state machine's values as agents see them. It decides nothing.

use std::sync::Arc;

use meta::config;
use meta::file::Fate;
use meta::member::Agent;
use meta::query::{self, SlicePlace};
use meta::state::State;
use meta::topic::{Refusal, Topic};
use rpc::control::TopicRefusal;
use rpc::view::{AgentView, ClusterView, FileFate, Located, Place, TopicQuery, TopicView};

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

/// Where records are.
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

/// The agents, and the topics asked for.
pub(crate) fn view(state: &State, query: &TopicQuery) -> ClusterView {
    let chosen: Vec<&Topic> = match query {
        TopicQuery::All => state.topics().iter().collect(),
        TopicQuery::Names(names) => names.iter().filter_map(|name| state.topic(name)).collect(),
        TopicQuery::Ids(ids) => ids.iter().filter_map(|id| state.topic_by_id(*id)).collect(),
    };
    ClusterView {
        cluster_id: state.cluster_id().to_owned(),
        agents: state.agents().map(agent).collect(),
        topics: chosen
            .into_iter()
            .map(|chosen| Arc::new(topic(state, chosen)))
            .collect(),
        version: state.view_version(),
    }
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

fn topic(state: &State, topic: &Topic) -> TopicView {
    let effective = config::TOPIC.iter();
    let effective = effective.map(|spec| {
        (
            spec.name.to_owned(),
            state.topic_config(topic, spec.name).to_owned(),
        )
    });
    TopicView {
        id: topic.id,
        name: topic.name.clone(),
        partitions: topic.partitions.clone(),
        configs: topic.configs.clone(),
        effective: effective.collect(),
    }
}
