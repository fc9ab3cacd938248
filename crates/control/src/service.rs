//! What agents ask, answered: proposals to the journal, reads of what is applied here, and reads
//! that first wait until what is applied here is current. It must not know Kafka's wire format.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use host::budget::Held;
use journal::node::{ProposeError, Refusal};
use meta::FileRef;
use meta::command::{Command, CreateTopic, RegisterAgent};
use meta::commit::{CommitFile, FileReply};
use meta::ids::{FileId, PartitionId, TopicId};
use meta::reply::Reply;
use meta::state::State;
use rpc::Error;
use rpc::control::{Control, Producer, TopicRefusal, TopicSpec};
use rpc::group::{GroupReply, GroupRequest};
use rpc::view::{
    Bounds, ClusterView, FileFate, Locate, Located, Notice, Place, Registered, Registration,
    TimeQuery,
};
use tokio::sync::broadcast;

use crate::convert;
use crate::node::{CLUSTER, Node};

/// Most slices named in one answer about a partition.
const PLACES_MAX: usize = 1_024;
/// Most slices named in one answer, but for one of each partition: a MiB of them.
const PLACES_OF_ANSWER_MAX: usize = 16 * PLACES_MAX;

impl Node {
    /// Proposes a command and waits for its reply.
    pub(crate) async fn propose(&self, command: &Command) -> Result<Reply, Error> {
        let bytes = Bytes::from(command.encode());
        self.replica
            .propose(CLUSTER, bytes)
            .await
            .map_err(not_applied)
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        self.replica.with_state(|machine| read(machine.state()))
    }

    async fn read_current<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, Error> {
        self.barrier().await?;
        Ok(self.read(read))
    }
}

/// What a failed proposal means to the caller.
pub(crate) fn not_applied(error: ProposeError) -> Error {
    match error {
        ProposeError::Definite(Refusal::Busy) => Error::Busy,
        ProposeError::Definite(refusal @ Refusal::TooLarge { .. }) => Error::Refused {
            reason: refusal.to_string(),
        },
        ProposeError::Definite(refusal) => Error::NotLeader {
            reason: refusal.to_string(),
        },
        ProposeError::Unknown(reason) => Error::Unknown { reason },
    }
}

/// A reply that does not go with the command: a mistake of ours, and nothing to build upon.
fn mismatch(reply: &Reply) -> Error {
    match reply {
        Reply::Refused(refusal) => Error::Refused {
            reason: refusal.to_string(),
        },
        other => Error::Unknown {
            reason: format!("a reply to another command: {other:?}"),
        },
    }
}

fn file_reply(reply: Reply) -> Result<FileReply, Error> {
    match reply {
        Reply::File(reply) => Ok(reply),
        other => Err(mismatch(&other)),
    }
}

fn topic_reply(reply: Reply) -> Result<Result<TopicId, TopicRefusal>, Error> {
    match reply {
        Reply::Topic { id } => Ok(Ok(id)),
        Reply::TopicRefused(refusal) => Ok(Err(convert::refusal(&refusal))),
        other => Err(mismatch(&other)),
    }
}

#[async_trait]
impl Control for Node {
    async fn register(&self, registration: Registration) -> Result<Registered, Error> {
        let command = Command::RegisterAgent(RegisterAgent {
            nonce: registration.nonce,
            name: registration.name,
            host: registration.host,
            port: registration.port,
            region: registration.region,
            zone: registration.zone,
            level: meta::FEATURE_LEVEL,
        });
        match self.propose(&command).await? {
            Reply::Registered { agent, incarnation } => Ok(Registered {
                agent,
                incarnation,
                cluster_id: self.read(|state| state.cluster_id().to_owned()),
            }),
            other => Err(mismatch(&other)),
        }
    }

    async fn commit(&self, file: CommitFile) -> Result<FileReply, Error> {
        file_reply(self.propose(&Command::CommitFile(file)).await?)
    }

    async fn skip(&self, file: FileId) -> Result<FileReply, Error> {
        file_reply(self.propose(&Command::SkipFile { file }).await?)
    }

    async fn view(&self, known: Option<u64>) -> Result<Option<ClusterView>, Error> {
        Ok(self.read(|state| convert::view(state, known)))
    }

    async fn locate(&self, requests: &[Locate]) -> Result<Vec<Located>, Error> {
        let places_max = (PLACES_OF_ANSWER_MAX / requests.len().max(1)).clamp(1, PLACES_MAX);
        let locate = |state: &State, request: &Locate| {
            let Locate {
                partition,
                offset,
                max_bytes,
            } = *request;
            convert::located(state.locate(partition, offset, max_bytes, places_max))
        };
        Ok(self.read(|state| {
            requests
                .iter()
                .map(|request| locate(state, request))
                .collect()
        }))
    }

