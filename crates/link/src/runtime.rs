//! What hyper needs of a runtime, by `host`: tasks and time, so that the simulator runs it too. It must not know what is carried.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Executor, Sleep, Timer};

/// Starts hyper's tasks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tasks;

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        host::task::spawn_detached("link", async move {
            drop(future.await);
        });
    }
}

/// Time for hyper. Its instants are those of the boot clock, counted from the one at which this was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    boot: host::clock::Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Clock {
            origin: host::clock::monotonic(),
            boot: host::clock::now(),
        }
    }
}

impl Timer for Clock {
    fn now(&self) -> Instant {
        self.origin + host::clock::now().since(self.boot)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Sleeping(Mutex::new(Box::pin(host::clock::sleep(duration)))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(self.now()))
    }
}

/// hyper shares its sleeps between threads, of which only one polls.
struct Sleeping(Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.0.get_mut() {
            Ok(sleep) => sleep.as_mut().poll(context),
            Err(poisoned) => poisoned.into_inner().as_mut().poll(context),
        }
    }
}

impl Sleep for Sleeping {}
