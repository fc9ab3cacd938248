//! Calls to an etcd, whichever of its members answers. It must not know what is asked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use host::clock;
use host::log_limit::LogLimit;
use hyper::header::HeaderValue;
use prost::Message;

use crate::connection::{Ask, Connection};
use crate::course::{Course, Step};
use crate::grpc::{self, Failure};
use crate::proto::{
    AuthenticateRequest, AuthenticateResponse, CompactionRequest, CompactionResponse, TxnRequest,
    TxnResponse,
};
use crate::roster::Roster;
use crate::security::{Security, User};

const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
/// How long a call may take. The journal waits five seconds for an append, and sends it again then.
const CALL_LIMIT: Duration = Duration::from_secs(4);
/// Failures are logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The members of one etcd.
pub(crate) struct Client {
    connections: Vec<Connection>,
    roster: Mutex<Roster>,
    user: Option<User>,
    /// What etcd gave for the user's password.
    login: tokio::sync::Mutex<Option<HeaderValue>>,
    log: LogLimit,
}

impl Client {
    pub(crate) fn new(endpoints: &[String], security: &Security) -> Self {
        let connection = |address: &String| Connection::new(address.clone(), security.tls.clone());
        Client {
            connections: endpoints.iter().map(connection).collect(),
            roster: Mutex::new(Roster::of(endpoints.len())),
            user: security.user.clone(),
            login: tokio::sync::Mutex::default(),
            log: LogLimit::every(LOG_EVERY),
        }
    }

    /// Does what the request says, if its conditions hold. Only with an answer is it known whether it was done.
    pub(crate) async fn txn(&self, request: &TxnRequest) -> Result<TxnResponse, Failure> {
        self.call(TXN, request).await
    }

    /// Has etcd forget what keys held before a revision, unless it has already.
    pub(crate) async fn compact(&self, revision: i64) -> Result<(), Failure> {
        let request = CompactionRequest { revision };
        match self.call(COMPACT, &request).await {
            Ok(CompactionResponse {}) | Err(Failure::Past) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn call<A>(&self, path: &'static str, request: &impl Message) -> Result<A, Failure>
    where
        A: Message + Default,
    {
        let body = grpc::body(request);
        let login = self.login().await?;
        let answer = match self.attempts(path, &body, login.as_ref()).await {
            Err(Failure::LoggedOut(why)) if login.is_none() => {
                let why = format!("{why}: give it --journal-user and --journal-password-file");
                Err(Failure::Refused(why))
            }
            Err(Failure::LoggedOut(_)) => {
                self.log_out(login.as_ref()).await;
                let login = self.login().await?;
                self.attempts(path, &body, login.as_ref()).await
            }
            answer => answer,
        };
        if let Err(failure) = &answer
            && *failure != Failure::Past
            && let Some(left_out) = self.log.pass(clock::now())
        {
            tracing::warn!(%failure, left_out, "a request to the journal's etcd failed");
        }
        A::decode(answer?)
            .map_err(|error| Failure::Silent(format!("its answer cannot be read: {error}")))
    }

    /// Asks members until one answers.
    async fn attempts(
        &self,
        path: &'static str,
        body: &Bytes,
        login: Option<&HeaderValue>,
    ) -> Result<Bytes, Failure> {
        let began = clock::now();
        let mut course = Course::begin(&self.roster(), body.len(), began, CALL_LIMIT);
        let mut under_way = FuturesUnordered::new();
        let mut last = None;
        loop {
            let now = clock::now();
            let until = match course.next(now) {
                Step::Attempt { number, member } => {
                    let ask = Ask {
                        path,
                        body: body.clone(),
                        login,
                        within: CALL_LIMIT.saturating_sub(now.since(began)),
                    };
                    let connection = &self.connections[member];
                    under_way.push(async move { (number, connection.call(ask).await) });
                    continue;
                }
                Step::WaitUntil(until) => until,
                Step::GiveUp => break,
            };
            let ended = async {
                match under_way.next().await {
                    Some(ended) => ended,
                    None => std::future::pending().await,
                }
            };
            let pause = std::pin::pin!(clock::sleep_until(until));
            let (number, answer) = match select(std::pin::pin!(ended), pause).await {
                Either::Left((ended, _)) => ended,
                Either::Right(_) => continue,
            };
            let now = clock::now();
            match answer {
                Err(Failure::Silent(why)) => {
                    course.failed(number, now, &mut self.roster());
                    last = Some(why);
                }
                answer => {
                    course.answered(number, now, &mut self.roster());
                    self.doubt(&course);
                    return answer;
                }
            }
        }
        self.doubt(&course);
        course.gave_up(clock::now(), &mut self.roster());
        let why = last.unwrap_or_else(|| "no member answers".to_owned());
        Err(Failure::Silent(why))
    }

    fn doubt(&self, course: &Course) {
        for member in course.silent() {
            self.connections[member].doubt();
        }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        // No code that can panic runs under the lock, so a poisoned roster is still whole.
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The login of the user, if there is one: etcd gives it to whoever knows the password.
    async fn login(&self) -> Result<Option<HeaderValue>, Failure> {
        let Some(user) = &self.user else {
            return Ok(None);
        };
        let mut login = self.login.lock().await;
        if login.is_none() {
            let request = AuthenticateRequest {
                name: user.name.clone(),
                password: user.password.clone(),
            };
            let body = grpc::body(&request);
            let answer = self.attempts(AUTHENTICATE, &body, None).await?;
            let answer = AuthenticateResponse::decode(answer);
            let token = answer.ok().map(|answer| answer.token);
            let token = token.and_then(|token| HeaderValue::from_str(&token).ok());
            let token = token.ok_or_else(|| Failure::Silent("its login is none".to_owned()))?;
            *login = Some(token);
        }
        Ok(login.clone())
    }

    /// Forgets a login that etcd does not know any more.
    async fn log_out(&self, old: Option<&HeaderValue>) {
        let mut login = self.login.lock().await;
        if login.as_ref() == old {
            *login = None;
        }
    }
}
