//! A control node's place among the others: that it is registered while it follows, and not forgotten, and that no other process has
//! its name. It must not know what is done with the node once it has none.

use std::convert::Infallible;
use std::time::Duration;

use meta::command::Command;
use rpc::peer::{Named, PeerRequest};
use rpc::{Answer, Call, Control, Error, Return};

use crate::namesake::{Namesakes, Verdict};
use crate::node::Node;

/// How often a node makes sure that it is registered, and no other by its name; and tells the leader that it is there, which forgets one that
/// is silent for minutes.
const REGISTERED_CHECK: Duration = Duration::from_secs(1);
/// How often it looks whether it has read the journal.
const READ_CHECK: Duration = Duration::from_millis(50);
/// How long another process of the same name may take to answer.
const NAMESAKE_LIMIT: Duration = Duration::from_secs(1);
/// How often one is asked that is found at this node's own address, where each connection may lead to another process.
const TRIES_AT_OWN_ADDRESS: usize = 4;

/// The run of a control node that has registered by a name.
struct Registered {
    nonce: u128,
    address: String,
}

impl Node {
    /// Sees to it that this node is known to all while it follows, and not forgotten, by way of the leader, which `others` find; `ask`
    /// calls the control node at an address. It ends once another process has this node's name, and says which.
    pub async fn keep_registered<F>(
        &self,
        others: &dyn Control,
        ask: impl Fn(String, Call) -> F,
    ) -> Infallible
    where
        F: Future<Output = Result<Answer, Error>>,
    {
        self.has_read().await;
        let mut namesakes = Namesakes::of(self.registration.nonce);
        loop {
            if let Some(address) = self.namesake_at(&mut namesakes, &ask).await {
                self.namesake.set(Some(address));
                return std::future::pending().await;
            }
            match self.leads() {
                true => self.note_own_word(),
                false => self.see_to_registration(others).await,
            }
            host::clock::sleep(REGISTERED_CHECK).await;
        }
    }

    /// Waits until this node has read the journal to its end, or leads: before, it does not know who has registered.
    async fn has_read(&self) {
        while !self.leads() && self.journal_status().confirmed_at.is_none() {
            host::clock::sleep(READ_CHECK).await;
        }
    }

    pub fn name(&self) -> &str {
        &self.registration.name
    }

    /// Waits until it is known that another process has this node's name and goes on; yields its address.
    pub async fn name_taken(&self) -> String {
        let taken = self.namesake.wait_for(Option::is_some).await;
        taken.unwrap_or_default()
    }

    /// Which run of this name this is; nobody is told once it is to end, so that of two that find each other only one does.
    pub(crate) fn named(&self) -> Result<Named, Error> {
        if self.namesake.get().is_some() {
            let reason = "this control node ends".to_owned();
            return Err(Error::Unavailable { reason });
        }
        let own = &self.registration;
        let registered = self.registered();
        Ok(Named {
            name: own.name.clone(),
            nonce: own.nonce,
            is_registered: registered.is_some_and(|registered| registered.nonce == own.nonce),
        })
    }

    /// Who has registered by this node's name.
    fn registered(&self) -> Option<Registered> {
        self.with_state(|state| {
            let mut nodes = state.control_nodes();
            let node = nodes.find(|node| node.name == self.registration.name)?;
            Some(Registered {
                nonce: node.nonce,
                address: node.address.clone(),
            })
        })
    }

    /// Where another process is that has this node's name and goes on; `None` if there is none.
    async fn namesake_at<F>(
        &self,
        namesakes: &mut Namesakes,
        ask: &impl Fn(String, Call) -> F,
    ) -> Option<String>
    where
        F: Future<Output = Result<Answer, Error>>,
    {
        let registered = self.registered();
        let nonce = registered.as_ref().map(|registered| registered.nonce);
        let verdict = namesakes.see(nonce);
        let Registered { nonce, address } = registered?;
        match verdict {
            Verdict::Ours => None,
            Verdict::Taken => Some(address),
            Verdict::Ask => {
                let is_there = self.is_there(nonce, &address, ask).await;
                is_there.then_some(address)
            }
        }
    }

    /// Whether the run of this name with this nonce answers at the address that it registered.
    async fn is_there<F>(
        &self,
        nonce: u128,
        address: &str,
        ask: &impl Fn(String, Call) -> F,
    ) -> bool
    where
        F: Future<Output = Result<Answer, Error>>,
    {
        let own = &self.registration;
        let tries = match address == own.address {
            true => TRIES_AT_OWN_ADDRESS,
            false => 1,
        };
        for _ in 0..tries {
            let asked = ask(address.to_owned(), Call::Peer(PeerRequest::Name));
            let answer = host::clock::timeout(NAMESAKE_LIMIT, asked).await;
            let named = match answer {
                Ok(Ok(Answer {
                    value: Return::Named(named),
                    ..
                })) => Some(named),
                _ => None,
            };
            if Namesakes::judge(&own.name, nonce, named.as_ref()) == Verdict::Taken {
                return true;
            }
        }
        false
    }

    /// Registers this node unless it is registered; then tells the leader that it is there.
    async fn see_to_registration(&self, others: &dyn Control) {
        let own = &self.registration;
        let is_known = self.with_state(|state| {
            let mut nodes = state.control_nodes();
            nodes.any(|node| node == own)
        });
        if !is_known {
            let command = Command::RegisterControlNode(own.clone());
            if let Err(error) = others.call(Call::Propose(Box::new(command))).await {
                tracing::debug!(%error, "this control node is not registered yet; it is tried again");
            }
            return;
        }
        self.tell_leader(others).await;
    }
}
