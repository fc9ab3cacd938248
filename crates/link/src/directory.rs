//! What a caller knows of the control nodes: their addresses, who leads, who did not answer lately. Pure. It must not know how
//! they are reached.

use std::time::Duration;

use host::clock::Instant;
use rpc::LedBy;

/// A control node, by its place in a [`Directory`], which keeps it for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// A leader that is reached by way of another node only is looked for so often.
const LEADER_TRIED_EVERY: Duration = Duration::from_secs(1);
/// For how long a node that could not be reached is asked after all others.
const SHUNNED_FOR: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Known {
    address: String,
    /// False once the list has it no more: it is asked only while it leads.
    is_listed: bool,
    failed_at: Option<Instant>,
    /// When it last answered itself.
    answered_at: Option<Instant>,
}

/// The control nodes.
#[derive(Debug, Default)]
pub struct Directory {
    nodes: Vec<Known>,
    leader: Option<NodeId>,
    /// The slot of the highest claim of which a node has told.
    claim: u64,
    /// The node that leads by that claim, as was told.
    claimant: Option<NodeId>,
    /// Another than that has shown since that it leads: it has claimed later, and who tells of the earlier claim does not know that yet.
    is_claim_outlived: bool,
    /// The node that passes calls on to the one that leads, which does not answer itself.
    relay: Option<NodeId>,
    /// When the node that leads was last tried while another passes calls on to it.
    tried_at: Option<Instant>,
    /// The node of which what is applied is asked, as long as it answers.
    near: Option<NodeId>,
}

impl Directory {
    /// Takes the addresses at which control nodes are said to be.
    pub fn list(&mut self, addresses: &[String]) {
        for node in &mut self.nodes {
            node.is_listed = addresses.contains(&node.address);
        }
        for address in addresses {
            let node = self.find(address);
            self.nodes[node.0].is_listed = true;
        }
    }

    /// The node at an address, whether it is listed or not.
    pub fn find(&mut self, address: &str) -> NodeId {
        let known = self.nodes.iter().position(|node| node.address == address);
        NodeId(known.unwrap_or_else(|| {
            self.nodes.push(Known {
                address: address.to_owned(),
                is_listed: false,
                failed_at: None,
                answered_at: None,
            });
            self.nodes.len() - 1
        }))
    }

    /// True if the node may be asked: it is listed, or leads.
    pub fn is_asked(&self, node: NodeId) -> bool {
        self.nodes[node.0].is_listed || self.leader == Some(node)
    }

    pub fn address(&self, node: NodeId) -> &str {
        &self.nodes[node.0].address
    }

    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// The node leads by the claim in this slot, as another has said, who may know of no later one: whether it is to be believed.
    pub fn is_said_to_lead(&mut self, node: NodeId, claim: u64) -> bool {
        if claim < self.claim || (claim == self.claim && self.is_claim_outlived) {
            return false;
        }
        self.claim = claim;
        self.claimant = Some(node);
        self.is_claim_outlived = false;
        self.set_leader(node);
        true
    }

    fn set_leader(&mut self, node: NodeId) {
        if self.leader != Some(node) {
            self.relay = None;
        }
        self.leader = Some(node);
    }

    /// The node has passed on a call, that it was asked at this time, to the one that leads, which did not answer itself. If that
    /// has answered since then, it is reached: a relayed answer may come a second after that. If it is another than the one that
    /// did not answer, nobody knows yet whether it is.
    pub fn relays(&mut self, node: NodeId, by: &LedBy, asked_at: Instant) {
        let (before, leader) = (self.leader, self.find(&by.address));
        let is_as_before = self.is_said_to_lead(leader, by.claim) && before == Some(leader);
        let answered_at = self.nodes[leader.0].answered_at;
        let is_reached = answered_at.is_some_and(|at| at >= asked_at);
        if is_as_before && !is_reached {
            self.relay = Some(node).filter(|_| leader != node);
        }
    }

    /// The node by way of which the one that leads is reached, as long as that does not answer itself.
    pub fn relay(&self) -> Option<NodeId> {
        self.relay
    }

    /// The node that leads, if it is to be tried now whether it answers again.
    pub fn leader_to_try(&mut self, now: Instant) -> Option<NodeId> {
        let leader = self.leader.filter(|_| self.relay.is_some())?;
        let is_due = |at| now.since(at) >= LEADER_TRIED_EVERY;
        if !self.tried_at.is_none_or(is_due) {
            return None;
        }
        self.tried_at = Some(now);
        Some(leader)
    }

    /// The node leads, as it has shown.
    pub fn leads(&mut self, node: NodeId) {
        self.is_claim_outlived = self.claimant.is_some_and(|claimant| claimant != node);
        self.set_leader(node);
    }

    /// The node does not lead, as it has said.
    pub fn leads_not(&mut self, node: NodeId) {
        if self.leader == Some(node) {
            self.leader = None;
            // What it had shown may have been older than what others tell.
            self.is_claim_outlived = false;
        }
    }

    /// The node has answered.
    pub fn answered(&mut self, node: NodeId, now: Instant) {
        self.nodes[node.0].failed_at = None;
        self.nodes[node.0].answered_at = Some(now);
        self.near.get_or_insert(node);
        self.relay = self.relay.filter(|_| self.leader != Some(node));
    }

    /// The node could not be reached, or its connection broke.
    pub fn failed(&mut self, node: NodeId, now: Instant) {
        self.nodes[node.0].failed_at = Some(now);
        self.is_claim_outlived &= self.leader != Some(node);
        self.near = self.near.filter(|near| *near != node);
        self.relay = self.relay.filter(|relay| *relay != node);
    }

