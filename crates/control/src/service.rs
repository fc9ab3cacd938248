//! What agents ask, answered: the shell around [`crate::answer`]. It waits for positions, barriers
//! and replies, and decides nothing.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use host::clock::Instant;
use journal::entry::Position as Applied;
use journal::node::{ProposeError, Refusal};
use journal::replica::Grown;
use meta::State;
use meta::command::Command;
use meta::ids::FileId;
use meta::level::Level;
use meta::reply::Reply;
use rpc::group::{GroupReply, GroupRequest};
use rpc::growth::{Growing, Growth, JournalEntry};
use rpc::notice::{Notices, Told};
use rpc::peer::{Condition, PeerRequest};
use rpc::{Answer, Asked, Call, Control, Error, Given, Position, Return, Served, Speaker};

use crate::answer::{self, Freshness, Step, conclude, failed};
use crate::beats::beating;
use crate::clocks::Standing;
use crate::commits::{self, Settling};
use crate::machine::CLUSTER;
use crate::node::Node;
use crate::permission::{self, Verdict};

/// How long a read waits for the position that it asks for: a node that is further behind is of no
/// use to a client, which asks again, perhaps elsewhere.
const REACH: Duration = Duration::from_secs(2);

fn in_micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

impl Node {
    /// Proposes a command and waits for its reply, and for the position of its entry.
    pub(crate) async fn propose(&self, command: &Command) -> Result<(Position, Reply), Error> {
        let (bytes, about) = (self.written(command)?, command.stored_bytes());
        let reply = self.replica.propose_about(CLUSTER, bytes, about).await;
        reply.map_err(|error| self.failed(error))
    }

    /// The same of a command that settles a file, in the order of the files.
    async fn settle(
        &self,
        file: FileId,
        command: Box<Command>,
    ) -> Result<(Position, Reply), Error> {
        let settling = Settling {
            file,
            about: command.stored_bytes(),
            command: self.written(&command)?,
        };
        // It may wait for a while, and is held in its other form.
        drop(command);
        let settled = self.commits.settle(&self.replica, settling).await;
        settled.map_err(|error| self.failed(error))
    }

    /// A command as the journal has it.
    fn written(&self, command: &Command) -> Result<Bytes, Error> {
        let written = self.with_state(|state| command.encode(state.level()));
        let written = written.map_err(|too_new| Error::Refused {
            reason: too_new.to_string(),
        })?;
        Ok(Bytes::from(written))
    }

    fn with_sound_state<T>(
        &self,
        read: impl FnOnce(&State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.with_state(|state| {
            if self.replica.is_void() {
                let reason = "an entry of the journal cannot be applied".to_owned();
                return Err(Error::Unavailable { reason });
            }
            read(state)
        })
    }

    pub(crate) fn failed(&self, error: ProposeError) -> Error {
        let claim = self.replica.status().claim_index;
        self.with_state(|state| failed(state, claim, error))
    }

    /// How far the state has come that is read afterwards.
    pub(crate) fn position(&self) -> Position {
        Position(self.replica.applied().0)
    }

    /// What the state, as it is read afterwards, is to a call: for half of the time after which files are deleted, what it lacks is
    /// believed not to exist.
    fn freshness(&self) -> Freshness {
        let at = self.position();
        let confirmed_at = self.replica.status().confirmed_at;
        let now = host::clock::now();
        let half = self.with_state(|state| Duration::from_millis(state.grace_ticks() / 2));
        match confirmed_at.is_some_and(|confirmed_at| now.since(confirmed_at) < half) {
            true => Freshness::Applied(at),
            false => Freshness::Unconfirmed(at),
        }
    }

    pub(crate) async fn reach_position(&self, position: Position) -> Result<(), Error> {
        let reached = host::clock::timeout(REACH, self.replica.reach(Applied(position.0))).await;
        let reason = match reached {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(refusal)) => refusal.to_string(),
            Err(_) => format!("it has not applied entry {} yet", position.0),
        };
        Err(Error::Unavailable { reason })
    }
}

impl Node {
    /// Answers a call that has come in this way. A node that follows answers what must be current only to those who do not reach
    /// the leader, by a look of its own.
    async fn answer(&self, call: Call, asked: &Asked) -> Result<Answer, Error> {
        let Call::Peer(PeerRequest::Progress { slot }) = call else {
            return self.answer_soundly(call, asked).await;
        };
        // Those that can apply no more are asked too.
        self.come_to(slot).await;
        let (at, value) = (self.position(), Return::Progress(self.progress()));
        Ok(Answer { at, value })
    }

