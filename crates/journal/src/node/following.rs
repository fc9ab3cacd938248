//! Following the journal: reading on, confirming how far the node has come, and deciding to take
//! the lead. It must not know how slots are read, nor how the lead is taken.

use std::time::Duration;

use bytes::Bytes;
use host::clock::Instant;

use super::accept::{Stop, look_over};
use super::context::{Cx, Lasting, Question, Request};
use super::hearsay::Hearsay;
use super::horizon::{FreeSlot, Horizon};
use super::{
    Event, ProposeError, Purpose, Quarantining, Refusal, Run, Slot, State, Takeover, Taking, Ticket,
};
use crate::engine::{self, End};
use crate::entry::{EntryId, Position};
use crate::rule::Rule;

/// How old a follower lets its knowledge grow that it has read to the end.
const CONFIRM_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Following {
    /// When the journal last grew, as far as this node knows.
    grew_at: Instant,
    /// How long the silence must be before this node claims.
    patience: Duration,
    /// The claim whose process is said to be gone: for that one the silence is shorter.
    gone: Option<EntryId>,
    /// The claim whose process is said to have resigned in favour of this node, which has not read it yet.
    resigned: Option<u64>,
    /// A slot in which there is said to be an entry that is not known here; the next look tells.
    sought: Option<u64>,
    /// The pause before the next look for new entries.
    poll: Duration,
    /// When the last look began.
    looked_at: Instant,
    stage: Stage,
    /// A free slot ahead, for when this node never finds the next one free.
    horizon: Horizon,
    /// What the leader has told of slots that are not read.
    hearsay: Hearsay,
    /// Callers that asked for a confirmation after the current look began, with the time.
    asked: Vec<(Instant, Ticket)>,
    /// Callers that asked before it began.
    served: Vec<(Instant, Ticket)>,
}

enum Stage {
    /// Waits until this time for the next look.
    Pausing(Instant),
    Looking(Question),
    /// Reads the floor, to learn whether what was found lies below it.
    Flooring(Question, Found),
}

/// What was found, and counts if the floor is not above it.
enum Found {
    Doubtful(Vec<Slot>),
    /// A slot that stays undecided until somebody takes.
    Unsettled,
    /// A free slot, with every slot before it read.
    Free(FreeSlot),
}

impl Following {
    pub(super) fn begin(cx: &mut Cx<'_>) -> Self {
        let mut following = Following::quiet(cx);
        following.look(cx);
        following
    }

    /// Goes on with slots that were read already.
    pub(super) fn with(cx: &mut Cx<'_>, slots: Vec<Slot>) -> Self {
        let mut following = Following::quiet(cx);
        following.ask_floor(cx, Found::Doubtful(slots));
        following
    }

    fn quiet(cx: &mut Cx<'_>) -> Self {
        let settings = &cx.lasting.settings;
        let silence = match settings.takeover {
            Takeover::AtOnce if !cx.lasting.deposed => Duration::ZERO,
            Takeover::AtOnce => settings.return_after,
            Takeover::AfterSilence => settings.takeover_after,
        };
        let poll = settings.poll_min;
        // Random, so that followers do not all claim at one time.
        let patience = silence + cx.jitter(silence / 4);
        Following {
            grew_at: cx.now.boot,
            patience,
            gone: None,
            resigned: None,
            sought: None,
            poll,
            looked_at: cx.now.boot,
            stage: Stage::Pausing(cx.now.boot),
            horizon: Horizon::unknown(),
            hearsay: Hearsay::default(),
            asked: Vec::new(),
            served: Vec::new(),
        }
    }

    /// Refuses the callers that wait for a confirmation.
    pub(super) fn give_up(self, cx: &mut Cx<'_>, why: &ProposeError) {
        let tickets = self.served.into_iter().chain(self.asked);
        cx.lose(tickets.map(|(_, ticket)| ticket).collect(), why.clone());
    }

    pub(super) fn deadline(&self, lasting: &Lasting) -> Option<Instant> {
        let stage = match &self.stage {
            Stage::Pausing(at) => Some(*at),
            Stage::Looking(question) | Stage::Flooring(question, ..) => question.deadline(),
        };
        let first = self.served.iter().chain(&self.asked).next();
        let expiry = first.map(|(since, _)| *since + lasting.settings.proposal_deadline);
        stage.into_iter().chain(expiry).min()
    }