    async fn barrier(&self) -> Result<(), Error> {
        let passed = self.replica.barrier().await;
        passed.map(drop).map_err(not_applied)
    }

    async fn bounds(&self, partitions: &[PartitionId]) -> Result<Vec<Option<Bounds>>, Error> {
        let bounds = |state: &State, id: PartitionId| {
            let partition = state.partition(id)?;
            Some(Bounds {
                log_start: partition.log_start(),
                high_watermark: partition.high_watermark(),
            })
        };
        self.read_current(|state| partitions.iter().map(|id| bounds(state, *id)).collect())
            .await
    }

    async fn find_time(
        &self,
        partition: PartitionId,
        query: TimeQuery,
    ) -> Result<Option<Place>, Error> {
        let found = self.read(|state| match query {
            TimeQuery::AtOrAfter(time) => state.slice_at_or_after_timestamp(partition, time),
            TimeQuery::Largest => state.max_timestamp_slice(partition),
        });
        Ok(found.as_ref().map(convert::place))
    }

    async fn create_topic(
        &self,
        topic: TopicSpec,
        validate_only: bool,
    ) -> Result<Result<TopicId, TopicRefusal>, Error> {
        let request = CreateTopic {
            id: TopicId(host::rng::nonce()),
            name: topic.name,
            partitions: topic.partitions,
            configs: topic.configs,
        };
        if validate_only {
            let checked = self
                .read_current(|state| state.check_create_topic(&request))
                .await?;
            return Ok(checked
                .map(|()| request.id)
                .map_err(|refusal| convert::refusal(&refusal)));
        }
        topic_reply(self.propose(&Command::CreateTopic(request)).await?)
    }

    async fn delete_topic(&self, topic: TopicId) -> Result<Result<(), TopicRefusal>, Error> {
        let reply = self.propose(&Command::DeleteTopic { id: topic }).await?;
        Ok(topic_reply(reply)?.map(|_| ()))
    }

    async fn create_partitions(
        &self,
        topic: &str,
        total: u32,
        validate_only: bool,
    ) -> Result<Result<(), TopicRefusal>, Error> {
        let find = |state: &State| {
            let id = state.topic(topic)?.id;
            Some((id, state.check_create_partitions(id, total)))
        };
        match self.read_current(find).await? {
            None => Ok(Err(TopicRefusal::Unknown(format!(
                "there is no topic '{topic}'"
            )))),
            Some((_, checked)) if validate_only => {
                Ok(checked.map_err(|refusal| convert::refusal(&refusal)))
            }
            Some((id, _)) => {
                let reply = self
                    .propose(&Command::CreatePartitions { id, total })
                    .await?;
                Ok(topic_reply(reply)?.map(|_| ()))
            }
        }
    }

    async fn init_producer(&self, known: Option<Producer>) -> Result<Producer, Error> {
        let known = known.map(|producer| (producer.id, producer.epoch));
        match self.propose(&Command::AllocateProducer { known }).await? {
            Reply::Producer { id, epoch } => Ok(Producer { id, epoch }),
            other => Err(mismatch(&other)),
        }
    }

    async fn group(&self, request: GroupRequest, memory: Vec<Held>) -> Result<GroupReply, Error> {
        self.groups.request(request, memory).await
    }

    fn notices(&self) -> broadcast::Receiver<Arc<[Notice]>> {
        self.notices.subscribe()
    }

    async fn collectable(&self, limit: usize) -> Result<Vec<FileRef>, Error> {
        // A barrier is an entry of the journal, and keeps the leader's heartbeats going for a while:
        // an idle cluster has none. What is not applied here yet is found by the next look.
        if self.read(|state| state.collectable(1).is_empty()) {
            return Ok(Vec::new());
        }
        self.read_current(|state| state.collectable(limit)).await
    }

    async fn forget_files(&self, files: Vec<FileRef>) -> Result<(), Error> {
        let files = files.into_iter().collect();
        match self.propose(&Command::FilesDeleted { files }).await? {
            Reply::Forgotten { refused } if refused.is_empty() => Ok(()),
            Reply::Forgotten { refused } => Err(Error::Refused {
                reason: format!("{} files are not ready to be forgotten", refused.len()),
            }),
            other => Err(mismatch(&other)),
        }
    }

    async fn fates(&self, files: &[FileRef]) -> Result<Vec<FileFate>, Error> {
        let fate = |state: &State, file: &FileRef| convert::fate(state.fate(*file));
        self.read_current(|state| files.iter().map(|file| fate(state, file)).collect())
            .await
    }
}
