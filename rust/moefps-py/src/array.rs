//! numpy arrays and plain values as the core takes them. What is wrong with an argument in ways that a person may cause
//! is said in `python/moefps/kernels`; the checks here keep memory safe.

use half::f16;
use moefps_core::ground::{Ground, Metric, Reduce};
use moefps_core::sample::{Samples, Values};
use moefps_core::start::Start;
use moefps_core::sum::Precision;
use numpy::{IntoPyArray, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::named;

/// A borrowed array of three axes, such as `[N, L, E]`, of any float dtype.
#[derive(FromPyObject)]
pub(crate) enum Floats<'py> {
    F32(PyReadonlyArray3<'py, f32>),
    F64(PyReadonlyArray3<'py, f64>),
    F16(PyReadonlyArray3<'py, f16>),
}

impl Floats<'_> {
    pub(crate) fn values(&self) -> Values<'_> {
        match self {
            Self::F16(x) => Values::F16(x.as_array()),
            Self::F32(x) => Values::F32(x.as_array()),
            Self::F64(x) => Values::F64(x.as_array()),
        }
    }

    pub(crate) fn samples(&self, name: &'static str, normalize: bool) -> Samples<'_> {
        Samples { name, values: self.values(), normalize }
    }
}

/// A borrowed `[N, N]` array of any float dtype.
#[derive(FromPyObject)]
pub(crate) enum Matrix<'py> {
    F32(PyReadonlyArray2<'py, f32>),
    F64(PyReadonlyArray2<'py, f64>),
    F16(PyReadonlyArray2<'py, f16>),
}

/// The attributes of `moefps.kernels._arguments.Distance`.
#[derive(FromPyObject)]
pub(crate) struct Distance<'py> {
    metric: String,
    positions: Option<PyReadonlyArray1<'py, f64>>,
    reduce: String,
    layer_weights: Option<PyReadonlyArray1<'py, f64>>,
    dtype: String,
    normalize: bool,
}

impl Distance<'_> {
    pub(crate) fn normalize(&self) -> bool {
        self.normalize
    }

    pub(crate) fn precision(&self, py: Python<'_>) -> PyResult<Precision> {
        match self.dtype.as_str() {
            "float32" => Ok(Precision::Float32),
            "float64" => Ok(Precision::Float64),
            other => Err(unknown(py, "dtype", other, "'float32', 'float64'")),
        }
    }

    pub(crate) fn ground(&self, py: Python<'_>, samples: &Samples<'_>) -> PyResult<Ground> {
        let (_, layers, experts) = samples.shape();
        if layers == 0 || experts < 2 {
            return Err(named(py, "ShapeError", format!("{}: {layers} layers x {experts} experts", samples.name)));
        }
        let metric = match (self.metric.as_str(), &self.positions) {
            ("index", None) => Metric::Index,
            ("values", None) => Metric::Values,
            ("discrete", None) => Metric::Discrete,
            ("positions", Some(positions)) => Metric::Positions(positions.as_array().to_vec()),
            (other, _) => return Err(unknown(py, "ground", other, "'index', 'values', 'discrete', positions")),
        };
        let reduce = match self.reduce.as_str() {
            "sum" => Reduce::Sum,
            "mean" => Reduce::Mean,
            other => return Err(unknown(py, "reduce", other, "'sum', 'mean'")),
        };
        let weights = self.layer_weights.as_ref().map(|w| w.as_array().to_vec());
        Ground::new(metric, reduce, weights.as_deref(), layers, experts)
            .map_err(|error| crate::error::to_python(py, error))
    }
}

/// The start of a selection: a word or indices.
#[derive(FromPyObject)]
pub(crate) enum StartArgument {
    Word(String),
    Indices(Vec<usize>),
}

impl StartArgument {
    pub(crate) fn start(self, py: Python<'_>) -> PyResult<Start> {
        match self {
            Self::Indices(indices) => Ok(Start::Indices(indices)),
            Self::Word(word) if word == "medoid" => Ok(Start::Medoid),
            Self::Word(word) if word == "farthest" => Ok(Start::Farthest),
            Self::Word(word) => Err(unknown(py, "start", &word, "'medoid', 'farthest', indices")),
        }
    }
}

/// Adds an array to what is found, by name.
pub(crate) fn put<A: IntoPyArray>(found: &Bound<'_, PyDict>, name: &str, array: A) -> PyResult<()> {
    found.set_item(name, array.into_pyarray(found.py()))
}

pub(crate) fn unknown(py: Python<'_>, name: &str, found: &str, accepted: &str) -> PyErr {
    named(py, "ArgumentError", format!("{name}: {found:?}; accepted: {accepted}"))
}
