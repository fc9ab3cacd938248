//! What every state works with: the time, the list of effects, and the data that outlive states. It
//! must not know the states.

use std::collections::BTreeMap;
use std::time::Duration;

use host::clock::Instant;
use host::thrift::Thrift;

use super::retention::Retention;
use super::stuck::Stuck;
use super::{
    Ask, Effect, Event, Limbo, Now, ProposeError, Purpose, Refusal, Settings, Ticket, WallClock,
};
use crate::chain::Chain;
use crate::entry::{EntryId, Stamp};
use crate::quarantine::Quarantined;
use crate::rule::{Rule, Rules};

/// What an entry costs, in thousandths of a request: itself, and the second copy that one slow
/// request in ten gets.
const ENTRY_PRICE: u64 = 1_100;

/// The data that a node keeps from state to state.
pub(super) struct Lasting {
    pub(super) settings: Settings,
    pub(super) rules: Rules,
    entropy: Box<dyn FnMut() -> u128 + Send>,
    pub(super) chain: Chain,
    pub(super) retention: Retention,
    asks: u64,
    /// Puts appends off that cannot be paid for yet.
    pub(super) thrift: Thrift,
    /// The first and last time that a caller wanted a leader, without a pause between.
    wants: Option<(Instant, Instant)>,
    /// The node whose claim is the last valid one.
    pub(super) claimant: Option<String>,
    pub(super) leading_until: Option<Instant>,
    pub(super) limbo: Limbo,
    /// True if another node has led since this one last did.
    pub(super) deposed: bool,
    /// True if another node has claimed since this one started, and may do so again.
    pub(super) contested: bool,
    /// The last claim of this node that counted.
    pub(super) own_claim: Option<EntryId>,
    pub(super) confirmed_at: Option<Instant>,
    /// The same, by what the journal showed alone: the floor was not read each time, nor is it certain when the leader told.
    pub(super) seemed_current_at: Option<Instant>,
    /// The entries that are left out, by slot, of which this node knows: every state that was begun since leaves them out.
    pub(super) quarantined: BTreeMap<u64, Quarantined>,
    /// The entry that cannot be applied here.
    pub(super) stuck: Option<Stuck>,
    pub(super) wall_clock: WallClock,
    /// True while a state is built that takes the place of one that was given up.
    pub(super) rebuilds: bool,
}

impl Lasting {
    pub(super) fn new(
        rules: Rules,
        settings: Settings,
        entropy: Box<dyn FnMut() -> u128 + Send>,
    ) -> Self {
        Lasting {
            chain: Chain::genesis(settings.shard).under(rules),
            thrift: Thrift::new(settings.append_thrift, ENTRY_PRICE),
            settings,
            rules,
            entropy,
            retention: Retention::new(rules),
            asks: 0,
            wants: None,
            claimant: None,
            leading_until: None,
            limbo: Limbo::new(),
            deposed: false,
            contested: false,
            own_claim: None,
            confirmed_at: None,
            seemed_current_at: None,
            quarantined: BTreeMap::new(),
            stuck: None,
            wall_clock: WallClock::default(),
            rebuilds: false,
        }
    }

    /// True if snapshots at this index were cut without a quarantine that is known.
    pub(super) fn is_void(&self, snapshot: u64) -> bool {
        let mut known = self.quarantined.values();
        known.any(|one| (one.slot..one.by).contains(&snapshot))
    }

    /// Everything that was appended before this time is known here.
    pub(super) fn confirmed(&mut self, at: Instant) {
        self.confirmed_at = self.confirmed_at.max(Some(at));
        self.seems_current(at);
    }

    /// The same, as far as the next slot tells, which may have been trimmed.
    pub(super) fn seems_current(&mut self, at: Instant) {
        self.seemed_current_at = self.seemed_current_at.max(Some(at));
    }

    pub(super) fn nonce(&mut self) -> u128 {
        (self.entropy)()
    }

    pub(super) fn wanted_at(&self) -> Option<Instant> {
        self.wants.map(|(_, last)| last)
    }

    /// True if a caller still wanted a leader after a silence of this length, which is counted from
    /// `since`, but not from before any caller wanted one.
    pub(super) fn wants_after(&self, silence: Duration, since: Instant, now: Instant) -> bool {
        self.wants.is_some_and(|(first, last)| {
            now.since(last) < self.settings.in_use_for && last.since(first.max(since)) >= silence
        })
    }

    /// When the first entry in limbo has waited as long as its callers do.
    pub(super) fn limbo_expires_at(&self) -> Option<Instant> {
        let mut waiting = self.limbo.iter().filter(|flight| flight.is_waited_for());
        let first = waiting.next()?;
        Some(first.started + self.settings.proposal_deadline)
    }

    /// `stamp`, or `before` if that is later.
    fn growing(&self, stamp: Stamp, before: Stamp) -> Stamp {
        if self.rules.hold(Rule::StampsGrow) {
            stamp.max(before)
        } else {
            stamp
        }
    }
}

/// The context of one event: time, effects, and the node's lasting data.
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    pub(super) out: &'a mut Vec<Effect>,
    pub(super) lasting: &'a mut Lasting,
}

