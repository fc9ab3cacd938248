//! InitProducerId. Transactions are not served; a request for them is refused.

use meta::ids::ProducerId;
use wire::errors::ErrorCode;
use wire::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

use super::errors;
use crate::context::Context;

pub(crate) async fn init_producer_id(
    context: &Context,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let failed = |code: ErrorCode| InitProducerIdResponse {
        error_code: code.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    if let Some(id) = &request.transactional_id {
        if let Some(left_out) = context.log.pass(host::clock::now()) {
            tracing::warn!(transactional_id = %id, left_out, "transactions are not served");
        }
        // Clients repeat most errors of this request for ever. This one every client takes as
        // final, and it names the transactional id.
        return failed(ErrorCode::TransactionalIdAuthorizationFailed);
    }
    let known = (request.producer_id >= 0 && request.producer_epoch >= 0)
        .then_some((ProducerId(request.producer_id), request.producer_epoch));
    match context.control.init_producer(known).await {
        Ok((id, epoch)) => InitProducerIdResponse {
            producer_id: id.0,
            producer_epoch: epoch,
            ..InitProducerIdResponse::default()
        },
        Err(error) => failed(errors::of_init_producer(&error)),
    }
}
