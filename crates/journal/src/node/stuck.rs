//! An entry that this build cannot apply: what a node knows of it, and whether it may be left out. It must not know why the
//! entry cannot be applied.
//!
//! A node that is stuck goes on checking the chain, so that it finds a quarantine that another node appends. Itself it claims
//! only for that, on an operator's word, and never leads.

use super::Said;
use crate::engine::WINDOW;
use crate::entry::{EntryId, Header, Item};
use crate::quarantine::{self, Order, Word};

/// The first entry that cannot be applied here.
#[derive(Debug)]
pub(super) struct Stuck {
    pub(super) index: u64,
    /// Why it cannot, as the state machine says.
    why: String,
    /// The entry, once it was read again.
    entry: Option<Found>,
    /// The node that appended it.
    leader: Option<String>,
    /// Why it may not be left out.
    objection: Option<Objection>,
    /// Whether the end of the journal was reached, so that no quarantine of it is there.
    pub(super) is_last_word: bool,
}

/// The entry as the journal has it.
#[derive(Debug)]
struct Found {
    claim: EntryId,
    sha256: [u8; 32],
    /// Its commands, but for the journal's own.
    items: Vec<Item>,
}

/// Why an entry may not be left out.
#[derive(Debug)]
enum Objection {
    /// What was acknowledged since rests on it, or nothing is left from which a state without it can be built.
    Final(String),
    /// Nodes that are there have applied it, or may have: an operator can force it.
    Live(String),
}

impl Stuck {
    pub(super) fn at(index: u64, why: String) -> Self {
        Stuck {
            index,
            why,
            entry: None,
            leader: None,
            objection: None,
            is_last_word: false,
        }
    }

    /// Takes note of a valid entry with these commands, beside quarantines; `only_quarantines` if it has nothing that another may have
    /// applied.
    pub(super) fn saw(
        &mut self,
        header: &Header,
        sha256: impl FnOnce() -> [u8; 32],
        (items, only_quarantines): (&[Item], bool),
        claimant: Option<&str>,
    ) {
        let index = header.id.index;
        if index == self.index {
            self.entry = Some(Found {
                claim: header.claim,
                sha256: sha256(),
                items: items.to_vec(),
            });
            self.leader = claimant.map(str::to_owned);
        }
        let Some(Found { claim, .. }) = self.entry else {
            return;
        };
        // Its own leader may have had the next ones in flight with it, before it could know; a whole window further, it had
        // applied it.
        let is_beyond =
            index > self.index && (header.claim != claim || index >= self.index + WINDOW);
        let is_known = matches!(self.objection, Some(Objection::Final(_)));
        if is_beyond && !only_quarantines && !is_known {
            let leader = claimant.unwrap_or("another node");
            self.object(format!(
                "{leader} has applied it and led on, and what was acknowledged since rests on it: run the version that {leader} \
                 runs"
            ));
        }
    }

    /// The word by which an operator has it left out.
    fn word(&self) -> Option<Word> {
        let found = self.entry.as_ref()?;
        Some(Word::of(self.index, &found.sha256))
    }

    /// Whether this is the entry that `asked`, the operator's order, names.
    fn is_meant(&self, asked: Option<Order>) -> bool {
        asked.is_some_and(|order| Some(order.word) == self.word())
    }

    /// Whether `asked` has it left out.
    pub(super) fn may_be_left_out(&self, asked: Option<Order>) -> bool {
        self.is_meant(asked) && self.objection.is_none()
    }

    /// True if the journal is trimmed beyond the entry: verified snapshots hold what it did, and from them every build goes on.
    pub(super) fn is_below(&self, floor: u64) -> bool {
        self.index < floor
    }

    /// It may not be left out, for this reason.
    pub(super) fn object(&mut self, why: String) {
        self.objection = Some(Objection::Final(why));
    }

    /// The other nodes that are there have said how far they have applied the journal. Who does not say may have applied the entry.
    pub(super) fn hear(&mut self, said: &[Said]) {
        let index = self.index;
        let objects = |said: &&Said| said.applied.is_none_or(|applied| applied >= index);
        let mut objecting: Vec<String> = said.iter().filter(objects).map(Said::tell).collect();
        objecting.sort();
        if !objecting.is_empty() && self.objection.is_none() {
            self.objection = Some(Objection::Live(objecting.join("; ")));
        }
    }

    /// The command that leaves it out, once it was read again.
    pub(super) fn command(&self) -> Option<Item> {
        let found = self.entry.as_ref()?;
        Some(quarantine::command(self.index, &found.sha256, &self.why))
    }

    /// Its commands, if `asked` has it left out.
    pub(super) fn into_items(self, asked: Option<Order>) -> Option<Vec<Item>> {
        let is_meant = self.is_meant(asked);
        self.entry.filter(|_| is_meant).map(|found| found.items)
    }

    /// What there is to know, and what an operator can do.
    pub(super) fn tell(&self, asked: Option<Order>) -> String {
        let index = self.index;
        let mut text = format!(
            "entry {index} of the journal cannot be applied: {}. This node serves nothing, applies nothing after it, and reads on. ",
            self.why
        );
        let leader = self.leader.as_deref().unwrap_or("a node");
        if self.entry.is_some() {
            text += &format!("{leader} appended it. ");
        }
        let Some(word) = self.word() else {
            return text + "It is read again";
        };
        text += &match &self.objection {
            Some(Objection::Final(why)) => format!("It cannot be left out: {why}"),
            Some(Objection::Live(who)) => format!(
                "It is not left out, since what others have applied may be acknowledged: {who}. Run a version that can apply it here too. \
                 If those that have applied it are gone for good, start this node again; if they are not, and what the entry did may be \
                 lost, start it with journal.quarantine={word}-forced"
            ),
            None if self.is_meant(asked) => {
                "It is being left out, as the operator wants".to_owned()
            }
            None => format!(
                "Run a version that can apply it. If there is none, every node can do without it; all that its commands did is \
                 lost then, though {leader} may have applied and acknowledged it: start one node with journal.quarantine={word}"
            ),
        };
        if let (Some(asked), None) = (asked.filter(|_| !self.is_meant(asked)), &self.objection) {
            text += &format!(" (it was started with {asked}, which is another entry)");
        }
        text
    }
}

impl Said {
    /// For people.
    fn tell(&self) -> String {
        let name = &self.name;
        match (&self.version, self.applied) {
            (Some(version), Some(_)) => format!("{name}, of version {version}, has applied it"),
            (None, Some(_)) => format!("{name} has applied it"),
            (_, None) => format!("{name} is there and does not say whether it has applied it"),
        }
    }
}
