//! Sums over the full distributions of a trace.

use half::f16;
use moefps_core::logit::{self, Groups, Layer, LogitSums, Logits, Scoring, Trace};
use numpy::{Element, IntoPyArray, PyReadonlyArray1, PyReadonlyArray3};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::unknown;
use crate::call::run;
use crate::error::named;

/// Borrowed logits `[T, L, E]`.
#[derive(FromPyObject)]
pub(crate) enum RouterLogits<'py> {
    F32(PyReadonlyArray3<'py, f32>),
    F16(PyReadonlyArray3<'py, f16>),
}

impl RouterLogits<'_> {
    fn logits(&self) -> Logits<'_> {
        match self {
            Self::F16(x) => Logits::F16(x.as_array()),
            Self::F32(x) => Logits::F32(x.as_array()),
        }
    }
}

/// The attributes of `moefps.kernels.logits.LogitTrace`.
#[derive(FromPyObject)]
pub(crate) struct LogitTraceArgument<'py> {
    expert_ids: PyReadonlyArray3<'py, i16>,
    router_logits: RouterLogits<'py>,
    n_experts: Vec<usize>,
    passive_experts: Vec<usize>,
    top_k: Vec<usize>,
    scoring: Vec<String>,
    groups: Option<PyReadonlyArray1<'py, u32>>,
    n_groups: usize,
}

impl LogitTraceArgument<'_> {
    fn layers(&self, py: Python<'_>) -> PyResult<Vec<Layer>> {
        let n = self.n_experts.len();
        if [self.passive_experts.len(), self.top_k.len(), self.scoring.len()] != [n; 3] {
            return Err(named(py, "ShapeError", "layers: lists of different lengths".into()));
        }
        let layer = |l: usize| {
            Ok(Layer {
                n_experts: self.n_experts[l],
                passive_experts: self.passive_experts[l],
                top_k: self.top_k[l],
                scoring: scoring(py, &self.scoring[l])?,
            })
        };
        (0..n).map(layer).collect()
    }
}

fn scoring(py: Python<'_>, name: &str) -> PyResult<Option<Scoring>> {
    match name {
        "softmax" | "softmax_topk" => Ok(Some(Scoring::Softmax)),
        "sigmoid" => Ok(Some(Scoring::Sigmoid)),
        "sqrt_softplus" | "hash" => Ok(Some(Scoring::SqrtSoftplus)),
        "probabilities" => Ok(Some(Scoring::Probabilities)),
        "other" => Ok(None),
        found => Err(unknown(py, "scoring", found, "the scorings of a dump's layers")),
    }
}

/// Adds up the distributions of a trace; arrays by name.
#[pyfunction]
#[pyo3(signature = (trace, *, n_threads, progress))]
pub(crate) fn sum_logits<'py>(
    py: Python<'py>,
    trace: LogitTraceArgument<'py>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let layers = trace.layers(py)?;
    let groups = trace.groups.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    let view = Trace {
        expert_ids: trace.expert_ids.as_array(),
        router_logits: trace.router_logits.logits(),
        layers: &layers,
        groups: groups.map(|ids| Groups { ids, count: trace.n_groups }),
    };
    let sums = run(py, n_threads, progress, |task| logit::sum(&view, task))?;
    arrays(py, sums)
}

fn arrays(py: Python<'_>, sums: LogitSums) -> PyResult<Bound<'_, PyDict>> {
    let found = PyDict::new(py);
    put(&found, "tokens", sums.tokens)?;
    put(&found, "tokens_without_probs", sums.without_probs)?;
    put(&found, "prob_sums", sums.prob_sums)?;
    put(&found, "entropy_sums", sums.entropy_sums)?;
    put(&found, "z_sums", sums.z_sums)?;
    put(&found, "z_tokens", sums.z_tokens)?;
    put(&found, "selection_margin_sums", sums.selection_margin_sums)?;
    put(&found, "selection_margin_tokens", sums.selection_margin_tokens)?;
    put(&found, "top1_margin_sums", sums.top1_margin_sums)?;
    put(&found, "top1_margin_tokens", sums.top1_margin_tokens)?;
    Ok(found)
}

fn put<T: Element, D: ndarray::Dimension>(
    found: &Bound<'_, PyDict>,
    name: &str,
    array: ndarray::Array<T, D>,
) -> PyResult<()> {
    found.set_item(name, array.into_pyarray(found.py()))
}
