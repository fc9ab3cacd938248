//! Snapshots: what changes, what does not, and what is refused.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use meta::ids::{EntryId, PartitionId};
use meta::snapshot::Part;
use meta::snapshot::RestoreError;
use meta::{Command, State};

use crate::load::Load;
use crate::support::{Cluster, LATER, create, file, file_id, hex, idempotent, page, plain};

const FORMAT: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/formats/snapshot.md"
));

fn busy() -> State {
    let mut load = Load::new(3);
    let mut state = State::genesis("kHbeVPd4TfyZX0fDXsVpRA".to_owned());
    for _ in 0..1_000 {
        let (stamp, command) = load.next(&state);
        let reply = state.apply(EntryId::default(), stamp, &command).reply;
        load.learn(&command, &reply);
    }
    state
}

/// Commits `files` files of a slice in each partition.
fn fill(cluster: &mut Cluster, partitions: &[PartitionId], first: u64, files: u64) {
    for number in first..first + files {
        let mut commit = file(file_id(meta::ids::Incarnation(1), number), &[]);
        let mut position = 16;
        for partition in partitions {
            commit.push_slice(*partition, position);
            commit.push_batch(plain(1));
            position += 100;
        }
        commit.length = position;
        // Checking everything each time would take too long.
        let _ = cluster.state.apply(
            EntryId::default(),
            cluster.now,
            &Command::CommitFile(commit),
        );
    }
}

#[test]
fn parts_that_did_not_change_are_the_same_chunks_again() {
    let mut cluster = Cluster::new();
    let partitions = cluster.topic("t", 512);
    cluster.agent("a", 1);
    fill(&mut cluster, &partitions, 0, 400);
    let before: BTreeSet<Bytes> = cluster
        .state
        .capture()
        .encode_chunks()
        .into_iter()
        .collect();
    fill(&mut cluster, &partitions[..1], 400, 1);
    let after = cluster.state.capture().encode_chunks();
    let fresh: Vec<usize> = after
        .iter()
        .filter(|chunk| !before.contains(*chunk))
        .map(Bytes::len)
        .collect();
    assert!(after.len() >= 6, "{} chunks", after.len());
    assert!(
        fresh.len() <= 4,
        "header, members, a range, files: {fresh:?} of {}",
        after.len()
    );
    assert!(after.iter().all(|chunk| chunk.len() < 4 << 20));
}

#[test]
fn a_long_partition_is_cut_at_fixed_places() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    cluster.agent("a", 1);
    fill(&mut cluster, &[partition; 1_000], 0, 70);
    let before = cluster.state.capture().encode_chunks();
    let restored = State::restore(&before).expect("it can be restored");
    assert_eq!(restored.digest(), cluster.state.digest());
    fill(&mut cluster, &[partition], 70, 1);
    let after = cluster.state.capture().encode_chunks();
    let kept = after.iter().filter(|chunk| before.contains(chunk));
    let largest = kept.map(Bytes::len).max().unwrap_or(0);
    assert!(
        largest > 400_000,
        "the first run of slices is as it was: {largest}"
    );
    cluster.configure("t", "retention.bytes", "1000000");
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (60_001, 70_001));
    let chunks = cluster.state.capture().encode_chunks();
    let restored = State::restore(&chunks).expect("it can be restored");
    assert_eq!(restored.digest(), cluster.state.digest());
}

#[test]
fn a_missing_repeated_or_swapped_chunk_is_refused() {
    let chunks = busy().capture().encode_chunks();
    assert!(chunks.len() >= 5, "of every section one: {}", chunks.len());
    assert!(State::restore(&chunks).is_ok());
    assert!(State::restore::<Bytes>(&[]).is_err());
    for at in 0..chunks.len() {
        let mut missing = chunks.clone();
        missing.remove(at);
        assert!(State::restore(&missing).is_err(), "without chunk {at}");
        let mut repeated = chunks.clone();
        repeated.push(chunks[at].clone());
        assert!(State::restore(&repeated).is_err(), "chunk {at} twice");
    }
    let mut swapped = chunks.clone();
    swapped.swap(0, 1);
    assert!(State::restore(&swapped).is_err());
}

