//! Leading: one entry in flight, everything proposed meanwhile packed into the next, and the
//! settling of appends whose outcome is not known. It must not know what commands mean.

use std::collections::VecDeque;

use bytes::Bytes;
use host::clock::Instant;

use super::retention::Accepted;
use super::{
    ANSWER_FROM_MEMORY_FOR, Effect, Event, Limbo, Node, Proposal, ProposeError, Refusal, Request,
    State, Ticket, Turn, lose,
};
use crate::chain::Verdict;
use crate::engine::Append;
use crate::entry::{self, Body, Entry, EntryId, Header, Item, Stamp};
use crate::rule::Rule;

/// An entry that is being appended.
pub(super) struct Flight {
    pub(super) id: EntryId,
    bytes: Bytes,
    body: Option<([u8; 32], Bytes)>,
    /// The start of the first attempt.
    started: Instant,
    items: Vec<Item>,
    /// One per item; empty once they have been told that it takes too long.
    tickets: Vec<Ticket>,
    barriers: Vec<Ticket>,
}

/// What a leader remembers besides the chain.
pub(super) struct Leading {
    led_since: Instant,
    ticks_before: u64,
    flight: Option<Flight>,
    queue: VecDeque<(Instant, Proposal)>,
    queue_bytes: usize,
    barriers: Vec<(Instant, Ticket)>,
    /// When the last append began.
    appended_at: Instant,
}

impl Flight {
    pub(super) fn new(id: EntryId, bytes: Bytes, started: Instant) -> Self {
        Flight {
            id,
            bytes,
            body: None,
            started,
            items: Vec::new(),
            tickets: Vec::new(),
            barriers: Vec::new(),
        }
    }

    pub(super) fn effect(&self) -> Effect {
        Effect::Append {
            id: self.id,
            bytes: self.bytes.clone(),
            body: self.body.clone(),
        }
    }
}

impl Leading {
    fn new(now: Instant, appended_at: Instant, ticks_before: u64) -> Self {
        Leading {
            led_since: now,
            ticks_before,
            flight: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
            barriers: Vec::new(),
            appended_at,
        }
    }

    /// Takes everybody who waits: for the entry in flight, and for a later one.
    pub(super) fn abandon(&mut self) -> (Vec<Ticket>, Vec<Ticket>) {
        let flying = match self.flight.take() {
            Some(flight) => [flight.tickets, flight.barriers].concat(),
            None => Vec::new(),
        };
        let queue = self.queue.drain(..).map(|(_, proposal)| proposal.ticket);
        let barriers = self.barriers.drain(..).map(|(_, ticket)| ticket);
        (flying, queue.chain(barriers).collect())
    }
}

/// Which entry a slot holds; `None` if it holds none.
pub(super) fn entry_id(slot: &Bytes) -> Option<EntryId> {
    Some(Entry::decode(slot).ok()?.header.id)
}

impl Node {
    pub(super) fn flight(&self) -> Option<&Flight> {
        match &self.state {
            State::Claiming(flight) | State::Confirming(flight) => Some(flight),
            State::Leading(leading) => leading.flight.as_ref(),
            _ => None,
        }
    }

    pub(super) fn append_done(&mut self, turn: &mut Turn<'_>, id: EntryId, outcome: Append) {
        if !self.answers(Request::Append { id }) {
            return;
        }
        match outcome {
            Append::Appended => self.appended(turn),
            Append::Occupied(bytes) => self.settle(turn, Some(bytes)),
            Append::Unknown(_) if self.rules.hold(Rule::SettleByReading) => {
                self.ask(turn, Request::ReadSlot { index: id.index });
            }
            Append::Unknown(_) => self.append_anew(turn),
        }
    }

