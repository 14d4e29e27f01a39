//! The interpreter's end, for threads that it does not wait for.
//!
//! Before Python 3.14 a daemon thread that wants the GIL back while the interpreter ends is killed
//! on the spot, by unwinding its stack. Where it got there through a call of ours into Python,
//! Rust aborts the process: nothing of ours can be unwound by others. (Where we ask for the GIL
//! ourselves, pyo3 lets the thread sleep for ever instead, as Python 3.14 does.)
//!
//! So calls of ours into code that may let go of the GIL are counted. As the interpreter begins to
//! end, it waits for those under way, for a bounded time; those that come later wait without the
//! GIL before they begin, long enough for the process to be gone. If it is not, because somebody
//! waits for that thread, the call is made after all.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::marker::Ungil;
use pyo3::prelude::*;

/// How long the interpreter's end waits for calls under way.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a call waits that comes after that.
const GRACE: Duration = Duration::from_millis(100);

/// Threads within such a call.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
static ENDING: AtomicBool = AtomicBool::new(false);
/// The thread that ends the interpreter.
static ENDER: OnceLock<ThreadId> = OnceLock::new();

thread_local! {
    /// How many calls of this thread are within each other.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// A call into Python code that may let go of the GIL, until it is dropped.
pub struct Inside(());

/// Begins such a call.
pub fn enter(py: Python<'_>) -> Inside {
    if DEPTH.get() == 0 {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        wait_if_ending(py);
    }
    DEPTH.set(DEPTH.get() + 1);
    Inside(())
}

/// The same for a thread without the GIL, which calls what may take it.
pub fn enter_detached() -> Inside {
    if DEPTH.get() == 0 {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        if is_ending_elsewhere() {
            INSIDE.fetch_sub(1, Ordering::SeqCst);
            std::thread::sleep(GRACE);
            INSIDE.fetch_add(1, Ordering::SeqCst);
        }
    }
    DEPTH.set(DEPTH.get() + 1);
    Inside(())
}

impl Drop for Inside {
    fn drop(&mut self) {
        let depth = DEPTH.get().saturating_sub(1);
        DEPTH.set(depth);
        if depth == 0 {
            INSIDE.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Lets go of the GIL for `work`, during which a thread is in no danger.
pub fn detach<T: Ungil>(py: Python<'_>, work: impl Ungil + FnOnce() -> T) -> T {
    let outside = Outside::enter();
    let result = py.detach(work);
    let was_inside = outside.0 > 0;
    drop(outside);
    if was_inside {
        wait_if_ending(py);
    }
    result
}

/// A part of a call during which this thread does not count.
struct Outside(usize);

impl Outside {
    fn enter() -> Self {
        let depth = DEPTH.replace(0);
        if depth > 0 {
            INSIDE.fetch_sub(1, Ordering::SeqCst);
        }
        Self(depth)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if self.0 > 0 {
            INSIDE.fetch_add(1, Ordering::SeqCst);
        }
        DEPTH.set(self.0);
    }
}

fn wait_if_ending(py: Python<'_>) {
    if is_ending_elsewhere() {
        wait(py);
    }
}

/// Whether another thread is ending the interpreter.
fn is_ending_elsewhere() -> bool {
    ENDING.load(Ordering::SeqCst) && ENDER.get() != Some(&std::thread::current().id())
}

#[cold]
fn wait(py: Python<'_>) {
    INSIDE.fetch_sub(1, Ordering::SeqCst);
    py.detach(|| std::thread::sleep(GRACE));
    INSIDE.fetch_add(1, Ordering::SeqCst);
}

/// Runs before the interpreter ends.
#[pyfunction]
fn _end(py: Python<'_>) {
    let _ = ENDER.set(std::thread::current().id());
    ENDING.store(true, Ordering::SeqCst);
    let begin = Instant::now();
    while INSIDE.load(Ordering::SeqCst) > 0 && begin.elapsed() < PATIENCE {
        py.detach(|| std::thread::sleep(Duration::from_millis(1)));
    }
}

/// Runs in a forked child, which has one thread.
#[pyfunction]
fn _forked() {
    INSIDE.store(usize::from(DEPTH.get() > 0), Ordering::SeqCst);
}

/// Has the interpreter say when it ends.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    if py.version_info() >= (3, 14) {
        return Ok(());
    }
    let end = wrap_pyfunction!(_end, module)?;
    py.import("atexit")?.call_method1(intern!(py, "register"), (end,))?;
    let options = pyo3::types::PyDict::new(py);
    options.set_item("after_in_child", wrap_pyfunction!(_forked, module)?)?;
    py.import("os")?.call_method(intern!(py, "register_at_fork"), (), Some(&options))?;
    Ok(())
}
