//! The client against listeners that refuse, break and come back. They must not know what the commands
//! ask.

use std::net::SocketAddr;

use wire::frame::{decode_request, encode_response};
use wire::messages::create_topics::{
    CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};

use super::*;

#[test]
fn what_passes_is_told_from_what_does_not() {
    let passes = |code| check(code, None, "t").expect_err("an error").passes;
    assert!(passes(ErrorCode::KafkaStorageError.code()));
    assert!(passes(ErrorCode::LeaderNotAvailable.code()));
    assert!(!passes(ErrorCode::UnknownTopicOrPartition.code()));
    assert!(!passes(ErrorCode::TopicAuthorizationFailed.code()));
}

#[tokio::test]
async fn addresses_are_tried_in_turn() {
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = host::net::listen(local).await.expect("a free port");
    let alive = listener.local_addr().expect("its address").to_string();
    let closed = host::net::listen(local).await.expect("a free port");
    let dead = closed.local_addr().expect("its address").to_string();
    drop(closed);
    dial_any(&[dead.clone(), alive]).await.expect("the second");
    let error = dial_any(&[dead.clone(), "no.such.host.invalid:1".to_owned()]).await;
    let error = error.expect_err("nobody there").to_string();
    assert!(
        error.contains(&dead) && error.contains("no.such.host.invalid"),
        "{error}"
    );
}

/// A cluster at a fixed address: how it treats one connection after the other.
struct Script {
    address: SocketAddr,
}

impl Script {
    async fn new() -> Self {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let address = listener.local_addr().expect("its address");
        Script { address }
    }

    fn client(&self) -> Client {
        Client {
            addresses: vec![self.address.to_string()],
            data_dir: PathBuf::new(),
            stream: None,
            buffer: BytesMut::new(),
            correlation_id: 0,
        }
    }

    /// Takes connections until it has answered so often; `None` closes the connection at a request.
    fn answer(&self, codes: Vec<Option<ErrorCode>>) -> impl Future<Output = ()> + Send + 'static {
        let address = self.address;
        async move {
            let listener = listen(address).await;
            let mut codes = codes.into_iter();
            while codes.len() > 0 {
                let (mut stream, _) = host::net::accept(&listener).await.expect("a client");
                let mut buffer = BytesMut::new();
                for code in codes.by_ref() {
                    let correlation_id = request(&mut stream, &mut buffer).await;
                    let Some(code) = code else { break };
                    let result = CreatableTopicResult {
                        error_code: code.code(),
                        ..CreatableTopicResult::default()
                    };
                    let response = CreateTopicsResponse {
                        topics: vec![result],
                        ..CreateTopicsResponse::default()
                    };
                    let answer =
                        encode_response::<CreateTopicsRequest>(&response, correlation_id, 7);
                    for piece in answer.expect("it can be sent").pieces() {
                        stream.write_all(piece).await.expect("the client listens");
                    }
                }
            }
        }
    }
}

async fn listen(address: SocketAddr) -> host::net::TcpListener {
    host::net::listen(address).await.expect("a free port")
}

async fn request(stream: &mut TcpStream, buffer: &mut BytesMut) -> i32 {
    loop {
        if let Split::Frame(frame) = split_frame(buffer, FRAME_BYTES_MAX).expect("a frame") {
            let (header, _) = decode_request(&frame).expect("a request");
            return header.correlation_id;
        }
        assert!(stream.read_buf(buffer).await.expect("bytes") > 0);
    }
}

fn created(response: CreateTopicsResponse) -> Result<()> {
    Ok(check(response.topics[0].error_code, None, "t")?)
}

#[tokio::test]
async fn a_cluster_that_goes_away_and_comes_back_is_asked_again() {
    let cluster = Script::new().await;
    let mut client = cluster.client();
    let answers = async {
        cluster.answer(vec![Some(ErrorCode::None), None]).await;
        // Nothing listens for a while: the client is refused several times.
        host::clock::sleep(Duration::from_millis(400)).await;
        let later = [Some(ErrorCode::KafkaStorageError), Some(ErrorCode::None)];
        cluster.answer(later.to_vec()).await;
    };
    let asks = async {
        for _ in 0..2 {
            let asked = client
                .ask(&CreateTopicsRequest::default(), 7, created)
                .await;
            asked.expect("an answer in the end");
        }
    };
    tokio::join!(answers, asks);
}

#[tokio::test]
async fn after_an_unknown_outcome_that_it_is_there_already_is_success() {
    use ErrorCode::{NotController, RequestTimedOut, TopicAlreadyExists};
    let exists = Some(TopicAlreadyExists);
    for (answers, expected) in [
        (vec![Some(ErrorCode::None)], Some(Some(()))),
        (vec![Some(RequestTimedOut), exists], Some(None)),
        (vec![None, exists], Some(None)),
        (
            vec![Some(RequestTimedOut), Some(NotController), exists],
            Some(None),
        ),
        (vec![exists], None),
        (vec![Some(NotController), exists], None),
        (
            vec![Some(RequestTimedOut), Some(ErrorCode::InvalidPartitions)],
            None,
        ),
    ] {
        let cluster = Script::new().await;
        let mut client = cluster.client();
        let request = CreateTopicsRequest::default();
        let order = client.order(&request, 7, TopicAlreadyExists, created);
        let told = format!("{answers:?}");
        let ((), ordered) = tokio::join!(cluster.answer(answers), order);
        assert_eq!(ordered.ok(), expected, "{told}");
    }
}
