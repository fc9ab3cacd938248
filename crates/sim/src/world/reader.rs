//! How a simulated agent reads: plan, load, check, answer, with the production code for choosing and for checking.
//!
//! Must not know how records came to be.

use std::collections::BTreeMap;

use agent::data::cache::stored_id;
use agent::data::cache::{Entry, read_file};
use agent::data::fetch::plan::{Want, choose};
use bytes::Bytes;
use meta::ids::{FileId, PartitionId};
use meta::places::{Located, SlicePlace as FilePlace};
use rpc::call::Locate;
use rpc::{Call, Position};

use crate::bucket::{Answer, Request};
use crate::network::Place;

use super::context::{Context, file_key};
use super::desk::{Desk, Purpose};
use super::message::{Blob, Number, Read, Told};

/// Bytes that a fetch asks for of one partition, and in all.
const MAX_BYTES: u64 = 4_000;
/// How often a file is asked for.
const ATTEMPTS: u32 = 3;

/// A fetch under way.
struct Job {
    client: Place,
    number: Number,
    wants: Vec<(PartitionId, i64)>,
    /// The plan rests on something current.
    current: bool,
    located: Vec<Located>,
    chosen: Vec<Vec<FilePlace>>,
    files: BTreeMap<FileId, Load>,
}

/// A file that a fetch needs.
struct Load {
    key: String,
    attempts: u32,
    state: Loading,
}

enum Loading {
    Asked,
    Here(Bytes),
    Broken,
}

/// All fetches of an agent.
#[derive(Default)]
pub(super) struct Reader {
    jobs: BTreeMap<u64, Job>,
    next: u64,
}

impl Reader {
    pub(super) fn start(
        &mut self,
        cx: &mut Context,
        desk: &mut Desk,
        client: Place,
        number: Number,
        wants: Vec<(PartitionId, i64)>,
    ) {
        self.next += 1;
        let job = Job {
            client,
            number,
            wants,
            current: false,
            located: Vec::new(),
            chosen: Vec::new(),
            files: BTreeMap::new(),
        };
        let call = job.locate(Position::default());
        self.jobs.insert(self.next, job);
        desk.call_near(cx, call, Purpose::Locate(self.next));
    }

    pub(super) fn located(
        &mut self,
        cx: &mut Context,
        desk: &mut Desk,
        id: u64,
        located: Vec<Located>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let found = |located: &Located| matches!(located, Located::Found { .. });
        if !located.iter().all(found) && !job.current {
            return replan(cx, desk, id, job);
        }
        job.plan(located);
        let files: Vec<(FileId, u32)> = job
            .chosen
            .iter()
            .flatten()
            .map(|p| (p.file, p.nonce))
            .collect();
        for (file, nonce) in files {
            if job.files.contains_key(&file) {
                continue;
            }
            let key = file_key(file, nonce);
            desk.ask(cx, Request::Get(key.clone()), Purpose::Get(id, file));
            job.files.insert(
                file,
                Load {
                    key,
                    attempts: 1,
                    state: Loading::Asked,
                },
            );
        }
        self.finish(cx, desk, id);
    }

    /// This position was current when the plan was doubted: another node may have to come to it first.
    pub(super) fn reached(&mut self, cx: &mut Context, desk: &mut Desk, id: u64, at: Position) {
        if let Some(job) = self.jobs.get(&id) {
            desk.call_near(cx, job.locate(at), Purpose::Locate(id));
        }
    }

    /// The plan did not come.
    pub(super) fn failed(&mut self, cx: &mut Context, desk: &Desk, id: u64) {
        if let Some(job) = self.jobs.remove(&id) {
            let failed = job
                .wants
                .iter()
                .map(|&(partition, _)| (partition, Read::Failed));
            desk.tell(cx, job.client, job.number, Told::Fetched(failed.collect()));
        }
    }

    /// The bucket answered for a file.
    pub(super) fn loaded(
        &mut self,
        cx: &mut Context,
        desk: &mut Desk,
        id: u64,
        file: FileId,
        answer: Answer,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(load) = job.files.get_mut(&file) else {
            return;
        };
        let sound = |bytes: &Bytes| read_file(stored_id(file), bytes).is_ok();
        load.state = match answer {
            Answer::Found(bytes) if sound(&bytes) => Loading::Here(bytes),
            Answer::Absent => {
                cx.violation(format!("{} vanished under a reader", load.key));
                Loading::Broken
            }
            _ if load.attempts < ATTEMPTS => {
                load.attempts += 1;
                desk.ask(cx, Request::Get(load.key.clone()), Purpose::Get(id, file));
                Loading::Asked
            }
            _ => Loading::Broken,
        };
        self.finish(cx, desk, id);
    }

