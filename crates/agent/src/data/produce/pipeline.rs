//! The shell around `sequence`: one task performs all its effects. Sessions submit requests under a
//! lock and wake the task only if a file is due, or becomes due sooner than the task expects: once
//! a file, not once a request. It must not know Kafka's frames.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use host::backoff::Backoff;
use host::clock::Instant;
use host::rng::Rng;
use meta::command::RegisterAgent;
use meta::commit::{BatchOutcome, CommitFile, FileReply};
use meta::ids::Incarnation;
use rpc::Client;
use tokio::sync::{Notify, oneshot};

use super::batch::Write;
use super::batcher::Limits;
use super::event::{Answer, Effect, Event};
use super::sequence::Sequence;
use super::upload::Uploader;
use crate::data::cache::Cache;
use crate::data::copies::report::Reports;
use crate::data::fetch::hub::Hub;
use crate::metrics::Metrics;
use crate::settings::{FailPoint, FailPoints};

/// The pauses between attempts to register: another process may lead the journal for a while.
/// The pause after registering was refused, because another process has the name for instance.
const REFUSED: Duration = Duration::from_secs(10);
const REGISTER: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
/// The pause before the first attempt to register again grows with each time that the agent was
/// fenced: two live agents of one name would otherwise fence each other in turns without end.
const FENCED: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(6_400));

pub type Ticket = oneshot::Sender<Answer>;

/// Where requests are submitted; `M` counts a request's memory.
pub struct Pipeline<M> {
    shared: Mutex<Shared<M>>,
    wake: Notify,
}

struct Shared<M> {
    sequence: Sequence<Ticket, M>,
    /// When the task will next look without being woken.
    armed: Option<Instant>,
    effects: Vec<Effect<Ticket>>,
}

/// What the pipeline's task needs.
pub(crate) struct Parts {
    pub control: Client,
    pub uploader: Arc<Uploader>,
    /// Told of commits, so that reports of copies go along.
    pub reports: Arc<Reports>,
    /// Holds uploaded files; those that were not committed are removed.
    pub cache: Arc<Cache>,
    /// Told what was committed before producers are.
    pub hub: Arc<Hub>,
    pub metrics: Arc<Metrics>,
    pub fail_points: FailPoints,
    /// How to register again after being fenced.
    pub registration: RegisterAgent,
}

impl<M: Send + 'static> Pipeline<M> {
    pub fn new(limits: Limits, incarnation: Incarnation) -> Self {
        let mut sequence = Sequence::new(limits, host::rng::nonce() as u64);
        let mut effects = Vec::new();
        sequence.handle(
            host::clock::now(),
            Event::Registered(incarnation),
            &mut effects,
        );
        Pipeline {
            shared: Mutex::new(Shared {
                sequence,
                armed: None,
                effects,
            }),
            wake: Notify::new(),
        }
    }

    /// Submits a request; its answer comes through its ticket.
    pub fn submit(&self, now: Instant, write: Write<Ticket, M>) {
        let mut shared = self.shared();
        let Shared {
            sequence,
            armed,
            effects,
        } = &mut *shared;
        sequence.handle(now, Event::Write(write), effects);
        let due = sequence.deadline();
        let sooner = match (due, *armed) {
            (Some(due), Some(armed)) => due < armed,
            (due, None) => due.is_some(),
            (None, Some(_)) => false,
        };
        let wake = !effects.is_empty() || sooner;
        if sooner {
            // Later requests need not wake the task again.
            *armed = due;
        }
        drop(shared);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Cuts all waiting requests at once, now and from now on.
    pub fn drain(&self) {
        self.tell(Event::Drain);
    }

    /// Notes the agent's latest incarnation: if it is not this pipeline's, the pipeline is fenced
    /// and registers again.
    pub fn latest_incarnation(&self, latest: Incarnation) {
        self.tell(Event::Replaced(latest));
    }

    fn tell(&self, event: Event<Ticket, M>) {
        let mut shared = self.shared();
        let Shared {
            sequence, effects, ..
        } = &mut *shared;
        sequence.handle(host::clock::now(), event, effects);
        drop(shared);
        self.wake.notify_one();
    }

    /// The incarnation under which it names files; `None` while it registers again.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.shared().sequence.incarnation()
    }

    /// True if every request has its answer.
    pub fn is_idle(&self) -> bool {
        self.shared().sequence.is_idle()
    }

    /// True if the pipeline has an incarnation under which it can name files.
    pub fn is_registered(&self) -> bool {
        self.shared().sequence.is_registered()
    }

    fn shared(&self) -> MutexGuard<'_, Shared<M>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn run(self: Arc<Self>, parts: Parts) {
        let mut task = Task {
            pipeline: self,
            parts: Arc::new(parts),
            running: FuturesUnordered::new(),
        };
        let mut events: Vec<Event<Ticket, M>> = Vec::new();
        loop {
            let deadline = task.step(&mut events);
            let pipeline = Arc::clone(&task.pipeline);
            let mut woken = pin!(pipeline.wake.notified());
            let mut timer = pin!(async {
                match deadline {
                    Some(deadline) => host::clock::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            });
            tokio::select! {
                biased;
                Some(event) = task.running.next(), if !task.running.is_empty() => {
                    events.push(event);
                    // Several effects often end together; one step of the state machine serves all.
                    while let Some(Some(event)) = task.running.next().now_or_never() {
                        events.push(event);
                    }
                }
                () = &mut woken => {}
                () = &mut timer => {}
            }
        }
    }
}

