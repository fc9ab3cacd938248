//! What goes wrong in a schedule, and what is said wrongly. It must not know what nodes do about it.

use super::stores::stray;
use super::{Event, Happening, Role, SECONDS, World};

impl World {
    /// Crashes, pauses of one or several nodes, and the stray writer.
    pub(super) fn nemesis(&mut self) -> Result<(), String> {
        if !self.faults {
            return Ok(());
        }
        let next = self.now + self.rng.below(2 * SECONDS);
        self.at(next, Happening::Nemesis);
        let place = self.rng.below(self.places.len() as u64) as usize;
        match self.rng.below(8) {
            0 => self.crash(place),
            1 | 2 => {
                let until = self.now + self.rng.below(12 * SECONDS);
                self.places[place].paused_until = until;
            }
            3 => {
                // All nodes but one fall asleep, perhaps at the same place in the journal.
                let until = self.now + self.rng.below(12 * SECONDS);
                for other in (0..self.places.len()).filter(|other| *other != place) {
                    let wake = until + self.rng.below(2 * SECONDS);
                    self.places[other].paused_until = wake;
                }
            }
            4 | 5 => {
                let (index, bytes) = stray(&self.stores, &mut self.rng);
                self.stores.append(index, bytes)?;
            }
            // Hints, which may be wrong.
            6 if self.resigns => self.resign(place)?,
            6 => {
                let node = self.places[place].node.as_ref();
                let claim = node.map_or(0, |node| node.chain().claim().index);
                self.hear(place, self.places[place].life, Event::LeaderGone(claim))?;
            }
            _ => {
                let slot = self.rng.below(500);
                self.hear(place, self.places[place].life, Event::Grew(slot))?;
            }
        }
        Ok(())
    }

    /// The node that leads is to resign; if none does, another one. Others are told so: of its claim or another one, perhaps before it has.
    fn resign(&mut self, place: usize) -> Result<(), String> {
        let leads = |place: &usize| {
            let node = self.places[*place].node.as_ref();
            node.is_some_and(|node| node.role() == Role::Leader)
        };
        let place = (0..self.places.len()).find(leads).unwrap_or(place);
        let Some(node) = &self.places[place].node else {
            return Ok(());
        };
        let claim = match self.rng.once_in(4) {
            true => self.rng.below(500),
            false => node.chain().claim().index,
        };
        for other in (0..self.places.len()).filter(|other| *other != place) {
            let told = self.now + self.rng.below(SECONDS);
            let (life, event) = (self.places[other].life, Event::LeaderResigned(claim));
            self.at(told, Happening::Heard(other, life, event));
        }
        // Its shell has not taken the request either while it is paused.
        if self.places[place].paused_until > self.now {
            return Ok(());
        }
        let ticket = self.oracle.resigns(place);
        self.hear(place, self.places[place].life, Event::Resign(ticket))
    }
}
