//! For engines: what a tenure may send: its claim, then slots within the window of what it has appended, and
//! to each slot one entry only. It must not know how slots are stored.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::WINDOW;

/// The slots and entries that one tenure has sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// How many slots may be in flight beyond those that are known.
    width: u64,
    /// The slot of the claim.
    first: u64,
    /// Every slot of the tenure below this one is appended.
    known: u64,
    /// What was sent to which slot, from the window's width below `known` on, and whether it is appended.
    sent: BTreeMap<u64, (Bytes, bool)>,
    confirmed: bool,
    over: bool,
}

impl Window {
    /// A tenure that begins with slot `first`.
    pub fn starting_at(first: u64) -> Self {
        Window::of_width(WINDOW, first)
    }

    /// The same, with so many slots in flight at most.
    pub fn of_width(width: u64, first: u64) -> Self {
        Window {
            width,
            first,
            known: first,
            sent: BTreeMap::new(),
            confirmed: false,
            over: false,
        }
    }

    /// Notes that these bytes are being sent to the slot, if that is allowed. If not, the tenure is
    /// over; the error says why, for people.
    pub fn admit(&mut self, index: u64, bytes: &Bytes) -> Result<(), &'static str> {
        let flaw = self.flaw(index, bytes);
        if let Some(flaw) = flaw {
            self.over = true;
            return Err(flaw);
        }
        let sent = self.sent.entry(index);
        sent.or_insert_with(|| (bytes.clone(), false));
        Ok(())
    }

    fn flaw(&self, index: u64, bytes: &Bytes) -> Option<&'static str> {
        if self.over {
            return Some("the tenure is over");
        }
        match self.sent.get(&index) {
            Some((sent, _)) if sent == bytes => return None,
            Some(_) => return Some("other bytes were sent to this slot before"),
            None => {}
        }
        if index < self.first
            || index < self.known
            || index >= self.known.saturating_add(self.width)
        {
            return Some("the slot lies outside the tenure's window");
        }
        if index > self.first && !self.confirmed {
            return Some("the claim does not count yet");
        }
        None
    }

    /// Notes that the slot holds the entry that was sent to it.
    pub fn appended(&mut self, index: u64) {
        if let Some((_, appended)) = self.sent.get_mut(&index) {
            *appended = true;
        }
        while matches!(self.sent.get(&self.known), Some((_, true))) {
            self.known += 1;
        }
        self.sent = self.sent.split_off(&self.known.saturating_sub(self.width));
    }

    /// True if the slot is known to hold the entry that was sent to it.
    pub fn is_appended(&self, index: u64) -> bool {
        self.sent.get(&index).is_some_and(|(_, appended)| *appended)
    }

    /// Takes every slot of the tenure below this one for appended.
    pub fn move_to(&mut self, known: u64) {
        self.known = self.known.max(known);
    }

    pub fn confirm(&mut self) {
        self.confirmed = true;
    }

    pub fn end(&mut self) {
        self.over = true;
    }

    pub fn is_over(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn the_claim_comes_first_and_alone() {
        let mut window = Window::starting_at(5);
        assert_eq!(window.admit(5, &entry("claim")), Ok(()));
        window.appended(5);
        assert!(window.clone().admit(6, &entry("early")).is_err());
        window.confirm();
        assert_eq!(window.admit(6, &entry("in time")), Ok(()));
    }

    #[test]
    fn a_slot_is_sent_the_same_bytes_only() {
        let mut window = Window::starting_at(1);
        for _ in 0..3 {
            assert_eq!(window.admit(1, &entry("claim")), Ok(()));
        }
        assert!(window.admit(1, &entry("another")).is_err());
        assert!(window.is_over());
        assert!(window.admit(1, &entry("claim")).is_err(), "it is over");
    }

    #[test]
    fn the_window_moves_with_what_this_tenure_has_appended_in_order() {
        let mut window = Window::starting_at(1);
        assert_eq!(window.admit(1, &entry("claim")), Ok(()));
        window.appended(1);
        window.confirm();
        for index in 2..2 + WINDOW {
            assert_eq!(window.admit(index, &entry("x")), Ok(()));
        }
        // All slots but the first are appended, which does not move the window.
        (3..2 + WINDOW).for_each(|index| window.appended(index));
        assert!(window.clone().admit(2 + WINDOW, &entry("x")).is_err());
        window.appended(2);
        assert_eq!(window.admit(2 + WINDOW, &entry("x")), Ok(()));
        assert!(window.admit(1, &entry("x")).is_err(), "it lies behind");
    }
}
