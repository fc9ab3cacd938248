//! Leading: proposals are packed into entries, several of which may be in flight, and which count
//! in the order of their slots. It must not know what commands mean.
//!
//! An entry names the one before it, in flight or not. So if one loses its slot, all that were sent
//! after it are void wherever they land. The tenure is over then, and a claim in a new tenure
//! renews the lead and settles what became of them.

use std::collections::VecDeque;

use host::clock::Instant;

use super::context::{Cx, LATE, Lasting, Question, Request};
use super::flight::Flight;
use super::following::Following;
use super::queue::Queue;
use super::retention::Accepted;
use super::{
    ANSWER_FROM_MEMORY_FOR, DOUBT_AFTER, Effect, Event, ProposeError, Purpose, Refusal, State,
    Taking, Ticket,
};
use crate::chain::Verdict;
use crate::engine::{Append, End, WINDOW};
use crate::entry::{self, Body, Entry, EntryId, Header, Item, Position};
use crate::rule::Rule;
use crate::snapshot::Cut;

/// The promises of a leader; they outlive a claim that is renewed.
#[derive(Default)]
pub(super) struct Mandate {
    pub(super) queue: Queue,
    /// Callers that want this node to resign: it takes nothing more.
    resigns: Vec<Ticket>,
}

impl Mandate {
    /// Queues the proposals or barrier of an event, notes the wish to resign, or refuses them.
    pub(super) fn take(&mut self, cx: &mut Cx<'_>, event: Event) {
        match event {
            Event::Resign(ticket) => self.resigns.push(ticket),
            event if self.is_resigning() => {
                cx.refuse(event, &Refusal::NotLeader { leader: None });
            }
            event => self.queue.take(cx, event),
        }
    }

    fn is_resigning(&self) -> bool {
        !self.resigns.is_empty()
    }

    /// Everybody who waits for this node and whose command was not sent.
    pub(super) fn into_tickets(self) -> Vec<Ticket> {
        let mut tickets = self.queue.into_tickets();
        tickets.extend(self.resigns);
        tickets
    }
}

pub(super) struct Leading {
    mandate: Box<Mandate>,
    led_since: Instant,
    ticks_before: u64,
    /// Entries in flight, in the order of their slots, which follow the chain without a gap.
    flights: VecDeque<Flight>,
    /// True if the tenure is over: nothing more is sent in it.
    over: bool,
    /// When the last append began.
    appended_at: Instant,
    /// When the next slot was last looked at.
    looked_at: Instant,
    look: Option<Question>,
}

impl Leading {
    /// Leads by a claim that was sent at this time. Earlier entries in flight that were not found
    /// among the settled slots can never count any more: their commands wait again.
    pub(super) fn begin(cx: &mut Cx<'_>, mut mandate: Box<Mandate>, claimed_at: Instant) -> State {
        let limbo = std::mem::take(&mut cx.lasting.limbo);
        mandate.queue.put_back(limbo.into_iter());
        let leading = Box::new(Leading {
            mandate,
            led_since: cx.now.boot,
            ticks_before: cx.lasting.chain.stamp().ticks_millis,
            flights: VecDeque::new(),
            over: false,
            appended_at: claimed_at,
            looked_at: cx.now.boot,
            look: None,
        });
        leading.advance(cx)
    }

    /// Stops leading: entries in flight are in limbo.
    pub(super) fn give_up(self, cx: &mut Cx<'_>) -> Box<Mandate> {
        cx.lasting.limbo.extend(self.flights);
        self.mandate
    }

