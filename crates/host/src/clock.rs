//! Time: a boot clock for everything that is measured, a wall clock for people and for Kafka's
//! timestamps, and sleeping. It must not know what the time is used for.

use std::future::Future;
#[cfg(feature = "simulated")]
use std::future::poll_fn;
use std::ops::{Add, Sub};
#[cfg(feature = "simulated")]
use std::pin::pin;
#[cfg(feature = "simulated")]
use std::task::Poll;
use std::time::Duration;

/// A point on the boot clock, in microseconds. That clock goes on while the machine sleeps, and
/// never back. Plain data, so that sans-IO cores can be driven with invented instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The instant `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Instant(micros)
    }

    /// The instant `millis` milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Instant(millis.saturating_mul(1_000))
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(micros))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// The boot clock (`CLOCK_BOOTTIME`): unlike the monotonic clock it counts the time that a
/// suspended machine slept, so a lease cannot outlive a nap.
pub fn now() -> Instant {
    #[cfg(feature = "simulated")]
    if let Some(micros) = crate::seeded::boot_us() {
        return Instant(micros);
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant(seconds * 1_000_000 + nanos / 1_000)
}

/// An instant of the standard library, for libraries that count from one.
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

/// How long a library waits that looks at the machine's clock by itself. A simulated run is not to depend on how quick the machine is:
/// there such a time is never over.
pub fn of_a_library(duration: Duration) -> Duration {
    #[cfg(feature = "simulated")]
    if crate::seeded::is_simulated() {
        return Duration::from_secs(u64::from(u32::MAX));
    }
    duration
}

/// The wall clock, in milliseconds since 1970; it may jump either way.
pub fn wall_millis() -> u64 {
    #[cfg(feature = "simulated")]
    if let Some(millis) = crate::seeded::wall_millis() {
        return millis;
    }
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

pub async fn sleep(duration: Duration) {
    #[cfg(feature = "simulated")]
    if let Some(sleeping) = crate::seeded::sleep(duration) {
        return sleeping.await;
    }
    tokio::time::sleep(duration).await;
}

/// Sleeps until the boot clock shows `deadline`; returns at once if it has passed.
pub async fn sleep_until(deadline: Instant) {
    let wait = deadline.since(now());
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

/// The future did not finish in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("did not finish in time")]
pub struct Elapsed;

/// Runs `future` for at most `limit`; dropping it then.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    #[cfg(feature = "simulated")]
    if let Some(sleeping) = crate::seeded::sleep(limit) {
        let (mut future, mut sleeping) = (pin!(future), pin!(sleeping));
        return poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => sleeping.as_mut().poll(cx).map(|()| Err(Elapsed)),
        })
        .await;
    }
    tokio::time::timeout(limit, future)
        .await
        .map_err(|_| Elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_does_not_go_back() {
        let first = now();
        assert!(now() >= first);
    }

    #[test]
    fn arithmetic_saturates() {
        let end = Instant::from_micros(u64::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(Instant::from_micros(1) - end, Duration::ZERO);
    }
}
