//! The NumPy arrays that a block has handed out to be filled: the same one for each column, however
//! often it is asked for, and none of them writable when the block has ended.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use numpy::PyArrayDescr;
use pyo3::intern;
use pyo3::prelude::*;

use crate::numpy_out;

/// Arrays by what they show.
pub struct Arrays<K>(Mutex<HashMap<K, Py<PyAny>>>);

impl<K: Eq + Hash> Arrays<K> {
    /// None yet.
    pub fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Locked for a moment, and never while Python runs.
    fn arrays(&self) -> MutexGuard<'_, HashMap<K, Py<PyAny>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The array that was handed out for `key`.
    pub fn get<'py>(&self, py: Python<'py>, key: &K) -> Option<Bound<'py, PyAny>> {
        self.arrays().get(key).map(|array| array.bind(py).clone())
    }

    /// Hands one out over a canvas; of two threads that ask at once both get the first one's.
    pub fn add<'py>(
        &self,
        py: Python<'py>,
        key: K,
        canvas: insitu::Canvas,
        dtype: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let array = numpy_out::writable(py, canvas, PyArrayDescr::new(py, dtype)?)?;
        let mut arrays = self.arrays();
        Ok(arrays.entry(key).or_insert_with(|| array.unbind()).bind(py).clone())
    }

    /// Nobody writes through them any more. Views of them that a caller made keep their flag; a
    /// store through one of those faults.
    pub fn close(&self, py: Python<'_>) -> PyResult<()> {
        let arrays: Vec<_> = self.arrays().drain().collect();
        for (_, array) in arrays {
            array.call_method1(py, intern!(py, "setflags"), (false,))?;
        }
        Ok(())
    }
}
