//! The second backend of this crate: time, sockets, tasks and randomness of a whole town of simulated
//! processes on one thread, all drawn from one seed. [`run`] makes the calling thread such a town until
//! its scenario ends; what production code asks of [`crate::clock`], [`crate::net`], [`crate::task`] and
//! [`crate::rng`] on that thread is answered here. Built with the feature `simulated` only, which the
//! released binary is built without. It must not know what runs in the processes.

mod executor;
mod machine;
mod network;

use std::fmt;
use std::future::Future;
use std::time::Duration;

pub(crate) use executor::{Handle, Sleep};
pub use executor::{Ran, run};
pub use machine::Clocks;
pub use network::Weather;
pub(crate) use network::{Listener, Stream, dial, listen};

use crate::rng::generator::Rng;
use executor::{World, world};

/// A machine with one process on it. Its address is [`Place::ip`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u16);

impl Place {
    /// Where the scenario itself runs: true clocks, never killed.
    pub const OUTSIDE: Place = Place(0);

    /// The machine's address.
    pub fn ip(self) -> std::net::Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        std::net::Ipv4Addr::new(10, 0, high, low)
    }

    fn of(address: std::net::SocketAddr) -> Option<Place> {
        match address.ip() {
            std::net::IpAddr::V4(ip) => match ip.octets() {
                [10, 0, high, low] => Some(Place(u16::from_be_bytes([high, low]))),
                _ => None,
            },
            std::net::IpAddr::V6(_) => None,
        }
    }
}

fn here() -> std::rc::Rc<World> {
    world().expect("the thread runs a simulation")
}

/// True on a thread that runs a simulation.
pub(crate) fn is_simulated() -> bool {
    world().is_some()
}

/// True time since the start, in microseconds: what no process can know.
pub fn now_us() -> u64 {
    here().now_us()
}

/// The same with the machine whose task runs; `None` on a thread that runs no simulation.
pub fn time_and_place() -> Option<(u64, Place)> {
    world().map(|world| (world.now_us(), world.place()))
}

/// The boot clock of the process that asks.
pub(crate) fn boot_us() -> Option<u64> {
    world().map(|world| world.boot_us())
}

/// The wall clock of the process that asks.
pub(crate) fn wall_millis() -> Option<u64> {
    world().map(|world| world.wall_millis())
}

/// Entropy of the process that asks.
pub(crate) fn nonce() -> Option<u128> {
    world().map(|world| world.nonce())
}

/// Sleeps for so long by the clock of the process that asks.
pub(crate) fn sleep(duration: Duration) -> Option<Sleep> {
    world().map(|world| world.sleep_local(duration))
}

/// What work on a thread of its own takes before it is done: nothing, or up to two milliseconds.
pub(crate) fn busy_thread() -> Option<Sleep> {
    world().map(|world| {
        let micros = world.nonce() as u64 % 4_000;
        world.sleep_us(micros.saturating_sub(2_000))
    })
}

/// Sleeps for so long in true time.
pub fn sleep_us(micros: u64) -> impl Future<Output = ()> + Send {
    here().sleep_us(micros)
}

/// Starts `future` as a task of the process that asks.
pub(crate) fn spawn<F>(name: &'static str, future: F) -> Handle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let world = here();
    world.spawn(world.place(), name, future)
}

/// Starts `future` as a task of the process at `place`, which begins with it if there was none.
pub fn spawn_at(
    place: Place,
    name: &'static str,
    future: impl Future<Output = ()> + Send + 'static,
) {
    here().spawn(place, name, future).detach();
}

/// Gives the machine its clocks; without, they are right.
pub fn set_clocks(place: Place, clocks: Clocks) {
    here().with_machine(place, |machine| machine.clocks = clocks);
}

/// The wall clock jumps: it is off by so many milliseconds from now on.
pub fn set_wall_offset(place: Place, millis: i64) {
    here().with_machine(place, |machine| machine.clocks.wall_offset_millis = millis);
}

/// Ends the process as `kill -9` does: its tasks are gone, its connections are reset. If `silent`, the
/// machine went with it: nobody hears of it.
pub fn kill(place: Place, silent: bool) {
    here().kill(place, silent);
}

/// Stops the process until [`resume`]; what reaches its sockets waits there.
pub fn pause(place: Place) {
    here().with_machine(place, |machine| machine.paused = true);
}

/// Lets a paused process go on, as if nothing had been.
pub fn resume(place: Place) {
    here().resume(place);
}

/// Nothing gets from one machine to the other until `until_us`; what is sent meanwhile arrives then.
pub fn cut(from: Place, to: Place, until_us: u64) {
    here().network(|network| network.cut(from, to, until_us));
}

/// When what is sent now would get through again; `None`: now.
pub fn is_cut(from: Place, to: Place) -> Option<u64> {
    let now_us = now_us();
    here().network(|network| network.cut_until(from, to, now_us))
}

/// How quick and how sound the network is from now on.
pub fn set_weather(weather: Weather) {
    here().network(|network| network.weather = weather);
}

/// Ends all cuts: what they held back arrives soon.
pub fn heal() {
    here().heal_network();
}

/// Writes a line into the run's trace.
pub fn note(what: fmt::Arguments<'_>) {
    here().note(what);
}

/// Draws from the scenario's own randomness.
pub fn draw<T>(draw: impl FnOnce(&mut Rng) -> T) -> T {
    here().draw(draw)
}

/// How many connections were reset, or messages held up, by the weather.
pub fn disturbances() -> u64 {
    here().network(|network| network.disturbances)
}

/// From now on production leaves out this safety rule.
pub fn leave_out(rule: &'static str) {
    here().left_out.set(Some(rule));
}

pub(crate) fn leaves_out(rule: &str) -> bool {
    world().is_some_and(|world| world.left_out.get() == Some(rule))
}

/// From now on `listener` hears what production tells of, and where.
pub fn listen_to(listener: impl FnMut(&'static str, u64, Vec<u8>) + 'static) {
    *here().listener.borrow_mut() = Some(Box::new(listener));
}

pub(crate) fn tell(what: &'static str, number: u64, fact: impl FnOnce() -> Vec<u8>) {
    if let Some(world) = world()
        && let Some(listener) = &mut *world.listener.borrow_mut()
    {
        listener(what, number, fact());
    }
}

/// Panics of tasks so far, each of which has ended its process.
pub fn panics() -> Vec<String> {
    here().panics()
}

#[cfg(test)]
mod tests;
