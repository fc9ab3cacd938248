//! The calls of an agent to the control plane. Each says whether it answers from what its node
//! has applied, or *current*: resting on an entry appended after the call arrived.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use host::budget::Held;
use meta::FileRef;
use meta::commit::{CommitFile, FileReply};
use meta::ids::{FileId, PartitionId, ProducerId, TopicId};
use tokio::sync::broadcast;

use crate::error::Error;
use crate::group::{GroupReply, GroupRequest};
use crate::view::{
    Bounds, ClusterView, FileFate, Locate, Located, Notice, Place, Registered, Registration,
    TimeQuery,
};

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name; checked as Kafka checks names.
    pub name: String,
    /// Number of partitions, at least 1.
    pub partitions: u32,
    /// Configs set on the topic.
    pub configs: BTreeMap<String, String>,
}

/// Why a change of topics was refused, in Kafka's terms; the string is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicRefusal {
    Exists(String),
    Unknown(String),
    InvalidName(String),
    InvalidPartitions(String),
    InvalidConfig(String),
    /// POLICY_VIOLATION: a limit of this cluster.
    Policy(String),
}

/// An idempotent producer's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: ProducerId,
    pub epoch: i16,
}

/// The control plane as an agent uses it.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Makes this start of an agent known; fences earlier starts under the same name.
    async fn register(&self, registration: Registration) -> Result<Registered, Error>;

    /// Commits a file whose bytes are durable. Repeating it gives the first outcome.
    async fn commit(&self, file: CommitFile) -> Result<FileReply, Error>;

    /// Gives up a file number for good: what it held is not and never will be committed.
    async fn skip(&self, file: FileId) -> Result<FileReply, Error>;

    /// Topics and agents, as applied here; `None` if that is the version that is known already.
    async fn view(&self, known: Option<u64>) -> Result<Option<ClusterView>, Error>;

    /// Where records are, as applied here; answers in the order of the requests.
    async fn locate(&self, requests: &[Locate]) -> Result<Vec<Located>, Error>;

    /// Waits until this node has applied an entry appended after the call: what is read
    /// afterwards is current.
    async fn barrier(&self) -> Result<(), Error>;

    /// The bounds of partitions, current; `None` where there is no such partition.
    async fn bounds(&self, partitions: &[PartitionId]) -> Result<Vec<Option<Bounds>>, Error>;

    /// The slice in which to look for a timestamp, as applied here: at least as current as the bounds
    /// were that this node gave before. `None` if no record qualifies or there is no such partition.
    async fn find_time(
        &self,
        partition: PartitionId,
        query: TimeQuery,
    ) -> Result<Option<Place>, Error>;

    /// Creates a topic; with `validate_only` says what would come of it.
    async fn create_topic(
        &self,
        topic: TopicSpec,
        validate_only: bool,
    ) -> Result<Result<TopicId, TopicRefusal>, Error>;

    /// Deletes a topic and all its records.
    async fn delete_topic(&self, topic: TopicId) -> Result<Result<(), TopicRefusal>, Error>;

    /// Raises the number of partitions to `total`.
    async fn create_partitions(
        &self,
        topic: &str,
        total: u32,
        validate_only: bool,
    ) -> Result<Result<(), TopicRefusal>, Error>;

    /// A new producer id, or the next epoch of a known one.
    async fn init_producer(&self, known: Option<Producer>) -> Result<Producer, Error>;

    /// A request to the coordinator of a group; may wait as long as a rebalance takes. `memory` is
    /// what the request itself takes: it is given back when the request is answered, or waits for
    /// nothing but other members. Those who wait must not keep the others from coming.
    async fn group(&self, request: GroupRequest, memory: Vec<Held>) -> Result<GroupReply, Error>;

    /// Hints of what was applied, from now on. A receiver that lags is told so, and looks again
    /// at everything.
    fn notices(&self) -> broadcast::Receiver<Arc<[Notice]>>;

    /// Files that may be deleted now, at most `limit`, current.
    async fn collectable(&self, limit: usize) -> Result<Vec<FileRef>, Error>;

    /// Reports that files are deleted from every bucket, so that they can be forgotten.
    async fn forget_files(&self, files: Vec<FileRef>) -> Result<(), Error>;

    /// What may be done with files found in a bucket, current; in the order asked.
    async fn fates(&self, files: &[FileRef]) -> Result<Vec<FileFate>, Error>;
}