    /// What the rule forbids: the same commands as another entry, though the first may land.
    fn append_anew(&mut self, turn: &mut Turn<'_>) {
        if let State::Leading(leading) = &mut self.state
            && let Some(flight) = leading.flight.take()
        {
            let proposals = flight.tickets.into_iter().zip(flight.items);
            for (ticket, item) in proposals.rev() {
                let proposal = Proposal { ticket, item };
                leading.queue.push_front((flight.started, proposal));
            }
            return self.pack(turn, true);
        }
        let flight = self.flight().map(|flight| flight.id);
        if let Some(id) = flight {
            self.ask_later(turn, Request::Append { id });
        }
    }

    /// The slot of the entry in flight was read.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>, slot: Option<Bytes>) {
        let Some(flight) = self.flight() else {
            return;
        };
        let id = flight.id;
        match slot {
            // It may still be filled, by ourselves or by another: only the same bytes are safe.
            None => self.ask_later(turn, Request::Append { id }),
            Some(bytes)
                if entry_id(&bytes) == Some(id) && self.rules.hold(Rule::OccupiedMayBeOurs) =>
            {
                self.appended(turn);
            }
            Some(_) => self.step_down(turn),
        }
    }

    /// What the rule forbids: counting the lead from a later attempt than the first.
    pub(super) fn restart_flight(&mut self, turn: &mut Turn<'_>) {
        if !self.rules.hold(Rule::LeadFromFirstAttempt)
            && let State::Leading(leading) = &mut self.state
            && let Some(flight) = &mut leading.flight
        {
            flight.started = turn.now.boot;
        }
    }

    /// The slot holds something else. Whether that counts, and hence whether the commands in
    /// flight are surely lost, is for the reader to say.
    fn step_down(&mut self, turn: &mut Turn<'_>) {
        if let State::Leading(leading) = &mut self.state {
            if let Some(flight) = leading.flight.take() {
                let tickets = [flight.tickets, flight.barriers].concat();
                let index = flight.id.index;
                self.limbo = Some(Limbo { index, tickets });
            }
            let (_, waiting) = leading.abandon();
            let why = ProposeError::Definite(Refusal::NotLeader { leader: None });
            lose(turn, waiting, why);
        }
        self.leading_until = None;
        self.deposed = true;
        self.follow(turn);
    }

    fn appended(&mut self, turn: &mut Turn<'_>) {
        let state = std::mem::replace(&mut self.state, State::Loading);
        match state {
            State::Claiming(flight) => {
                self.state = State::Confirming(flight);
                self.ask(turn, Request::ReadFloor);
            }
            State::Leading(mut leading) => {
                let flight = leading.flight.take();
                self.state = State::Leading(leading);
                if let Some(flight) = flight {
                    self.landed(turn, flight);
                }
            }
            other => self.state = other,
        }
    }

    /// Our claim is in its slot; it counts if that slot was not trimmed before.
    pub(super) fn confirm(&mut self, turn: &mut Turn<'_>, floor: u64) {
        let state = std::mem::replace(&mut self.state, State::Loading);
        let State::Confirming(flight) = state else {
            self.state = state;
            return;
        };
        if floor > flight.id.index && self.rules.hold(Rule::ClaimantReadsFloor) {
            return self.reload(turn);
        }
        let verdict = self.chain.feed(&flight.bytes);
        assert!(
            matches!(verdict, Ok(Verdict::Valid { .. })),
            "a claim made with every slot before it known is valid: {verdict:?}"
        );
        let length = flight.bytes.len();
        self.retention
            .accepted(flight.id.index, length, &Accepted::ClaimOrVoid);
        self.claimant = Some(self.settings.name.clone());
        self.deposed = false;
        self.confirmed_at = Some(flight.started);
        self.leading_until = Some(flight.started + ANSWER_FROM_MEMORY_FOR);
        let ticks_before = self.chain.stamp().ticks_millis;
        let leading = Leading::new(turn.now.boot, flight.started, ticks_before);
        self.state = State::Leading(Box::new(leading));
        self.maintain(turn);
    }

    /// Our entry is in its slot, and so are all before it.
    fn landed(&mut self, turn: &mut Turn<'_>, flight: Flight) {
        let stamp = match self.chain.feed(&flight.bytes) {
            Ok(Verdict::Valid { stamp, .. }) => stamp,
            other => unreachable!("a leader's own entry in its place is valid: {other:?}"),
        };
        let kind = match &flight.body {
            None => Accepted::Commands,
            Some((sha256, _)) => Accepted::CommandsElsewhere(*sha256),
        };
        let length = flight.bytes.len() + flight.body.as_ref().map_or(0, |(_, b)| b.len());
        self.retention.accepted(flight.id.index, length, &kind);
        self.confirmed_at = Some(flight.started);
        self.leading_until = Some(flight.started + ANSWER_FROM_MEMORY_FOR);
        turn.out.push(Effect::Apply {
            index: flight.id.index,
            stamp,
            items: flight.items,
            tickets: flight.tickets,
        });
        if !flight.barriers.is_empty() {
            let tickets = flight.barriers;
            turn.out.push(Effect::BarrierPassed { tickets });
        }
        self.pack(turn, false);
        self.maintain(turn);
    }

    /// A proposal or a barrier while leading.
    pub(super) fn lead(&mut self, turn: &mut Turn<'_>, event: Event) {
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        let now = turn.now.boot;
        match event {
            Event::Propose(proposals) => {
                for proposal in proposals {
                    let size = entry::item_len(&proposal.item);
                    let max = self.settings.entry_bytes_max;
                    let refusal = if size > max {
                        Refusal::TooLarge { bytes: size, max }
                    } else if leading.queue.len() >= self.settings.queue_items_max
                        || leading.queue_bytes + size > self.settings.queue_bytes_max
                    {
                        Refusal::Busy
                    } else {
                        leading.queue_bytes += size;
                        leading.queue.push_back((now, proposal));
                        continue;
                    };
                    let why = ProposeError::Definite(refusal);
                    lose(turn, vec![proposal.ticket], why);
                }
            }
            Event::Barrier(ticket) => match &mut leading.flight {
                Some(flight) if !self.rules.hold(Rule::BarrierBeforeAppend) => {
                    flight.barriers.push(ticket);
                }
                _ if leading.barriers.len() >= self.settings.queue_items_max => {
                    let why = ProposeError::Definite(Refusal::Busy);
                    lose(turn, vec![ticket], why);
                }
                _ => leading.barriers.push((now, ticket)),
            },
            _ => {}
        }
        self.pack(turn, false);
    }

    /// Starts the next entry with what waits, unless one is in flight. `heartbeat`: even if
    /// nothing waits.
    fn pack(&mut self, turn: &mut Turn<'_>, heartbeat: bool) {
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        let nothing = leading.queue.is_empty() && leading.barriers.is_empty();
        if leading.flight.is_some() || (nothing && !heartbeat) {
            return;
        }
        let now = turn.now.boot;
        leading.appended_at = now;
        let led = u64::try_from(now.since(leading.led_since).as_millis()).unwrap_or(u64::MAX);
        let time = Stamp {
            wall_millis: turn.now.wall_millis,
            ticks_millis: leading.ticks_before.saturating_add(led),
        };
        let (mut items, mut tickets) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while let Some((_, proposal)) = leading.queue.front() {
            let size = entry::item_len(&proposal.item);
            let full = items.len() >= self.settings.entry_items_max
                || bytes + size > self.settings.entry_bytes_max;
            if full && !items.is_empty() {
                break;
            }
            let Some((_, proposal)) = leading.queue.pop_front() else {
                break;
            };
            bytes += size;
            leading.queue_bytes = leading.queue_bytes.saturating_sub(size);
            items.push(proposal.item);
            tickets.push(proposal.ticket);
        }
        let barriers = leading.barriers.drain(..).map(|(_, t)| t).collect();
        let mut flight = self.write(time, items);
        flight.started = now;
        flight.tickets = tickets;
        flight.barriers = barriers;
        let id = flight.id;
        if let State::Leading(leading) = &mut self.state {
            leading.flight = Some(flight);
        }
        self.ask(turn, Request::Append { id });
    }

    /// The next entry, with these commands.
    fn write(&mut self, time: Stamp, items: Vec<Item>) -> Flight {
        let id = EntryId {
            index: self.chain.next(),
            nonce: (self.entropy)(),
        };
        let header = Header {
            shard: self.settings.shard,
            id,
            claim: self.chain.claim(),
            predecessor: self.chain.last(),
            stamp: self.growing(time),
        };
        let (body, object) = if entry::slot_len(&items) > self.settings.slot_bytes_max {
            let (reference, object) = entry::put_elsewhere(id.nonce, &items);
            (Body::Elsewhere(reference), Some((reference.sha256, object)))
        } else {
            (Body::Commands(items.clone()), None)
        };
        let mut flight = Flight::new(id, Entry { header, body }.encode(), Instant::default());
        flight.body = object;
        flight.items = items;
        flight
    }

    /// Cuts a snapshot or trims, if it is time and this node leads.
    pub(super) fn maintain(&mut self, turn: &mut Turn<'_>) {
        let State::Leading(_) = &self.state else {
            return;
        };
        let now = turn.now.boot;
        let policy = &self.settings.snapshot;
        let name = &self.settings.name;
        if let Some(position) = self.retention.cut(now, policy, &self.chain, name) {
            turn.out.push(Effect::WriteSnapshot {
                position: Box::new(position),
                older: self.retention.newest(),
            });
        }
        if let Some(trim) = self.retention.next_trim(now) {
            turn.out.push(Effect::Trim {
                floor: trim.floor,
                indices: trim.indices,
                bodies: trim.bodies,
            });
        }
    }

    /// When a leader has something to do without being asked.
    pub(super) fn leading_deadline(&self, leading: &Leading) -> Option<Instant> {
        let patience = self.settings.proposal_deadline;
        let waiting = leading.queue.front().map(|(since, _)| *since);
        let barrier = leading.barriers.first().map(|(since, _)| *since);
        let flying = leading
            .flight
            .as_ref()
            .filter(|flight| !flight.tickets.is_empty() || !flight.barriers.is_empty())
            .map(|flight| flight.started);
        let expiry = [waiting, barrier, flying].into_iter().flatten().min();
        let expiry = expiry.map(|since| since + patience);
        let heartbeat = self.heartbeat_at(leading);
        [expiry, heartbeat].into_iter().flatten().min()
    }

    /// When the next heartbeat is due: none while an append is under way or nobody needs one.
    fn heartbeat_at(&self, leading: &Leading) -> Option<Instant> {
        let used_until = self.used_at? + self.settings.in_use_for;
        let at = leading.appended_at + self.settings.heartbeat_interval;
        (leading.flight.is_none() && at <= used_until).then_some(at)
    }

    pub(super) fn leading_timer(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.boot;
        let patience = self.settings.proposal_deadline;
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        let mut late = Vec::new();
        while let Some((_, proposal)) = leading
            .queue
            .pop_front_if(|(since, _)| now.since(*since) >= patience)
        {
            leading.queue_bytes -= entry::item_len(&proposal.item);
            late.push(proposal.ticket);
        }
        leading.barriers.retain(|(since, ticket)| {
            let keep = now.since(*since) < patience;
            if !keep {
                late.push(*ticket);
            }
            keep
        });
        let mut unsettled = Vec::new();
        if let Some(flight) = &mut leading.flight
            && now.since(flight.started) >= patience
        {
            unsettled.append(&mut flight.tickets);
            unsettled.append(&mut flight.barriers);
        }
        lose(turn, late, ProposeError::Definite(Refusal::Expired));
        let doubt = "the journal has not answered in time".to_owned();
        lose(turn, unsettled, ProposeError::Unknown(doubt));
        if let State::Leading(leading) = &self.state
            && self.heartbeat_at(leading).is_some_and(|at| at <= now)
        {
            self.pack(turn, true);
        }
    }
}
