//! Tasks, time and chance of a simulated town, on one thread. Whichever task may run is picked by a hash
//! of seed, task and turn, so that neither the order of wakes nor anything of the real machine shows.
//! Time stands still while a task may run, and jumps to the next timer else. It must not know sockets.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::Place;
use super::machine::{Death, Machine};
use super::network::Network;
use crate::rng::generator::Rng;

/// Turns at one instant after which a run is stuck in a circle.
const TURNS_AT_ONCE_MAX: u64 = 2_000_000;

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// The town that this thread runs.
pub(super) fn world() -> Option<Rc<World>> {
    // It is gone already when the thread ends.
    WORLD
        .try_with(|world| world.borrow().clone())
        .ok()
        .flatten()
}

/// Where lines of the trace go, with their true time.
pub type Log = Box<dyn FnMut(u64, fmt::Arguments<'_>)>;

/// Who hears what production tells a simulator.
type Listener = Box<dyn FnMut(&'static str, u64, Vec<u8>)>;

/// What came of a run.
#[derive(Debug)]
pub struct Ran<T> {
    pub value: T,
    /// Turns that tasks had.
    pub turns: u64,
    /// A hash of which task had which turn, and when: equal for equal runs.
    pub hash: u64,
}

/// Runs `scenario` as a task of [`Place::OUTSIDE`] until it ends; everything else ends then too. The error
/// says why it never would.
pub fn run<T: Send + 'static>(
    seed: u64,
    log: Log,
    scenario: impl Future<Output = T> + Send + 'static,
) -> Result<Ran<T>, String> {
    let world = Rc::new(World::new(seed, log));
    WORLD.with(|slot| {
        let before = slot.borrow_mut().replace(Rc::clone(&world));
        assert!(before.is_none(), "one simulation at a time on a thread");
    });
    let scenario = world.spawn(Place::OUTSIDE, "scenario", scenario);
    let outcome = world.run_until(|| scenario.is_finished());
    let value = scenario.take();
    drop(scenario);
    world.end();
    WORLD.with(|slot| *slot.borrow_mut() = None);
    outcome?;
    let Some(value) = value else {
        return Err(format!("the scenario panicked: {:?}", world.panics()));
    };
    Ok(Ran {
        value,
        turns: world.turns.get(),
        hash: world.hash.get(),
    })
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

struct Job {
    place: Place,
    name: &'static str,
    /// `None` while it has its turn.
    work: Option<Work>,
    waker: Waker,
    turns: u64,
    is_ready: bool,
}

/// Wakes a task by its number.
struct Alarm {
    id: u64,
    woken: Woken,
}

type Woken = Arc<Mutex<Vec<u64>>>;

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        lock(&self.woken).push(self.id);
    }
}

/// The whole town.
pub(super) struct World {
    seed: u64,
    now_us: Cell<u64>,
    /// Whose task has its turn.
    place: Cell<Place>,
    next_id: Cell<u64>,
    turns: Cell<u64>,
    hash: Cell<u64>,
    woken: Woken,
    jobs: RefCell<BTreeMap<u64, Job>>,
    ready: RefCell<BTreeSet<(u64, u64)>>,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    machines: RefCell<BTreeMap<Place, Machine>>,
    network: RefCell<Network>,
    rng: RefCell<Rng>,
    log: RefCell<Log>,
    panics: RefCell<Vec<String>>,
    pub(super) left_out: Cell<Option<&'static str>>,
    pub(super) listener: RefCell<Option<Listener>>,
}

impl World {
    fn new(seed: u64, log: Log) -> Self {
        World {
            seed,
            now_us: Cell::new(0),
            place: Cell::new(Place::OUTSIDE),
            next_id: Cell::new(0),
            turns: Cell::new(0),
            hash: Cell::new(seed),
            woken: Woken::default(),
            jobs: RefCell::default(),
            ready: RefCell::default(),
            timers: RefCell::default(),
            machines: RefCell::default(),
            network: RefCell::new(Network::new(Rng::seeded(mix(seed, 1, 0)))),
            rng: RefCell::new(Rng::seeded(seed)),
            log: RefCell::new(log),
            panics: RefCell::default(),
            left_out: Cell::new(None),
            listener: RefCell::default(),
        }
    }

    pub(super) fn now_us(&self) -> u64 {
        self.now_us.get()
    }

    pub(super) fn place(&self) -> Place {
        self.place.get()
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.set(self.next_id.get() + 1);
        self.next_id.get()
    }

    pub(super) fn note(&self, what: fmt::Arguments<'_>) {
        (self.log.borrow_mut())(self.now_us(), what);
    }

    pub(super) fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    pub(super) fn network<T>(&self, with: impl FnOnce(&mut Network) -> T) -> T {
        with(&mut self.network.borrow_mut())
    }

