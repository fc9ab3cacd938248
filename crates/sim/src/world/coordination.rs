//! The coordinator of groups as a control node of the simulation holds it: its tickets, its timer, its view of the state.
//!
//! Must not know what groups do.

use std::collections::BTreeMap;
use std::time::Duration;

use control::coordinator::{Coordinator, Effect, Event, Metadata, Settings, Ticket};
use host::clock::Instant;
use meta::State;
use meta::group::Groups;
use meta::ids::TopicId;
use rpc::group::GroupRequest;

use crate::network::Place;

use super::message::Number;

/// The coordinator and who waits for it.
pub(super) struct Coordination {
    coordinator: Coordinator,
    waiting: BTreeMap<Ticket, (Place, Number)>,
    next_ticket: u64,
    timer: Option<Instant>,
}

struct View<'a>(&'a State);

impl Metadata for View<'_> {
    fn groups(&self) -> &Groups {
        self.0.groups()
    }

    fn ticks_millis(&self) -> u64 {
        self.0.ticks_millis()
    }

    fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.0.topic(name).map(|topic| topic.id)
    }

    fn topic_name(&self, id: TopicId) -> Option<&str> {
        self.0.topic_by_id(id).map(|topic| topic.name.as_str())
    }
}

impl Coordination {
    /// A coordinator on a node that does not lead.
    pub(super) fn new() -> Self {
        Coordination {
            coordinator: Coordinator::new(settings()),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            timer: None,
        }
    }

    /// An agent's request as an event.
    pub(super) fn request(
        &mut self,
        from: Place,
        number: Number,
        request: GroupRequest,
        current: bool,
    ) -> Event {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.waiting.insert(ticket, (from, number));
        Event::Request {
            ticket,
            request,
            current,
        }
    }

    /// Who asked under this ticket.
    pub(super) fn answered(&mut self, ticket: Ticket) -> Option<(Place, Number)> {
        self.waiting.remove(&ticket)
    }

    /// When the coordinator wants to be called.
    pub(super) fn timer_us(&self) -> Option<u64> {
        self.timer.map(Instant::as_micros)
    }

    /// Takes note of that.
    pub(super) fn set_timer(&mut self, at: Instant) {
        self.timer = Some(at);
    }

    /// Hands over an event.
    pub(super) fn handle(&mut self, now: Instant, event: Event, state: &State) -> Vec<Effect> {
        if event == Event::Timer {
            self.timer = None;
        }
        self.coordinator.handle(now, event, &View(state))
    }
}

fn settings() -> Settings {
    Settings {
        initial_rebalance_delay: Duration::from_millis(100),
        session_timeout_min: Duration::from_millis(100),
        session_timeout_max: Duration::from_secs(600),
        members_max: 100,
        bytes_max: u64::MAX,
        awaited_bytes_max: 32 << 20,
    }
}
