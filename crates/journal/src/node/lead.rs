//! Leading: what is proposed is packed into entries, several of which may be in flight, and counts
//! in their order. It must not know what commands mean.
//!
//! An entry names the one before it, in flight or not. So one that loses its slot takes with it
//! all that were sent after it: wherever those land they are void. What they hold is settled with
//! the first of them, and nothing is told before every slot below is settled too.

use std::collections::VecDeque;

use bytes::Bytes;
use host::clock::Instant;

use super::flight::Flight;
use super::retention::Accepted;
use super::{
    ANSWER_FROM_MEMORY_FOR, Effect, Event, Limbo, Node, Proposal, ProposeError, Refusal, Request,
    Settings, State, Takeover, Ticket, Turn, lose,
};
use crate::chain::{SLOTS_AHEAD_MAX, Verdict};
use crate::engine;
use crate::entry::{self, Body, Entry, EntryId, Header, Item, Position, Stamp};
use crate::rule::Rule;

/// What a leader remembers besides the chain.
pub(super) struct Leading {
    led_since: Instant,
    ticks_before: u64,
    /// In the order of their slots, which follow the chain without a gap.
    pub(super) flights: VecDeque<Flight>,
    /// Up to this slot entries are sent one at a time, since void ones of our own may be on their
    /// way there: what is sent beyond a void entry becomes one itself, without end.
    alone_through: u64,
    queue: VecDeque<(Instant, Proposal)>,
    queue_bytes: usize,
    barriers: Vec<(Instant, Ticket)>,
    /// When the last append began.
    appended_at: Instant,
    /// When the next slot was last looked at.
    looked_at: Instant,
}

impl Leading {
    fn new(now: Instant, appended_at: Instant, ticks_before: u64) -> Self {
        Leading {
            led_since: now,
            ticks_before,
            flights: VecDeque::new(),
            alone_through: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            barriers: Vec::new(),
            appended_at,
            looked_at: now,
        }
    }

    /// Takes everybody who waits: for entries in flight, and for later ones.
    pub(super) fn abandon(&mut self) -> (Vec<Ticket>, Vec<Ticket>) {
        let flying = self.flights.drain(..).flat_map(|mut f| f.waiting());
        let flying = flying.collect();
        let queue = self.queue.drain(..).map(|(_, proposal)| proposal.ticket);
        let barriers = self.barriers.drain(..).map(|(_, ticket)| ticket);
        (flying, queue.chain(barriers).collect())
    }

    /// Puts what is in flight back into the queue, in order. Commands whose proposers were told
    /// that their outcome is not known are left out: nobody waits for them.
    pub(super) fn take_back(&mut self) {
        let sent = self.flights.back().map_or(0, |flight| flight.id.index);
        self.alone_through = self.alone_through.max(sent);
        for flight in self.flights.drain(..).rev() {
            let since = flight.started;
            let proposals = flight.tickets.into_iter().zip(flight.items);
            for (ticket, item) in proposals.rev() {
                self.queue_bytes += entry::item_len(&item);
                let proposal = Proposal { ticket, item };
                self.queue.push_front((since, proposal));
            }
            let barriers = flight.barriers.into_iter().map(|ticket| (since, ticket));
            self.barriers.splice(0..0, barriers);
        }
    }

    /// The first entry in flight, if it has landed. What the rule forbids: any that has.
    fn take_landed(&mut self, in_order: bool) -> Option<Flight> {
        let landed = self.flights.iter().position(Flight::has_landed)?;
        (landed == 0 || !in_order)
            .then(|| self.flights.remove(landed))
            .flatten()
    }

    /// Whether an entry in flight has lost its slot, so that whatever followed it would be void.
    fn is_broken(&self) -> bool {
        self.flights
            .iter()
            .any(|flight| flight.taken_by().is_some())
    }
}

impl Node {
    /// Goes on as far as the entries in flight are settled, in order.
    pub(super) fn advance(&mut self, turn: &mut Turn<'_>) {
        match &mut self.state {
            State::Claiming(flight) if flight.has_landed() => self.claimed(turn),
            State::Claiming(flight) => {
                if let Some(bytes) = flight.taken_by().cloned() {
                    self.claim_is_beaten(turn, &bytes);
                }
            }
            State::Leading(_) => self.advance_lead(turn),
            _ => {}
        }
    }

    /// The slot of our claim holds something else. Unless that is a claim, it is what the leader so far
    /// had on its way, and may be the last of one that is dead, such as this node's own earlier life:
    /// a lone node claims again at once, as often as entries can be on their way. More of them come
    /// from one that lives.
    fn claim_is_beaten(&mut self, turn: &mut Turn<'_>, bytes: &Bytes) {
        let is_claim = matches!(
            self.chain.clone().feed(bytes),
            Ok(Verdict::Valid { entry, .. }) if matches!(entry.body, Body::Claim { .. })
        );
        let alone = self.settings.takeover == Takeover::AtOnce && !self.deposed;
        if is_claim || !alone || self.claims_beaten >= SLOTS_AHEAD_MAX {
            return self.step_down(turn);
        }
        self.claims_beaten += 1;
        self.follow(turn);
    }