#[test]
fn damage_is_refused_or_means_another_state_but_never_panics() {
    let state = busy();
    let digest = state.digest();
    let chunks = state.capture().encode_chunks();
    let mut load = Load::new(11);
    let mut refused = 0;
    for _ in 0..400 {
        let mut damaged: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.to_vec()).collect();
        let count = u64::try_from(damaged.len()).expect("few");
        let chunk = &mut damaged[usize::try_from(load.below(count)).expect("few")];
        let length = u64::try_from(chunk.len()).expect("small");
        let at = usize::try_from(load.below(length)).expect("small");
        match load.below(3) {
            0 => chunk[at] ^= 1 << load.below(8),
            1 => chunk.truncate(at),
            _ => {
                chunk.insert(at, 0xff);
            }
        }
        match State::restore(&damaged) {
            Err(_) => refused += 1,
            Ok(other) => assert_ne!(other.digest(), digest),
        }
    }
    assert!(refused > 150, "{refused}");
}

#[test]
fn a_snapshot_of_a_later_version_says_so() {
    let mut cluster = Cluster::of(LATER);
    let node = crate::support::control_node("c", 2);
    cluster.apply(&Command::RegisterControlNode(node));
    let level = 2;
    cluster.apply(&Command::SetFeatureLevel { level });
    let chunks = cluster.state.capture().encode_chunks();
    let refused = State::restore(&chunks).err();
    assert_eq!(refused, Some(RestoreError::Newer { format: 1, level }));
    let restored = State::restore_of(LATER, &chunks).expect("that build knows the level");
    assert_eq!(restored.level().number, level);
    assert_eq!(restored.digest(), cluster.state.digest());
}

#[test]
fn an_empty_cluster_has_few_chunks() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.state.capture().encode_chunks().len(), 1);
    let partition = cluster.topic("t", 1)[0];
    cluster.apply(&create("u", 3));
    cluster.agent("a", 1);
    fill(&mut cluster, &[partition], 0, 10);
    assert_eq!(cluster.state.capture().encode_chunks().len(), 4);
}

#[test]
fn a_small_cluster_is_written_as_the_page_says() {
    let mut cluster = Cluster::new();
    let partitions = cluster.topic("t", 2);
    let run = cluster.agent("a", 1);
    let (first, second) = ([plain(2)], [idempotent(7, 0, 40, 3)]);
    let slices: [(PartitionId, &[_]); 2] = [(partitions[0], &first), (partitions[1], &second)];
    cluster.commit(&file(file_id(run, 0), &slices));
    cluster.skip(file_id(run, 1));
    let chunks = cluster.state.capture().encode_chunks();
    let mut parts: Vec<String> = chunks.iter().map(|chunk| hex(chunk)).collect();
    parts.push(hex(&cluster.state.digest()));
    let names = ["header", "members", "partitions", "files", "digest"];
    let written: BTreeMap<String, String> =
        names.map(str::to_owned).into_iter().zip(parts).collect();
    assert_eq!(page(FORMAT), written);
}

#[test]
fn what_did_not_change_keeps_its_identity_and_is_not_encoded_again() {
    let mut cluster = Cluster::new();
    let partitions = cluster.topic("t", 3);
    cluster.agent("a", 1);
    fill(&mut cluster, &partitions, 0, 12_000);
    let first = cluster.state.capture().encode(&|_| false);
    let known: BTreeSet<u128> = first
        .iter()
        .filter_map(|part| match part {
            Part::Encoded(id, _) => *id,
            Part::Same(_) => None,
        })
        .collect();
    fill(&mut cluster, &partitions[..1], 12_000, 1);
    let again = cluster.state.capture().encode(&|id| known.contains(&id));
    let whole = cluster.state.capture().encode(&|_| false);
    let mut same = 0;
    for (part, encoded) in again.iter().zip(&whole) {
        match (part, encoded) {
            (Part::Same(id), Part::Encoded(known, bytes)) => {
                assert_eq!(Some(*id), *known);
                assert!(first.contains(&Part::Encoded(*known, bytes.clone())));
                same += 1;
            }
            _ => assert_eq!(part, encoded),
        }
    }
    assert!(same > 0 && same < known.len(), "{same} of {}", known.len());
}
