//! The invariants of every state. `check_all` walks everything; `check_touched` only what one
//! command may have changed, at a cost in proportion to the command.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::nouns::behind::Trail;
use crate::nouns::kept::Kept;
use crate::nouns::partition::Partition;
use crate::nouns::short::{Only, Shortage};
use crate::nouns::slice::Slice;
use crate::nouns::topic::Topic;
use crate::state::State;
use crate::terms::command::{Command, DropCopies};
use crate::terms::ids::{FileId, Incarnation, PartitionId};

/// The invariant that does not hold, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(String);

macro_rules! ensure {
    ($holds:expr, $($sentence:tt)+) => {
        if !$holds {
            return Err(Violation(format!($($sentence)+)));
        }
    };
}

/// Slices and bytes that partitions hold of each file, in the order of all files: ten million slices
/// are looked up in it.
struct Tally {
    files: Vec<(FileId, (u64, u64))>,
    /// Where the files of an incarnation begin and end.
    runs: BTreeMap<Incarnation, Range<usize>>,
}

impl Tally {
    fn new(state: &State) -> Self {
        let files: Vec<_> = state.files.iter().map(|(id, _)| (id, (0, 0))).collect();
        let mut runs: BTreeMap<Incarnation, Range<usize>> = BTreeMap::new();
        for (at, (id, _)) in files.iter().enumerate() {
            runs.entry(id.incarnation).or_insert(at..at).end = at + 1;
        }
        Tally { files, runs }
    }

    fn add(&mut self, slice: &Slice) -> Result<(), Violation> {
        let held = self.find(slice.file).and_then(|at| self.files.get_mut(at));
        ensure!(
            held.is_some(),
            "a slice lies in {}, which does not exist",
            slice.file
        );
        if let Some((_, (slices, live))) = held {
            *slices += 1;
            *live = live.saturating_add(u64::from(slice.length));
        }
        Ok(())
    }

    fn find(&self, id: FileId) -> Option<usize> {
        let run = self.runs.get(&id.incarnation)?;
        let files = self.files.get(run.clone())?;
        // As long as none of an incarnation is forgotten but its first, numbers are places.
        let (first, _) = files.first()?;
        let guess = usize::try_from(id.number.checked_sub(first.number)?).ok()?;
        let found = match files.get(guess) {
            Some((there, _)) if *there == id => guess,
            _ => files.binary_search_by_key(&id, |(id, _)| *id).ok()?,
        };
        Some(run.start + found)
    }
}

/// Checks everything, groups included, in time proportional to the state.
///
/// # Panics
/// If a group contradicts itself.
pub fn check_all(state: &State) -> Result<(), Violation> {
    check_structure(state)?;
    check_behind(state)?;
    state.groups.assert_invariants();
    Ok(())
}

/// Checks everything but the inside of groups; never panics.
pub(crate) fn check_structure(state: &State) -> Result<(), Violation> {
    let mut tally = Tally::new(state);
    let mut producers = 0;
    for (number, partition) in state.partitions.iter() {
        check_partition(PartitionId(number), partition, &mut tally)?;
        producers += partition.producers.len();
    }
    for (id, partition) in state.doomed.iter() {
        check_partition(*id, partition, &mut tally)?;
        ensure!(
            state.partitions.get(id.0).is_none(),
            "{id:?} is doomed and alive"
        );
        ensure!(
            partition.slices.len() > 0,
            "{id:?} is doomed without slices"
        );
        producers += partition.producers.len();
        ensure!(
            state.topics.get(partition.topic).is_none(),
            "{id:?} is doomed, its topic lives"
        );
    }
    ensure!(
        producers == state.producers,
        "{producers} producers are remembered, {} are counted",
        state.producers
    );
    check_topics(state)?;
    check_files(state, &tally)?;
    check_members(state)
}