    /// The same from a state that is not given up.
    async fn answer_soundly(&self, call: Call, asked: &Asked) -> Result<Answer, Error> {
        let confirms = asked.is_leader_away;
        let mut call = call;
        let mut at = self.position();
        let mut freshness = self.freshness();
        loop {
            match self.with_sound_state(|state| answer::step(state, call, freshness))? {
                Step::Now(value) => return Ok(Answer { at, value }),
                Step::Reach(position, again) => {
                    self.reach_position(position).await?;
                    at = position;
                    freshness = self.freshness();
                    call = again;
                }
                Step::Current(again) => {
                    // Who asks for what any node answers does not want a leader.
                    let is_read = !answer::needs_leader(&again);
                    if !confirms
                        && is_read
                        && let Some(error) = self.names_other_leader()
                    {
                        return Err(error);
                    }
                    at = self.current(confirms).await?;
                    freshness = Freshness::Current;
                    call = again;
                }
                Step::Propose(command) => {
                    asked.refuse_late(host::clock::now())?;
                    if let Command::RegisterAgent(registration) = &*command {
                        self.refuse_namesake(registration, asked.is_relayed).await?;
                    }
                    let (at, reply) = match commits::settles(&command) {
                        Some(file) => self.settle(file, command).await?,
                        None => self.propose(&command).await?,
                    };
                    let value = self.with_sound_state(|state| conclude(state, reply))?;
                    return Ok(Answer { at, value });
                }
                Step::Attend(incarnation, buckets, version) => {
                    let attended = self.attend(incarnation, buckets, version, asked.is_relayed);
                    let value = attended.await?;
                    let at = self.position();
                    return Ok(Answer { at, value });
                }
                Step::Hear(members) => {
                    let value = Return::Heartbeats(self.groups.heartbeats(members).await);
                    let at = self.position();
                    return Ok(Answer { at, value });
                }
                Step::WhoLeads => {
                    self.see_that_it_leads().await?;
                    let (at, value) = (self.position(), Return::Done);
                    return Ok(Answer { at, value });
                }
                Step::Peer(request) => {
                    let value = self.answer_peer(request)?;
                    let at = self.position();
                    return Ok(Answer { at, value });
                }
                Step::Coordinate(request) => {
                    asked.refuse_late(host::clock::now())?;
                    let value = Return::Group(self.coordinate(request).await?);
                    let at = self.position();
                    return Ok(Answer { at, value });
                }
            }
        }
    }

    /// The position on which an answer rests that has to be current: the leader's barrier, or what a follower finds out for itself,
    /// which looks how far the journal goes.
    async fn current(&self, confirms: bool) -> Result<Position, Error> {
        let follows = confirms && !self.replica.is_leader();
        let passed = match follows {
            true if host::trial::leaves_out("followers-confirm") => Ok(self.replica.applied()),
            true => self.replica.confirm().await,
            false => self.replica.barrier().await,
        };
        Ok(Position(passed.map_err(|error| self.failed(error))?.0))
    }

    /// Asks the coordinator of groups.
    async fn coordinate(&self, request: GroupRequest) -> Result<GroupReply, Error> {
        let follows = !self.replica.is_leader();
        let reply = self.groups.request(request).await?;
        // By a node that followed before it began, nothing was done.
        if follows && reply.says_not_coordinator() {
            let leader = self.replica.status().leader;
            let refusal = ProposeError::Definite(Refusal::NotLeader { leader });
            return Err(self.failed(refusal));
        }
        Ok(reply)
    }

    /// Refuses to be taken for the leader unless this node leads, beyond doubt; whoever asks wants one.
    async fn see_that_it_leads(&self) -> Result<(), Error> {
        if !self.replica.is_leader() {
            let refused = self.replica.barrier().await;
            return refused.map(drop).map_err(|error| self.failed(error));
        }
        match self.replica.is_doubtful() {
            false => Ok(()),
            true => {
                let reason = "perhaps this control node leads no more".to_owned();
                Err(Error::Unavailable { reason })
            }
        }
    }

    /// Does what another control node asks.
    fn answer_peer(&self, request: PeerRequest) -> Result<Return, Error> {
        match request {
            PeerRequest::Name => Ok(Return::Named(self.named()?)),
            PeerRequest::Follows(follower) => self.hear_follower(follower),
            PeerRequest::Succeed {
                claim,
                reason,
                given_up,
            } => {
                let now = host::clock::now();
                self.leading.lead().hear(claim, reason);
                if let Some(attendance) = &self.attendance {
                    attendance.aside().note(now, given_up);
                }
                self.replica.leader_has_resigned(claim);
                Ok(Return::Done)
            }
            PeerRequest::Asked => {
                let attendance = self.attendance.as_ref();
                let was_asked = attendance.is_some_and(|here| here.was_asked(host::clock::now()));
                Ok(Return::Asked(was_asked))
            }
            PeerRequest::Condition => Ok(Return::Condition(Condition {
                wall_millis: host::clock::wall_millis(),
                is_clock_wrong: self.wall_clock().standing == Standing::Wrong,
                commit_micros: self.commit_latency().map(in_micros),
            })),
            PeerRequest::CanStore => {
                let newest = self.journal_status().snapshot_index;
                let is_able = self.storing().is_able(host::clock::now(), newest);
                Ok(Return::CanStore(is_able))
            }
            PeerRequest::Progress { .. } => Ok(Return::Progress(self.progress())),
        }
    }

