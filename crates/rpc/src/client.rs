//! A client of a control node: a method per call, which returns the value that belongs to it. It
//! must not know where the control node is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use host::clock::Instant;
use meta::command::{BucketCompared, Command, DropCopies, RegisterAgent};
use meta::commit::{CommitFile, FileReply};
use meta::ids::{FileId, Incarnation, PartitionId, ProducerId};
use meta::places::{Bounds, TimeQuery};
use meta::places::{Fate, FileRef, StoredFile, StoredFiles, WantedFiles};
use meta::places::{Located, SlicePlace};
use meta::view::ViewChange;

use crate::call::{Answer, Call, Locate, Registered, Return};
use crate::error::Error;
use crate::group::{GroupError, GroupReply, GroupRequest, Heartbeat};
use crate::notice::Notices;
use crate::position::Position;

/// A call for a client that is received so long after that was found to wait has no effect: the client may have given up, and have had the
/// opposite done by way of another agent (three regions, rule P1).
pub const LATE_AFTER: Duration = Duration::from_secs(2);

/// A control node, in this process or elsewhere.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// A call for a client that was found to wait for the answer at a time of this process's boot clock: the node refuses to change anything by
    /// one that it is given [`LATE_AFTER`] later or more. `None` if it does no harm late. Whatever passes calls on must pass that on.
    async fn call_for(&self, call: Call, awaited_at: Option<Instant>) -> Result<Answer, Error>;

    /// A call that does no harm late.
    async fn call(&self, call: Call) -> Result<Answer, Error> {
        self.call_for(call, None).await
    }

    /// Notices of what is applied from now on: first of all a message that says from where on, and at least each quarter of a
    /// second another one.
    fn notices(&self) -> Notices;
}

/// Calls a control node. Clones are cheap.
#[derive(Clone)]
pub struct Client {
    control: Arc<dyn Control>,
    /// When it was last known that somebody awaits the answers, if they may be late.
    awaited_at: Option<Instant>,
}

/// Takes the value that belongs to the call out of an answer.
macro_rules! expect {
    ($answer:expr, $kind:pat $(if $holds:expr)? => $value:expr) => {
        match $answer.value {
            $kind $(if $holds)? => Ok($value),
            other => Err(mismatch(&other)),
        }
    };
}

/// The error for a value that does not belong to the call: a bug, so nothing is concluded from it.
fn mismatch(value: &Return) -> Error {
    Error::Unknown {
        reason: format!("the answer to another call: {value:?}"),
    }
}

impl Client {
    pub fn new(control: Arc<dyn Control>) -> Self {
        Client {
            control,
            awaited_at: None,
        }
    }

    /// A client for what one request asks, which was awaited at this time: its calls are refused if they arrive late.
    pub fn awaited_at(&self, at: Instant) -> Self {
        Client {
            control: Arc::clone(&self.control),
            awaited_at: Some(at),
        }
    }

    async fn ask(&self, call: Call) -> Result<Answer, Error> {
        self.control.call_for(call, self.awaited_at).await
    }

    /// Notices of what is applied from now on.
    pub fn notices(&self) -> Notices {
        self.control.notices()
    }

    async fn propose(&self, command: Command) -> Result<Answer, Error> {
        self.ask(Call::Propose(Box::new(command))).await
    }

    /// Makes this start of an agent known; fences earlier starts under the same name.
    pub async fn register(&self, agent: RegisterAgent) -> Result<Registered, Error> {
        let answer = self.propose(Command::RegisterAgent(agent)).await?;
        expect!(answer, Return::Registered(registered) => registered)
    }

    /// Commits a file whose bytes are durable. Repeating it gives the first outcome.
    pub async fn commit(&self, file: CommitFile) -> Result<FileReply, Error> {
        let answer = self.propose(Command::CommitFile(file)).await?;
        expect!(answer, Return::File(reply) => reply)
    }

