//! Derives the settings of each part from the operator's.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::settings::{BrokerConfig, Budgets};
use anyhow::Result;

use crate::config::shares::Shares;
use crate::fail_points;
use crate::origin::Origin;
use crate::settings::{self, Settings};
use crate::version::VERSION;

/// The name of the only agent and control node of `seaway dev`; the agent's Kafka node id follows it.
pub const DEV: &str = "dev";
/// An agent whose connection to the leader is lost is fenced unless it has called again after so long.
const LOST_FOR: Duration = Duration::from_millis(200);
/// A snapshot is taken at least this often while entries are appended.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(600);

/// Who a control node is.
pub struct Identity<'a> {
    /// It stays the same from start to start.
    pub name: &'a str,
    /// Where others reach it.
    pub address: &'a str,
    /// True if there is no other, so that it takes the lead at once.
    pub is_alone: bool,
}

/// A leader may spend so many times what one agent may, on entries alone, since it writes them for
/// the whole cluster: those that three agents' trickles cause do not wait for each other, and those
/// of more agents share entries.
const LEADER_SHARE: u64 = 2;

/// And one entry for each 64 KiB of files: from that size on agents may cut them at once, and what
/// an entry costs is little beside the time of their producers.
const ENTRIES_PER_MIB: u64 = 16;

/// What an agent may spend on requests to its bucket in a second; 0: as much as it takes, as on a
/// bucket that nobody bills.
fn requests_per_second(settings: &Settings, is_billed: bool) -> u64 {
    match is_billed {
        true => settings.unsigned("flush.requests.per.second"),
        false => 0,
    }
}

/// The control node's settings.
pub fn control(
    settings: &Settings,
    shares: &Shares,
    cluster_id: &str,
    identity: &Identity<'_>,
    is_billed: bool,
) -> control::Settings {
    let name = claims_as(identity);
    let mut journal = match identity.is_alone {
        true => journal::node::Settings::alone(name),
        false => journal::node::Settings::one_of_several(name),
    };
    // After an outage the journal's requests are repeated at this interval, which bounds how soon
    // service is back.
    journal.retry_max = Duration::from_millis(500);
    journal.append_thrift = host::thrift::Limits {
        per_second: LEADER_SHARE * requests_per_second(settings, is_billed),
        per_mib: ENTRIES_PER_MIB,
        wait_max: settings.millis("flush.interval.max.ms"),
    };
    journal.heartbeat_interval = settings.millis("journal.heartbeat.ms");
    journal.queue_bytes_max = size(shares.bytes("queue of the journal"));
    journal.entry_bytes_max = settings.size("journal.entry.max.bytes");
    journal.snapshot = journal::node::SnapshotPolicy {
        entries: settings.unsigned("journal.snapshot.entries"),
        bytes: settings.unsigned("journal.snapshot.bytes"),
        interval: SNAPSHOT_INTERVAL,
        ..journal.snapshot
    };
    journal.quarantine = settings.quarantine().ok();
    control::Settings {
        cluster_id: cluster_id.to_owned(),
        levels: meta::level::Levels::KNOWN,
        level_max: settings.level_max(),
        version: VERSION.to_owned(),
        // The name in claims also tells one process from another, and is registered too; this one
        // stays the same.
        identity: control::membership::Identity {
            name: identity.name.to_owned(),
            address: identity.address.to_owned(),
            region: settings.text("region").to_owned(),
            zone: settings.text(settings::ZONE).to_owned(),
        },
        journal,
        groups: control::coordinator::Settings {
            initial_rebalance_delay: settings.millis("group.initial.rebalance.delay.ms"),
            session_timeout_min: settings.millis("group.min.session.timeout.ms"),
            session_timeout_max: settings.millis("group.max.session.timeout.ms"),
            members_max: u32::try_from(settings.unsigned("group.max.size")).unwrap_or(u32::MAX),
            bytes_max: shares.bytes("groups.max.bytes"),
            awaited_bytes_max: shares.bytes("awaited members"),
        },
        group_requests_bytes: shares.bytes("requests to groups"),
        notices_bytes: size(shares.bytes("notices")),
        // A snapshot, or a start, holds a second copy for a while.
        metadata_bytes_max: shares.rest_bytes.map_or(u64::MAX, |rest| rest / 2),
        housekeeping_interval: settings.millis("log.retention.check.interval.ms"),
        cluster_configs: control::configs::Wanted {
            configs: cluster_configs(settings),
            replaces: u64::try_from(settings.integer("cluster.configs.replace")).ok(),
            placement: None,
        },
        presence: (!identity.is_alone).then(|| attendance(settings)),
    }
}

