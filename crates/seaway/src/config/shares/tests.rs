//! What each part gets of much memory, of little, and beside what an operator says.

use super::*;

fn machine(bytes: u64) -> Option<Limit> {
    let whose = Whose::Machine;
    Some(Limit { bytes, whose })
}

fn container(bytes: u64) -> Option<Limit> {
    let whose = Whose::Container;
    Some(Limit { bytes, whose })
}

fn shared(process: Process, limit: Option<Limit>, set: &[&str]) -> Result<(Settings, Shares)> {
    let mut settings = Settings::parse(set)?;
    let shares = Shares::of(&mut settings, process, limit)?;
    settings.check_together()?;
    Ok((settings, shares))
}

fn refusal(process: Process, limit: Option<Limit>, set: &[&str]) -> String {
    let refused = shared(process, limit, set);
    refused.expect_err("must be refused").to_string()
}

fn sum(shares: &Shares) -> u64 {
    shares.parts().map(|(_, share)| share.bytes).sum()
}

#[test]
fn the_parts_are_within_their_bounds_and_together_within_the_memory() {
    for process in [Process::Dev, Process::Agent, Process::Control] {
        let mut last = BTreeMap::new();
        for mib in (238..1_024).step_by(7).chain((1_024..65_536).step_by(997)) {
            let set = format!("memory.bytes={}", mib * MIB);
            let (_, shares) = shared(process, None, &[&set]).expect("enough");
            assert!(sum(&shares) <= mib * MIB, "{process:?} {mib}: {shares:?}");
            let parts = PARTS.iter().filter(|part| part.of.contains(&process));
            assert_eq!(shares.parts().count(), parts.clone().count());
            for part in parts {
                let bytes = shares.bytes(part.name);
                assert!((part.min..=part.max).contains(&bytes), "{mib}: {shares:?}");
                let less = last.insert(part.name, bytes).unwrap_or(0);
                assert!(less <= bytes, "more memory is never less for {}", part.name);
            }
        }
    }
}

#[test]
fn all_memory_of_an_agent_is_used_and_a_large_one_is_cache() {
    let (settings, shares) = shared(Process::Agent, machine(64 * GIB), &[]).expect("enough");
    let total = 64 * GIB / 100 * 60;
    assert_eq!(settings.unsigned(MEMORY), total);
    assert!(total - sum(&shares) < MIB, "{shares:?}");
    assert!(shares.bytes("fetch.cache.bytes") > 34 * GIB, "{shares:?}");
    assert_eq!(shares.bytes(PRODUCE), GIB);
    let from = settings.origin(MEMORY).to_string();
    assert_eq!(from, "60 % of the machine's 65536 MiB");
}

#[test]
fn a_whole_cluster_in_one_process_leaves_most_of_a_large_machine_alone() {
    let (settings, shares) = shared(Process::Dev, machine(64 * GIB), &[]).expect("enough");
    assert_eq!(shares.total_bytes, 2 * GIB);
    assert!(sum(&shares) <= 2 * GIB);
    assert!(shares.bytes("fetch.cache.bytes") > 512 * MIB, "{shares:?}");
    assert_eq!(settings.unsigned(CONNECTIONS_MAX), 10_000);
    assert_eq!(settings.origin(CONNECTIONS_MAX), &Origin::Default);
    assert_eq!(settings.origin(REQUEST), &Origin::Default);
    let (_, asked) = shared(
        Process::Dev,
        machine(64 * GIB),
        &["memory.bytes=17179869184"],
    )
    .expect("who asks for more gets it");
    assert_eq!(asked.total_bytes, 16 * GIB);
}

#[test]
fn a_small_container_has_small_buffers_and_limits_that_fit_into_them() {
    for process in [Process::Dev, Process::Agent] {
        let (settings, shares) = shared(process, container(512 * MIB), &[]).expect("enough");
        assert_eq!(shares.total_bytes, 512 * MIB / 100 * 60);
        let produce = shares.bytes(PRODUCE);
        assert!((32 * MIB..100 * MIB).contains(&produce), "{produce}");
        assert_eq!(settings.unsigned(REQUEST), produce);
        assert_eq!(
            settings.origin(REQUEST).to_string(),
            "as produce.buffer.bytes"
        );
    }
}

