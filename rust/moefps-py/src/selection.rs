//! Farthest point sampling.

use moefps_core::start::{Goal, Selection};
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;

use crate::array::{Distance, Floats, Matrix, StartArgument};
use crate::call::run;

/// `(indices, radii, assignment, distances)`
type Arrays<'py> =
    (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f64>>);

fn arrays(py: Python<'_>, selection: Selection) -> Arrays<'_> {
    let signed = |v: Vec<usize>| v.into_iter().map(|i| i as i64).collect::<Vec<_>>().into_pyarray(py);
    (
        signed(selection.indices),
        selection.radii.into_pyarray(py),
        signed(selection.assignment),
        selection.distances.into_pyarray(py),
    )
}

/// Selects from a distance matrix.
#[pyfunction]
#[pyo3(signature = (d, n_select, *, start, stop_radius, n_threads, progress))]
pub(crate) fn fps<'py>(
    py: Python<'py>,
    d: Matrix<'py>,
    n_select: usize,
    start: StartArgument,
    stop_radius: Option<f64>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Arrays<'py>> {
    let goal = Goal { n_select, stop_radius, start: start.start(py)? };
    let selection = match &d {
        Matrix::F16(d) => {
            let d = d.as_array();
            run(py, n_threads, progress, |task| moefps_core::fps::fps(&d, &goal, task))
        }
        Matrix::F32(d) => {
            let d = d.as_array();
            run(py, n_threads, progress, |task| moefps_core::fps::fps(&d, &goal, task))
        }
        Matrix::F64(d) => {
            let d = d.as_array();
            run(py, n_threads, progress, |task| moefps_core::fps::fps(&d, &goal, task))
        }
    }?;
    Ok(arrays(py, selection))
}

/// Selects from fingerprints.
#[pyfunction]
#[pyo3(signature = (x, n_select, distance, *, start, stop_radius, prune, n_threads, progress))]
#[allow(clippy::too_many_arguments)]
pub(crate) fn select<'py>(
    py: Python<'py>,
    x: Floats<'py>,
    n_select: usize,
    distance: Distance<'py>,
    start: StartArgument,
    stop_radius: Option<f64>,
    prune: bool,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Arrays<'py>> {
    let samples = x.samples("X", distance.normalize());
    let (ground, precision) = (distance.ground(py, &samples)?, distance.precision(py)?);
    let goal = Goal { n_select, stop_radius, start: start.start(py)? };
    let selection = run(py, n_threads, progress, |task| {
        moefps_core::select::select(&samples, &ground, precision, &goal, prune, task)
    })?;
    Ok(arrays(py, selection))
}

/// The covering radius and the mean distance to the nearest pick, for each of several sets of picks.
#[pyfunction]
#[pyo3(signature = (x, sets, distance, *, n_threads, progress))]
pub(crate) fn cover<'py>(
    py: Python<'py>,
    x: Floats<'py>,
    sets: Vec<Vec<usize>>,
    distance: Distance<'py>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Vec<(f64, f64)>> {
    let samples = x.samples("X", distance.normalize());
    let (ground, precision) = (distance.ground(py, &samples)?, distance.precision(py)?);
    run(py, n_threads, progress, |task| moefps_core::select::cover(&samples, &ground, precision, &sets, task))
}
