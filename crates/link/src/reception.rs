//! How the control nodes of a cluster receive a process that is to be one of them: whether any believes it, or whether it is turned away
//! by those that are there. It must not know what follows from that.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use meta::level::Levels;
use rpc::peer::PeerRequest;
use rpc::{Call, encoding};

use crate::caller::Caller;
use crate::connection::{Connection, Failure, Manner};
use crate::keys::Security;

/// How long the nodes together may take to answer; who has not by then is silent.
const LIMIT: Duration = Duration::from_millis(1_500);
/// Nodes that are asked at one time.
const AT_ONCE: usize = 16;

/// How a process was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reception {
    /// A control node of the cluster has answered it.
    Admitted,
    /// Nobody answers: connections are refused, or nothing comes back.
    Alone,
    /// Nobody has answered, and somebody is there who does not believe the process, or whom it does not believe, for this reason.
    Rejected(String),
}

/// What one node has said.
enum Greeting {
    Answered,
    Rejected(String),
    Nothing,
}

/// Asks the nodes at these addresses until one answers.
pub async fn introduce(addresses: Vec<String>, caller: &Caller, levels: Levels) -> Reception {
    let asked = addresses.into_iter();
    let asked = asked.map(|address| greet(address, caller, levels));
    let mut greetings = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
    let mut rejection = None;
    let listening = async {
        while let Some(greeting) = greetings.next().await {
            match greeting {
                Greeting::Answered => return true,
                Greeting::Rejected(why) => rejection = Some(why),
                Greeting::Nothing => {}
            }
        }
        false
    };
    let is_admitted = host::clock::timeout(LIMIT, listening).await;
    match (is_admitted.unwrap_or(false), rejection) {
        (true, _) => Reception::Admitted,
        (false, Some(why)) => Reception::Rejected(why),
        (false, None) => Reception::Alone,
    }
}

async fn greet(address: String, caller: &Caller, levels: Levels) -> Greeting {
    let Ok(headers) = caller.headers(levels.newest().number) else {
        return Greeting::Nothing;
    };
    let call = Call::Peer(PeerRequest::Name);
    let Ok(message) = encoding::encode_call(levels.first(), &call) else {
        return Greeting::Nothing;
    };
    let connection = Connection::new(address.clone(), headers, caller.security.clone());
    let answer = connection.call(Bytes::from(message), Manner::default());
    match (answer.await, &caller.security) {
        (Ok(_), _) => Greeting::Answered,
        (Err(Failure::Rejected(why)), _) => Greeting::Rejected(why),
        // Who wants a certificate ends a connection on which none comes.
        (Err(Failure::Broken(why) | Failure::HungUp(why)), Security::Plaintext) => {
            Greeting::Rejected(format!(
                "{address} takes connections and says nothing to a process without certificates ({why}): start all of the cluster with \
             --tls-dir, or all with --plaintext-links"
            ))
        }
        (Err(_), _) => Greeting::Nothing,
    }
}
