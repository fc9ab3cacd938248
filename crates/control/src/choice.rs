//! Which region is to lead: the one that an operator prefers, as long as it is well, or else the one in which commits take the least
//! time (three regions, rule L3). Sans-IO: each node keeps this memory, and the one that leads acts by it. It must not know how the time of
//! a commit is measured, how others are asked, nor how a lead is handed over.
//!
//! Like is compared with like: each node measures in the same way what a commit would take if it led. No tug of war comes of it: the
//! lead goes to another region only after what speaks for that has held for a while without a break, and the wait is twice as long for each
//! change of leader within ten minutes beyond the first, whatever its reason was.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use host::clock::Instant;
use rpc::peer::Reason;

/// The value of `configs::PREFERRED` by which no region is preferred.
pub const AUTO: &str = "auto";
/// How long what a node has said counts: a few times what is between two questions.
const HEARD_FOR: Duration = Duration::from_secs(15);
/// How long commits must have taken less time elsewhere.
const FASTER_FOR: Duration = Duration::from_secs(30);
/// The same if the node that leads is ailing.
const AILING_FOR: Duration = Duration::from_secs(2);
/// How long a region that is preferred must have been well, unless an operator has just said that it is (three regions, rule L3). Changes of
/// leader are forgotten as soon, so they do not make this wait longer.
const WELL_FOR: Duration = Duration::from_secs(600);
/// How long changes of leader are remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// The most often that a wait is doubled.
const DOUBLINGS_MAX: usize = 6;
/// The pause before a lead that nobody took is offered again.
const OFFER_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Less than this is no difference: it is what the work of the machine alone makes.
const DIFFERENCE_MIN: Duration = Duration::from_millis(5);
/// A node is ailing if a commit takes this many times what it takes usually,
const AILING_TIMES: u32 = 4;
/// and so much longer.
const AILING_BY: Duration = Duration::from_millis(50);
/// The usual is the least of the current and the last period of this length.
const USUAL_PERIOD: Duration = Duration::from_secs(300);

/// Another control node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) region: String,
}

/// What a node sees.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Whether it leads.
    pub(crate) leads: bool,
    pub(crate) own_region: String,
    /// What the node whose claim is the last calls itself in it.
    pub(crate) leader: Option<String>,
    /// What the cluster's config says.
    pub(crate) preferred: String,
    /// The others, but for those whose clocks are wrong.
    pub(crate) others: Vec<Candidate>,
}

/// To whom the lead is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) region: String,
    pub(crate) reason: Reason,
    /// The nodes of the region that can take it.
    pub(crate) to: BTreeSet<String>,
}

/// What is known of the time that commits take where one node is.
#[derive(Clone, Copy, Debug)]
struct Measured {
    latency: Option<Duration>,
    at: Instant,
    usual: Usual,
}

/// The least time of a commit, over five to ten minutes.
#[derive(Clone, Copy, Debug)]
struct Usual {
    begun: Instant,
    least: Option<Duration>,
    before: Option<Duration>,
}

/// The memory by which it is decided.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    own: Option<Measured>,
    others: BTreeMap<String, Measured>,
    leader: Option<String>,
    /// When the leader has changed of late.
    changes: VecDeque<Instant>,
    preferred: Option<String>,
    /// An operator has said since the last change of leader which region is preferred.
    is_word_new: bool,
    /// Why another region is to lead, whichever is best for it, and since when that has held without a break.
    leaning: Option<(Reason, Instant)>,
    offered_at: Option<Instant>,
}

impl Choice {
    /// This node has measured how long a commit would take; `None` if it does not reach enough buckets.
    pub(crate) fn measure(&mut self, now: Instant, latency: Option<Duration>) {
        self.own = Some(Measured::after(self.own, now, latency));
    }

    /// Another has said how long one would take if it led.
    pub(crate) fn hear(&mut self, now: Instant, name: &str, latency: Option<Duration>) {
        let before = self.others.get(name).copied();
        let measured = Measured::after(before, now, latency);
        self.others.insert(name.to_owned(), measured);
    }

    /// Looks who is to lead; yields to whom this node is to hand the lead over now. It is to be called often, on every node.
    pub(crate) fn look(&mut self, now: Instant, seen: &Seen) -> Option<Offer> {
        // In this order: an operator's word is new if it is seen together with a change of leader.
        self.note_leader(now, seen.leader.as_deref());
        self.note_preference(&seen.preferred);
        let is_there = |name: &String| seen.others.iter().any(|other| other.name == *name);
        self.others.retain(|name, _| is_there(name));
        let wanted = match seen.leads {
            true => self.wanted(now, seen),
            false => None,
        };
        let Some((mut offer, patience)) = wanted else {
            (self.leaning, self.offered_at) = (None, None);
            return None;
        };
        let since = match self.leaning {
            Some((reason, since)) if reason == offer.reason => since,
            _ => {
                self.offered_at = None;
                now
            }
        };
        self.leaning = Some((offer.reason, since));
        if offer.reason == Reason::Faster {
            // What slows this node down may have reached the others, too, since they were heard.
            let others = &self.others;
            let is_heard_since =
                |name: &String| others.get(name).is_some_and(|other| other.at >= since);
            offer.to.retain(is_heard_since);
        }
        if offer.to.is_empty() {
            return None;
        }
        let is_offered = |at| now.since(at) < OFFER_AGAIN_AFTER;
        if now.since(since) < patience || self.offered_at.is_some_and(is_offered) {
            return None;
        }
        self.offered_at = Some(now);
        Some(offer)
    }

