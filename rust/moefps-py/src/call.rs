//! The one way into the core: without the GIL, in a pool of its own, followed and interruptible.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use moefps_core::Result;
use moefps_core::task::Task;
use pyo3::prelude::*;

use crate::error::{named, panicked, to_python};

/// How often the calling thread looks for Ctrl-C and reports progress.
const POLL: Duration = Duration::from_millis(10);

/// Runs `work` on `n_threads` threads (all cores where `None`) and returns its result.
///
/// Signals reach Python's main thread only, so the work runs on other threads while the calling one polls. The pool
/// lives as long as the call: nothing is left behind that a later fork could inherit half.
pub(crate) fn run<T: Send>(
    py: Python<'_>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Task) -> Result<T> + Send,
) -> PyResult<T> {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let threads = match n_threads {
        Some(0) => return Err(named(py, "ArgumentError", "n_threads: 0; accepted: at least 1, or None".into())),
        Some(n) => n,
        None => cores(),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("moefps-{i}"));
    let pool = pool.build().map_err(|e| named(py, "ArgumentError", format!("n_threads: {threads}; {e}")))?;
    let task = Task::new();
    let (sender, receiver) = channel();
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        let (task, pool) = (&task, &pool);
        let worker = scope.spawn(move || {
            let result = pool.install(|| work(task));
            // Only wakes the poller up; it may have left already.
            let _ = sender.send(());
            result
        });
        let mut interruption = None;
        while py.detach(|| still_working(&receiver)) {
            if let Err(error) = py.check_signals().and_then(|()| report(progress, task)) {
                task.cancel();
                interruption = Some(error);
                break;
            }
        }
        let result = py.detach(|| worker.join());
        match (interruption, result) {
            (Some(error), _) => Err(error),
            (None, Err(_)) => Err(panicked()),
            (None, Ok(Err(error))) => Err(to_python(py, error)),
            (None, Ok(Ok(value))) => {
                task.finish();
                report(progress, task).map(|()| value)
            }
        }
    })
}

/// Waits for the worker, but no longer than [`POLL`].
fn still_working(receiver: &Mutex<Receiver<()>>) -> bool {
    receiver.lock().is_ok_and(|receiver| receiver.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout))
}

fn report(progress: Option<&Bound<'_, PyAny>>, task: &Task) -> PyResult<()> {
    if let Some(progress) = progress {
        progress.call1(task.progress())?;
    }
    Ok(())
}
