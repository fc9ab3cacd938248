//! Spawning: tasks have names, and a panic in any of them ends the process, because a node that has
//! lost one of its parts must not go on half dead (docs/safety.md). It must not know what the tasks
//! do.

use std::future::{Future, poll_fn};
use std::pin::pin;

#[cfg(feature = "simulated")]
use crate::seeded;

/// A handle that aborts its task when dropped.
#[derive(Debug)]
pub struct Task<T> {
    handle: HandleOf<T>,
}

#[derive(Debug)]
enum HandleOf<T> {
    Os(tokio::task::JoinHandle<T>),
    #[cfg(feature = "simulated")]
    Seeded(seeded::Handle<T>),
}

impl<T> Task<T> {
    /// Waits for the task's end; `None` if it was aborted.
    pub async fn join(mut self) -> Option<T> {
        match &mut self.handle {
            HandleOf::Os(handle) => handle.await.ok(),
            #[cfg(feature = "simulated")]
            HandleOf::Seeded(handle) => std::future::poll_fn(|cx| handle.poll_join(cx)).await,
        }
    }

    /// True once the task has ended.
    pub fn is_finished(&self) -> bool {
        match &self.handle {
            HandleOf::Os(handle) => handle.is_finished(),
            #[cfg(feature = "simulated")]
            HandleOf::Seeded(handle) => handle.is_finished(),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        match &self.handle {
            HandleOf::Os(handle) => handle.abort(),
            #[cfg(feature = "simulated")]
            HandleOf::Seeded(handle) => handle.abort(),
        }
    }
}

/// Starts `future` as a task that dies with the returned handle.
#[must_use = "the task is aborted when its handle is dropped"]
pub fn spawn<F>(name: &'static str, future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[cfg(feature = "simulated")]
    if seeded::is_simulated() {
        let handle = HandleOf::Seeded(seeded::spawn(name, future));
        return Task { handle };
    }
    Task {
        handle: HandleOf::Os(tokio::spawn(guarded(name, future))),
    }
}

/// Starts `future` as a task that runs until it ends by itself.
pub fn spawn_detached<F>(name: &'static str, future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    #[cfg(feature = "simulated")]
    if seeded::is_simulated() {
        return seeded::spawn(name, future).detach();
    }
    drop(tokio::spawn(guarded(name, future)));
}

/// Runs blocking or CPU-heavy work off the async threads.
pub async fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    #[cfg(feature = "simulated")]
    if let Some(thread) = seeded::busy_thread() {
        thread.await;
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // Only the end of the runtime cancels such work, and it cancels this task as well.
        Err(error) if error.is_cancelled() => std::future::pending().await,
        Err(error) => abort_process("blocking work", &error.to_string()),
    }
}

async fn guarded<F: Future>(name: &'static str, future: F) -> F::Output {
    let mut future = pin!(future);
    // The guard is there while the task has its turn, and no longer: a task that waits may be dropped by the panic of another, a test for
    // instance, which is to be told and not hidden by the end of the process.
    poll_fn(|context| {
        let guard = AbortOnPanic { name };
        let polled = future.as_mut().poll(context);
        std::mem::forget(guard);
        polled
    })
    .await
}

struct AbortOnPanic {
    name: &'static str,
}

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        abort_process(self.name, "it panicked");
    }
}

fn abort_process(name: &str, why: &str) -> ! {
    tracing::error!(task = name, why, "a task failed; the process ends");
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Tells [`child`] that it runs as the child process, and in what kind of task to panic.
    const KIND: &str = "HOST_TASK_TEST_KIND";

    /// How a process ends after a panic in a task of this kind.
    fn after_a_panic_in(kind: &str) -> std::process::ExitStatus {
        let this = std::env::current_exe().expect("a test is a program");
        let status = Command::new(this)
            .args(["--exact", "task::tests::child", "--nocapture"])
            .env(KIND, kind)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.expect("it ran")
    }

    fn outlives_a_panic_in(kind: &str) -> bool {
        after_a_panic_in(kind).success()
    }

    #[test]
    fn child() {
        let Ok(kind) = std::env::var(KIND) else {
            return;
        };
        let mut runtime = match kind.as_str() {
            // As tests run.
            "beside" => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = runtime.build();
        runtime.expect("a runtime").block_on(async {
            match kind.as_str() {
                "none" => assert_eq!(spawn("sound", async { 7 }).join().await, Some(7)),
                "spawn" => drop(spawn("sick", panics()).join().await),
                "spawn_detached" => {
                    spawn_detached("sick", panics());
                    std::future::pending::<()>().await;
                }
                "spawn_blocking" => spawn_blocking(|| panic!("on purpose")).await,
                "beside" => {
                    let _waits = spawn("sound", std::future::pending::<()>());
                    panics().await;
                }
                // An unguarded task, which the rule forbids: nobody learns of its panic.
                "unguarded" => drop(tokio::spawn(panics()).await),
                other => panic!("there is no kind {other}"),
            }
        });
    }

    async fn panics() {
        panic!("on purpose");
    }

    #[test]
    fn a_panic_in_any_task_ends_the_process() {
        assert!(outlives_a_panic_in("none"));
        for kind in ["spawn", "spawn_detached", "spawn_blocking"] {
            assert!(!outlives_a_panic_in(kind), "{kind}");
        }
        // Shows that the test can tell the difference.
        assert!(outlives_a_panic_in("unguarded"));
        // What a test that fails ends with, not a signal.
        assert_eq!(after_a_panic_in("beside").code(), Some(101));
    }
}