    /// All nodes worth asking, the best first: for calls that the leader answers that one, or who passes them on to it, for others the one that was asked
    /// last; then the others, those that did not answer lately at the end.
    pub fn order(&self, needs_leader: bool, now: Instant) -> Vec<NodeId> {
        let first = match needs_leader {
            true => self.relay.or(self.leader),
            false => self.near,
        };
        let mut order: Vec<NodeId> = (0..self.nodes.len())
            .map(NodeId)
            .filter(|id| self.is_asked(*id))
            .collect();
        order.sort_by_key(|id| (first != Some(*id), self.is_shunned(*id, now), *id));
        order
    }

    /// True if the node could not be reached lately, and has not answered since.
    pub fn is_shunned(&self, node: NodeId, now: Instant) -> bool {
        let failed_at = self.nodes[node.0].failed_at;
        failed_at.is_some_and(|at| now.since(at) < SHUNNED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let mut directory = Directory::default();
        directory.list(&["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned()]);
        directory
    }

    const NOW: Instant = Instant::from_millis(100_000);
    const LATER: Instant = Instant::from_millis(100_001);

    fn by_a() -> LedBy {
        LedBy {
            address: "a:1".to_owned(),
            claim: 8,
        }
    }

    #[test]
    fn the_leader_comes_first_and_who_failed_lately_last() {
        let mut directory = directory();
        let [a, b, c] = [0, 1, 2].map(NodeId);
        assert_eq!(directory.order(true, NOW), [a, b, c]);
        directory.leads(c);
        directory.failed(a, NOW);
        assert_eq!(directory.order(true, NOW), [c, b, a]);
        assert_eq!(directory.order(false, NOW), [b, c, a]);
        assert_eq!(directory.order(false, NOW + SHUNNED_FOR), [a, b, c]);
        directory.leads_not(b);
        assert_eq!(directory.leader(), Some(c));
        directory.leads_not(c);
        assert_eq!(directory.leader(), None);
    }

    #[test]
    fn who_knows_of_an_earlier_claim_only_is_not_believed() {
        let mut directory = directory();
        let [a, b, c] = [0, 1, 2].map(NodeId);
        assert!(directory.is_said_to_lead(b, 40));
        assert!(!directory.is_said_to_lead(a, 39));
        assert_eq!(directory.leader(), Some(b));
        assert!(directory.is_said_to_lead(b, 40));
        assert!(directory.is_said_to_lead(c, 41));
        // It leads no more, and those who have not read that yet name it, or its predecessor.
        directory.leads_not(c);
        assert!(!directory.is_said_to_lead(b, 40));
        assert_eq!(directory.leader(), None);
        assert!(directory.is_said_to_lead(c, 41));
    }

    #[test]
    fn who_has_not_heard_of_the_leaders_claim_does_not_send_callers_back_to_its_predecessor() {
        let mut directory = directory();
        let [a, b, _] = [0, 1, 2].map(NodeId);
        assert!(directory.is_said_to_lead(a, 40));
        directory.leads(a);
        assert!(directory.is_said_to_lead(a, 40));
        directory.leads(b);
        assert!(!directory.is_said_to_lead(a, 40));
        assert_eq!(directory.leader(), Some(b));
        assert!(directory.is_said_to_lead(b, 41));
        // An answer that was long under way shows less than a later claim, and whoever gave it says so when asked again.
        directory.leads(a);
        directory.leads_not(a);
        assert!(directory.is_said_to_lead(b, 41));
        directory.leads(a);
        directory.failed(a, NOW);
        assert!(directory.is_said_to_lead(b, 41));
    }

    #[test]
    fn what_is_applied_is_asked_of_one_node_as_long_as_it_answers() {
        let mut directory = directory();
        let [a, b, c] = [0, 1, 2].map(NodeId);
        directory.answered(b, NOW);
        directory.answered(c, NOW);
        assert_eq!(directory.order(false, NOW), [b, a, c]);
        directory.failed(b, NOW);
        directory.answered(c, NOW);
        assert_eq!(directory.order(false, NOW), [c, a, b]);
    }

    #[test]
    fn a_node_that_is_not_listed_is_asked_only_while_it_leads() {
        let mut directory = directory();
        let stranger = directory.find("d:1");
        assert_eq!(directory.order(true, NOW).len(), 3);
        directory.leads(stranger);
        assert_eq!(directory.order(true, NOW)[0], stranger);
        directory.list(&["b:1".to_owned()]);
        assert_eq!(directory.order(true, NOW), [stranger, NodeId(1)]);
        directory.leads_not(stranger);
        assert_eq!(directory.order(true, NOW), [NodeId(1)]);
    }

    #[test]
    fn who_passes_calls_on_comes_before_a_leader_that_does_not_answer() {
        let mut directory = directory();
        let [a, b, c] = [0, 1, 2].map(NodeId);
        assert_eq!(directory.leader_to_try(NOW), None, "it is asked anyway");
        directory.leads(a);
        directory.failed(a, NOW);
        directory.relays(b, &by_a(), LATER);
        assert_eq!(directory.order(true, NOW), [b, c, a]);
        assert_eq!(directory.leader(), Some(a));
        assert_eq!(directory.leader_to_try(NOW), Some(a));
        assert_eq!(directory.leader_to_try(NOW), None, "a moment ago");
        let later = NOW + LEADER_TRIED_EVERY;
        assert_eq!(directory.leader_to_try(later), Some(a));
        directory.answered(a, NOW);
        assert_eq!(directory.order(true, NOW)[0], a);
        directory.relays(b, &by_a(), LATER);
        directory.failed(b, NOW);
        assert_eq!(directory.order(true, NOW)[0], a);
        directory.relays(b, &by_a(), LATER);
        assert!(directory.is_said_to_lead(c, 9));
        assert_eq!(directory.order(true, NOW)[0], c);
    }
}