struct Task<M> {
    pipeline: Arc<Pipeline<M>>,
    parts: Arc<Parts>,
    running: FuturesUnordered<BoxFuture<'static, Event<Ticket, M>>>,
}

impl<M: Send + 'static> Task<M> {
    /// Hands events to the state machine and performs its effects. Yields when to look again.
    fn step(&mut self, events: &mut Vec<Event<Ticket, M>>) -> Option<Instant> {
        let now = host::clock::now();
        let pipeline = Arc::clone(&self.pipeline);
        let (effects, deadline) = {
            let mut shared = pipeline.shared();
            let Shared {
                sequence,
                armed,
                effects,
            } = &mut *shared;
            for event in events.drain(..) {
                sequence.handle(now, event, effects);
            }
            sequence.handle(now, Event::Timer, effects);
            *armed = sequence.deadline();
            (std::mem::take(effects), *armed)
        };
        for effect in effects {
            self.perform(effect);
        }
        deadline
    }

    fn perform(&mut self, effect: Effect<Ticket>) {
        let parts = Arc::clone(&self.parts);
        match effect {
            Effect::Upload(cut) => {
                parts.metrics.files_cut.increment();
                let upload = async move {
                    let file = cut.file;
                    match parts.uploader.upload(cut).await {
                        Some(stored) => {
                            parts.fail_points.reach(FailPoint::AfterPut);
                            Event::Uploaded { file, stored }
                        }
                        None => Event::UploadFailed { file },
                    }
                };
                self.running.push(upload.boxed());
            }
            Effect::Commit(commit) => self.running.push(commit_file(parts, commit).boxed()),
            Effect::Skip(file) => {
                let call = async move {
                    let start = host::clock::now();
                    let result = parts.control.skip(file).await;
                    parts.called(start);
                    Event::Called { file, result }
                };
                self.running.push(call.boxed());
            }
            Effect::Settled {
                committed: true, ..
            } => parts.metrics.commits.increment(),
            Effect::Settled {
                file,
                committed: false,
            } => {
                tracing::warn!(%file, "a file was not committed");
                parts.cache.forget_file(file);
            }
            // The session may be gone.
            Effect::Answer { ticket, answer } => drop(ticket.send(answer)),
            Effect::Register => {
                parts.metrics.fenced.increment();
                tracing::warn!(
                    "this agent's incarnation is fenced: it was started again, here or elsewhere; it \
                     registers again"
                );
                let fenced = u32::try_from(parts.metrics.fenced.get()).unwrap_or(u32::MAX);
                let pause = FENCED.after(fenced, &mut Rng::from_entropy());
                self.running.push(register(parts, pause).boxed());
            }
        }
    }
}

impl Parts {
    fn called(&self, start: Instant) {
        self.metrics.commit_calls.increment();
        self.metrics
            .commit_micros
            .observe_duration(host::clock::now().since(start));
    }
}

async fn commit_file<M>(parts: Arc<Parts>, commit: Arc<CommitFile>) -> Event<Ticket, M> {
    let file = commit.file;
    if host::trial::leaves_out("ack-before-commit") {
        return answer_early(parts, commit);
    }
    let start = host::clock::now();
    parts.reports.committing();
    let result = parts.control.commit(commit.as_ref().clone()).await;
    parts.called(start);
    if let Ok(FileReply::Committed { outcomes }) = &result {
        parts.hub.tails().committed(&commit, outcomes);
        parts.fail_points.reach(FailPoint::AfterCommit);
    }
    Event::Called { file, result }
}

/// What rule 1 forbids (docs/safety.md): the outcome of a commit before there is one.
fn answer_early<M>(parts: Arc<Parts>, commit: Arc<CommitFile>) -> Event<Ticket, M> {
    let file = commit.file;
    let outcome = BatchOutcome::Accepted {
        base_offset: -1,
        log_start: 0,
    };
    let outcomes = vec![outcome; commit.batches.records.len()].into();
    host::task::spawn_detached("commit", async move {
        drop(parts.control.commit(commit.as_ref().clone()).await);
    });
    let result = Ok(FileReply::Committed { outcomes });
    Event::Called { file, result }
}

/// Registers under a new nonce, after a pause, until it succeeds. One that is refused is not used again: a call may have registered it
/// whose answer was lost, and the leader fenced a run that it did not hear.
async fn register<M>(parts: Arc<Parts>, pause: Duration) -> Event<Ticket, M> {
    host::clock::sleep(pause).await;
    let mut registration = RegisterAgent {
        nonce: host::rng::nonce(),
        ..parts.registration.clone()
    };
    let mut pauses = REGISTER.start();
    loop {
        match parts.control.register(registration.clone()).await {
            Ok(registered) => return Event::Registered(registered.incarnation),
            Err(error @ rpc::Error::Refused { .. }) => {
                tracing::warn!(%error, "registering was refused; it is tried again");
                registration.nonce = host::rng::nonce();
                host::clock::sleep(REFUSED).await;
            }
            Err(error) if pauses.is_first() => {
                tracing::warn!(%error, "registering failed; it is tried again until it succeeds");
            }
            Err(error) => tracing::debug!(%error, "registering failed again"),
        }
        pauses.pause().await;
    }
}