    pub(super) fn handle(mut self, cx: &mut Cx<'_>, event: Event) -> State {
        match (event, &mut self.stage) {
            (Event::Scanned(ask, run), Stage::Looking(question)) if question.is(ask) => {
                return self.looked(cx, run);
            }
            (Event::Scanned(ask, run), _) if ask.purpose == Purpose::Horizon => {
                self.horizon.seen(ask, &run);
            }
            (Event::FloorRead(ask, floor), Stage::Flooring(question, ..)) if question.is(ask) => {
                match floor {
                    Ok(floor) => return self.floored(cx, floor),
                    Err(engine::Error::Corrupt(why)) => {
                        return State::Following(self).halt(cx, why);
                    }
                    Err(engine::Error::Unavailable(_)) => question.failed(cx),
                }
            }
            (Event::Timer, _) => return self.timer(cx),
            (Event::Confirm(ticket), _) => self.confirm(cx, ticket),
            (event, _) => {
                cx.refuse_for_want_of_lead(event);
                self.hasten(cx);
                // A caller that wants a leader may make an existing silence count.
                return self.timer(cx);
            }
        }
        State::Following(self)
    }

    /// Takes entries that the leader says count. While a look is under way they wait for its end.
    pub(super) fn told(mut self, cx: &mut Cx<'_>, entries: Vec<(u64, Bytes)>) -> State {
        if cx.lasting.stuck.is_some() {
            return State::Following(self);
        }
        self.leader_is_heard(cx);
        self.hearsay.add(cx.lasting.chain.next(), entries);
        match self.stage {
            Stage::Pausing(_) => self.go_by_hearsay(cx),
            _ => State::Following(self),
        }
    }

    /// Goes on, in a pause, with what the leader has told, as far as it is commands in their places. A leader that tells of them
    /// has counted them, so they are in the journal; all else is read there, at once.
    fn go_by_hearsay(mut self, cx: &mut Cx<'_>) -> State {
        let slots = self.hearsay.run_from(cx.lasting.chain.next());
        let outlook = look_over(&mut cx.lasting.chain.clone(), &slots);
        let is_plain = outlook.is_ok_and(|outlook| !outlook.is_doubtful);
        if is_plain && !slots.is_empty() {
            if let Err(stop) = self.take_in(cx, &slots, cx.now.boot) {
                return State::Following(self).stop(cx, stop);
            }
            self.hearsay.helped_at = Some(cx.now.boot);
            cx.lasting.seems_current(cx.now.boot);
        }
        let next = cx.lasting.chain.next();
        self.sought = self.sought.filter(|slot| *slot >= next);
        let is_more_there = self.sought.is_some() || !is_plain || self.hearsay.has_gap();
        if is_more_there && matches!(self.stage, Stage::Pausing(_)) {
            self.look(cx);
        }
        State::Following(self)
    }

    /// Looks at once for an entry that is said to be there; if a look is under way, again after it.
    pub(super) fn look_for(&mut self, cx: &mut Cx<'_>, slot: u64) {
        if slot < cx.lasting.chain.next() {
            return;
        }
        self.sought = Some(slot);
        if matches!(self.stage, Stage::Pausing(_)) {
            self.look(cx);
        }
    }

    /// The process of the claim in this slot is said to be gone: if that is the last claim, this node wants to lead, after a short
    /// silence.
    pub(super) fn leader_is_gone(&mut self, cx: &mut Cx<'_>, slot: u64) {
        let claim = cx.lasting.chain.claim();
        if claim.index != slot {
            return;
        }
        cx.want();
        let is_news = self.gone != Some(claim);
        if is_news {
            self.gone = Some(claim);
            let silence = cx.lasting.settings.takeover_when_gone_after;
            self.patience = self.patience.min(silence + cx.jitter(silence / 2));
        }
        self.poll = cx.lasting.settings.poll_min;
        if is_news && matches!(self.stage, Stage::Pausing(_)) {
            self.look(cx);
        }
    }

    /// The process that leads has spoken: it is not gone, whatever was said. One that has resigned speaks on until it ends.
    pub(super) fn leader_is_heard(&mut self, cx: &mut Cx<'_>) {
        if !self.patience.is_zero() && self.gone.take().is_some() {
            self.patience = Following::quiet(cx).patience;
        }
    }

    /// The process of the claim in this slot is said to have resigned in favour of this node, which claims at once unless
    /// another has. It may have renewed its claim as it did.
    pub(super) fn leader_resigned(&mut self, cx: &mut Cx<'_>, claim: u64) {
        let known = cx.lasting.chain.claim().index;
        if known < claim {
            self.resigned = Some(claim);
            return self.look_for(cx, claim);
        }
        if known == claim {
            self.succeed(cx);
        }
    }

