//! One call to one node, whichever it is: for what must not be answered by another. It must not know what calls mean.

use bytes::Bytes;
use meta::level::{Level, Levels};
use rpc::{Answer, Call, Error, encoding};

use crate::caller::Caller;
use crate::connection::{Connection, Failure, Manner};

/// Asks the node at `address`, once. The call is written for `level`, of those that the caller knows. A node that is there and answers
/// no such call, or no such caller, refuses it.
pub async fn ask(
    address: String,
    caller: &Caller,
    levels: Levels,
    level: &'static Level,
    call: &Call,
) -> Result<Answer, Error> {
    ask_as(address, caller, levels.newest().number, level, call).await
}

/// The same for a call that has one form at all levels, and its answer too: a node of a later release gives that to an earlier one, which
/// understands nothing else of it.
pub async fn ask_at_any_level(
    address: String,
    caller: &Caller,
    levels: Levels,
    call: &Call,
) -> Result<Answer, Error> {
    ask_as(address, caller, u32::MAX, levels.first(), call).await
}

/// The caller says that it knows levels up to `known`.
async fn ask_as(
    address: String,
    caller: &Caller,
    known: u32,
    level: &'static Level,
    call: &Call,
) -> Result<Answer, Error> {
    let headers = caller.headers(known);
    let headers = headers.map_err(|error| Error::Refused {
        reason: format!("the cluster's id: {error}"),
    })?;
    let message = encoding::encode_call(level, call).map_err(|too_new| Error::Refused {
        reason: too_new.to_string(),
    })?;
    let connection = Connection::new(address, headers, caller.security.clone());
    let ended = end(&connection, Bytes::from(message), Manner::default()).await;
    match ended {
        Err(Failure::NotServed(reason) | Failure::Rejected(reason)) => {
            Err(Error::Refused { reason })
        }
        ended => answer_of(ended),
    }
}

/// What a node answers, once.
pub(crate) async fn answer(
    connection: &Connection,
    message: Bytes,
    manner: Manner<'_>,
) -> Result<Answer, Error> {
    answer_of(end(connection, message, manner).await)
}

/// The bytes with which a call ends.
async fn end(
    connection: &Connection,
    message: Bytes,
    manner: Manner<'_>,
) -> Result<Bytes, Failure> {
    connection.call(message, manner).await?.end().await
}

fn answer_of(ended: Result<Bytes, Failure>) -> Result<Answer, Error> {
    match ended {
        Ok(bytes) => {
            encoding::decode_answer(bytes).unwrap_or_else(|malformed| Err(unknown(malformed)))
        }
        Err(Failure::Broken(reason)) => Err(unknown(reason)),
        Err(failure) => Err(Error::Unavailable {
            reason: failure.why(),
        }),
    }
}

fn unknown(why: impl ToString) -> Error {
    Error::Unknown {
        reason: why.to_string(),
    }
}
