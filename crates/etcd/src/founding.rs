//! Whose an etcd's prefix is: a key below it names the cluster, and every request has the condition that it still does. It must not
//! know whether the cluster's journal has begun; its caller does.

use crate::engine::Etcd;
use crate::grpc::Failure;
use crate::requests::Unfit;

/// Why the prefix cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody has to do something about it.
    #[error("{0}")]
    Final(String),
    /// It may pass by itself.
    #[error("the journal's etcd: {0}")]
    Waits(String),
}

impl Etcd {
    /// Makes sure that the prefix is the cluster's. One that is empty becomes its, if `is_new` says that its journal has not begun.
    /// Safe to repeat.
    pub async fn admit(&self, is_new: bool) -> Result<(), Refusal> {
        let requests = &self.shared.requests;
        let request = if is_new {
            requests.found()
        } else {
            requests.verify()
        };
        let answer = self.shared.client.txn(&request).await;
        let answer = answer.map_err(|failure| match failure {
            Failure::Refused(why) => Refusal::Final(format!("the journal's etcd refuses: {why}")),
            failure => Refusal::Waits(failure.to_string()),
        })?;
        let checked = if is_new {
            requests.founded(&answer)
        } else {
            requests.verified(&answer)
        };
        checked.map_err(|unfit| match unfit {
            Unfit::Foreign(why) => Refusal::Final(self.shared.advice(&why, is_new)),
            unfit => Refusal::Waits(unfit.to_string()),
        })
    }
}