    /// Gives up a file number for good: what it held is not and never will be committed.
    pub async fn skip(&self, file: FileId) -> Result<FileReply, Error> {
        let answer = self.propose(Command::SkipFile { file }).await?;
        expect!(answer, Return::File(reply) => reply)
    }

    /// Changes topics or configs; the change can be seen from the returned position on.
    pub async fn change(&self, command: Command) -> Result<Position, Error> {
        let answer = self.propose(command).await?;
        expect!(answer, Return::Done => answer.at)
    }

    /// Checks whether a change would be accepted now.
    pub async fn check(&self, command: Command) -> Result<(), Error> {
        let answer = self.ask(Call::Check(Box::new(command))).await?;
        expect!(answer, Return::Done => ())
    }

    /// A new producer id, or the next epoch of a known one.
    pub async fn init_producer(
        &self,
        known: Option<(ProducerId, i16)>,
    ) -> Result<(ProducerId, i16), Error> {
        let answer = self.propose(Command::AllocateProducer { known }).await?;
        expect!(answer, Return::Producer { id, epoch } => (id, epoch))
    }

    /// Reports that a bucket has deleted files, so that they can be forgotten once all have.
    pub async fn forget_files(&self, bucket: u32, files: Vec<FileRef>) -> Result<(), Error> {
        let files = files.into_iter().collect();
        let command = Command::FilesDeleted { bucket, files };
        let answer = self.propose(command).await?;
        expect!(answer, Return::Done => ())
    }

    /// Reports files that a bucket holds beside those that held them when they were committed.
    pub async fn add_copies(&self, bucket: u32, files: BTreeSet<FileRef>) -> Result<(), Error> {
        let command = Command::AddCopies { bucket, files };
        let answer = self.propose(command).await?;
        expect!(answer, Return::Done => ())
    }

    /// Reports files of which a bucket holds no copy, or a damaged one, as [`Command::DropCopies`] has it.
    pub async fn drop_copies(
        &self,
        by: Incarnation,
        bucket: u32,
        is_missing: bool,
        files: BTreeSet<FileRef>,
    ) -> Result<(), Error> {
        let command = Command::DropCopies(DropCopies {
            by,
            bucket,
            is_missing,
            files,
        });
        let answer = self.propose(command).await?;
        expect!(answer, Return::Done => ())
    }

    /// Reports that the files of a suspect bucket have been compared with what it holds, as [`Command::BucketCompared`] has it.
    pub async fn bucket_compared(
        &self,
        by: Incarnation,
        bucket: u32,
        since_ticks: u64,
    ) -> Result<(), Error> {
        let command = Command::BucketCompared(BucketCompared {
            by,
            bucket,
            since_ticks,
        });
        let answer = self.propose(command).await?;
        expect!(answer, Return::Done => ())
    }

    /// Live files, and how copies of them are known.
    pub async fn stored(&self, wanted: WantedFiles) -> Result<StoredFiles, Error> {
        let answer = self.ask(Call::Stored(wanted)).await?;
        expect!(answer, Return::Stored(files) => files)
    }

    /// Live files that a bucket lacks, as [`Call::Short`] has it, and the wall time of the last entry that is known.
    pub async fn short(
        &self,
        bucket: u32,
        after: Option<(u64, FileId)>,
        limit: u32,
    ) -> Result<(u64, Vec<StoredFile>), Error> {
        let call = Call::Short {
            bucket,
            after,
            limit,
        };
        let answer = self.ask(call).await?;
        expect!(answer, Return::Short { wall_millis, files } => (wall_millis, files))
    }

    /// Waits until everything appended before the call is applied: reads at the returned position
    /// are current.
    pub async fn barrier(&self) -> Result<Position, Error> {
        let answer = self.ask(Call::Barrier).await?;
        expect!(answer, Return::Done => answer.at)
    }