    /// Wants to claim at once in place of the process of the last claim.
    fn succeed(&mut self, cx: &mut Cx<'_>) {
        // Callers are sent there no more.
        cx.lasting.claimant = None;
        let claim = cx.lasting.chain.claim().index;
        self.leader_is_gone(cx, claim);
        self.patience = Duration::ZERO;
        if matches!(self.stage, Stage::Pausing(_)) {
            self.look(cx);
        }
    }

    fn look(&mut self, cx: &mut Cx<'_>) {
        self.sought = None;
        self.looked_at = cx.now.boot;
        self.served.append(&mut self.asked);
        let from = cx.lasting.chain.next();
        let limit = cx.lasting.settings.scan_limit;
        let request = Request::Scan { from, limit };
        self.stage = Stage::Looking(Question::ask(cx, Purpose::Follow, request));
    }

    fn ask_floor(&mut self, cx: &mut Cx<'_>, found: Found) {
        let end = cx.lasting.chain.next();
        let question = Question::ask(cx, Purpose::Follow, Request::Floor { end });
        self.stage = Stage::Flooring(question, found);
    }

    /// Accepts slots that are beyond doubt; reads the floor if others are among them.
    fn looked(mut self, cx: &mut Cx<'_>, run: Run) -> State {
        let Stage::Looking(question) = &mut self.stage else {
            return State::Following(self);
        };
        let at = question.asked_at;
        if run.slots.is_empty() {
            match run.end {
                End::Undecided(_) => question.failed(cx),
                End::More => self.look(cx),
                End::Free => return self.at_the_end(cx, at),
                End::Unsettled => return self.unsettled(cx),
            }
            return State::Following(self);
        }
        match look_over(&mut cx.lasting.chain.clone(), &run.slots) {
            Err(stop) => return State::Following(self).stop(cx, stop),
            Ok(outlook) if outlook.is_doubtful && cx.lasting.rules.hold(Rule::ReaderReadsFloor) => {
                self.ask_floor(cx, Found::Doubtful(run.slots));
            }
            Ok(_) => return self.accept(cx, &run.slots),
        }
        State::Following(self)
    }

    fn accept(mut self, cx: &mut Cx<'_>, slots: &[Slot]) -> State {
        // What a process that is said to be gone had on its way may still land, and shows nothing of it.
        let grew_at = match self.is_leader_gone(cx) {
            true => self.looked_at.max(self.grew_at),
            false => cx.now.boot,
        };
        if let Err(stop) = self.take_in(cx, slots, grew_at) {
            return State::Following(self).stop(cx, stop);
        }
        match self.horizon.reached(cx) {
            Some(free) => self.ask_floor(cx, Found::Free(free)),
            None => return self.look_on(cx),
        }
        State::Following(self)
    }

    /// Carries the chain on by slots that are beyond doubt, and by which it grew at this time.
    fn take_in(&mut self, cx: &mut Cx<'_>, slots: &[Slot], grew_at: Instant) -> Result<(), Stop> {
        cx.accept(slots)?;
        cx.settle_limbo();
        if self
            .gone
            .is_some_and(|gone| gone != cx.lasting.chain.claim())
        {
            // Another has taken the lead.
            self.patience = Following::quiet(cx).patience;
            self.gone = None;
        }
        self.grew_at = grew_at;
        self.poll = cx.lasting.settings.poll_min;
        let claim = cx.lasting.chain.claim().index;
        if let Some(resigned) = self.resigned.take_if(|resigned| *resigned <= claim)
            && resigned == claim
        {
            self.succeed(cx);
        }
        Ok(())
    }

    /// Looks for more after slots were found, unless the leader tells: while the journal grows, the next slot may never be found free.
    fn look_on(mut self, cx: &mut Cx<'_>) -> State {
        let is_asked = self.wants_confirmation(cx) || !self.asked.is_empty();
        if is_asked {
            self.horizon.seek(cx);
        } else if self.is_told(cx) {
            return self.rest(cx);
        }
        self.look(cx);
        State::Following(self)
    }

    /// True if what the leader tells has carried the chain on of late, and nobody has wanted a leader since.
    fn is_told(&self, cx: &Cx<'_>) -> bool {
        let (now, wanted_at) = (cx.now.boot, cx.lasting.wanted_at());
        self.hearsay.helped_at.is_some_and(|at| {
            let is_late = now.since(at) >= cx.lasting.settings.poll_max;
            !is_late && wanted_at.is_none_or(|wanted_at| wanted_at <= at)
        })
    }

