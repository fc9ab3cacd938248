//! The end of an agent: clients are sent to others first, the leader is told last. It decides nothing of whom to wait for;
//! [`crate::drain`] does.

use std::sync::Arc;
use std::time::Duration;

use host::backoff::Backoff;
use host::clock::Instant;
use meta::ids::Incarnation;

use super::{Agent, STOP_GRACE, STOP_POLL};
use crate::context::Context;
use crate::drain::{Search, Step, step};

/// How often a draining agent looks whether its clients have gone.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the leader may take to hear that this agent drains.
const TELL_LIMIT: Duration = Duration::from_secs(2);
/// The pauses before it is told again.
const TELL_AGAIN: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
/// How often a draining agent asks whether somebody leads, which is an entry of the journal each time.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// The pauses before it asks again without an answer.
const ASK_AGAIN: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
/// How long connections may take to end while nobody leads: no request that waits for the journal is answered then.
const LEADERLESS_GRACE: Duration = Duration::from_millis(300);
/// The least time in which the leader may hear that this agent has ended.
const END_LIMIT: Duration = Duration::from_millis(200);

impl Agent {
    /// Sends clients to other agents, and waits until they have gone, for so long at most. Meanwhile whoever comes is served, or
    /// told to ask another. It returns at once if there is no other agent, and soon if nobody leads.
    pub async fn drain(&self, max: Duration) {
        if !self.context.settings.tells_presence {
            return;
        }
        // Members that wait for others may be left, or clients that stay whatever they are told.
        if host::clock::timeout(max, self.context.drain())
            .await
            .is_err()
        {
            tracing::warn!(
                "not all clients have gone to other agents in time: their connections are closed"
            );
        }
    }

    /// Accepts no more connections, answers requests that are in the pipeline, and ends within
    /// three seconds, whatever the bucket does: requests that are not durable by then get no
    /// answer. The leader is told, so that what this incarnation has uploaded and not committed never will be.
    pub async fn stop(self) {
        let begun_at = host::clock::now();
        let grace = match self.context.traffic.is_leaderless() {
            true => LEADERLESS_GRACE,
            false => STOP_GRACE,
        };
        drop(self.accepting);
        // Without connections nobody listens.
        let _ = self.stop.send(true);
        self.context.pipeline.drain();
        let context = &self.context;
        let ended = host::clock::timeout(grace, async {
            while context.metrics.connections.get() > 0 || !context.pipeline.is_idle() {
                host::clock::sleep(STOP_POLL).await;
            }
        });
        if ended.await.is_err() {
            tracing::warn!("the agent stops with requests unanswered; their producers retry");
        }
        let incarnation = context.pipeline.incarnation();
        // Nothing is committed, and nobody registers again, once the incarnation has ended.
        drop(self.tasks);
        if let Some(incarnation) = incarnation.filter(|_| context.settings.tells_presence) {
            context.end(incarnation, begun_at + grace).await;
        }
    }
}

impl Context {
    async fn drain(&self) {
        self.traffic.drains(host::clock::now());
        tokio::select! {
            biased;
            () = self.clients_leave() => {}
            () = self.nobody_leads() => {
                self.traffic.finds_no_leader();
                tracing::info!("nobody leads the cluster: this agent ends without sending its clients to others");
            }
        }
    }

    /// Waits until no control node that leads is found for a while.
    async fn nobody_leads(&self) {
        let mut search = Search::begin(host::clock::now());
        let mut pauses = ASK_AGAIN.start();
        loop {
            let patience = search.patience(host::clock::now());
            match host::clock::timeout(patience, self.control.barrier()).await {
                Ok(Ok(_)) => {
                    host::clock::sleep(ASK_EVERY).await;
                    pauses = ASK_AGAIN.start();
                    search.again(host::clock::now());
                }
                Ok(Err(_)) if !patience.is_zero() => pauses.pause().await,
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// Sends clients to other agents and waits until they have gone.
    async fn clients_leave(&self) {
        let mut pauses = TELL_AGAIN.start();
        loop {
            let agents = Arc::clone(&self.views.latest().agents);
            match step(host::clock::now(), &agents, self.agent, &self.traffic) {
                Step::End => return,
                Step::Wait => host::clock::sleep(LOOK_EVERY).await,
                Step::Tell(incarnation) => match self.tell_that_it_drains(incarnation).await {
                    Ok(()) => tracing::info!("this agent drains: clients are sent to others"),
                    Err(error) => {
                        tracing::debug!(%error, "the leader is not told yet that this agent drains");
                        pauses.pause().await;
                    }
                },
            }
        }
    }

    async fn tell_that_it_drains(&self, incarnation: Incarnation) -> Result<(), rpc::Error> {
        let told = host::clock::timeout(TELL_LIMIT, self.control.drain(incarnation)).await;
        let at = told.unwrap_or_else(|_| {
            let reason = "no answer came in time".to_owned();
            Err(rpc::Error::Unknown { reason })
        })?;
        // What it tells clients from now on is what the others tell them.
        self.views.refresh(at).await?;
        Ok(())
    }

    /// Tells the leader that the incarnation has ended. If that fails, the leader finds it out by itself.
    async fn end(&self, incarnation: Incarnation, by: Instant) {
        let limit = by.since(host::clock::now()).max(END_LIMIT);
        let told = host::clock::timeout(limit, self.control.end(incarnation)).await;
        let failed = match told {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer came in time".to_owned(),
        };
        tracing::info!(why = failed, "the leader was not told that this agent ends");
    }
}