    /// Whether it matters how the others are just now.
    pub(crate) fn wants_news(&self) -> bool {
        self.leaning.is_some() && self.own.is_some_and(|own| !own.is_well())
    }

    fn note_preference(&mut self, preferred: &str) {
        if self.preferred.as_deref() == Some(preferred) {
            return;
        }
        // What was said before this node began to look is not new.
        self.is_word_new = self.preferred.is_some();
        self.preferred = Some(preferred.to_owned());
        self.changes.clear();
    }

    fn note_leader(&mut self, now: Instant, leader: Option<&str>) {
        while let Some(at) = self.changes.front()
            && (now.since(*at) >= REMEMBERED_FOR || self.changes.len() > DOUBLINGS_MAX + 1)
        {
            self.changes.pop_front();
        }
        let Some(name) = leader else {
            return;
        };
        if self.leader.as_ref().is_some_and(|before| before != name) {
            self.changes.push_back(now);
            self.is_word_new = false;
        }
        self.leader = Some(name.to_owned());
    }

    /// The region that speaks for itself most, and how long it must.
    fn wanted(&self, now: Instant, seen: &Seen) -> Option<(Offer, Duration)> {
        let own = self.own?;
        if seen.own_region == seen.preferred && own.is_well() {
            return None;
        }
        if seen.own_region != seen.preferred && *seen.preferred != *AUTO {
            let well = self.nodes_in(now, seen, &seen.preferred, Measured::is_well);
            if !well.is_empty() {
                let offer = Offer {
                    region: seen.preferred.clone(),
                    reason: Reason::Preferred,
                    to: well,
                };
                let patience = match self.is_word_new {
                    true => Duration::ZERO,
                    false => WELL_FOR,
                };
                return Some((offer, patience));
            }
        }
        let patience = match own.is_well() {
            true => FASTER_FOR,
            false => AILING_FOR,
        };
        let offer = self.faster(now, seen, own)?;
        Some((offer, self.damped(patience)))
    }

    /// The region elsewhere in which commits take the least time, if that is clearly less.
    fn faster(&self, now: Instant, seen: &Seen, own: Measured) -> Option<Offer> {
        let elsewhere = seen
            .others
            .iter()
            .filter(|other| other.region != seen.own_region);
        let able = elsewhere.filter_map(|other| {
            let latency = self.heard(now, &other.name)?.latency?;
            Some((latency, &other.region))
        });
        let (latency, region) = able.min()?;
        let is_clear = own.latency.is_none_or(|own| is_clearly_less(latency, own));
        is_clear.then(|| Offer {
            region: region.clone(),
            reason: Reason::Faster,
            to: self.nodes_in(now, seen, region, |measured| measured.latency.is_some()),
        })
    }

    /// The nodes of a region that are so.
    fn nodes_in(
        &self,
        now: Instant,
        seen: &Seen,
        region: &str,
        is_so: impl Fn(Measured) -> bool,
    ) -> BTreeSet<String> {
        let there = seen.others.iter().filter(|other| other.region == region);
        let fit = there.filter(|other| self.heard(now, &other.name).is_some_and(&is_so));
        fit.map(|other| other.name.clone()).collect()
    }

    fn heard(&self, now: Instant, name: &str) -> Option<Measured> {
        let measured = self.others.get(name).copied()?;
        (now.since(measured.at) < HEARD_FOR).then_some(measured)
    }

    fn damped(&self, patience: Duration) -> Duration {
        let beyond = self.changes.len().saturating_sub(1).min(DOUBLINGS_MAX);
        patience * (1 << beyond)
    }
}

/// By a fifth at least.
fn is_clearly_less(latency: Duration, than: Duration) -> bool {
    latency + DIFFERENCE_MIN <= than && latency * 5 <= than * 4
}

impl Measured {
    fn after(before: Option<Measured>, now: Instant, latency: Option<Duration>) -> Self {
        let mut usual = before.map_or_else(|| Usual::since(now), |before| before.usual);
        usual.note(now, latency);
        Measured {
            latency,
            at: now,
            usual,
        }
    }

    /// How long a commit takes, unless the node is ailing.
    fn well(self) -> Option<Duration> {
        let (latency, usual) = (self.latency?, self.usual.least()?);
        let is_ailing = latency >= usual * AILING_TIMES && latency >= usual + AILING_BY;
        (!is_ailing).then_some(latency)
    }

    fn is_well(self) -> bool {
        self.well().is_some()
    }
}

impl Usual {
    fn since(now: Instant) -> Self {
        Usual {
            begun: now,
            least: None,
            before: None,
        }
    }

    fn note(&mut self, now: Instant, latency: Option<Duration>) {
        if now.since(self.begun) >= USUAL_PERIOD {
            // What was usual stays so over an outage.
            self.before = self.least.or(self.before);
            (self.begun, self.least) = (now, None);
        }
        self.least = lesser(self.least, latency);
    }

    fn least(&self) -> Option<Duration> {
        lesser(self.least, self.before)
    }
}

fn lesser(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
mod tests;