impl Cx<'_> {
    /// The stamp of an entry at these ticks, which comes after the stamp `before`.
    pub(super) fn stamp(&self, ticks_millis: u64, before: Stamp) -> Stamp {
        let wall_millis = self
            .lasting
            .wall_clock
            .stamps(self.now, ticks_millis, before);
        let stamp = Stamp {
            wall_millis,
            ticks_millis,
        };
        self.lasting.growing(stamp, before)
    }

    /// Notes that a caller wants a leader.
    pub(super) fn want(&mut self) {
        let now = self.now.boot;
        let in_use_for = self.lasting.settings.in_use_for;
        let first = match self.lasting.wants {
            Some((first, last)) if now.since(last) < in_use_for => first,
            _ => now,
        };
        self.lasting.wants = Some((first, now));
    }

    pub(super) fn lose(&mut self, tickets: Vec<Ticket>, why: ProposeError) {
        if !tickets.is_empty() {
            self.out.push(Effect::Lost { tickets, why });
        }
    }

    /// Answers all callers in limbo with `why`.
    pub(super) fn lose_limbo(&mut self, why: ProposeError) {
        let flights = std::mem::take(&mut self.lasting.limbo);
        let tickets = flights.into_iter().flat_map(|mut flight| flight.waiting());
        self.lose(tickets.collect(), why);
    }

    pub(super) fn expire_limbo(&mut self) {
        let patience = self.lasting.settings.proposal_deadline;
        let mut late = Vec::new();
        for flight in &mut self.lasting.limbo {
            if self.now.boot.since(flight.started) >= patience {
                late.append(&mut flight.waiting());
            }
        }
        self.lose(late, ProposeError::Unknown(LATE.to_owned()));
    }

    /// Refuses the callers of an event, if it has any.
    pub(super) fn refuse(&mut self, event: Event, refusal: &Refusal) {
        let tickets = match event {
            Event::Propose(proposals) => proposals.iter().map(|p| p.ticket).collect(),
            Event::Barrier(ticket) | Event::Confirm(ticket) | Event::Resign(ticket) => vec![ticket],
            _ => return,
        };
        self.lose(tickets, ProposeError::Definite(refusal.clone()));
    }

    /// Notes that a caller wants a leader, and refuses it for want of one.
    pub(super) fn refuse_for_want_of_lead(&mut self, event: Event) {
        if matches!(event, Event::Propose(_) | Event::Barrier(_)) {
            self.want();
        }
        let leader = self.lasting.claimant.clone();
        self.refuse(event, &Refusal::NotLeader { leader });
    }

    /// A random time between half of `base` and one and a half of it.
    pub(super) fn jitter(&mut self, base: Duration) -> Duration {
        let micros = u64::try_from(base.as_micros()).unwrap_or(u64::MAX);
        let draw = (self.lasting.nonce() as u64) % micros.saturating_add(1);
        Duration::from_micros(micros / 2 + draw)
    }

    /// When to try again after so many failures in a row, at least one.
    pub(super) fn again_at(&mut self, failures: u32) -> Instant {
        let settings = &self.lasting.settings;
        let doubled = settings.retry_min * (1 << (failures - 1).min(16));
        let pause = doubled.min(settings.retry_max);
        self.now.boot + self.jitter(pause)
    }
}

/// The answer to callers whose entry takes too long.
pub(super) const LATE: &str = "the journal has not answered in time";

/// The kinds of request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    Load { above: u64, anew: bool },
    Scan { from: u64, limit: usize },
    Floor { end: u64 },
    Take { from: u64, through: u64 },
    FindSnapshot { from: u64 },
    Hear { slot: u64 },
}

/// A request that is open, or to be repeated after a failure.
pub(super) struct Question {
    ask: Ask,
    request: Request,
    /// When it was last sent.
    pub(super) asked_at: Instant,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Question {
    pub(super) fn ask(cx: &mut Cx<'_>, purpose: Purpose, request: Request) -> Question {
        let mut question = Question {
            ask: Ask { purpose, number: 0 },
            request,
            asked_at: cx.now.boot,
            failures: 0,
            retry_at: None,
        };
        question.issue(cx);
        question
    }

    fn issue(&mut self, cx: &mut Cx<'_>) {
        cx.lasting.asks += 1;
        self.ask.number = cx.lasting.asks;
        self.asked_at = cx.now.boot;
        self.retry_at = None;
        let ask = self.ask;
        cx.out.push(match self.request {
            Request::Load { above, anew } => Effect::LoadSnapshot {
                ask,
                above,
                anew,
                leaves_out: match cx.lasting.rules.hold(Rule::SnapshotsKnowQuarantines) {
                    true => cx.lasting.quarantined.values().copied().collect(),
                    false => Vec::new(),
                },
            },
            Request::Scan { from, limit } => Effect::Scan { ask, from, limit },
            Request::Floor { end } => Effect::ReadFloor { ask, end },
            Request::Take { from, through } => Effect::Take { ask, from, through },
            Request::FindSnapshot { from } => Effect::FindSnapshot { ask, from },
            Request::Hear { slot } => Effect::Hear { ask, slot },
        });
    }

    /// True if this is the answer to the open request.
    pub(super) fn is(&self, ask: Ask) -> bool {
        self.ask == ask && self.retry_at.is_none()
    }

    /// Notes a failure: the request is repeated after a growing pause.
    pub(super) fn failed(&mut self, cx: &mut Cx<'_>) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(cx.again_at(self.failures));
    }

    /// Repeats the request if its time has come.
    pub(super) fn timer(&mut self, cx: &mut Cx<'_>) {
        if self.retry_at.is_some_and(|at| at <= cx.now.boot) {
            self.issue(cx);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }
}
