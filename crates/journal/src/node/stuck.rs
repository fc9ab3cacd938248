//! An entry that this build cannot apply: what a node knows of it, and whether it may be left out. It must not know why the
//! entry cannot be applied.
//!
//! A node that is stuck goes on checking the chain, so that it finds a quarantine that another node appends. Itself it claims
//! only for that, on an operator's word, and never leads.

use crate::engine::WINDOW;
use crate::entry::{EntryId, Header, Item};
use crate::quarantine::{self, Word};

/// The first entry that cannot be applied here.
#[derive(Debug)]
pub(super) struct Stuck {
    pub(super) index: u64,
    /// Why it cannot, as the state machine says.
    why: String,
    /// The entry, once it was read again: its claim, and its SHA-256.
    entry: Option<(EntryId, [u8; 32])>,
    /// The node that appended it.
    leader: Option<String>,
    /// Why it may not be left out.
    objection: Option<String>,
    /// Whether the end of the journal was reached, so that no quarantine of it is there.
    pub(super) is_last_word: bool,
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

    /// Takes note of a valid entry with commands; `only_quarantines` if it has no others.
    pub(super) fn saw(
        &mut self,
        header: &Header,
        sha256: impl FnOnce() -> [u8; 32],
        only_quarantines: bool,
        claimant: Option<&str>,
    ) {
        let index = header.id.index;
        if index == self.index {
            self.entry = Some((header.claim, sha256()));
            self.leader = claimant.map(str::to_owned);
        }
        let Some((claim, _)) = self.entry else {
            return;
        };
        // Its own leader may have had the next ones in flight with it, before it could know; a whole window further, it had
        // applied it.
        let is_beyond =
            index > self.index && (header.claim != claim || index >= self.index + WINDOW);
        if is_beyond && !only_quarantines && self.objection.is_none() {
            let leader = claimant.unwrap_or("another node");
            self.objection = Some(format!(
                "{leader} has applied it and led on, and what was acknowledged since rests on it: run the version that {leader} \
                 runs"
            ));
        }
    }

    /// The word by which an operator has it left out.
    pub(super) fn word(&self) -> Option<Word> {
        let (_, sha256) = self.entry.as_ref()?;
        Some(Word::of(self.index, sha256))
    }

    /// Whether `asked`, the operator's word, has it left out.
    pub(super) fn may_be_left_out(&self, asked: Option<Word>) -> bool {
        asked.is_some() && asked == self.word() && self.objection.is_none()
    }

    /// True if the journal is trimmed beyond the entry: verified snapshots hold what it did, and from them every build goes on.
    pub(super) fn is_below(&self, floor: u64) -> bool {
        self.index < floor
    }

    /// It may not be left out, for this reason.
    pub(super) fn object(&mut self, why: String) {
        self.objection = Some(why);
    }

    /// The command that leaves it out, once it was read again.
    pub(super) fn command(&self) -> Option<Item> {
        let (_, sha256) = self.entry.as_ref()?;
        Some(quarantine::command(self.index, sha256, &self.why))
    }

    /// What there is to know, and what an operator can do.
    pub(super) fn tell(&self, asked: Option<Word>) -> String {
        let index = self.index;
        let mut text = format!(
            "entry {index} of the journal cannot be applied: {}. This node serves nothing, applies nothing after it, and reads on. ",
            self.why
        );
        let leader = self.leader.as_deref().unwrap_or("a node");
        if self.entry.is_some() {
            text += &format!("{leader} appended it. ");
        }
        let (objection, word) = (self.objection.as_ref(), self.word());
        text += &match (objection, word) {
            (Some(objection), _) => format!("It cannot be left out: {objection}"),
            (None, Some(word)) if asked == Some(word) => {
                "It is being left out, as the operator wants".to_owned()
            }
            (None, Some(word)) => format!(
                "Run a version that can apply it. If there is none, every node can do without it; all that its commands did is \
                 lost then, though {leader} may have applied and acknowledged it: start one node with journal.quarantine={word}"
            ),
            (None, None) => "It is read again".to_owned(),
        };
        if let (Some(asked), None) = (asked.filter(|asked| Some(*asked) != word), objection) {
            text += &format!(" (it was started with {asked}, which is another entry)");
        }
        text
    }
}
