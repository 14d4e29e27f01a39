//! Ctrl-C and progress during long work: the engine runs detached from Python and asks a callback
//! now and then whether to stop; the callback re-attaches at most every 50 ms to let Python see
//! its signals, and to say how far the work is.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use insitu_query::Progress;
use pyo3::prelude::*;

use crate::{errors, shutdown, site};

/// How long work may go on before Python's signal handlers get their turn.
const PERIOD: Duration = Duration::from_millis(50);

/// Whom to tell how far the work is: a Python callable of rows done and rows to do.
pub struct Watch {
    pub progress: Progress,
    pub tell: Py<PyAny>,
}

impl Watch {
    /// Says how far the work is.
    pub fn tell(&self, py: Python<'_>) -> PyResult<()> {
        let _inside = shutdown::enter();
        self.tell.call1(py, (self.progress.done(), self.progress.total())).map(drop)
    }
}

/// Runs `work` with the GIL released, handing it the callback it must ask whether to stop.
///
/// When a signal handler raised (Ctrl-C: `KeyboardInterrupt`), that exception is what comes back,
/// rather than the engine's own word for a cancelled query.
pub fn detached<T: Send>(
    py: Python<'_>,
    watch: Option<&Watch>,
    work: impl Send + FnOnce(&dyn Fn() -> bool) -> Result<T, insitu::Error>,
) -> PyResult<T> {
    // What the work gives back may be Python's.
    let _inside = shutdown::enter();
    let outcome = site::detach(py, || {
        let raised: RefCell<Option<PyErr>> = RefCell::new(None);
        // From the first time on that it is asked: most calls are over before, and save the look.
        let asked: Cell<Option<Instant>> = Cell::new(None);
        let interrupt = || {
            let now = Instant::now();
            let Some(since) = asked.get() else {
                asked.set(Some(now));
                return false;
            };
            if now.duration_since(since) < PERIOD {
                return false;
            }
            asked.set(Some(now));
            // As the interpreter ends there is nobody left to work for.
            let Some(turn) = Python::try_attach(|py| {
                py.check_signals()?;
                watch.map_or(Ok(()), |watch| watch.tell(py))
            }) else {
                return true;
            };
            match turn {
                Ok(()) => false,
                Err(error) => {
                    raised.replace(Some(error));
                    true
                }
            }
        };
        let result = work(&interrupt);
        match raised.take() {
            // The work may have finished although it was asked to stop; the signal still counts.
            Some(error) => Err(Failure::Raised(error)),
            None => result.map_err(Failure::Engine),
        }
    });
    outcome.map_err(|failure| match failure {
        Failure::Raised(error) => error,
        Failure::Engine(error) => errors::raise(py, error),
    })
}

enum Failure {
    Raised(PyErr),
    Engine(insitu::Error),
}
