//! How a simulated agent collects: deletes what the log says is dead, reports it, and sweeps what was never committed.
//!
//! Must not decide what is dead: the state machine does.

use std::collections::BTreeMap;

use meta::Command;
use meta::ids::{FileId, Incarnation};
use meta::places::{Fate, FileRef};
use rpc::Call;

use crate::bucket::{Answer, Request};
use crate::mutation::Mutation;

use super::context::Context;
use super::desk::{Desk, Purpose};

/// Time between two rounds.
const ROUND_US: u64 = 1_000_000;
/// Files looked at in one sweep.
const SWEEP_FILES: usize = 50;
/// What the mutated collector takes for old.
const OLD_US: u64 = 500_000;

/// The collector of an agent.
#[derive(Default)]
pub(super) struct Collector {
    due_us: u64,
    after: Option<String>,
    first_seen_us: BTreeMap<String, u64>,
}

impl Collector {
    /// When it wants to be woken.
    pub(super) fn due_us(&self) -> u64 {
        self.due_us
    }

    /// Starts a round if it is time.
    pub(super) fn wake(&mut self, cx: &mut Context, desk: &mut Desk) {
        if cx.now_us() < self.due_us {
            return;
        }
        self.due_us = cx.now_us() + ROUND_US;
        desk.call(cx, Call::Collectable { limit: 100 }, Purpose::Collectable);
        let prefix = store::layout::FILES.to_owned();
        let list = Request::List(prefix, self.after.clone(), SWEEP_FILES);
        desk.ask(cx, list, Purpose::List);
    }

    /// These may be deleted now.
    pub(super) fn collect(&mut self, cx: &mut Context, desk: &mut Desk, files: &[FileRef]) {
        for found in files {
            let key = cx.file_key(found.file, found.nonce);
            desk.ask(cx, Request::Delete(key), Purpose::Delete(Some(*found)));
        }
    }

    /// One of them is deleted, or not.
    pub(super) fn deleted(
        &mut self,
        cx: &mut Context,
        desk: &mut Desk,
        file: FileRef,
        answer: &Answer,
    ) {
        if *answer == Answer::Deleted {
            let files = [file].into();
            desk.propose(cx, Command::FilesDeleted { files }, Purpose::Forget);
        }
    }

    /// These lie in the bucket.
    pub(super) fn listed(&mut self, cx: &mut Context, desk: &mut Desk, found: &[(String, u64)]) {
        self.after = found
            .last()
            .map(|(key, _)| key.clone())
            .filter(|_| found.len() == SWEEP_FILES);
        let mut files = Vec::new();
        for (key, _) in found {
            let now_us = cx.now_us();
            self.first_seen_us.entry(key.clone()).or_insert(now_us);
            let key = store::bucket::Key::new(key.clone()).ok();
            if let Some((id, nonce)) = key.and_then(|key| store::layout::parse_file_key(&key)) {
                let file = FileId {
                    incarnation: Incarnation(id.incarnation),
                    number: id.number,
                };
                files.push(FileRef { file, nonce });
            }
        }
        if !files.is_empty() {
            let call = Call::Fates(files.clone());
            desk.call(cx, call, Purpose::Fates(files));
        }
    }

    /// This is what the log says of them.
    pub(super) fn sweep(
        &mut self,
        cx: &mut Context,
        desk: &mut Desk,
        files: &[FileRef],
        fates: &[Fate],
    ) {
        for (&FileRef { file, nonce }, fate) in files.iter().zip(fates) {
            let key = cx.file_key(file, nonce);
            let seen_us = self.first_seen_us.get(&key).copied().unwrap_or(u64::MAX);
            let old = cx.now_us().saturating_sub(seen_us) > OLD_US;
            let by_age = cx.is(Mutation::CollectByAge) && *fate == Fate::Undecided && old;
            if *fate == Fate::Dead || by_age {
                desk.ask(cx, Request::Delete(key), Purpose::Delete(None));
            }
        }
    }
}