    fn claimed(&mut self, turn: &mut Turn<'_>) {
        let state = std::mem::replace(&mut self.state, State::Loading);
        if let State::Claiming(flight) = state {
            self.state = State::Confirming(flight);
            self.ask(turn, Request::ReadFloor);
        }
    }

    fn advance_lead(&mut self, turn: &mut Turn<'_>) {
        let in_order = self.rules.hold(Rule::KnownInOrder);
        while let State::Leading(leading) = &mut self.state
            && let Some(flight) = leading.take_landed(in_order)
        {
            self.landed(turn, flight);
        }
        let State::Leading(leading) = &self.state else {
            return;
        };
        let taken_by = leading.flights.front().and_then(Flight::taken_by);
        if let Some(bytes) = taken_by.cloned() {
            return self.first_is_taken(turn, &bytes);
        }
        self.pack(turn, false);
        self.maintain(turn);
    }

    /// The slot of the first entry in flight holds something else. A void entry of somebody who
    /// lost the lead is no reason to give it up, if the slot is what it seems: see
    /// [`Node::leading_floor`].
    fn first_is_taken(&mut self, turn: &mut Turn<'_>, bytes: &Bytes) {
        let verdict = self.chain.clone().feed(bytes);
        if !matches!(verdict, Ok(Verdict::Void(_))) {
            return self.step_down(turn);
        }
        if !self.rules.hold(Rule::ReaderReadsFloor) {
            return self.leading_floor(turn, 0);
        }
        if self.request.is_none() {
            self.ask(turn, Request::ReadFloor);
        }
    }

    /// The floor, read after a void entry was found in the slot of the first entry in flight. If
    /// that slot was trimmed, others have led meanwhile, and the void entry is a sleeper's. Else
    /// the slot is spent: what is in flight goes into the slots after it, as new entries.
    pub(super) fn leading_floor(&mut self, turn: &mut Turn<'_>, floor: u64) {
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        let Some(first) = leading.flights.front() else {
            return;
        };
        let (index, Some(bytes)) = (first.id.index, first.taken_by().cloned()) else {
            return;
        };
        if floor > index {
            return self.reload(turn);
        }
        leading.take_back();
        let verdict = self.chain.feed(&bytes);
        assert!(
            matches!(verdict, Ok(Verdict::Void(_))),
            "the slot was void before and the chain has not moved: {verdict:?}"
        );
        self.retention
            .accepted(index, bytes.len(), &Accepted::ClaimOrVoid);
        self.pack(turn, true);
    }

    /// The slot holds something else. Whether that counts, and hence whether the commands in
    /// flight are surely lost, is for the reader to say.
    fn step_down(&mut self, turn: &mut Turn<'_>) {
        self.lose_lead(turn);
        self.leading_until = None;
        self.deposed = true;
        self.follow(turn);
    }

