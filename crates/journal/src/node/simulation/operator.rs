//! The operator of a simulated world, who has entries left out that some builds cannot apply, and what nodes say to each other of such an
//! entry. It must not know how nodes decide.

use super::*;
use crate::quarantine;

impl World {
    /// Reads what nodes that are stuck say of it, and does it.
    pub(super) fn operator(&mut self) {
        self.at(self.now + SECONDS, Happening::Operator);
        for place in 0..self.places.len() {
            let at = &mut self.places[place];
            let Some(told) = at.node.as_ref().and_then(Node::stuck) else {
                continue;
            };
            let order = told.split_once("journal.quarantine=");
            let order: Option<Order> =
                order.and_then(|(_, order)| order.split(' ').next()?.parse().ok());
            match order {
                // Where another node can apply it there is a build that can.
                Some(order) if order.is_forced && self.rng.once_in(2) => at.applies_all = true,
                Some(order) => at.word = Some(order),
                None if told.contains("run the version") => at.applies_all = true,
                None => continue,
            }
            self.crash(place);
        }
    }

    /// What the other nodes that are there say of how far they have applied the journal; some are not reached.
    pub(super) fn others_say(&mut self, place: usize, slot: u64) -> Vec<Said> {
        let mut said = Vec::new();
        for (number, other) in self.places.iter().enumerate() {
            let is_reached =
                other.paused_until <= self.now && !(self.faults && self.rng.once_in(8));
            let Some(node) = other
                .node
                .as_ref()
                .filter(|_| is_reached && number != place)
            else {
                continue;
            };
            let applied = match node.role() {
                Role::Halted | Role::Loading | Role::Stuck => other.applied_to,
                _ => node.chain().next() - 1,
            };
            said.push(Said {
                name: format!("n{number}"),
                version: None,
                applied: Some(applied),
            });
        }
        let has_one = said.iter().any(|said| said.applied >= Some(slot));
        let heard = &mut self.places[place].heard;
        *heard = Some(heard.unwrap_or(false) || has_one);
        said
    }

    /// Checks that a node which leaves an entry out has asked the others, and that none of them had applied it, unless that is forced.
    pub(super) fn check_quarantine(&self, place: usize, bytes: &Bytes) -> Result<(), String> {
        let entry = Entry::decode(bytes).map_err(|error| error.to_string())?;
        let Body::Commands(items) = entry.body else {
            return Ok(());
        };
        let at = &self.places[place];
        let is_forced = at.word.is_some_and(|order| order.is_forced);
        let leaves_out = items.iter().any(|item| item.cluster == quarantine::OWN);
        match at.heard {
            _ if !leaves_out || is_forced => Ok(()),
            Some(false) => Ok(()),
            None => Err(format!("n{place} leaves an entry out and has asked nobody")),
            Some(true) => Err(format!(
                "n{place} leaves an entry out that another is known to have applied"
            )),
        }
    }
}
