//! How the processes of `seaway dev --agents N --control M`, which are all on one machine, divide its memory. It must not know
//! how a process shares out its own.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use host::memory::Limit;

use super::{DEV_MAX, KIB, MEMORY, MIB, Process, Share, Shares, parts_of, total, warning};
use crate::settings::Settings;

/// What all processes of a kind have together.
const AGENTS: &str = "agents";
const CONTROL: &str = "control nodes";

/// How many processes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub agents: u32,
    pub control: u32,
}

/// The processes of one kind.
struct Kind {
    name: &'static str,
    process: Process,
    count: u64,
    /// The least that each starts with.
    least: u64,
    /// What each gets beside the others of what is left.
    weight: u64,
}

/// Divides the memory: each process gets the least that it needs, and the rest goes by the weights of its parts.
pub(super) fn divide(
    settings: &mut Settings,
    counts: Counts,
    limit: Option<Limit>,
) -> Result<Shares> {
    let kinds = [
        Kind::of(settings, AGENTS, Process::Agent, counts.agents),
        Kind::of(settings, CONTROL, Process::Control, counts.control),
    ];
    let all = |of: fn(&Kind) -> u64| -> u64 {
        let each = kinds.iter().map(|kind| of(kind).saturating_mul(kind.count));
        each.fold(0, u64::saturating_add)
    };
    let (least, weights) = (all(|kind| kind.least), all(|kind| kind.weight));
    let (total_bytes, from) = total(settings, Some(DEV_MAX.max(least)), limit);
    let Some(rest) = total_bytes.checked_sub(least) else {
        let Counts { agents, control } = counts;
        bail!(
            "{MEMORY} is {total_bytes} ({from}), and {least} is the least that {agents} agents and {control} control nodes \
             need: raise it, or start fewer"
        );
    };
    let mut shares = Shares {
        total_bytes,
        rest_bytes: limit.map(|limit| limit.bytes.saturating_sub(total_bytes)),
        parts: BTreeMap::new(),
        warning: warning(settings, total_bytes, limit),
    };
    for kind in kinds {
        let more = u128::from(rest) * u128::from(kind.weight) / u128::from(weights.max(1));
        let each = kind.least + u64::try_from(more).unwrap_or(u64::MAX) / KIB * KIB;
        kind.check(settings, each)?;
        let (bytes, given) = (each * kind.count, None);
        shares.parts.insert(kind.name, Share { bytes, given });
    }
    shares.tell(settings, from);
    Ok(shares)
}

impl Kind {
    fn of(settings: &Settings, name: &'static str, process: Process, count: u32) -> Kind {
        let (given, open) = parts_of(settings, process);
        let given = given.values().map(|share| share.bytes);
        let least = open.iter().map(|part| part.min);
        Kind {
            name,
            process,
            count: count.into(),
            least: given.chain(least).fold(0, u64::saturating_add),
            weight: open.iter().map(|part| part.weight).sum(),
        }
    }

    /// Refuses what a process of this kind would refuse at its start.
    fn check(&self, settings: &Settings, bytes: u64) -> Result<()> {
        let mut its = settings.clone();
        its.derive(MEMORY, bytes, format!("for each of the {}", self.name));
        let checked = Shares::of(&mut its, self.process, None).and_then(|_| its.check_together());
        checked.with_context(|| format!("the {} with {} MiB each", self.name, bytes / MIB))
    }
}

impl Counts {
    /// What each agent and each control node has of the memory that is divided so.
    pub fn bytes_of_each(self, shares: &Shares) -> (u64, u64) {
        let each = |name, count| shares.bytes(name) / u64::from(count).max(1);
        (each(AGENTS, self.agents), each(CONTROL, self.control))
    }
}

#[cfg(test)]
mod tests {
    use super::super::GIB;
    use super::*;
    use crate::origin::Origin;
    use host::memory::Whose;

    fn divided(set: &[&str], counts: Counts, bytes: u64) -> Result<(Settings, Shares)> {
        let mut settings = Settings::parse(set)?;
        let whose = Whose::Machine;
        let limit = Some(Limit { bytes, whose });
        let shares = Shares::of(&mut settings, Process::Family(counts), limit)?;
        settings.check_together()?;
        Ok((settings, shares))
    }

    const THREE: Counts = Counts {
        agents: 3,
        control: 3,
    };

    #[test]
    fn all_processes_together_have_what_a_cluster_in_one_process_has() {
        let (settings, shares) = divided(&[], THREE, 64 * GIB).expect("enough");
        assert_eq!(shares.total_bytes, 2 * GIB);
        assert_eq!(settings.unsigned(MEMORY), 2 * GIB);
        let (agent, control) = THREE.bytes_of_each(&shares);
        let all = 3 * agent + 3 * control;
        assert!((2 * GIB - MIB..=2 * GIB).contains(&all), "{all}");
        assert!(agent > 3 * control, "{agent}, {control}");
    }

    #[test]
    fn many_processes_have_at_least_what_they_need_on_a_machine_that_has_it() {
        let many = Counts {
            agents: 50,
            control: 9,
        };
        let (_, shares) = divided(&[], many, 64 * GIB).expect("enough");
        let (agent, control) = many.bytes_of_each(&shares);
        for (process, bytes) in [(Process::Agent, agent), (Process::Control, control)] {
            let set = format!("{MEMORY}={bytes}");
            let mut settings = Settings::parse(&[set]).expect("valid");
            Shares::of(&mut settings, process, None).expect("it starts");
        }
        let refused = divided(&[], many, 4 * GIB).expect_err("too little");
        let refused = refused.to_string();
        assert!(
            refused.contains("50 agents and 9 control nodes need"),
            "{refused}"
        );
    }

    #[test]
    fn what_is_set_each_of_a_kind_has_and_memory_is_for_all_together() {
        let set = [
            "memory.bytes=1610612736",
            "fetch.cache.bytes=134217728",
            "groups.max.bytes=33554432",
        ];
        let (settings, shares) = divided(&set, THREE, 64 * GIB).expect("enough");
        assert_eq!(shares.total_bytes, 1_536 * MIB);
        assert!(matches!(settings.origin(MEMORY), Origin::Flag(_)));
        let (agent, control) = THREE.bytes_of_each(&shares);
        assert!(3 * (agent + control) <= 1_536 * MIB);
        assert!(agent > 128 * MIB + 151 * MIB, "{agent}");
        let mut set = set.to_vec();
        set[1] = "fetch.cache.bytes=536870912";
        let refused = divided(&set, THREE, 64 * GIB).expect_err("three caches are more");
        assert!(refused.to_string().contains("start fewer"), "{refused}");
    }

    #[test]
    fn what_a_process_would_refuse_is_refused_before_it_is_started() {
        let set = ["memory.bytes=943718400", "message.max.bytes=104857600"];
        let refused = divided(&set, THREE, 64 * GIB).expect_err("a request has no room");
        let refused = format!("{refused:#}");
        assert!(refused.starts_with("the agents with "), "{refused}");
    }
}
