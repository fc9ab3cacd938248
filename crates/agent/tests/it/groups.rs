//! What reaches the coordinator of groups.

use rpc::group::GroupRequest;
use wire::frame::encode_request;
use wire::message::RequestBody;
use wire::messages::join_group::JoinGroupRequest;
use wire::text::Str;

use crate::stand::Stand;

/// What a request makes the agent ask of the coordinator.
async fn asked<R: RequestBody>(request: &R, client_id: &Str, version: i16) -> GroupRequest {
    let stand = Stand::new().await;
    let mut client = stand.client().await;
    let frame = encode_request(request, 1, Some(client_id), version).unwrap();
    client.raw(&frame.to_bytes()).await;
    client.frame().await.expect("an answer");
    let asked = stand.control.asked_of_groups.lock().unwrap().pop();
    asked.expect("something is asked")
}

#[tokio::test]
async fn the_id_of_a_member_fits_into_an_answer_however_long_its_clients_is() {
    // Two bytes each, so that a cut at 255 bytes would be within one.
    let longest = Str::from("\u{e4}".repeat(16_383));
    let fixed = JoinGroupRequest {
        group_instance_id: Some(longest.clone()),
        ..JoinGroupRequest::default()
    };
    for request in [JoinGroupRequest::default(), fixed] {
        let GroupRequest::Join(join) = asked(&request, &longest, 9).await else {
            panic!("a join is asked for")
        };
        assert_eq!(join.client_id.len(), longest.len());
        let prefix = "\u{e4}".repeat(127);
        assert!(join.fresh_member_id.starts_with(&format!("{prefix}-")));
        assert!(join.fresh_member_id.len() < 300);
    }
}