    pub(super) fn heal_network(&self) {
        let now_us = self.now_us();
        let wakes = self.network(|network| network.heal(now_us));
        self.wake_all(wakes);
    }

    pub(super) fn panics(&self) -> Vec<String> {
        self.panics.borrow().clone()
    }

    pub(super) fn with_machine<T>(&self, place: Place, with: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machines = self.machines.borrow_mut();
        let machine = machines
            .entry(place)
            .or_insert_with(|| Machine::new(Rng::seeded(mix(self.seed, 2, u64::from(place.0)))));
        with(machine)
    }

    pub(super) fn boot_us(&self) -> u64 {
        self.with_machine(self.place(), |machine| {
            machine.clocks.boot_us(self.now_us())
        })
    }

    pub(super) fn wall_millis(&self) -> u64 {
        self.with_machine(self.place(), |machine| {
            machine.clocks.wall_millis(self.now_us())
        })
    }

    pub(super) fn nonce(&self) -> u128 {
        self.with_machine(self.place(), |machine| {
            let high = u128::from(machine.entropy.next_u64());
            high << 64 | u128::from(machine.entropy.next_u64())
        })
    }

    pub(super) fn sleep_local(&self, duration: Duration) -> Sleep {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sleep_us(self.with_machine(self.place(), |machine| machine.clocks.true_us(micros)))
    }

    pub(super) fn sleep_us(&self, micros: u64) -> Sleep {
        Sleep {
            at_us: self.now_us().saturating_add(micros),
            timer: None,
        }
    }

    /// Wakes once, at that time.
    pub(super) fn wake_at(&self, at_us: u64, waker: Waker) -> (u64, u64) {
        let timer = (at_us, self.next_id());
        self.timers.borrow_mut().insert(timer, waker);
        timer
    }

    pub(super) fn spawn<F>(&self, place: Place, name: &'static str, future: F) -> Handle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let ending = Ending(Arc::clone(&outcome));
        let work = async move {
            let value = future.await;
            lock(&ending.0).value = Some(value);
        };
        let id = self.next_id();
        let handle = Handle { id, outcome };
        if self.with_machine(place, |machine| machine.dying.is_some()) {
            return handle;
        }
        let woken = Arc::clone(&self.woken);
        let job = Job {
            place,
            name,
            work: Some(Box::pin(work)),
            waker: Waker::from(Arc::new(Alarm { id, woken })),
            turns: 0,
            is_ready: false,
        };
        self.jobs.borrow_mut().insert(id, job);
        lock(&self.woken).push(id);
        handle
    }

    fn abort(&self, id: u64) {
        let job = self.jobs.borrow_mut().remove(&id);
        if let Some(job) = job {
            self.as_place(job.place, || drop(job.work));
        }
    }

    fn as_place(&self, place: Place, act: impl FnOnce()) {
        let before = self.place.replace(place);
        act();
        self.place.set(before);
    }

    pub(super) fn kill(&self, place: Place, silent: bool) {
        let death = if silent { Death::Silent } else { Death::Killed };
        self.with_machine(place, |machine| machine.dying = Some(death));
        // What is dropped may drop the handles of others.
        let ids: Vec<u64> = {
            let jobs = self.jobs.borrow();
            let own = jobs.iter().filter(|(_, job)| job.place == place);
            own.map(|(id, _)| *id).collect()
        };
        ids.into_iter().for_each(|id| self.abort(id));
        self.with_machine(place, |machine| {
            (machine.dying, machine.paused) = (None, false);
            machine.parked.clear();
        });
    }

    /// How the process that asks is ending, if it is.
    pub(super) fn death(&self) -> Option<Death> {
        self.with_machine(self.place(), |machine| machine.dying)
    }

    pub(super) fn resume(&self, place: Place) {
        let parked = self.with_machine(place, |machine| {
            machine.paused = false;
            std::mem::take(&mut machine.parked)
        });
        lock(&self.woken).extend(parked);
    }

    fn end(&self) {
        let mut places: Vec<Place> = self.machines.borrow().keys().copied().collect();
        places.push(Place::OUTSIDE);
        places.into_iter().for_each(|place| self.kill(place, true));
        self.timers.borrow_mut().clear();
    }

    fn run_until(&self, is_over: impl Fn() -> bool) -> Result<(), String> {
        let mut at_once = 0;
        while !is_over() {
            self.note_woken();
            let next = self.ready.borrow_mut().pop_first();
            if let Some((_, id)) = next {
                self.turn(id);
                at_once += 1;
                if at_once > TURNS_AT_ONCE_MAX {
                    return Err(format!("time stands still at {} us", self.now_us()));
                }
            } else if self.advance() {
                at_once = 0;
            } else {
                return Err(format!("nothing will happen after {} us", self.now_us()));
            }
        }
        Ok(())
    }