/// Checks what a command that was just applied may have changed.
pub fn check_touched(state: &State, command: &Command) -> Result<(), Violation> {
    match command {
        Command::CommitFile(command) => {
            check_decided(state, command.file)?;
            check_copies(state, command.file)?;
            for partition in &command.slices.partition {
                let Some(partition) = state.partitions.get(*partition) else {
                    continue;
                };
                check_end(state, partition)?;
            }
            Ok(())
        }
        Command::SkipFile { file } => check_decided(state, *file),
        Command::AddCopies { files, .. } | Command::DropCopies(DropCopies { files, .. }) => {
            let mut files = files.iter();
            files.try_for_each(|copy| check_copies(state, copy.file))
        }
        Command::CreateTopic(create) => check_topic_of(state, create.id),
        Command::CreatePartitions { id, .. } => check_topic_of(state, *id),
        Command::RegisterAgent(_)
        | Command::FenceAgent { .. }
        | Command::DrainAgent { .. }
        | Command::SetAgentCutOff { .. } => check_members(state),
        _ => Ok(()),
    }
}

/// A number below the next has either a file or none; one above has none.
fn check_decided(state: &State, id: FileId) -> Result<(), Violation> {
    let next = state
        .members
        .runs
        .get(&id.incarnation)
        .map_or(0, |run| run.next_number);
    let file = state.files.get(id);
    ensure!(
        file.is_none() || id.number < next,
        "file {id} exists before it was decided"
    );
    if let Some(file) = file {
        ensure!(
            file.is_tombstoned() == (file.live_slices == 0),
            "file {id} is a tombstone with {} live slices",
            file.live_slices
        );
    }
    Ok(())
}

/// The end of a partition: what a commit changes.
fn check_end(state: &State, partition: &Partition) -> Result<(), Violation> {
    let of = (partition.topic, partition.index);
    ensure!(
        (0..=partition.high_watermark).contains(&partition.log_start),
        "{of:?}: the log start lies outside the log"
    );
    let Some(last) = partition.slices.last() else {
        return Ok(());
    };
    ensure!(
        last.end() <= partition.high_watermark,
        "{of:?}: the last slice goes beyond the end"
    );
    let file = state.files.get(last.file);
    ensure!(
        file.is_some_and(|file| file.live_slices > 0 && !file.is_tombstoned()),
        "{of:?}: the last slice is in a file that is not live"
    );
    Ok(())
}

fn check_topic_of(state: &State, id: crate::terms::ids::TopicId) -> Result<(), Violation> {
    state
        .topics
        .get(id)
        .map_or(Ok(()), |topic| check_topic(state, topic))
}

fn check_topic(state: &State, topic: &Topic) -> Result<(), Violation> {
    let name = &topic.name;
    ensure!(
        !topic.partitions.is_empty(),
        "topic {name} has no partitions"
    );
    ensure!(
        topic.partitions.is_sorted_by(|a, b| a < b),
        "topic {name}: partition ids do not rise with their index"
    );
    for (index, id) in (0_u32..).zip(&topic.partitions) {
        ensure!(
            id.0 >= 1 && id.0 <= state.last_partition,
            "{id:?} was never given"
        );
        let partition = state.partitions.get(id.0);
        let knows = |partition: &Partition| (partition.topic, partition.index) == (topic.id, index);
        ensure!(
            partition.is_some_and(knows),
            "topic {name}: {id:?} is not its partition {index}"
        );
    }
    Ok(())
}

fn check_topics(state: &State) -> Result<(), Violation> {
    let mut partitions = 0;
    for topic in state.topics.iter() {
        check_topic(state, topic)?;
        partitions += topic.partitions.len();
    }
    ensure!(
        state.topics.is_consistent(),
        "names of topics do not lead to their topics"
    );
    ensure!(
        partitions == state.partitions.len(),
        "topics have {partitions} partitions, but there are {}",
        state.partitions.len()
    );
    Ok(())
}