    /// Looks at once if the pause is one of those that are long because the leader tells. It tells no more if callers want another,
    /// and the silence of the journal counts from the look that finds its last entry.
    fn hasten(&mut self, cx: &mut Cx<'_>) {
        let soon = cx.now.boot + self.poll;
        if matches!(self.stage, Stage::Pausing(at) if at > soon) && !self.is_told(cx) {
            self.look(cx);
        }
    }

    /// The next slot looks free, but it may have been trimmed. The floor is read now and then, and
    /// before a claim, which would be useless in a trimmed slot.
    fn at_the_end(mut self, cx: &mut Cx<'_>, at: Instant) -> State {
        let slot = cx.lasting.chain.next();
        self.hearsay.found_free(slot);
        cx.lasting.seems_current(at);
        if self.takes_at_once(cx) {
            return self.take(cx);
        }
        if self.wants_confirmation(cx) || self.may_take(cx) {
            let free = FreeSlot {
                slot,
                at,
                is_next: true,
            };
            self.ask_floor(cx, Found::Free(free));
            return State::Following(self);
        }
        self.rest(cx)
    }

    /// The next slot is not decided. Its writer may be at work; where it is gone, the slot is settled by taking, and by nothing
    /// else.
    fn unsettled(mut self, cx: &mut Cx<'_>) -> State {
        if self.takes_at_once(cx) {
            return self.take(cx);
        }
        if self.may_take(cx) {
            self.ask_floor(cx, Found::Unsettled);
            return State::Following(self);
        }
        if !self.served.is_empty() {
            self.poll = cx.lasting.settings.poll_min;
        }
        self.rest(cx)
    }

    fn wants_confirmation(&self, cx: &Cx<'_>) -> bool {
        let known = cx.lasting.confirmed_at;
        let unsure = known.is_none_or(|at| cx.now.boot.since(at) >= CONFIRM_EVERY);
        unsure || !self.served.is_empty()
    }

    /// The floor, read after something was found.
    fn floored(mut self, cx: &mut Cx<'_>, floor: u64) -> State {
        if floor > cx.lasting.chain.next() {
            return State::Following(self).reload(cx);
        }
        if cx
            .lasting
            .stuck
            .as_ref()
            .is_some_and(|stuck| stuck.is_below(floor))
        {
            return State::Following(self).rebuild(cx, None);
        }
        let found = match &mut self.stage {
            Stage::Flooring(_, Found::Doubtful(slots)) => Found::Doubtful(std::mem::take(slots)),
            Stage::Flooring(_, Found::Unsettled) => Found::Unsettled,
            Stage::Flooring(_, Found::Free(free)) => Found::Free(*free),
            _ => return State::Following(self),
        };
        cx.lasting.retention.follow(floor);
        match found {
            Found::Doubtful(slots) => self.accept(cx, &slots),
            // The leader may have told of it meanwhile.
            Found::Unsettled if self.may_take(cx) => self.take(cx),
            Found::Unsettled => self.rest(cx),
            Found::Free(free) if free.slot < floor => {
                // It may have been trimmed before it was found free.
                self.look_on(cx)
            }
            Found::Free(free) => self.confirmed(cx, free),
        }
    }

    /// Everything that was appended before the slot was read is known here.
    fn confirmed(mut self, cx: &mut Cx<'_>, free: FreeSlot) -> State {
        cx.lasting.rebuilds = false;
        match &mut cx.lasting.stuck {
            // A slot ahead was found free long ago, and the next one to read may leave the entry out.
            Some(stuck) => stuck.is_last_word |= free.is_next,
            None => cx.lasting.confirmed(free.at),
        }
        let before = |(since, _): &mut (Instant, Ticket)| *since <= free.at;
        let served = self.served.extract_if(.., before);
        let tickets = served.map(|(_, ticket)| ticket).collect();
        let position = Position(cx.lasting.chain.next() - 1);
        cx.pass(tickets, position);
        if self.may_take(cx) {
            return self.take(cx);
        }
        if free.slot < cx.lasting.chain.next() || !self.served.is_empty() {
            return self.look_on(cx);
        }
        self.rest(cx)
    }

    fn take(self, cx: &mut Cx<'_>) -> State {
        self.give_up(cx, &super::not_leader());
        match cx.lasting.stuck {
            Some(_) => Quarantining::begin(cx),
            None => State::Taking(Taking::begin(cx)),
        }
    }

