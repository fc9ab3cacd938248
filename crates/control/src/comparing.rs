//! The shell around [`crate::clocks`]: control nodes ask each other what their wall clocks show, and one that leads with a wrong
//! clock hands the lead over. How long commits would take is asked with it, for [`crate::choice`]. It must not decide who is wrong.

use std::convert::Infallible;
use std::sync::PoisonError;
use std::time::Duration;

use host::trial::leaves_out;
use journal::node::WallClock;
use rpc::peer::{Condition, PeerRequest, Reason};
use rpc::{Answer, Call, Error, Return};

use crate::clocks::{self, Clocks, Cluster, Compared, Standing};
use crate::node::Node;
use crate::succession::limited;

/// Between two questions to each of the others while all is well: each is a connection of its own.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// The same while it is not known that this node's clock is right, or whether there are others.
const HASTENED: Duration = Duration::from_secs(1);
/// Between two looks whether the journal is read, which says who the others are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Node {
    /// Compares this node's wall clock with those of the other control nodes, and hands the lead over while it is wrong, for ever;
    /// `ask` calls the control node at an address.
    pub async fn compare_clocks<F>(&self, ask: impl Fn(String, Call) -> F) -> Infallible
    where
        F: Future<Output = Result<Answer, Error>>,
    {
        if leaves_out("clocks-are-compared") {
            return std::future::pending().await;
        }
        let mut clocks = Clocks::default();
        loop {
            let pause = match self.journal_status().confirmed_at {
                None => {
                    self.take_clock_for_unknown();
                    LOOK_EVERY
                }
                Some(_) => self.compare_once(&mut clocks, &ask).await,
            };
            self.rest(pause).await;
        }
    }

    /// Waits for so long, or until it matters how the others are just now.
    async fn rest(&self, pause: Duration) {
        let until = host::clock::now() + pause;
        loop {
            let left = until.since(host::clock::now());
            host::clock::sleep(left.min(HASTENED)).await;
            if left <= HASTENED || self.leading.choice().wants_news() {
                return;
            }
        }
    }

    /// How this node's wall clock compares with those of the others.
    pub fn wall_clock(&self) -> Compared {
        self.clock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Until the journal is read nobody knows who the others are.
    fn take_clock_for_unknown(&self) {
        let ahead_millis = own_clock();
        self.replica
            .has_compared(WallClock::Unsure { ahead_millis });
    }

    /// Asks the others, and does what follows; yields the pause before the next time.
    async fn compare_once<F>(
        &self,
        clocks: &mut Clocks,
        ask: &impl Fn(String, Call) -> F,
    ) -> Duration
    where
        F: Future<Output = Result<Answer, Error>>,
    {
        let others = self.others();
        let asked = others.iter().map(|other| async move {
            let asked_at = host::clock::now();
            let call = Call::Peer(PeerRequest::Condition);
            let answer = limited(ask(other.address.clone(), call)).await;
            (other, answer, (asked_at, host::clock::now()))
        });
        for (other, answer, between) in futures::future::join_all(asked).await {
            if let Ok(Answer {
                value: Return::Condition(condition),
                ..
            }) = answer
            {
                let Condition {
                    wall_millis,
                    is_clock_wrong,
                    commit_micros,
                } = condition;
                clocks.hear(&other.name, wall_millis, is_clock_wrong, between);
                let latency = commit_micros.map(Duration::from_micros);
                self.leading.choice().hear(between.1, &other.name, latency);
            }
        }
        let cluster = Cluster {
            others: others.into_iter().map(|other| other.name).collect(),
            leader: self.leader_name(),
        };
        let compared = clocks.compare(host::clock::now(), own_clock(), &cluster);
        self.replica.has_compared(compared.stamps);
        self.note(compared.clone());
        if compared.standing == Standing::Wrong {
            // To one whose clock is wrong too it would go from hand to hand.
            let (right, _) = self.others_by_clock();
            self.hand_over_to(&right, Reason::ClockWrong, ask).await;
        }
        match compared.standing {
            Standing::Right => COMPARE_EVERY,
            // The lead is not offered to others in haste.
            Standing::Wrong if self.leads() => COMPARE_EVERY,
            Standing::Alone | Standing::Unheard | Standing::Apart | Standing::Wrong => HASTENED,
        }
    }

    /// The name of the node that leads, as far as it is known here.
    fn leader_name(&self) -> Option<String> {
        self.name_of(&self.journal_status().leader?)
    }

    /// Keeps what was found, and says once what is to be done about it.
    fn note(&self, compared: Compared) {
        let Compared {
            standing,
            ahead_millis,
            others,
            ..
        } = compared;
        let before = {
            let mut kept = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *kept, compared)
        };
        if before.standing == standing {
            return;
        }
        match standing {
            Standing::Wrong => tracing::warn!(
                ahead_millis,
                others,
                "the wall clock of this machine is not what those of most control nodes show: set it right, and see that a time \
                 service runs here; until then this node leads only if no other can"
            ),
            Standing::Apart => tracing::warn!(
                ahead_millis,
                others,
                "the wall clocks of control nodes differ, and nobody knows which is right: look at the clock of each machine; \
                 until they agree the journal's time goes on by ticks"
            ),
            Standing::Right if is_trouble(before.standing) => {
                tracing::info!(
                    ahead_millis,
                    others,
                    "the wall clock of this machine is right again"
                );
            }
            Standing::Right | Standing::Alone | Standing::Unheard => {}
        }
    }
}

fn is_trouble(standing: Standing) -> bool {
    matches!(standing, Standing::Wrong | Standing::Apart)
}

/// How far this machine's wall clock is ahead of its boot clock.
fn own_clock() -> i64 {
    clocks::ahead(host::clock::wall_millis(), host::clock::now())
}