    /// Answers once every file is here or known not to come.
    fn finish(&mut self, cx: &mut Context, desk: &mut Desk, id: u64) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let states = || job.files.values().map(|load| &load.state);
        if states().any(|state| matches!(state, Loading::Asked)) {
            return;
        }
        let mut told = Vec::new();
        for (at, &(partition, offset)) in job.wants.iter().enumerate() {
            let read = match job.located.get(at) {
                Some(Located::Found { .. }) => job.read(at, offset),
                Some(Located::OutOfRange { .. }) => Read::OutOfRange,
                // The topic is being created.
                Some(Located::UnknownPartition) | None => Read::Failed,
            };
            told.push((partition, read));
        }
        desk.tell(cx, job.client, job.number, Told::Fetched(told));
        self.jobs.remove(&id);
    }
}

fn replan(cx: &mut Context, desk: &mut Desk, id: u64, job: &mut Job) {
    job.current = true;
    desk.call(cx, Call::Barrier, Purpose::Barrier(id));
}

impl Job {
    fn locate(&self, at: Position) -> Call {
        let wanted = self.wants.iter().map(|&(partition, offset)| Locate {
            partition,
            offset,
            max_bytes: MAX_BYTES,
        });
        Call::Locate {
            wanted: wanted.collect(),
            at,
        }
    }

    fn plan(&mut self, located: Vec<Located>) {
        let places = |located: &Located| match located {
            Located::Found { places, .. } => places.clone(),
            _ => Vec::new(),
        };
        let all: Vec<Vec<FilePlace>> = located.iter().map(places).collect();
        let wants: Vec<(Want, &[FilePlace])> = self
            .wants
            .iter()
            .zip(&all)
            .map(|(&(_, offset), places)| {
                (
                    Want {
                        offset,
                        max_bytes: MAX_BYTES,
                    },
                    places.as_slice(),
                )
            })
            .collect();
        let counts = choose(&wants, 2 * MAX_BYTES);
        self.chosen = all
            .iter()
            .zip(counts)
            .map(|(places, count)| places[..count].to_vec())
            .collect();
        self.located = located;
    }

    /// The batches of one partition, as far as its files are here one after another.
    fn read(&self, at: usize, offset: i64) -> Read {
        let mut batches = Vec::new();
        let Some(&(partition, _)) = self.wants.get(at) else {
            return Read::Failed;
        };
        for place in self.chosen.get(at).into_iter().flatten() {
            let entries = match self.files.get(&place.file).map(|load| &load.state) {
                Some(Loading::Here(bytes)) => take(bytes, partition, place),
                _ => None,
            };
            let Some(entries) = entries else { break };
            let mut base = place.base_offset;
            for entry in entries {
                let next = base + i64::from(entry.batch.last_offset_delta()) + 1;
                if next > offset {
                    batches.push((base, Blob(entry.batch.into_bytes())));
                }
                base = next;
            }
        }
        let expected = self.chosen.get(at).is_some_and(|places| !places.is_empty());
        if batches.is_empty() && expected {
            Read::Failed
        } else {
            Read::Batches(batches)
        }
    }
}

/// The batches of a partition's place, if they are as many records as the index says.
fn take(file: &Bytes, partition: PartitionId, place: &FilePlace) -> Option<Vec<Entry>> {
    let entries = read_file(stored_id(place.file), file).ok()?;
    let end = place.position + u64::from(place.length);
    let inside = |entry: &Entry| (place.position..end).contains(&entry.position);
    let entries: Vec<Entry> = entries.into_iter().filter(inside).collect();
    if entries.iter().any(|entry| entry.partition != partition) {
        return None;
    }
    let records: i64 = entries
        .iter()
        .map(|entry| i64::from(entry.batch.last_offset_delta()) + 1)
        .sum();
    (records == place.last_offset - place.base_offset + 1).then_some(entries)
}
