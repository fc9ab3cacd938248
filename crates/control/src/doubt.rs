//! What a leader tells those who wait for it once it may lead no more (three regions, rule L2): that they had better look for
//! another, while it keeps trying. It must not know how they are told, nor what they do about it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rpc::Call;

use crate::answer;
use crate::node::Node;

/// How often it is looked whether the leader is in doubt, which takes a second.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Keeps those who wait told, for ever.
pub(crate) async fn keep_telling(node: Arc<Node>) -> Infallible {
    loop {
        node.doubt.set(node.replica.is_doubtful());
        host::clock::sleep(LOOK_EVERY).await;
    }
}

impl Node {
    /// Ends once this node is in doubt whether it leads, if the call is one that only the leader answers.
    pub(crate) fn is_doubted(&self, call: &Call) -> BoxFuture<'static, ()> {
        if !answer::needs_leader(call) {
            return std::future::pending().boxed();
        }
        let doubt = Arc::clone(&self.doubt);
        async move {
            doubt.wait_for(|is_doubtful| *is_doubtful).await;
        }
        .boxed()
    }
}
