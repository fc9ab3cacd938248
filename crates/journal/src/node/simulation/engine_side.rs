//! The engine of a simulated node: takes, slot by slot, and what its tenure has sent. A request
//! that breaks the engine's contract ends the run.

use super::*;
use crate::engine::WINDOW;

/// The state of the engine during one life of its node.
#[derive(Default)]
pub(super) struct Side {
    take: Option<Take>,
    /// Tenures of this life so far.
    tenures: u64,
    books: Option<Books>,
    /// The tenure has sent its claim.
    claimed: bool,
}

/// A take that is under way.
struct Take {
    ask: Ask,
    settle: Settle,
    open: usize,
    answers: Vec<(Step, Option<Content>)>,
    fails: bool,
}

impl Side {
    pub(super) fn confirmed(&mut self) {
        if let Some(books) = &mut self.books {
            books.confirmed();
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.books.as_ref().is_none_or(Books::is_over)
    }

    pub(super) fn answered(&mut self, tenure: u64, index: u64, holds: bool) -> Append {
        match &mut self.books {
            Some(books) if tenure == self.tenures => books.answered(index, holds),
            _ if holds => Append::Appended,
            _ => Append::Superseded,
        }
    }

    /// True if the entry is sent. Other bytes for a slot, a slot outside the window, an entry
    /// before the claim counts, or a second claim break the contract.
    fn admit(&mut self, id: EntryId, bytes: &Bytes) -> Result<bool, String> {
        let Some(books) = self.books.as_mut().filter(|books| !books.is_over()) else {
            return Ok(false);
        };
        let entry = Entry::decode(bytes).map_err(|error| error.to_string())?;
        let is_claim = matches!(entry.body, Body::Claim { .. });
        if let Err(why) = books.admit(id.index, bytes) {
            return Err(format!("{id:?} breaks the contract of its tenure: {why}"));
        }
        if !is_claim && !self.claimed {
            return Err(format!("{id:?} is sent in a tenure without a claim"));
        }
        self.claimed = true;
        Ok(true)
    }
}

impl World {
    pub(super) fn take(
        &mut self,
        place: usize,
        life: u64,
        ask: Ask,
        (from, through): (u64, u64),
    ) -> Result<(), String> {
        let floor = self.stores.slots.floor();
        let side = &mut self.places[place].engine;
        side.tenures += 1;
        side.books = None;
        side.claimed = false;
        if floor > from {
            let trimmed = Event::Taken(ask, Err(TakeError::Trimmed(floor)));
            let at = self.now + self.delay();
            self.at(at, Happening::Heard(place, life, trimmed));
            return Ok(());
        }
        let fails = self.faults && self.rng.once_in(15);
        self.places[place].engine.take = Some(Take {
            ask,
            settle: Settle::new(from, through),
            open: 0,
            answers: Vec::new(),
            fails,
        });
        self.take_round(place, life);
        Ok(())
    }

    /// Starts the next round of a take, or answers it.
    fn take_round(&mut self, place: usize, life: u64) {
        let Some(mut take) = self.places[place].engine.take.take() else {
            return;
        };
        for (step, content) in std::mem::take(&mut take.answers) {
            take.settle.answer(step, content);
        }
        let round = take.settle.round();
        if take.fails {
            // Requests that were sent may take effect all the same, at any later time.
            for step in &round {
                if let Step::Fill(index) = step {
                    let far = self.now + self.rng.below(15 * SECONDS);
                    self.at(far, Happening::Fills(*index));
                }
            }
        }
        if take.fails || round.is_empty() {
            let at = self.now + self.delay();
            let result = match take.fails {
                true => Err(TakeError::Unavailable("a fault".to_owned())),
                false => {
                    let (settled, first) = take.settle.settled();
                    self.places[place].engine.books = Some(Books::starting_at(first));
                    Ok(self.stores.complete(settled))
                }
            };
            let taken = Event::Taken(take.ask, result);
            return self.at(at, Happening::Heard(place, life, taken));
        }
        take.open = round.len();
        self.places[place].engine.take = Some(take);
        for step in round {
            let at = self.now + self.delay();
            self.at(at, Happening::Step(place, life, step));
        }
    }

    pub(super) fn take_step(&mut self, place: usize, life: u64, step: Step) -> Result<(), String> {
        if self.places[place].life != life {
            // The request was sent all the same.
            if let Step::Fill(index) = step {
                drop(self.stores.fill(index)?);
            }
            return Ok(());
        }
        let content = match step {
            Step::Read(index) => self.stores.slots.read(index),
            Step::Fill(index) => {
                if let Some(hole) = self
                    .stores
                    .hole_below(index.saturating_sub(WINDOW), &BTreeSet::new())
                {
                    return Err(format!("n{place} closes slot {index} and {hole} is free"));
                }
                self.places[place].sent.insert(index);
                Some(self.stores.fill(index)?)
            }
        };
        if let Some(take) = &mut self.places[place].engine.take {
            take.answers.push((step, content));
            take.open -= 1;
            if take.open == 0 {
                self.take_round(place, life);
            }
        }
        Ok(())
    }

    pub(super) fn append(
        &mut self,
        place: usize,
        life: u64,
        id: EntryId,
        bytes: Bytes,
    ) -> Result<(), String> {
        if !self.places[place].engine.admit(id, &bytes)? {
            let over = Event::AppendDone(id, Append::Superseded);
            let at = self.now + self.delay();
            self.at(at, Happening::Heard(place, life, over));
            return Ok(());
        }
        let tenure = self.places[place].engine.tenures;
        let sent = &mut self.places[place].sent;
        if let Some(hole) = self.stores.hole_below(id.index, sent) {
            let index = id.index;
            return Err(format!(
                "n{place} sends slot {index} and nobody sent {hole}"
            ));
        }
        sent.insert(id.index);
        let lands_at = self.now + self.delay();
        let heard_at = lands_at + self.delay();
        let unknown = Event::AppendDone(id, Append::Unknown("a fault".to_owned()));
        let far = self.now + self.rng.below(15 * SECONDS);
        match self.rng.below(if self.faults { 12 } else { 1 }) {
            // The reply is lost.
            8 => {
                self.at(lands_at, Happening::Lands(id, bytes, None, tenure));
                self.at(heard_at, Happening::Heard(place, life, unknown));
            }
            // The request is lost.
            9 => self.at(heard_at, Happening::Heard(place, life, unknown)),
            // The append takes effect after its sender has stopped waiting.
            10 => {
                self.at(far, Happening::Lands(id, bytes, None, tenure));
                self.at(heard_at, Happening::Heard(place, life, unknown));
            }
            // The append takes long, and its sender is patient, or asleep.
            11 => {
                let waiting = Some((place, life, far + MILLIS));
                self.at(far, Happening::Lands(id, bytes, waiting, tenure));
            }
            _ => {
                let waiting = Some((place, life, heard_at));
                self.at(lands_at, Happening::Lands(id, bytes, waiting, tenure));
            }
        }
        Ok(())
    }
}