    /// Takes what the leader has told meanwhile, and pauses before the next look: longer as long as it tells. Looks at once if a
    /// caller has asked since the last look began, or an entry is said to be there that was not told.
    fn rest(mut self, cx: &mut Cx<'_>) -> State {
        if !self.asked.is_empty() {
            self.look(cx);
            return State::Following(self);
        }
        let poll_max = cx.lasting.settings.poll_max;
        let mut pause = poll_max;
        if !self.is_told(cx) {
            pause = self.poll;
            self.poll = (pause * 2).min(poll_max);
        }
        let until = cx.now.boot + cx.jitter(pause);
        // It looks again when the silence is long enough to take the lead, which may be for others than the silence to allow.
        let silent_enough = self.grew_at + self.patience;
        let looks_at = match silent_enough > cx.now.boot {
            true => silent_enough,
            false => cx.now.boot + pause / 2,
        };
        self.stage = Stage::Pausing(until.min(looks_at));
        self.go_by_hearsay(cx)
    }

    /// True if the journal has been silent for long enough to take the lead. An idle leader is
    /// silent too, so for a part of that time a caller must have wanted a leader, and want one still.
    fn may_take(&self, cx: &Cx<'_>) -> bool {
        let now = cx.now.boot;
        let lasting = &cx.lasting;
        let later_by = match self.is_successor(cx) {
            // Whoever resigned in its favour has found no better one.
            true => Duration::ZERO,
            false => lasting.wall_clock.claims_later_by(),
        };
        let is_silent = now.since(self.grew_at) >= self.patience + later_by;
        if let Some(stuck) = &lasting.stuck {
            return is_silent && stuck.may_be_left_out(lasting.settings.quarantine);
        }
        let alone = lasting.settings.takeover == Takeover::AtOnce || lasting.chain.next() == 1;
        if alone {
            return is_silent;
        }
        if self.is_leader_gone(cx) {
            return is_silent;
        }
        let wanted_for = self.patience.min(lasting.settings.wanted_for);
        is_silent && lasting.wants_after(wanted_for, self.grew_at, now)
    }

    /// True if the process that leads is said to have resigned in favour of this node.
    fn is_successor(&self, cx: &Cx<'_>) -> bool {
        self.patience.is_zero() && self.is_leader_gone(cx)
    }

    fn is_leader_gone(&self, cx: &Cx<'_>) -> bool {
        self.gone == Some(cx.lasting.chain.claim())
    }

    /// True if the process that leads is said to be gone, the silence has lasted, and this node knew the journal's end a moment
    /// ago: then it takes without another look at the end or the floor. A take reads on by itself, and before the
    /// claim counts the floor is read in any case; the looks only spare a node that slept a claim in vain.
    fn takes_at_once(&self, cx: &Cx<'_>) -> bool {
        let is_current = |at| cx.now.boot.since(at) < CONFIRM_EVERY;
        let lasting = &cx.lasting;
        self.is_leader_gone(cx)
            && lasting.stuck.is_none()
            && lasting.seemed_current_at.is_some_and(is_current)
            && self.may_take(cx)
    }

    fn confirm(&mut self, cx: &mut Cx<'_>, ticket: Ticket) {
        if cx.lasting.stuck.is_some() {
            return cx.refuse_for_want_of_lead(Event::Confirm(ticket));
        }
        if self.asked.len() >= cx.lasting.settings.queue_items_max {
            let busy = ProposeError::Definite(Refusal::Busy);
            return cx.lose(vec![ticket], busy);
        }
        self.asked.push((cx.now.boot, ticket));
        if matches!(self.stage, Stage::Pausing(_)) {
            self.look(cx);
        }
    }

    /// Looks again if it is time, or claims if the silence has lasted long enough.
    fn timer(mut self, cx: &mut Cx<'_>) -> State {
        let (now, patience) = (cx.now.boot, cx.lasting.settings.proposal_deadline);
        let mut late = Vec::new();
        for waiting in [&mut self.served, &mut self.asked] {
            let is_late = |(since, _): &mut (Instant, Ticket)| now.since(*since) >= patience;
            late.extend(waiting.extract_if(.., is_late).map(|(_, ticket)| ticket));
        }
        cx.lose(late, ProposeError::Definite(Refusal::Expired));
        let (may_take, takes_at_once) = (self.may_take(cx), self.takes_at_once(cx));
        match &mut self.stage {
            Stage::Pausing(_) if takes_at_once => return self.take(cx),
            Stage::Pausing(at) if *at <= now || may_take => self.look(cx),
            Stage::Pausing(_) => {}
            Stage::Looking(question) | Stage::Flooring(question, ..) => question.timer(cx),
        }
        State::Following(self)
    }
}