    /// Stops leading, if this node does: what waits is refused, what is in flight is in limbo.
    pub(super) fn lose_lead(&mut self, turn: &mut Turn<'_>) {
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        let first = leading.flights.front().map(|flight| flight.id.index);
        let (tickets, waiting) = leading.abandon();
        if let Some(index) = first {
            self.limbo = Some(Limbo { index, tickets });
        }
        let why = ProposeError::Definite(Refusal::NotLeader { leader: None });
        lose(turn, waiting, why);
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
        self.own_claim = Some(flight.id);
        self.deposed = false;
        self.claims_beaten = 0;
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
            _ if !self.rules.hold(Rule::KnownInOrder) => flight.stamp,
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
            id: flight.id,
            stamp,
            items: flight.items,
            tickets: flight.tickets,
        });
        if !flight.barriers.is_empty() {
            let tickets = flight.barriers;
            let position = Position(flight.id.index);
            turn.out.push(Effect::BarrierPassed { tickets, position });
        }
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
            Event::Barrier(ticket) => match leading.flights.back_mut() {
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

    /// Starts the next entry with what waits, if it may start now. `heartbeat`: even if nothing
    /// waits.
    pub(super) fn pack(&mut self, turn: &mut Turn<'_>, heartbeat: bool) {
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        let nothing = leading.queue.is_empty() && leading.barriers.is_empty();
        let may = may_append_at(&self.settings, leading).is_some_and(|at| at <= turn.now.boot);
        if !may || (nothing && !heartbeat) {
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
        turn.out.push(flight.effect());
        if let State::Leading(leading) = &mut self.state {
            leading.flights.push_back(flight);
        }
    }

    /// The next entry, with these commands, after whatever is in flight.
    fn write(&mut self, time: Stamp, items: Vec<Item>) -> Flight {
        let before = match &self.state {
            State::Leading(leading) => leading.flights.back(),
            _ => None,
        };
        let (next, predecessor, after) = match before {
            Some(flight) => (flight.id.index + 1, flight.id, flight.stamp),
            None => (self.chain.next(), self.chain.last(), self.chain.stamp()),
        };
        let id = EntryId {
            index: next,
            nonce: (self.entropy)(),
        };
        let stamp = self.growing(time, after);
        let header = Header {
            shard: self.settings.shard,
            id,
            claim: self.chain.claim(),
            predecessor,
            stamp,
        };
        let (body, object) = if entry::slot_len(&items) > self.settings.slot_bytes_max {
            let (reference, object) = entry::put_elsewhere(id.nonce, &items);
            (Body::Elsewhere(reference), Some((reference.sha256, object)))
        } else {
            (Body::Commands(items.clone()), None)
        };
        let bytes = Entry { header, body }.encode();
        let mut flight = Flight::new(id, bytes, stamp, Instant::default());
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
        if let Some(cut) = self.retention.cut(now, policy, &self.chain, name) {
            turn.out.push(Effect::WriteSnapshot {
                cut: Box::new(cut),
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
        let is_waited_for =
            |flight: &&Flight| !flight.tickets.is_empty() || !flight.barriers.is_empty();
        let flying = leading.flights.iter().find(is_waited_for);
        let flying = flying.map(|flight| flight.started);
        let expiry = [waiting, barrier, flying].into_iter().flatten().min();
        let expiry = expiry.map(|since| since + patience);
        let wanted = !leading.queue.is_empty() || !leading.barriers.is_empty();
        let append = may_append_at(&self.settings, leading).filter(|_| wanted);
        let retry = leading.flights.iter().filter_map(Flight::retry_at).min();
        let heartbeat = self.heartbeat_at(leading);
        let look = self.look_at(leading);
        [expiry, append, retry, heartbeat, look]
            .into_iter()
            .flatten()
            .min()
    }

    /// When the next heartbeat is due: none while an append is under way or nobody needs one.
    fn heartbeat_at(&self, leading: &Leading) -> Option<Instant> {
        let at = leading.appended_at + self.settings.heartbeat_interval;
        let in_use_for = self.settings.in_use_for;
        let used = self.used_at.filter(|used| at <= *used + in_use_for);
        let contested = leading.appended_at + self.settings.contested_heartbeat_interval;
        let wanted = used.map(|_| at).or(self.contested.then_some(contested));
        wanted.filter(|_| leading.flights.is_empty())
    }

    /// When to look whether somebody else has claimed: never while appends are under way, which
    /// tell as much.
    fn look_at(&self, leading: &Leading) -> Option<Instant> {
        let last = leading.appended_at.max(leading.looked_at);
        let at = last + self.settings.look_interval;
        leading.flights.is_empty().then_some(at)
    }

    /// Reads the next slot if it is time.
    fn look_aside(&mut self, turn: &mut Turn<'_>) {
        let State::Leading(leading) = &self.state else {
            return;
        };
        if self.look_at(leading).is_none_or(|at| at > turn.now.boot) {
            return;
        }
        if let State::Leading(leading) = &mut self.state {
            leading.looked_at = turn.now.boot;
        }
        let index = self.chain.next();
        turn.out.push(Effect::ReadSlot { index });
    }

    /// The next slot of a leader that appends nothing was read. If it holds something, an entry of
    /// our own is sent there: what becomes of it says whether the lead is lost.
    pub(super) fn look_answered(
        &mut self,
        turn: &mut Turn<'_>,
        index: u64,
        slot: &Result<Option<Bytes>, engine::Error>,
    ) {
        let State::Leading(leading) = &self.state else {
            return;
        };
        let taken = matches!(slot, Ok(Some(_)));
        if taken && leading.flights.is_empty() && index == self.chain.next() {
            self.pack(turn, true);
        }
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
        for flight in &mut leading.flights {
            if now.since(flight.started) >= patience {
                unsettled.append(&mut flight.waiting());
            }
        }
        lose(turn, late, ProposeError::Definite(Refusal::Expired));
        let doubt = "the journal has not answered in time".to_owned();
        lose(turn, unsettled, ProposeError::Unknown(doubt));
        let beat = match &self.state {
            State::Leading(leading) => self.heartbeat_at(leading).is_some_and(|at| at <= now),
            _ => false,
        };
        self.pack(turn, beat);
        self.look_aside(turn);
    }
}

/// When another entry may be sent: at once if none is in flight; else a while after the last one,
/// so that what comes together shares an entry; not at all while as many are in flight as may be,
/// or one of them has lost its slot or is likely to.
fn may_append_at(settings: &Settings, leading: &Leading) -> Option<Instant> {
    let Some(first) = leading.flights.front() else {
        return Some(leading.appended_at);
    };
    let most = settings.appends_in_flight_max.min(SLOTS_AHEAD_MAX as usize);
    let stop = leading.flights.len() >= most
        || first.id.index <= leading.alone_through
        || leading.is_broken();
    (!stop).then_some(leading.appended_at + settings.append_spacing)
}