    /// Refuses what is not the speaker's to ask.
    async fn permit(&self, speaker: &Speaker, call: &Call) -> Result<(), Error> {
        let judge = || match call {
            // Whose that is to ask no state tells.
            Call::Peer(PeerRequest::Progress { .. }) => {
                Ok(self.with_state(|state| permission::judge(state, speaker, call)))
            }
            _ => self.with_sound_state(|state| Ok(permission::judge(state, speaker, call))),
        };
        let mut verdict = judge()?;
        if verdict == Verdict::NotKnownYet {
            // It was appended before the call came, or is nobody's to ask.
            let current = self.replica.barrier().await;
            current.map_err(|error| self.failed(error))?;
            verdict = judge()?;
        }
        let reason = match verdict {
            Verdict::Allowed => return Ok(()),
            Verdict::NotKnownYet => "no agent has registered as that yet".to_owned(),
            Verdict::Refused(why) => why,
        };
        let subject = (speaker.clone(), reason.clone());
        if let Some(left_out) = self.refusals.pass(subject, host::clock::now()) {
            tracing::warn!(%speaker, reason, left_out, "a call is refused");
        }
        Err(Error::Refused { reason })
    }

    /// What others are told who ask this node for what only the leader does, as long as somebody leads; an error of theirs is no
    /// reason to take the lead from anybody.
    fn names_leader(&self, call: &Call) -> Option<Error> {
        match answer::needs_leader(call) {
            true => self.names_other_leader(),
            false => None,
        }
    }

    fn names_other_leader(&self) -> Option<Error> {
        if self.replica.is_leader() {
            return None;
        }
        let leader = Some(self.replica.status().leader?);
        let refusal = ProposeError::Definite(Refusal::NotLeader { leader });
        Some(self.failed(refusal))
    }
}

#[async_trait]
impl Control for Node {
    async fn call_for(&self, call: Call, awaited_at: Option<Instant>) -> Result<Answer, Error> {
        let asked = Asked {
            awaited_at,
            ..Asked::by(Speaker::Believed)
        };
        self.answer(call, &asked).await
    }

    fn notices(&self) -> Notices {
        let told = beating(self.notices.follow(), |told| Told {
            from: told.to,
            notices: Vec::new(),
            ..*told
        });
        let replica = self.replica.clone();
        told.map(move |told| {
            let seemed_current_at = replica.status().seemed_current_at;
            let age = seemed_current_at.map(|at| host::clock::now().since(at).as_millis());
            let age_millis = age.and_then(|age| u64::try_from(age).ok());
            Told {
                age_millis: age_millis.unwrap_or(u64::MAX),
                ..told
            }
        })
        .boxed()
    }
}

#[async_trait]
impl Served for Node {
    fn level(&self) -> &'static Level {
        self.with_state(|state| state.level())
    }

    fn growth(&self) -> Growing {
        let begin = Growth {
            to: self.position(),
            entries: Vec::new(),
        };
        let grown = self.replica.growth().map(|Grown { index, entry }| {
            let at = Position(index);
            let entries = entry.map(|bytes| JournalEntry { at, bytes });
            let entries = entries.into_iter().collect();
            Growth { to: at, entries }
        });
        beating(stream::iter([begin]).chain(grown).boxed(), |grown| Growth {
            to: grown.to,
            entries: Vec::new(),
        })
    }

    async fn serve(&self, call: Call, asked: Asked) -> Given {
        if asked.is_leader_away
            && !asked.is_relayed
            && answer::is_of_agent(&call)
            && let Some(attendance) = &self.attendance
        {
            attendance.is_asked(host::clock::now());
        }
        let again = asked.relays.then(|| call.clone());
        let own = self.serve_here(call, &asked).await;
        let is_for_leader = match &own {
            Ok(answer) => answer.value.is_of_no_coordinator(),
            Err(error) => matches!(error, Error::NotLeader { .. }),
        };
        if is_for_leader
            && let Some(call) = again
            && let Some(given) = self.relay(&call, &asked).await
        {
            return given;
        }
        Given {
            outcome: own,
            by: None,
        }
    }

    fn doubted(&self, call: &Call) -> BoxFuture<'static, ()> {
        self.is_doubted(call)
    }
}

impl Node {
    /// Answers a call without asking anybody else.
    async fn serve_here(&self, call: Call, asked: &Asked) -> Result<Answer, Error> {
        if answer::is_of_agent(&call) && !asked.is_relayed {
            self.await_leader(&call).await;
        }
        if let Some(error) = self.names_leader(&call).filter(|_| !asked.is_leader_away) {
            return Err(error);
        }
        self.permit(&asked.speaker, &call).await?;
        self.answer(call, asked).await
    }
}