    /// Topics and agents: what changed since the version that is known; `None` if nothing did.
    pub async fn view(
        &self,
        known: Option<u64>,
        at: Position,
    ) -> Result<Option<Box<ViewChange>>, Error> {
        let answer = self.ask(Call::View { known, at }).await?;
        expect!(answer, Return::View(view) => view)
    }

    /// Where records are, in the order of `wanted`, and the position up to which the answer knows everything.
    pub async fn locate(
        &self,
        wanted: Vec<Locate>,
        at: Position,
    ) -> Result<(Position, Vec<Located>), Error> {
        let count = wanted.len();
        let answer = self.ask(Call::Locate { wanted, at }).await?;
        expect!(answer, Return::Located(located) if located.len() == count => (answer.at, located))
    }

    /// The current bounds of partitions, and the position at which they held.
    pub async fn bounds(
        &self,
        partitions: Vec<PartitionId>,
    ) -> Result<(Position, Vec<Option<Bounds>>), Error> {
        let count = partitions.len();
        let answer = self.ask(Call::Bounds(partitions)).await?;
        expect!(answer, Return::Bounds(bounds) if bounds.len() == count => (answer.at, bounds))
    }

    /// The slice in which to look for a timestamp.
    pub async fn find_time(
        &self,
        partition: PartitionId,
        query: TimeQuery,
        at: Position,
    ) -> Result<Option<SlicePlace>, Error> {
        let call = Call::FindTime {
            partition,
            query,
            at,
        };
        let answer = self.ask(call).await?;
        expect!(answer, Return::Place(place) => place)
    }

    /// Files that a bucket may delete now, at most `limit`.
    pub async fn collectable(&self, bucket: u32, limit: u32) -> Result<Vec<FileRef>, Error> {
        let call = Call::Collectable { bucket, limit };
        let answer = self.ask(call).await?;
        expect!(answer, Return::Collectable(files) => files)
    }

    /// The fates of files found in a bucket.
    pub async fn fates(&self, files: Vec<FileRef>) -> Result<Vec<Fate>, Error> {
        let count = files.len();
        let answer = self.ask(Call::Fates(files)).await?;
        expect!(answer, Return::Fates(fates) if fates.len() == count => fates)
    }

    /// Tells the leader that an agent is there, which buckets it reaches, bit b for number b, and of which build it is; to be called
    /// again once it returns. True if the leader has lost another agent meanwhile, and does not know yet whether that one is gone.
    pub async fn present(
        &self,
        incarnation: Incarnation,
        buckets: u64,
        version: &str,
    ) -> Result<bool, Error> {
        let present = Call::Present {
            incarnation,
            buckets,
            version: version.to_owned(),
        };
        let answer = self.ask(present).await?;
        match answer.value {
            Return::Done => Ok(false),
            Return::OneIsLost => Ok(true),
            other => Err(mismatch(&other)),
        }
    }

    /// Tells the coordinator of members that are alive; one outcome for each.
    pub async fn heartbeats(
        &self,
        members: Vec<Heartbeat>,
    ) -> Result<Vec<Result<(), GroupError>>, Error> {
        let count = members.len();
        let answer = self.ask(Call::Heartbeats(members)).await?;
        expect!(answer, Return::Heartbeats(results) if results.len() == count => results)
    }

    /// Tells all that an incarnation is about to end; they know it at the returned position.
    pub async fn drain(&self, incarnation: Incarnation) -> Result<Position, Error> {
        let answer = self.propose(Command::DrainAgent { incarnation }).await?;
        expect!(answer, Return::Done => answer.at)
    }

    /// Ends an incarnation: it commits nothing more.
    pub async fn end(&self, incarnation: Incarnation) -> Result<(), Error> {
        let answer = self.propose(Command::FenceAgent { incarnation }).await?;
        expect!(answer, Return::Done => ())
    }

    /// Asks the coordinator of a group.
    pub async fn group(&self, request: GroupRequest) -> Result<GroupReply, Error> {
        let answer = self.ask(Call::Group(request)).await?;
        expect!(answer, Return::Group(reply) => reply)
    }
}
