//! The distance matrix and the sums of its rows.

use std::path::{Path, PathBuf};

use moefps_core::ground::Ground;
use moefps_core::matrix::{Arithmetic, Pairs, cross, matrix};
use moefps_core::output::{Memory, NpyFile, Output};
use moefps_core::sample::Samples;
use moefps_core::sum::{self, Precision};
use moefps_core::task::Task;
use numpy::{IntoPyArray, PyArray1, PyReadwriteArray1};
use pyo3::prelude::*;

use crate::array::{Distance, Floats};
use crate::call::run;
use crate::error::named;

/// Where a matrix goes: a flat view of a C-contiguous array, or the path of a .npy file.
#[derive(FromPyObject)]
pub(crate) enum Target<'py> {
    F32(PyReadwriteArray1<'py, f32>),
    F64(PyReadwriteArray1<'py, f64>),
    Path(PathBuf),
}

/// A [`Target`] that the core can write to.
enum Sink<'a> {
    F32(&'a mut [f32]),
    F64(&'a mut [f64]),
    Path(&'a Path, Precision),
}

impl Target<'_> {
    fn sink(&mut self, py: Python<'_>, elements: usize, precision: Precision) -> PyResult<Sink<'_>> {
        let (found, wanted, sink) = match self {
            Self::F32(out) => {
                let out = out.as_slice_mut()?;
                (out.len(), Precision::Float32, Sink::F32(out))
            }
            Self::F64(out) => {
                let out = out.as_slice_mut()?;
                (out.len(), Precision::Float64, Sink::F64(out))
            }
            Self::Path(path) => (elements, precision, Sink::Path(path, precision)),
        };
        if found != elements {
            return Err(named(py, "ShapeError", format!("out: {found} elements; accepted: {elements}")));
        }
        if wanted != precision {
            return Err(named(py, "DtypeError", "out: another dtype than `dtype` says".into()));
        }
        Ok(sink)
    }
}

/// What is to be computed, independent of the arithmetic.
struct Job<'a> {
    left: Samples<'a>,
    right: Option<Samples<'a>>,
    ground: Ground,
    pairs: Pairs,
}

impl Job<'_> {
    fn shape(&self) -> Vec<usize> {
        let n = self.left.shape().0;
        match (&self.right, self.pairs) {
            (Some(right), _) => vec![n, right.shape().0],
            (None, Pairs::Square) => vec![n, n],
            (None, Pairs::Condensed) => vec![n * n.saturating_sub(1) / 2],
        }
    }

    fn fill<T: Arithmetic>(&self, output: &dyn Output<T>, task: &Task) -> moefps_core::Result<()> {
        match &self.right {
            None => matrix(&self.left, &self.ground, self.pairs, output, task),
            Some(right) => cross(&self.left, right, &self.ground, output, task),
        }
    }

    fn write<T: Arithmetic>(&self, path: &Path, task: &Task) -> moefps_core::Result<()> {
        let file = NpyFile::<T>::create(path, &self.shape())?;
        self.fill(&file, task)?;
        file.finish()
    }

    fn run(
        self,
        py: Python<'_>,
        precision: Precision,
        mut out: Target<'_>,
        n_threads: Option<usize>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let sink = out.sink(py, self.shape().iter().product(), precision)?;
        run(py, n_threads, progress, |task| match sink {
            Sink::F32(out) => self.fill(&Memory::new(out), task),
            Sink::F64(out) => self.fill(&Memory::new(out), task),
            Sink::Path(path, Precision::Float32) => self.write::<f32>(path, task),
            Sink::Path(path, Precision::Float64) => self.write::<f64>(path, task),
        })
    }
}

/// Fills `out` with the distances between all rows of `x`.
#[pyfunction]
#[pyo3(signature = (x, distance, out, *, condensed, n_threads, progress))]
pub(crate) fn wasserstein_matrix(
    py: Python<'_>,
    x: Floats<'_>,
    distance: Distance<'_>,
    out: Target<'_>,
    condensed: bool,
    n_threads: Option<usize>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let left = x.samples("X", distance.normalize());
    let ground = distance.ground(py, &left)?;
    let pairs = if condensed { Pairs::Condensed } else { Pairs::Square };
    Job { left, right: None, ground, pairs }.run(py, distance.precision(py)?, out, n_threads, progress)
}

/// Fills `out` with the distances between the rows of `x` and those of `y`.
#[pyfunction]
#[pyo3(signature = (x, y, distance, out, *, n_threads, progress))]
pub(crate) fn wasserstein_cross(
    py: Python<'_>,
    x: Floats<'_>,
    y: Floats<'_>,
    distance: Distance<'_>,
    out: Target<'_>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let (left, right) = (x.samples("X", distance.normalize()), y.samples("Y", distance.normalize()));
    let ((_, l, e), (_, m, f)) = (left.shape(), right.shape());
    if (l, e) != (m, f) {
        let found = format!("Y: {m} layers x {f} experts; accepted: {l} x {e}, as in X");
        return Err(named(py, "ShapeError", found));
    }
    let ground = distance.ground(py, &left)?;
    let job = Job { left, right: Some(right), ground, pairs: Pairs::Square };
    job.run(py, distance.precision(py)?, out, n_threads, progress)
}

/// The mean distance of every row of `x` to all others.
#[pyfunction]
#[pyo3(signature = (x, distance, *, n_threads, progress))]
pub(crate) fn mean_distances<'py>(
    py: Python<'py>,
    x: Floats<'py>,
    distance: Distance<'py>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let samples = x.samples("X", distance.normalize());
    let (ground, precision) = (distance.ground(py, &samples)?, distance.precision(py)?);
    let means = run(py, n_threads, progress, |task| sum::mean_distances(&samples, &ground, precision, task))?;
    Ok(means.into_pyarray(py))
}
