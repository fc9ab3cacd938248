//! The shell over a journal of its own, in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::clock;
use journal::object::Object;
use journal::replica::{Parts, Replica};
use meta::group::{Join, Leaving, Protocol};
use rpc::group::{GroupError, JoinGroup, JoinRefusal};
use store::bucket::Bucket;

use super::*;

/// How long members live that are not heard.
const SESSION: Duration = Duration::from_millis(50);
/// Whatever is waited for comes within this time.
const SOON: Duration = Duration::from_secs(20);

/// A shell that leads, and what it stands on.
struct Stand {
    client: Client,
    shell: Shell,
    roles: watch::Receiver<Role>,
    _journal: Replica,
}

/// A replica that leads, and what else a shell stands on.
async fn led() -> (
    Settings,
    (Handle<Machine>, Replica),
    mpsc::UnboundedReceiver<Event>,
) {
    let bucket: Arc<dyn Bucket> = Arc::new(store::memory::Memory::new());
    let (group_events, changed) = mpsc::unbounded_channel();
    let state = State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned());
    let parts = Parts {
        engine: Box::new(Object::new(Arc::clone(&bucket), 0)),
        bucket,
        others: Arc::new(journal::replica::Alone),
        settings: journal::node::Settings::alone("c1"),
    };
    let machine = Machine::new(CLUSTER, state, group_events, 16 << 20);
    let (replica, journal) = journal::replica::start(parts, machine);
    let settings = Settings {
        initial_rebalance_delay: Duration::ZERO,
        session_timeout_min: SESSION,
        session_timeout_max: Duration::from_secs(60),
        members_max: 10,
        bytes_max: u64::MAX,
        awaited_bytes_max: 32 << 20,
    };
    let mut roles = replica.roles();
    let leads = roles.wait_for(|role| *role == Role::Leader);
    drop(clock::timeout(SOON, leads).await.expect("leads in time"));
    (settings, (replica, journal), changed)
}

impl Stand {
    async fn new() -> Stand {
        let (settings, (replica, _journal), changed) = led().await;
        let roles = replica.roles();
        let requests = Budget::of_bytes(16 << 20);
        let (client, mut shell) = shell(settings, requests, replica, changed);
        shell.leads = true;
        shell.handle(vec![Event::BecameLeader]).await;
        Stand {
            client,
            shell,
            roles,
            _journal,
        }
    }

    /// What happens within some time.
    async fn next(&mut self, within: Duration) -> Option<Event> {
        let next = self.shell.next(&mut self.roles);
        clock::timeout(within, next).await.ok().flatten()
    }

    /// Asks, and lets the shell work until it has answered.
    async fn ask(&mut self, request: GroupRequest) -> GroupReply {
        let (client, shell, roles) = (&self.client, &mut self.shell, &mut self.roles);
        let work = async {
            while let Some(event) = shell.next(roles).await {
                let events = shell.more(event);
                shell.handle(events).await;
            }
        };
        let answer = async {
            tokio::select! {
                reply = client.request(request) => reply.expect("an answer"),
                () = work => panic!("the shell ended"),
            }
        };
        let answer = clock::timeout(SOON, answer).await;
        answer.expect("an answer in time")
    }
}

fn join() -> JoinGroup {
    JoinGroup {
        group: "g".to_owned(),
        join: Join {
            member: String::new(),
            admitted: false,
            instance: None,
            client_id: "client".to_owned(),
            client_host: "host".to_owned(),
            session_timeout_millis: 50,
            rebalance_timeout_millis: 50,
            protocol_type: "consumer".to_owned(),
            protocols: vec![Protocol {
                name: "range".to_owned(),
                metadata: Bytes::from_static(b"topics"),
            }],
            can_skip_assignment: false,
            members_max: 0,
        },
        fresh_member: "a".to_owned(),
        id_required: true,
    }
}

#[tokio::test]
async fn a_timer_that_fired_for_nobody_does_not_fire_again() {
    let mut stand = Stand::new().await;
    let given = stand.ask(GroupRequest::Join(join())).await;
    let expected = JoinRefusal {
        error: GroupError::MemberIdRequired,
        member: "a".to_owned(),
    };
    assert_eq!(given, GroupReply::Join(Err(expected)));
    let member = Leaving {
        member: "a".to_owned(),
        instance: None,
    };
    let leave = GroupRequest::Leave {
        group: "g".to_owned(),
        members: vec![member],
    };
    let left = stand.ask(leave).await;
    assert!(matches!(left, GroupReply::Leave(Ok(_))), "{left:?}");
    let fired = stand.next(SOON).await;
    assert_eq!(fired, Some(Event::Timer));
    stand.shell.handle(vec![Event::Timer]).await;
    assert_eq!(stand.next(SESSION * 4).await, None);
}

#[tokio::test]
async fn nobody_is_answered_from_a_state_that_is_given_up_before_the_role_says_so() {
    let mut stand = Stand::new().await;
    let replica = stand.shell.replica.clone();
    let poison = replica.propose(CLUSTER, Bytes::from_static(b"poison"));
    assert!(poison.await.is_err());
    let ticket = Ticket(1);
    let (answer, mut answered) = oneshot::channel();
    let waiting = Waiting { answer, held: None };
    stand.shell.waiting.insert(ticket, waiting);
    // The role is not looked at.
    let request = GroupRequest::List(Vec::new());
    let asked = Event::Request {
        ticket,
        request,
        current: true,
    };
    stand.shell.handle(vec![asked]).await;
    let reply = GroupReply::List(Err(GroupError::NotCoordinator));
    assert_eq!(answered.try_recv(), Ok(reply));
    stand.shell.handle(vec![Event::BecameLeader]).await;
    assert!(!stand.shell.leads);
}

#[tokio::test]
async fn a_lead_that_began_before_the_task_is_known() {
    let (settings, (replica, _journal), changed) = led().await;
    let requests = Budget::of_bytes(16 << 20);
    let (client, _task) = start(settings, requests, replica, changed);
    let listed = client.request(GroupRequest::List(Vec::new()));
    let listed = clock::timeout(SOON, listed).await.expect("in time");
    assert_eq!(listed, Ok(GroupReply::List(Ok(Vec::new()))));
}

#[tokio::test]
async fn a_member_larger_than_an_entry_of_the_journal_is_told_something_final() {
    let mut stand = Stand::new().await;
    let mut large = join();
    large.id_required = false;
    large.join.protocols[0].metadata = Bytes::from(vec![0; 5 << 20]);
    let told = stand.ask(GroupRequest::Join(large)).await;
    let expected = JoinRefusal {
        error: GroupError::TooLarge,
        member: String::new(),
    };
    assert_eq!(told, GroupReply::Join(Err(expected)));
}
