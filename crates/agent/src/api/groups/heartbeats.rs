//! Heartbeats of members go to the leader together, since a call for each costs many times what a heartbeat does: those that come
//! while others are sent wait for the next call, a tenth of a second at most. Each member is answered only from the leader's answer to the
//! call that its heartbeat was in. It must not know how clients send them.

use std::time::Duration;

use rpc::group::{GroupError, Heartbeat};
use rpc::{Client, Error};
use tokio::sync::{mpsc, oneshot};

/// The least time between the starts of two calls: a thousand members that send a heartbeat each three seconds share them by
/// the dozens, ten thousand by the hundreds. One that comes alone goes at once; nobody notices that the others take so much
/// longer, since seconds pass before the next.
const APART: Duration = Duration::from_millis(100);
/// The most heartbeats in one call.
const OF_CALL_MAX: usize = 1_000;
/// Roughly the most bytes of one call, however long the names are that members have.
const OF_CALL_BYTES_MAX: usize = 1 << 20;
/// Heartbeats that wait for their call: more than come between two.
const WAITING_MAX: usize = 16_384;

/// What came of a heartbeat.
type Outcome = Result<Result<(), GroupError>, Error>;

/// Where heartbeats are left.
pub(crate) struct Heartbeats(mpsc::Sender<Waiting>);

struct Waiting {
    heartbeat: Heartbeat,
    answer: oneshot::Sender<Outcome>,
}

impl Heartbeats {
    /// And where they are taken from.
    pub(crate) fn new() -> (Self, Inbox) {
        let (heartbeats, inbox) = mpsc::channel(WAITING_MAX);
        (Heartbeats(heartbeats), Inbox(inbox))
    }

    pub(crate) async fn send(&self, heartbeat: Heartbeat) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { heartbeat, answer };
        self.0.try_send(waiting).map_err(|_| Error::Busy)?;
        answered.await.unwrap_or_else(|_| {
            let reason = "the agent stops".to_owned();
            Err(Error::Unavailable { reason })
        })
    }
}

/// Heartbeats that were left and not sent yet.
pub(crate) struct Inbox(mpsc::Receiver<Waiting>);

impl Inbox {
    /// Sends them, for ever. Calls do not wait for each other: one may take until another node leads.
    pub(crate) async fn run(mut self, control: Client) {
        let mut together = Vec::new();
        while self.0.recv_many(&mut together, OF_CALL_MAX).await > 0 {
            for of_one_call in calls(std::mem::take(&mut together)) {
                host::task::spawn_detached("heartbeats", tell(control.clone(), of_one_call));
            }
            host::clock::sleep(APART).await;
        }
    }
}

/// Deals heartbeats out over calls of bounded length.
fn calls(together: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let mut calls: Vec<Vec<Waiting>> = Vec::new();
    let mut bytes = usize::MAX;
    for waiting in together {
        let Heartbeat {
            group,
            member,
            instance,
            generation: _,
        } = &waiting.heartbeat;
        let instance = instance.as_ref().map_or(0, String::len);
        bytes = bytes.saturating_add(group.len() + member.len() + instance);
        if bytes > OF_CALL_BYTES_MAX {
            bytes = group.len() + member.len() + instance;
            calls.push(Vec::new());
        }
        if let Some(call) = calls.last_mut() {
            call.push(waiting);
        }
    }
    calls
}

async fn tell(control: Client, together: Vec<Waiting>) {
    let (heartbeats, answers): (Vec<_>, Vec<_>) = together
        .into_iter()
        .map(|waiting| (waiting.heartbeat, waiting.answer))
        .unzip();
    let outcomes = match control.heartbeats(heartbeats).await {
        Ok(results) => results.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error); answers.len()],
    };
    for (answer, outcome) in answers.into_iter().zip(outcomes) {
        // A client that has gone needs no answer.
        let _ = answer.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use futures::future::join_all;
    use host::clock::Instant;
    use rpc::Control;
    use rpc::notice::Notices;
    use rpc::{Answer, Call, Position, Return};

    use super::*;

    /// A leader that knows members with an even generation, and notes how many each call is about.
    #[derive(Default)]
    struct Leader(Mutex<Vec<usize>>);

    #[async_trait]
    impl Control for Leader {
        async fn call_for(&self, call: Call, _: Option<Instant>) -> Result<Answer, Error> {
            let Call::Heartbeats(members) = call else {
                panic!("not of heartbeats: {call:?}");
            };
            self.0.lock().unwrap().push(members.len());
            let result = |member: &Heartbeat| match member.generation % 2 {
                0 => Ok(()),
                _ => Err(GroupError::CoordinatorNotAvailable),
            };
            let value = Return::Heartbeats(members.iter().map(result).collect());
            let at = Position::default();
            Ok(Answer { at, value })
        }

        fn notices(&self) -> Notices {
            Box::pin(futures::stream::empty())
        }
    }

    fn heartbeat(generation: i32) -> Heartbeat {
        Heartbeat {
            group: "g".to_owned(),
            member: generation.to_string(),
            instance: None,
            generation,
        }
    }

    #[tokio::test]
    async fn heartbeats_that_come_together_share_calls_and_each_gets_its_own_answer() {
        let leader = Arc::new(Leader::default());
        let (heartbeats, inbox) = Heartbeats::new();
        let control = Client::new(Arc::<Leader>::clone(&leader));
        let _sending = host::task::spawn("heartbeats", inbox.run(control));
        let outcomes = join_all((0..2_500).map(|number| heartbeats.send(heartbeat(number)))).await;
        for (number, outcome) in (0..).zip(outcomes) {
            let expected = match number % 2 {
                0 => Ok(()),
                _ => Err(GroupError::CoordinatorNotAvailable),
            };
            assert_eq!(outcome, Ok(expected), "member {number}");
        }
        assert_eq!(*leader.0.lock().unwrap(), [1_000, 1_000, 500]);
    }

    #[tokio::test]
    async fn members_with_long_names_do_not_make_a_call_that_is_too_long() {
        let leader = Arc::new(Leader::default());
        let (heartbeats, inbox) = Heartbeats::new();
        let control = Client::new(Arc::<Leader>::clone(&leader));
        let _sending = host::task::spawn("heartbeats", inbox.run(control));
        let long = |number| Heartbeat {
            group: "g".repeat(30_000),
            ..heartbeat(number)
        };
        let outcomes = join_all((0..100).map(|number| heartbeats.send(long(2 * number)))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Ok(Ok(()))));
        assert_eq!(leader.0.lock().unwrap().iter().max(), Some(&34));
    }
}
