//! What the parts of a simulated agent share: its place, the calls and requests on their way, and what each was for.
//! Must not know what becomes of an answer.

use std::collections::BTreeMap;

use meta::Command;
use meta::ids::FileId;
use rpc::Call;

use crate::bucket::Request;
use crate::network::Place;

use super::context::{Context, Life};
use super::message::{Body, Number, Told};

/// A call is given up after this time.
const CALL_US: u64 = 3_000_000;
/// One that may wait for a rebalance.
const GROUP_CALL_US: u64 = 20_000_000;

/// What a call, a request or a pause was for.
pub(super) enum Purpose {
    Register,
    File(FileId),
    /// What the client is told if there is no answer.
    Client(Place, Number, Told),
    Locate(u64),
    Barrier(u64),
    Put(FileId),
    Compare(FileId),
    Get(u64, FileId),
    PutAgain(FileId),
    RegisterAgain,
}

/// What parts of an agent use: its place, and what it waits for.
pub(super) struct Desk {
    pub(super) place: Place,
    pub(super) life: Life,
    pub(super) controls: Vec<Place>,
    /// The control node that is taken for the leader.
    pub(super) leader: usize,
    /// The control node of the agent's region.
    pub(super) near: usize,
    pub(super) waiting: BTreeMap<Number, Purpose>,
}

impl Desk {
    /// Calls the node that is taken for the leader.
    pub(super) fn call(&mut self, cx: &mut Context, call: Call, purpose: Purpose) {
        self.call_at(cx, self.leader, call, purpose);
    }

    /// Calls the node of the agent's region.
    pub(super) fn call_near(&mut self, cx: &mut Context, call: Call, purpose: Purpose) {
        self.call_at(cx, self.near, call, purpose);
    }

    /// Has the node that is taken for the leader propose a command.
    pub(super) fn propose(&mut self, cx: &mut Context, command: Command, purpose: Purpose) {
        self.call(cx, Call::Propose(Box::new(command)), purpose);
    }

    fn call_at(&mut self, cx: &mut Context, at: usize, call: Call, purpose: Purpose) {
        let number = cx.number();
        let patience_us = if matches!(call, Call::Group(_)) {
            GROUP_CALL_US
        } else {
            CALL_US
        };
        self.waiting.insert(number, purpose);
        cx.send(self.place, self.controls[at], Body::Call(number, call));
        cx.time_out(self.place, self.life, patience_us, number);
    }

    pub(super) fn ask(&mut self, cx: &mut Context, request: Request, purpose: Purpose) {
        let number = cx.ask_bucket(self.place, self.life, request);
        self.waiting.insert(number, purpose);
    }

    /// Waits for a while.
    pub(super) fn pause(&mut self, cx: &mut Context, delay_us: u64, purpose: Purpose) {
        let number = cx.number();
        self.waiting.insert(number, purpose);
        cx.time_out(self.place, self.life, delay_us, number);
    }

    /// The next control node may know more.
    pub(super) fn look_elsewhere(&mut self) {
        self.leader = (self.leader + 1) % self.controls.len();
    }

    pub(super) fn look_elsewhere_near(&mut self) {
        self.near = (self.near + 1) % self.controls.len();
    }

    pub(super) fn tell(&self, cx: &mut Context, client: Place, number: Number, told: Told) {
        cx.send(self.place, client, Body::Told(number, told));
    }
}
