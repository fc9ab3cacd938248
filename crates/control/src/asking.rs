//! Whom a node asks before it leaves an entry of the journal out, which is known only once it runs. It must not know how others are asked.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use journal::node::Said;
use journal::replica::Others;

/// The other nodes, once somebody knows how to ask them.
#[derive(Default)]
pub(crate) struct Asking(OnceLock<Arc<dyn Others>>);

impl Asking {
    /// From now on `others` ask them.
    pub(crate) fn by(&self, others: Arc<dyn Others>) {
        // The first one stays.
        let _there = self.0.set(others);
    }
}

#[async_trait]
impl Others for Asking {
    async fn applied(&self, slot: u64) -> Result<Vec<Said>, String> {
        match self.0.get() {
            Some(others) => others.applied(slot).await,
            None => Err("this process has not come to know the other control nodes yet".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_long_as_nobody_can_be_asked_it_is_not_said_that_nobody_is_there() {
        let asking = Asking::default();
        assert!(asking.applied(5).await.is_err());
        asking.by(Arc::new(journal::replica::Alone));
        assert_eq!(asking.applied(5).await, Ok(Vec::new()));
    }
}