fn check_partition(
    id: PartitionId,
    partition: &Partition,
    tally: &mut Tally,
) -> Result<(), Violation> {
    let (start, end) = (partition.log_start, partition.high_watermark);
    ensure!(
        (0..=end).contains(&start),
        "{id:?}: the log start {start} is not in 0..={end}"
    );
    let mut next = None;
    let mut bytes = 0_u64;
    for slice in partition.slices.iter() {
        let base = slice.base_offset;
        ensure!(
            next.is_none_or(|next| next <= base),
            "{id:?}: slices overlap at {base}"
        );
        ensure!(
            slice.span > 0 && slice.length > 0,
            "{id:?}: an empty slice at {base}"
        );
        ensure!(
            base >= 0 && slice.end() > base,
            "{id:?}: offsets wrap at {base}"
        );
        ensure!(
            slice.end() > start,
            "{id:?}: a slice before the log start at {base}"
        );
        tally.add(&slice)?;
        bytes = bytes.saturating_add(u64::from(slice.length));
        next = Some(slice.end());
    }
    ensure!(
        next.unwrap_or(start) <= end,
        "{id:?}: slices end after the high watermark {end}"
    );
    ensure!(
        bytes == partition.slices.bytes(),
        "{id:?}: bytes are miscounted"
    );
    let producers = partition.producers.as_slice();
    ensure!(
        producers.is_sorted_by(|a, b| a.id < b.id),
        "{id:?}: producers are not sorted"
    );
    for producer in producers {
        ensure!(
            producer.is_sound(),
            "{id:?}: {:?} contradicts itself",
            producer.id
        );
        let last = producer
            .window()
            .last()
            .map_or(0, |batch| batch.base_offset);
        ensure!(
            last < end,
            "{id:?}: {:?} has a batch after the end",
            producer.id
        );
    }
    Ok(())
}

fn check_files(state: &State, tally: &Tally) -> Result<(), Violation> {
    let mut files = 0_u64;
    for ((id, file), (_, held)) in state.files.iter().zip(&tally.files) {
        files += 1;
        check_decided(state, id)?;
        let counted = (u64::from(file.live_slices), file.live_bytes);
        ensure!(
            *held == counted,
            "file {id} counts {counted:?}, partitions hold {held:?}"
        );
        ensure!(
            file.live_bytes <= file.length,
            "file {id} is shorter than its slices"
        );
        let run = state.members.runs.contains_key(&id.incarnation);
        ensure!(run, "file {id} has no incarnation");
    }
    check_shortages(state)?;
    ensure!(
        state.files.tombstones_agree(),
        "what buckets are to delete is not what tombstones say"
    );
    ensure!(files == state.files.len(), "files are miscounted");
    let tombstones = state
        .files
        .iter()
        .filter(|(_, file)| file.is_tombstoned())
        .count();
    ensure!(
        u64::try_from(tombstones).is_ok_and(|count| count == state.files.tombstoned()),
        "tombstones are miscounted"
    );
    Ok(())
}

/// What is short of copies is what the files say, no more and no less.
fn check_shortages(state: &State) -> Result<(), Violation> {
    let wanted: Vec<u32> = state.policy.placement.buckets.keys().copied().collect();
    let counted: BTreeMap<u32, Shortage> = state.files.shortages().collect();
    ensure!(
        counted.keys().eq(&wanted),
        "files are to be in {wanted:?}, and are counted for {counted:?}"
    );
    let mut found: BTreeMap<u32, Shortage> = BTreeMap::new();
    let mut only: BTreeMap<u32, Only> = wanted
        .iter()
        .map(|number| (*number, Only::default()))
        .collect();
    for (id, file) in state.files.iter() {
        check_copies(state, id)?;
        let held: Vec<u32> = file.placement().collect();
        let lacks = |bucket: &&u32| !file.is_tombstoned() && !held.contains(bucket);
        let mut holders = wanted.iter().filter(|bucket| held.contains(bucket));
        if let (Some(bucket), None) = (holders.next(), holders.next())
            && wanted.len() > 1
            && !file.is_tombstoned()
        {
            let only = only.entry(*bucket).or_default();
            only.files += 1;
            only.bytes = only.bytes.saturating_add(file.length);
        }
        for bucket in wanted.iter().filter(lacks) {
            let short = found.entry(*bucket).or_default();
            short.files += 1;
            short.bytes = short.bytes.saturating_add(file.length);
            let oldest = short.oldest_wall_millis.into_iter();
            let oldest = oldest.chain([file.committed_wall_millis]).min();
            short.oldest_wall_millis = oldest;
        }
    }
    ensure!(
        state.files.only_copies().eq(only),
        "files that only one bucket holds are miscounted"
    );
    for (bucket, short) in counted {
        let found = found.get(&bucket).copied().unwrap_or_default();
        ensure!(
            short == found,
            "bucket {bucket} lacks {found:?}, and {short:?} is counted"
        );
    }
    Ok(())
}

