//! The other nodes of a journal, as a node asks them before it leaves an entry out. It must not know what follows from their answers.

use async_trait::async_trait;

use crate::node::Said;

/// Who else has a replica of the journal.
#[async_trait]
pub trait Others: Send + Sync {
    /// What those say that are there, each once it has come to this slot or shows that it does not. Who does not answer within a bounded
    /// time is not there. The error says why it is not known which there are.
    async fn applied(&self, slot: u64) -> Result<Vec<Said>, String>;
}

/// There are no others.
#[derive(Debug)]
pub struct Alone;

#[async_trait]
impl Others for Alone {
    async fn applied(&self, _slot: u64) -> Result<Vec<Said>, String> {
        Ok(Vec::new())
    }
}