    pub(super) fn handle(mut self: Box<Self>, cx: &mut Cx<'_>, event: Event) -> State {
        match event {
            Event::AppendDone(id, outcome) => self.append_done(cx, id, &outcome),
            Event::Scanned(ask, run) if self.look.as_ref().is_some_and(|look| look.is(ask)) => {
                let asked_at = self.look.take().map(|look| look.asked_at);
                // An entry in a slot to which this node has sent nothing is another writer's. The slot
                // that was asked about may hold an entry that this node has appended since.
                let next = cx.lasting.chain.next();
                let is_held = run.slots.iter().any(|slot| slot.index == next);
                self.over |= is_held && self.flights.is_empty();
                if let Some(at) = asked_at.filter(|_| run.slots.is_empty() && run.end == End::Free)
                {
                    cx.lasting.seems_current(at);
                }
            }
            Event::Timer => self.timer(cx),
            Event::Barrier(ticket) if !cx.lasting.rules.hold(Rule::BarrierBeforeAppend) => {
                match self.flights.back_mut() {
                    Some(flight) => flight.barriers.push(ticket),
                    None => self.mandate.take(cx, event),
                }
            }
            event => self.mandate.take(cx, event),
        }
        self.advance(cx)
    }

    fn append_done(&mut self, cx: &mut Cx<'_>, id: EntryId, outcome: &Append) {
        let Some(at) = self.flights.iter().position(|flight| flight.awaits(id)) else {
            return;
        };
        if matches!(outcome, Append::Unknown(_)) && !cx.lasting.rules.hold(Rule::SettleByReading) {
            // Sends the same commands as other entries although the first may yet land, which the
            // rule forbids.
            let flights = self.flights.drain(..);
            return self.mandate.queue.put_back(flights);
        }
        self.flights[at].answered(cx, outcome);
        self.over |= matches!(outcome, Append::Superseded);
    }

    /// Counts the entries in flight that have landed, in order.
    fn advance(mut self: Box<Self>, cx: &mut Cx<'_>) -> State {
        let in_order = cx.lasting.rules.hold(Rule::KnownInOrder);
        while let Some(landed) = self.flights.iter().position(Flight::has_landed)
            && (landed == 0 || !in_order)
            && let Some(flight) = self.flights.remove(landed)
        {
            self.count(cx, flight);
        }
        if self.over {
            if self.flights.iter().any(Flight::is_asked) {
                // Its answer comes soon; after it there is less to settle.
                return State::Leading(self);
            }
            let doubts = self.flights.iter().filter(|flight| flight.is_in_doubt());
            let through = doubts.map(|flight| flight.id.index + 1).max();
            let through = through.unwrap_or(cx.lasting.chain.next());
            let mandate = self.give_up(cx);
            return State::Taking(Taking::renew(cx, through, mandate));
        }
        self.pack(cx, false);
        self.maintain(cx);
        match self.mandate.is_resigning() && self.is_settled() {
            true => self.resign(cx),
            false => State::Leading(self),
        }
    }

    /// From when on it may be that another leads.
    pub(super) fn doubtful_from(&self) -> Option<Instant> {
        if self.over {
            return Some(Instant::default());
        }
        let oldest = self.flights.front()?;
        Some(oldest.started + DOUBT_AFTER)
    }

    /// True if nobody waits for anything of this node.
    fn is_settled(&self) -> bool {
        self.flights.is_empty() && self.mandate.queue.waits_since().is_none()
    }

    /// Follows from now on. Another node takes the lead, or this one again after a silence.
    fn resign(self, cx: &mut Cx<'_>) -> State {
        let lasting = &mut cx.lasting;
        lasting.leading_until = None;
        lasting.claimant = None;
        lasting.deposed = true;
        let claim = Position(lasting.chain.claim().index);
        cx.pass(self.mandate.resigns, claim);
        State::Following(Following::begin(cx))
    }

