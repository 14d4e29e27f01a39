//! Ctrl-C and progress during long work: the engine runs detached from Python and asks a callback
//! now and then whether to stop; the callback re-attaches at most every 50 ms to let Python see
//! its signals, and to say how far the work is, to a callable of the user's or to a bar on stderr.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use insitu_query::Progress;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::{errors, given, shutdown, site};

/// How long work may go on before Python's signal handlers get their turn.
const PERIOD: Duration = Duration::from_millis(50);

/// Whom to tell how far the work is: a Python callable of rows done and rows to do.
pub struct Watch {
    pub progress: Progress,
    tell: Py<PyAny>,
    /// Whether that is a bar of ours, which wants to be closed.
    bar: bool,
}

impl Watch {
    /// Whoever `progress` asks for: True a bar, None and False nobody.
    pub fn of(progress: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Watch>> {
        let Some(value) = progress else { return Ok(None) };
        let bar = match value.cast::<PyBool>() {
            Ok(wanted) if !wanted.is_true() => return Ok(None),
            Ok(_) => true,
            Err(_) => false,
        };
        let tell = if bar {
            let module = value.py().import(intern!(value.py(), "insitu._progress"))?;
            module.getattr(intern!(value.py(), "Bar"))?.call0()?
        } else {
            given::callable(value)?.clone()
        };
        Ok(Some(Watch { progress: Progress::new(), tell: tell.unbind(), bar }))
    }

    /// Says for the last time how far the work is, if it is done, and closes the bar.
    pub fn end(&self, py: Python<'_>, done: bool) -> PyResult<()> {
        if done {
            self.tell(py)?;
        }
        if self.bar {
            let _inside = shutdown::enter();
            self.tell.call_method0(py, intern!(py, "close"))?;
        }
        Ok(())
    }

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
