//! One call to one node, whichever it is: for what must not be answered by another. It must not know what calls mean.

use bytes::Bytes;
use meta::level::{Level, Levels};
use rpc::{Answer, Call, Error, encoding};

use crate::caller::Caller;
use crate::connection::{Connection, Failure, Manner};

/// Asks the node at `address`, once. The call is written for `level`, of those that the caller knows.
pub async fn ask(
    address: String,
    caller: &Caller,
    levels: Levels,
    level: &'static Level,
    call: &Call,
) -> Result<Answer, Error> {
    let headers = caller.headers(levels.newest().number);
    let headers = headers.map_err(|error| Error::Refused {
        reason: format!("the cluster's id: {error}"),
    })?;
    let message = encoding::encode_call(level, call).map_err(|too_new| Error::Refused {
        reason: too_new.to_string(),
    })?;
    let connection = Connection::new(address, headers, caller.security.clone());
    answer(&connection, Bytes::from(message), Manner::default()).await
}

/// What a node answers, once.
pub(crate) async fn answer(
    connection: &Connection,
    message: Bytes,
    manner: Manner<'_>,
) -> Result<Answer, Error> {
    let ended = match connection.call(message, manner).await {
        Ok(begun) => begun.end().await,
        Err(failure) => Err(failure),
    };
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