#[test]
fn an_agent_in_a_small_container_takes_ten_thousand_connections_and_fewer_in_the_least_one() {
    let connections = |bytes| {
        let (settings, _) = shared(Process::Agent, container(bytes), &[]).expect("enough");
        settings.unsigned(CONNECTIONS_MAX)
    };
    assert_eq!(connections(512 * MIB), 10_000);
    assert!((256..10_000).contains(&connections(320 * MIB)));
}

#[test]
fn what_is_set_is_left_alone_and_the_others_have_the_rest() {
    let set = [
        "memory.bytes=1073741824",
        "fetch.cache.bytes=536870912",
        "max.connections=10000",
    ];
    let (settings, shares) = shared(Process::Agent, None, &set).expect("enough");
    assert_eq!(shares.bytes("fetch.cache.bytes"), 512 * MIB);
    assert_eq!(shares.bytes(CONNECTIONS), 40_000 * KIB);
    assert_eq!(settings.unsigned(CONNECTIONS_MAX), 10_000);
    assert!(sum(&shares) <= GIB);
    assert!(GIB - sum(&shares) < MIB, "{shares:?}");
    let zero = shared(Process::Agent, None, &["fetch.cache.bytes=0"]).expect("as if absent");
    assert_eq!(zero.1, shared(Process::Agent, None, &[]).expect("enough").1);
}

#[test]
fn the_largest_request_and_the_largest_entry_that_are_set_have_room() {
    let set = [
        "memory.bytes=536870912",
        "socket.request.max.bytes=150000000",
        "journal.entry.max.bytes=67108864",
    ];
    let (_, shares) = shared(Process::Dev, None, &set).expect("enough");
    assert_eq!(shares.bytes(PRODUCE), 150_000_000);
    assert_eq!(shares.bytes(QUEUE), 64 * MIB);
    let refused = refusal(
        Process::Dev,
        None,
        &[
            "produce.buffer.bytes=16777216",
            "socket.request.max.bytes=16777217",
        ],
    );
    assert!(
        refused.contains("is greater than produce.buffer.bytes"),
        "{refused}"
    );
}

#[test]
fn memory_that_is_too_little_is_refused_with_the_least() {
    // docs/configuration.md states these.
    for (process, least) in [
        (Process::Dev, 234 * MIB),
        (Process::Agent, 180 * MIB),
        (Process::Control, 70 * MIB),
    ] {
        let set = |bytes: u64| format!("memory.bytes={bytes}");
        shared(process, None, &[&set(least)]).expect("just enough");
        let refused = refusal(process, None, &[&set(least - 1)]);
        assert!(refused.contains("is the least"), "{refused}");
    }
    let refused = refusal(Process::Dev, container(256 * MIB), &[]);
    assert!(
        refused.contains("60 % of the container's 256 MiB"),
        "{refused}"
    );
    let told = refused
        .split("give the process ")
        .nth(1)
        .expect("what to do");
    let mib: u64 = told
        .split(' ')
        .next()
        .and_then(|mib| mib.parse().ok())
        .expect("MiB");
    shared(Process::Dev, container(mib * MIB), &[]).expect("what was told is enough");
}

#[test]
fn what_is_set_beyond_the_memory_is_refused_with_its_names() {
    let set = ["memory.bytes=536870912", "fetch.cache.bytes=536870913"];
    let refused = refusal(Process::Agent, None, &set);
    assert!(refused.contains("fetch.cache.bytes=536870913"), "{refused}");
    assert!(refused.contains("more than memory.bytes"), "{refused}");
    let set = ["memory.bytes=536870912", "produce.buffer.bytes=500000000"];
    let refused = refusal(Process::Agent, None, &set);
    assert!(
        refused.contains("the other caches and buffers need"),
        "{refused}"
    );
    // A control node has no cache, whatever its file says.
    shared(Process::Control, None, &set).expect("it does not count");
}

#[test]
fn more_than_there_is_is_warned_of() {
    let set = ["memory.bytes=4294967296"];
    let (_, shares) = shared(Process::Dev, container(2 * GIB), &set).expect("it is allowed");
    let warning = shares.warning().expect("a warning");
    assert!(warning.contains("the container's limit"), "{warning}");
    let (_, shares) = shared(Process::Dev, container(8 * GIB), &set).expect("enough");
    assert_eq!(shares.warning(), None);
}