    /// Counts an entry of this node that has landed, as all before it have.
    fn count(&mut self, cx: &mut Cx<'_>, mut flight: Flight) {
        let lasting = &mut cx.lasting;
        let stamp = match lasting.chain.feed(&flight.bytes) {
            Ok(Verdict::Valid { stamp, .. }) => stamp,
            _ if !lasting.rules.hold(Rule::KnownInOrder) => flight.stamp,
            other => unreachable!("a leader's own entry in its place is valid: {other:?}"),
        };
        let kind = match &flight.body {
            None => Accepted::Commands,
            Some((sha256, _)) => Accepted::CommandsElsewhere(*sha256),
        };
        let length = flight.bytes.len() + flight.body.as_ref().map_or(0, |(_, b)| b.len());
        lasting.retention.accepted(flight.id.index, length, &kind);
        lasting.confirmed(flight.started);
        lasting.leading_until = Some(flight.started + ANSWER_FROM_MEMORY_FOR);
        cx.out.push(Effect::Apply {
            id: flight.id,
            stamp,
            items: std::mem::take(&mut flight.items),
            tickets: std::mem::take(&mut flight.tickets),
            quarantines: false,
        });
        if cx.lasting.rules.hold(Rule::OnlyWhatCountsIsTold) {
            cx.out.push(flight.telling());
        }
        cx.pass(flight.barriers, Position(flight.id.index));
        self.maintain(cx);
    }

    /// Starts the next entry with the waiting commands, if it may start now; with `heartbeat` even
    /// if there are none, or it cannot be paid for.
    fn pack(&mut self, cx: &mut Cx<'_>, heartbeat: bool) {
        let now = cx.now.boot;
        let at = match heartbeat {
            true => self.may_append_at(cx.lasting),
            false => self.append_due(cx.lasting),
        };
        if at.is_none_or(|at| at > now) {
            return;
        }
        self.appended_at = now;
        let led = u64::try_from(now.since(self.led_since).as_millis()).unwrap_or(u64::MAX);
        let ticks = self.ticks_before.saturating_add(led);
        let packed = self.mandate.queue.pack(&cx.lasting.settings);
        cx.lasting.thrift.done(now, packed.stored_bytes);
        let mut flight = self.write(cx, ticks, packed.items);
        flight.tickets = packed.tickets;
        flight.barriers = packed.barriers;
        cx.out.push(flight.effect());
        if !cx.lasting.rules.hold(Rule::OnlyWhatCountsIsTold) {
            // Tells of an entry that may never land, which the rule forbids.
            cx.out.push(flight.telling());
        }
        self.flights.push_back(flight);
    }

    /// Builds the next entry, which follows all entries in flight.
    fn write(&self, cx: &mut Cx<'_>, ticks: u64, items: Vec<Item>) -> Flight {
        let lasting = &mut cx.lasting;
        let nonce = lasting.nonce();
        let chain = &lasting.chain;
        let (index, predecessor, after) = match self.flights.back() {
            Some(flight) => (flight.id.index + 1, flight.id, flight.stamp),
            None => (chain.next(), chain.last(), chain.stamp()),
        };
        let id = EntryId { index, nonce };
        let stamp = cx.stamp(ticks, after);
        let lasting = &cx.lasting;
        let chain = &lasting.chain;
        let header = Header {
            shard: lasting.settings.shard,
            id,
            claim: chain.claim(),
            predecessor,
            stamp,
        };
        let (body, object) = if entry::slot_len(&items) > lasting.settings.slot_bytes_max {
            let (reference, object) = entry::put_elsewhere(id.nonce, &items);
            (Body::Elsewhere(reference), Some((reference.sha256, object)))
        } else {
            (Body::Commands(items.clone()), None)
        };
        let bytes = Entry { header, body }.encode();
        let mut flight = Flight::new(id, bytes, stamp, cx.now.boot);
        flight.body = object;
        flight.items = items;
        flight
    }

    /// When another entry may be sent: at once if none is in flight; else a while after the last
    /// one, so that commands share entries; never while as many are in flight as may be, or in a
    /// tenure that is over.
    fn may_append_at(&self, lasting: &Lasting) -> Option<Instant> {
        let most = lasting.settings.appends_in_flight_max.min(WINDOW as usize);
        if self.over || self.flights.len() >= most {
            return None;
        }
        if self.flights.is_empty() {
            return Some(self.appended_at);
        }
        Some(self.appended_at + lasting.settings.append_spacing)
    }