/// What buckets lack of partitions is what files and slices say.
fn check_behind(state: &State) -> Result<(), Violation> {
    let mut firsts: BTreeMap<(FileId, PartitionId), i64> = BTreeMap::new();
    let mut counted: BTreeMap<(u32, PartitionId), u64> = BTreeMap::new();
    for (id, spread) in state.spreads.iter() {
        let live = state.files.get(*id).filter(|file| !file.is_tombstoned());
        ensure!(live.is_some(), "file {id} is spread and not live");
        for (partition, base_offset) in spread.rows() {
            let first = firsts.entry((*id, partition)).or_insert(base_offset);
            *first = base_offset.min(*first);
            if state.partitions.get(partition.0).is_none() {
                continue;
            }
            let wanted = state.policy.placement.buckets.keys();
            for bucket in wanted.filter(|bucket| state.files.lacks(*id, **bucket)) {
                *counted.entry((*bucket, partition)).or_default() += 1;
            }
        }
    }
    let known = state.behind.iter();
    let known = known.map(|(bucket, partition, trail)| ((bucket, partition), trail.files));
    ensure!(
        known.eq(counted),
        "partitions are behind in other files than they are counted for"
    );
    for (number, partition) in state.partitions.iter() {
        let id = PartitionId(number);
        for slice in partition.slices.iter() {
            let base = slice.base_offset;
            let first = firsts.get(&(slice.file, id));
            ensure!(
                !state.files.are_in_several() || first.is_some_and(|first| *first <= base),
                "file {} has a slice of {id:?} at {base}, and is not spread so",
                slice.file
            );
            for bucket in state.policy.placement.buckets.keys() {
                let is_missed = |trail: Trail| base < trail.from;
                ensure!(
                    !state.files.lacks(slice.file, *bucket)
                        || !state.behind.trail(*bucket, id).is_none_or(is_missed),
                    "bucket {bucket} lacks {id:?} from {base} on, and is not behind so far"
                );
            }
        }
    }
    Ok(())
}

fn check_copies(state: &State, id: FileId) -> Result<(), Violation> {
    let agrees = |file| state.files.is_short_as_known(id, file);
    ensure!(
        state.files.get(id).is_none_or(agrees),
        "file {id} lacks other copies than it is counted for"
    );
    Ok(())
}

fn check_members(state: &State) -> Result<(), Violation> {
    let members = &state.members;
    for (id, agent) in &members.agents {
        ensure!(
            agent.id == *id && id.0 >= 1 && id.0 <= members.last_agent,
            "{id:?} is misplaced"
        );
        ensure!(
            members.names.get(&agent.name) == Some(id),
            "{id:?} is not found by its name"
        );
        let run = members.runs.get(&agent.incarnation);
        ensure!(
            run.is_some_and(|run| run.agent == *id),
            "{id:?} has no incarnation of its own"
        );
    }
    ensure!(
        members.names.len() == members.agents.len(),
        "names without agents"
    );
    for (incarnation, run) in &members.runs {
        let given = (1..=members.last_incarnation).contains(&incarnation.0);
        ensure!(given, "{incarnation:?} was never given");
        let last = members
            .agents
            .get(&run.agent)
            .is_some_and(|a| a.incarnation == *incarnation);
        ensure!(
            last || run.fenced_ticks.is_some(),
            "{incarnation:?} may commit, but is not its agent's last"
        );
        let kept = u64::try_from(run.kept.len()).unwrap_or(u64::MAX);
        ensure!(
            run.kept.len() <= state.level.outcomes_kept && kept <= run.next_number,
            "{incarnation:?} keeps more outcomes than it has"
        );
        for (number, outcome) in (run.next_number - kept..).zip(&run.kept) {
            let id = FileId {
                incarnation: *incarnation,
                number,
            };
            let skipped = *outcome == Kept::Skipped;
            ensure!(
                !(skipped && state.files.get(id).is_some()),
                "{id} is skipped and committed"
            );
        }
        let past = run.skipped.keys().all(|number| *number < run.next_number);
        ensure!(
            past,
            "{incarnation:?} skipped numbers that are still to come"
        );
    }
    Ok(())
}
