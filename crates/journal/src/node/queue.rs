//! Proposals and barriers that wait for a leader's next entry. It must not know entries in flight.

use std::collections::VecDeque;

use host::clock::Instant;

use super::context::Cx;
use super::flight::Flight;
use super::{Event, Proposal, ProposeError, Refusal, Settings, Ticket};
use crate::entry::{self, Item};

/// What goes into the next entry.
pub(super) struct Packed {
    pub(super) items: Vec<Item>,
    /// The callers, one per item.
    pub(super) tickets: Vec<Ticket>,
    pub(super) barriers: Vec<Ticket>,
    /// Bytes stored elsewhere that the items are about.
    pub(super) stored_bytes: u64,
}

/// Each waits with the time since which it does.
#[derive(Default)]
pub(super) struct Queue {
    proposals: VecDeque<(Instant, Proposal)>,
    bytes: usize,
    barriers: Vec<(Instant, Ticket)>,
}

impl Queue {
    /// Queues the proposals or barrier of an event, or refuses them.
    pub(super) fn take(&mut self, cx: &mut Cx<'_>, event: Event) {
        match event {
            Event::Propose(proposals) => {
                cx.want();
                for proposal in proposals {
                    self.propose(cx, proposal);
                }
            }
            Event::Barrier(ticket) | Event::Confirm(ticket) => {
                cx.want();
                if self.barriers.len() < cx.lasting.settings.queue_items_max {
                    return self.barriers.push((cx.now.boot, ticket));
                }
                cx.lose(vec![ticket], ProposeError::Definite(Refusal::Busy));
            }
            _ => {}
        }
    }

    fn propose(&mut self, cx: &mut Cx<'_>, proposal: Proposal) {
        let settings = &cx.lasting.settings;
        let bytes = entry::item_len(&proposal.item);
        let max = settings.entry_bytes_max;
        let refusal = if bytes > max {
            Refusal::TooLarge { bytes, max }
        } else if self.proposals.len() >= settings.queue_items_max
            || self.bytes + bytes > settings.queue_bytes_max
        {
            Refusal::Busy
        } else {
            self.bytes += bytes;
            return self.proposals.push_back((cx.now.boot, proposal));
        };
        cx.lose(vec![proposal.ticket], ProposeError::Definite(refusal));
    }

    /// Takes the contents of the next entry.
    pub(super) fn pack(&mut self, settings: &Settings) -> Packed {
        let (mut items, mut tickets, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut stored_bytes = 0_u64;
        let fits = |items: &Vec<Item>, bytes: usize, next: usize| {
            items.is_empty()
                || (items.len() < settings.entry_items_max
                    && bytes + next <= settings.entry_bytes_max)
        };
        while let Some((_, proposal)) = self.proposals.pop_front_if(|(_, proposal)| {
            let next = entry::item_len(&proposal.item);
            fits(&items, bytes, next)
        }) {
            bytes += entry::item_len(&proposal.item);
            stored_bytes = stored_bytes.saturating_add(proposal.stored_bytes);
            items.push(proposal.item);
            tickets.push(proposal.ticket);
        }
        self.bytes -= bytes;
        let barriers = self.barriers.drain(..).map(|(_, ticket)| ticket);
        Packed {
            items,
            tickets,
            barriers: barriers.collect(),
            stored_bytes,
        }
    }

    /// Puts commands of entries that can never count back before all others, in order. Commands
    /// whose callers were told that the outcome is unknown are left out: nobody waits for them.
    pub(super) fn put_back(&mut self, flights: impl DoubleEndedIterator<Item = Flight>) {
        for flight in flights.rev() {
            let since = flight.started;
            let proposals = flight.tickets.into_iter().zip(flight.items);
            for (ticket, item) in proposals.rev() {
                self.bytes += entry::item_len(&item);
                let proposal = Proposal {
                    ticket,
                    item,
                    // What they pay for was paid when they were sent first.
                    stored_bytes: 0,
                };
                self.proposals.push_front((since, proposal));
            }
            let barriers = flight.barriers.into_iter().map(|ticket| (since, ticket));
            self.barriers.splice(0..0, barriers);
        }
    }

    /// Since when the first caller waits.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        let proposal = self.proposals.front().map(|(since, _)| *since);
        let barrier = self.barriers.first().map(|(since, _)| *since);
        proposal.into_iter().chain(barrier).min()
    }

    /// When the first caller has waited for as long as is allowed.
    pub(super) fn expires_at(&self, settings: &Settings) -> Option<Instant> {
        Some(self.waits_since()? + settings.proposal_deadline)
    }

    pub(super) fn expire(&mut self, cx: &mut Cx<'_>) {
        let (now, patience) = (cx.now.boot, cx.lasting.settings.proposal_deadline);
        let is_late = |since: Instant| now.since(since) >= patience;
        let mut late = Vec::new();
        while let Some((_, proposal)) = self.proposals.pop_front_if(|(since, _)| is_late(*since)) {
            self.bytes -= entry::item_len(&proposal.item);
            late.push(proposal.ticket);
        }
        let barriers = self.barriers.extract_if(.., |(since, _)| is_late(*since));
        late.extend(barriers.map(|(_, ticket)| ticket));
        cx.lose(late, ProposeError::Definite(Refusal::Expired));
    }

    pub(super) fn into_tickets(self) -> Vec<Ticket> {
        let proposals = self.proposals.into_iter().map(|(_, p)| p.ticket);
        let barriers = self.barriers.into_iter().map(|(_, ticket)| ticket);
        proposals.chain(barriers).collect()
    }
}
