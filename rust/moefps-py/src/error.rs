//! Errors of the core as exceptions of `moefps.errors`.

use moefps_core::Error;
use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyType;

/// An exception of class `name` in `moefps.errors`.
pub(crate) fn named(py: Python<'_>, name: &str, message: String) -> PyErr {
    let class = py.import("moefps.errors").and_then(|errors| errors.getattr(name));
    match class.and_then(|class| Ok(class.cast_into::<PyType>()?)) {
        Ok(class) => PyErr::from_type(class, message),
        Err(error) => error,
    }
}

/// The exception for an error of the core.
pub(crate) fn to_python(py: Python<'_>, error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        // Cancelled only by the thread that polls, which has a better exception in hand.
        Error::Cancelled => PyKeyboardInterrupt::new_err(()),
        Error::Data(_) => named(py, "DataError", message),
        Error::Argument(_) => named(py, "ArgumentError", message),
        Error::Output { .. } => named(py, "FileError", message),
        Error::Memory { .. } => PyMemoryError::new_err(message),
    }
}

/// A worker thread that panicked: a bug here, not the caller's.
pub(crate) fn panicked() -> PyErr {
    PyRuntimeError::new_err("moefps: a worker thread panicked; please report this")
}
