//! How a control node finds and calls the others: by what the bucket tells of them, over a connection for each call. It must not know
//! what it asks them.

use std::sync::Arc;

use async_trait::async_trait;
use control::progress::Links;
use link::Caller;
use meta::level::Levels;
use rpc::{Answer, Call, Error};
use store::buckets::Buckets;
use store::nodes;

pub(super) struct Others {
    pub(super) buckets: Arc<Buckets>,
    pub(super) caller: Caller,
}

#[async_trait]
impl Links for Others {
    async fn announced(&self) -> Result<Vec<String>, String> {
        let announced = nodes::addresses(&*self.buckets, nodes::CONTROL).await;
        announced.map_err(|error| error.to_string())
    }

    async fn ask(&self, address: String, call: Call) -> Result<Answer, Error> {
        link::ask_at_any_level(address, &self.caller, Levels::KNOWN, &call).await
    }
}
