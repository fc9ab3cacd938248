//! Counts the calls of this agent to control nodes: a fetch at the tail must cost none. It must not know what they are about.

use std::sync::Arc;

use async_trait::async_trait;
use host::clock::Instant;
use rpc::notice::Notices;
use rpc::{Answer, Call, Client, Control, Error};

use crate::metrics::Metrics;

pub(crate) struct Counted {
    control: Arc<dyn Control>,
    metrics: Arc<Metrics>,
}

impl Counted {
    /// A client whose calls are counted.
    pub(crate) fn of(control: Arc<dyn Control>, metrics: &Arc<Metrics>) -> Client {
        let metrics = Arc::clone(metrics);
        Client::new(Arc::new(Counted { control, metrics }))
    }
}

#[async_trait]
impl Control for Counted {
    async fn call_for(&self, call: Call, awaited_at: Option<Instant>) -> Result<Answer, Error> {
        self.metrics.control_calls.increment();
        self.control.call_for(call, awaited_at).await
    }

    fn notices(&self) -> Notices {
        self.control.notices()
    }
}