/// How long others may be silent before the leader takes them for gone.
fn attendance(settings: &Settings) -> control::attendance::Settings {
    let within = |silence_max, lost_for| control::presence::Settings {
        silence_max,
        lost_for,
    };
    let forgotten_after = settings.millis("control.silence.max.ms");
    control::attendance::Settings {
        agents: within(settings.millis("agent.silence.max.ms"), LOST_FOR),
        followers: within(forgotten_after, forgotten_after),
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Settings that the whole cluster shares, as the state machine names them.
fn cluster_configs(settings: &Settings) -> BTreeMap<String, String> {
    let shared = settings.all().filter(|(name, _)| {
        meta::level::Levels::KNOWN
            .newest()
            .cluster_config(name)
            .is_some()
    });
    shared
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A name for the control node that tells people where to find it: it stands in the node's claims,
/// and other processes on the same bucket show it.
fn claims_as(identity: &Identity<'_>) -> String {
    let Identity { name, address, .. } = identity;
    let machine = host::process::machine_name();
    let process = std::process::id();
    let name = format!("{name} at {address}, process {process} on {machine}");
    // A claim has room for 255 bytes.
    name.chars().filter(char::is_ascii).take(255).collect()
}

/// Open files that are kept from clients' connections: a quarter of what the process may have.
const FILES_RESERVE_SHARE: u64 = 4;
/// The least of that reserve: listeners, the journal and its directory, 64 HTTP connections, some
/// requests to the bucket.
const FILES_RESERVE_MIN: u64 = 128;
/// The most of that reserve: no node makes as many requests to the bucket at one time.
const FILES_RESERVE_MAX: u64 = 1_024;

/// How many clients may connect if the process may open `files`.
fn connections_max(settings: &Settings, files: u64) -> usize {
    let reserve = (files / FILES_RESERVE_SHARE).clamp(FILES_RESERVE_MIN, FILES_RESERVE_MAX);
    let left = (files - reserve.min(files / 2)).max(1);
    let wanted = settings.unsigned("max.connections");
    if left < wanted {
        tracing::info!(
            connections = left,
            wanted,
            open_files = files,
            "max.connections is lowered, since the process may open no more files (ulimit -Hn)"
        );
    }
    usize::try_from(left.min(wanted)).unwrap_or(usize::MAX)
}

/// The settings of the agent of this name; `files` may be open at one time.
pub fn agent(
    settings: &Settings,
    shares: &Shares,
    name: &str,
    files: u64,
    is_billed: bool,
) -> Result<agent::Settings> {
    let narrow = |name: &str| u32::try_from(settings.unsigned(name)).unwrap_or(u32::MAX);
    Ok(agent::Settings {
        name: name.to_owned(),
        levels: meta::level::Levels::KNOWN,
        region: settings.text("region").to_owned(),
        zone: settings.text(settings::ZONE).to_owned(),
        auto_create_topics_enable: settings.boolean("auto.create.topics.enable"),
        num_partitions: narrow("num.partitions"),
        socket_request_max_bytes: narrow("socket.request.max.bytes"),
        max_connections: connections_max(settings, files),
        max_connections_per_ip: settings.size("max.connections.per.ip"),
        connections_max_idle: settings.millis("connections.max.idle.ms"),
        budgets: budgets(shares),
        fetch_max_bytes: settings.unsigned("fetch.max.bytes"),
        fetch_sessions_max: settings.size("max.incremental.fetch.session.cache.slots"),
        flush_bytes: settings.unsigned("flush.bytes"),
        file_batches_max: file_batches_max(settings),
        flush_interval: settings.millis("flush.interval.ms"),
        flush_interval_max: settings.millis("flush.interval.max.ms"),
        flush_requests_per_second: requests_per_second(settings, is_billed),
        upload_concurrency: settings.size("upload.concurrency"),
        upload_timeout: settings.millis("upload.timeout.ms"),
        bucket_reserve_bytes: settings.unsigned("bucket.reserve.bytes"),
        collect_interval: settings.millis("collect.interval.ms"),
        collect_list_interval: settings.millis("collect.list.interval.ms"),
        repair_bytes_per_second: settings.unsigned("repair.bytes.per.second"),
        repair_files_per_second: settings.unsigned("repair.files.per.second"),
        file_delete_grace: settings.millis("file.delete.grace.ms"),
        version: VERSION.to_owned(),
        tells_presence: false,
        broker_configs: settings::all()
            .into_iter()
            .map(|setting| BrokerConfig {
                setting,
                value: settings.text(setting.name).to_owned(),
                is_derived: matches!(settings.origin(setting.name), Origin::Derived(_)),
            })
            .collect(),
        fail_points: fail_points::of_agent()?,
    })
}

/// What the agent's caches and buffers have.
fn budgets(shares: &Shares) -> Budgets {
    Budgets {
        produce_bytes: shares.bytes("produce.buffer.bytes"),
        beginnings_bytes: shares.bytes("beginnings of requests"),
        other_bytes: shares.bytes("requests without records"),
        decoded_bytes: shares.bytes("decoded requests"),
        members_bytes: shares.bytes("waiting members"),
        produce_answers_bytes: shares.bytes("answers to produce requests"),
        answers_bytes: shares.bytes("answers"),
        unpacking_bytes: shares.bytes("decompressing"),
        cache_bytes: shares.bytes("fetch.cache.bytes"),
        fetch_bytes: shares.bytes("fetch.buffer.bytes"),
        sessions_bytes: shares.bytes("fetch sessions"),
        tails_bytes: shares.bytes("tails of partitions"),
    }
}

/// The most batches in one file: its commit is one command, which must fit into an entry of the
/// journal.
fn file_batches_max(settings: &Settings) -> usize {
    let entry_bytes = settings.size("journal.entry.max.bytes");
    meta::encoding::batches_in_commit(entry_bytes.saturating_sub(journal::entry::ITEM_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::shares::Process;

    fn configured(set: &[&str]) -> (Settings, Shares) {
        let mut settings = Settings::parse(set).expect("valid");
        let shares = Shares::of(&mut settings, Process::Dev, None).expect("enough memory");
        (settings, shares)
    }

    #[test]
    fn every_budget_has_a_share() {
        let (settings, shares) = configured(&[]);
        let agent = agent(&settings, &shares, DEV, 4_096, false)
            .expect("valid")
            .budgets;
        let identity = Identity {
            name: DEV,
            address: "10.0.0.7:9092",
            is_alone: true,
        };
        let cluster_id = "AAAAAAAAAAAAAAAAAAAAAA";
        let control = control(&settings, &shares, cluster_id, &identity, false);
        let of_agent = [
            agent.produce_bytes,
            agent.beginnings_bytes,
            agent.other_bytes,
            agent.decoded_bytes,
            agent.members_bytes,
            agent.produce_answers_bytes,
            agent.answers_bytes,
            agent.unpacking_bytes,
            agent.cache_bytes,
            agent.fetch_bytes,
            agent.sessions_bytes,
            agent.tails_bytes,
        ];
        let of_control = [
            control.groups.bytes_max,
            control.groups.awaited_bytes_max,
            control.group_requests_bytes,
            control.notices_bytes as u64,
            control.journal.queue_bytes_max as u64,
        ];
        assert!(!of_agent.contains(&0) && !of_control.contains(&0));
        let connections = settings.unsigned("max.connections") * 4_096;
        let indexes = shares.bytes("indexes of large files");
        let counted: u64 = of_agent.iter().chain(&of_control).sum();
        let all: u64 = shares.parts().map(|(_, share)| share.bytes).sum();
        assert!(all.abs_diff(counted + connections + indexes) < 4_096);
    }

    #[test]
    fn connections_leave_files_for_the_bucket() {
        let connections = |files| {
            let settings = Settings::parse(&["max.connections=10000"]).expect("valid");
            connections_max(&settings, files)
        };
        assert_eq!(connections(1 << 20), 10_000);
        assert_eq!(connections(4_096), 3_072);
        assert_eq!(connections(1_024), 768);
        assert_eq!(connections(256), 128);
        assert_eq!(connections(64), 32);
    }

    #[test]
    fn who_is_asked_and_does_not_lead_tells_at_what_address_the_leader_is() {
        let (settings, shares) = configured(&[]);
        let identity = Identity {
            name: "c-1",
            address: "10.0.0.7:9092",
            is_alone: false,
        };
        let cluster_id = "AAAAAAAAAAAAAAAAAAAAAA";
        let leader = control(&settings, &shares, cluster_id, &identity, false);
        let mut state = meta::State::genesis(leader.cluster_id.clone());
        let register = meta::Command::RegisterControlNode(leader.registration(1));
        let (entry, stamp) = (meta::ids::EntryId::default(), meta::ids::Stamp::default());
        state.apply(entry, stamp, &register);
        let name = leader.journal.name;
        let refusal = journal::node::Refusal::NotLeader {
            leader: Some(name.clone()),
        };
        let refused = journal::node::ProposeError::Definite(refusal);
        let address = Some("10.0.0.7:9092".to_owned());
        let leader = Some(rpc::Leader {
            name,
            address,
            claim: 7,
        });
        let told = control::answer::failed(&state, 7, refused);
        assert_eq!(told, rpc::Error::NotLeader { leader });
    }

    #[test]
    fn a_file_has_as_many_batches_as_an_entry_can_name() {
        // docs/produce-and-fetch.md states both numbers.
        for (entry_bytes, batches) in [(65_536, 945), (4_194_304, 60_783)] {
            let set = format!("journal.entry.max.bytes={entry_bytes}");
            let settings = Settings::parse(&[set]).expect("valid");
            assert_eq!(file_batches_max(&settings), batches);
        }
    }
}