    fn note_woken(&self) {
        let woken = std::mem::take(&mut *lock(&self.woken));
        let mut jobs = self.jobs.borrow_mut();
        for id in woken {
            if let Some(job) = jobs.get_mut(&id)
                && !std::mem::replace(&mut job.is_ready, true)
            {
                let turn = mix(self.seed, id, job.turns);
                self.ready.borrow_mut().insert((turn, id));
            }
        }
    }

    /// Moves time to the next timers; false if there are none.
    fn advance(&self) -> bool {
        let mut timers = self.timers.borrow_mut();
        let Some(&(at_us, _)) = timers.keys().next() else {
            return false;
        };
        self.now_us.set(at_us.max(self.now_us()));
        let later = timers.split_off(&(at_us, u64::MAX));
        let due = std::mem::replace(&mut *timers, later);
        drop(timers);
        due.into_values().for_each(Waker::wake);
        true
    }

    fn turn(&self, id: u64) {
        let mut jobs = self.jobs.borrow_mut();
        let Some(job) = jobs.get_mut(&id) else { return };
        job.is_ready = false;
        let place = job.place;
        let parked = self.with_machine(place, |machine| {
            if machine.paused {
                machine.parked.push(id);
            }
            machine.paused
        });
        let Some(mut work) = (if parked { None } else { job.work.take() }) else {
            return;
        };
        job.turns += 1;
        let (waker, name) = (job.waker.clone(), job.name);
        drop(jobs);
        self.turns.set(self.turns.get() + 1);
        self.hash.set(mix(self.hash.get(), self.now_us(), id));
        self.as_place(place, || {
            let mut context = Context::from_waker(&waker);
            let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut context)));
            match polled {
                Ok(Poll::Pending) => self.put_back(id, work),
                Ok(Poll::Ready(())) => {
                    drop(work);
                    self.jobs.borrow_mut().remove(&id);
                }
                Err(panic) => {
                    let why = reason(&*panic);
                    let line = format!("a task {name:?} of process {} panicked: {why}", place.0);
                    self.note(format_args!("{line}"));
                    self.panics.borrow_mut().push(line);
                    drop(work);
                    self.kill(place, false);
                }
            }
        });
    }

    /// The task goes on later, unless it was aborted in its own turn.
    fn put_back(&self, id: u64, work: Work) {
        let mut jobs = self.jobs.borrow_mut();
        match jobs.get_mut(&id) {
            Some(job) => job.work = Some(work),
            None => {
                drop(jobs);
                drop(work);
            }
        }
    }
}

fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "without a message".to_owned())
}

/// Mixes three numbers into one (the finaliser of splitmix64).
fn mix(a: u64, b: u64, c: u64) -> u64 {
    let mut z = a
        .wrapping_add(b.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(c.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sleeping future. Dropped, it is forgotten.
#[derive(Debug)]
pub(crate) struct Sleep {
    at_us: u64,
    timer: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(world) = world() else {
            return Poll::Pending;
        };
        if world.now_us() >= self.at_us {
            return Poll::Ready(());
        }
        match self.timer {
            Some(timer) => {
                let mut timers = world.timers.borrow_mut();
                timers.insert(timer, cx.waker().clone());
            }
            None => self.timer = Some(world.wake_at(self.at_us, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let (Some(timer), Some(world)) = (self.timer, world()) {
            world.timers.borrow_mut().remove(&timer);
        }
    }
}

#[derive(Debug)]
struct Outcome<T> {
    value: Option<T>,
    has_ended: bool,
    waiting: Option<Waker>,
}

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Outcome {
            value: None,
            has_ended: false,
            waiting: None,
        }
    }
}

/// Tells of a task's end, however it ends.
struct Ending<T>(Arc<Mutex<Outcome<T>>>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        let mut outcome = lock(&self.0);
        outcome.has_ended = true;
        if let Some(waiting) = outcome.waiting.take() {
            waiting.wake();
        }
    }
}

/// A task that goes on until it is aborted.
#[derive(Debug)]
pub(crate) struct Handle<T> {
    id: u64,
    outcome: Arc<Mutex<Outcome<T>>>,
}

impl<T> Handle<T> {
    pub(crate) fn is_finished(&self) -> bool {
        lock(&self.outcome).has_ended
    }

    pub(crate) fn abort(&self) {
        if let Some(world) = world() {
            world.abort(self.id);
        }
    }

    pub(crate) fn detach(self) {}

    fn take(&self) -> Option<T> {
        lock(&self.outcome).value.take()
    }

    /// The task's value once it has ended; `None` if it was aborted.
    pub(crate) fn poll_join(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut outcome = lock(&self.outcome);
        if outcome.has_ended {
            return Poll::Ready(outcome.value.take());
        }
        outcome.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}