    /// When the waiting commands are sent: once their entry may be, and can be paid for, which does not matter to a node that
    /// resigns; `None` if none wait.
    fn append_due(&self, lasting: &Lasting) -> Option<Instant> {
        let since = self.mandate.queue.waits_since()?;
        let at = self.may_append_at(lasting)?;
        match self.mandate.is_resigning() {
            true => Some(at),
            false => Some(lasting.thrift.due(since, at)),
        }
    }

    /// Cuts a snapshot or trims, if it is time.
    pub(super) fn maintain(&self, cx: &mut Cx<'_>) {
        let now = cx.now.boot;
        let lasting = &mut cx.lasting;
        let policy = &lasting.settings.snapshot;
        let name = &lasting.settings.name;
        if let Some(cut) = lasting.retention.cut(now, policy, &lasting.chain, name) {
            let quarantined = lasting.quarantined.values().copied().collect();
            cx.out.push(Effect::WriteSnapshot {
                cut: Box::new(Cut { quarantined, ..cut }),
                older: lasting.retention.older_for_good(lasting.confirmed_at),
            });
        }
        cx.out.extend(lasting.retention.next_verification(now));
        if let Some(trim) = lasting.retention.next_trim(now, lasting.confirmed_at) {
            cx.out.push(trim);
        }
    }

    /// When a leader next acts without an event.
    pub(super) fn deadline(&self, lasting: &Lasting) -> Option<Instant> {
        let patience = lasting.settings.proposal_deadline;
        let queue = &self.mandate.queue;
        let flying = self.flights.iter().find(|flight| flight.is_waited_for());
        let flying = flying.map(|flight| flight.started + patience);
        // In a tenure that is over nothing is sent again.
        let retries = self.flights.iter().filter(|_| !self.over);
        let retry = retries.filter_map(Flight::retry_at).min();
        [
            queue.expires_at(&lasting.settings),
            flying,
            self.append_due(lasting),
            retry,
            self.heartbeat_at(lasting),
            self.look_at(lasting),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When the next heartbeat is due: none while an append is under way or nobody needs one.
    fn heartbeat_at(&self, lasting: &Lasting) -> Option<Instant> {
        let settings = &lasting.settings;
        let at = self.appended_at + settings.heartbeat_interval;
        let used = lasting.wanted_at();
        let used = used.filter(|used| at <= *used + settings.in_use_for);
        let contested = self.appended_at + settings.contested_heartbeat_interval;
        let wanted = used.map(|_| at).or(lasting.contested.then_some(contested));
        wanted.filter(|_| self.flights.is_empty())
    }

    /// When to look whether another node has claimed: never while appends are under way, since
    /// their answers tell.
    fn look_at(&self, lasting: &Lasting) -> Option<Instant> {
        let last = self.appended_at.max(self.looked_at);
        let at = last + lasting.settings.look_interval;
        self.flights.is_empty().then_some(at)
    }

    fn timer(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.boot;
        self.mandate.queue.expire(cx);
        let patience = cx.lasting.settings.proposal_deadline;
        let mut unsettled = Vec::new();
        for flight in &mut self.flights {
            if !self.over {
                flight.timer(cx);
            }
            if now.since(flight.started) >= patience {
                unsettled.append(&mut flight.waiting());
            }
        }
        cx.lose(unsettled, ProposeError::Unknown(LATE.to_owned()));
        let beat = self.heartbeat_at(cx.lasting).is_some_and(|at| at <= now);
        self.pack(cx, beat);
        if self.look_at(cx.lasting).is_some_and(|at| at <= now) {
            self.looked_at = now;
            let (from, limit) = (cx.lasting.chain.next(), 1);
            let request = Request::Scan { from, limit };
            self.look = Some(Question::ask(cx, Purpose::Look, request));
        }
    }
}
