//! What routing metrics are made of.

use half::f16;
use moefps_core::count::{self, Coactivation, Counts, Groups, Layer, Trace, Weights};
use numpy::{Element, IntoPyArray, PyReadonlyArray1, PyReadonlyArray3};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::unknown;
use crate::call::run;
use crate::error::named;

/// Borrowed gate weights `[T, L, k]`.
#[derive(FromPyObject)]
pub(crate) enum GateWeights<'py> {
    F32(PyReadonlyArray3<'py, f32>),
    F16(PyReadonlyArray3<'py, f16>),
}

impl GateWeights<'_> {
    pub(crate) fn weights(&self) -> Weights<'_> {
        match self {
            Self::F16(w) => Weights::F16(w.as_array()),
            Self::F32(w) => Weights::F32(w.as_array()),
        }
    }
}

/// The attributes of `moefps.kernels.counting.Trace`.
#[derive(FromPyObject)]
pub(crate) struct TraceArgument<'py> {
    expert_ids: PyReadonlyArray3<'py, i16>,
    expert_weights: Option<GateWeights<'py>>,
    n_experts: Vec<usize>,
    passive_experts: Vec<usize>,
    top_k: Vec<usize>,
    signed_weights: Vec<bool>,
    follows: Option<PyReadonlyArray1<'py, bool>>,
    groups: Option<PyReadonlyArray1<'py, u32>>,
    n_groups: usize,
    coactivation: String,
}

impl TraceArgument<'_> {
    fn layers(&self, py: Python<'_>) -> PyResult<Vec<Layer>> {
        let n = self.n_experts.len();
        if [self.passive_experts.len(), self.top_k.len(), self.signed_weights.len()] != [n; 3] {
            return Err(named(py, "ShapeError", "layers: lists of different lengths".into()));
        }
        let layer = |l: usize| Layer {
            n_experts: self.n_experts[l],
            passive_experts: self.passive_experts[l],
            top_k: self.top_k[l],
            signed_weights: self.signed_weights[l],
        };
        Ok((0..n).map(layer).collect())
    }

    fn coactivation(&self, py: Python<'_>) -> PyResult<Coactivation> {
        match self.coactivation.as_str() {
            "none" => Ok(Coactivation::None),
            "whole" => Ok(Coactivation::Whole),
            "groups" => Ok(Coactivation::ByGroup),
            other => Err(unknown(py, "coactivation", other, "'none', 'whole', 'groups'")),
        }
    }
}

/// Counts a trace; arrays by name.
#[pyfunction]
#[pyo3(signature = (trace, *, n_threads, progress))]
pub(crate) fn count_routing<'py>(
    py: Python<'py>,
    trace: TraceArgument<'py>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let layers = trace.layers(py)?;
    let groups = trace.groups.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    let follows = trace.follows.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    let view = Trace {
        expert_ids: trace.expert_ids.as_array(),
        expert_weights: trace.expert_weights.as_ref().map(GateWeights::weights),
        layers: &layers,
        follows,
        groups: groups.map(|ids| Groups { ids, count: trace.n_groups }),
        coactivation: trace.coactivation(py)?,
    };
    let counts = run(py, n_threads, progress, |task| count::count(&view, task))?;
    arrays(py, counts)
}

fn arrays(py: Python<'_>, counts: Counts) -> PyResult<Bound<'_, PyDict>> {
    let found = PyDict::new(py);
    put(&found, "filled_slots", counts.filled_slots)?;
    put(&found, "passive_slots", counts.passive_slots)?;
    put(&found, "activations", counts.activations)?;
    put(&found, "tokens_by_expert", counts.tokens)?;
    if let Some(pairs) = counts.coactivation {
        put(&found, "coactivation", pairs)?;
    }
    if let Some(weights) = counts.weights {
        put(&found, "first_choices", weights.first_choices)?;
        put(&found, "weight_sums", weights.weight_sums)?;
        put(&found, "share_sums", weights.share_sums)?;
        put(&found, "tokens_without_shares", weights.without_shares)?;
        put(&found, "entropy_sums", weights.entropy_sums)?;
        put(&found, "entropy_tokens", weights.entropy_tokens)?;
    }
    if let Some(neighbours) = counts.neighbours {
        put(&found, "pairs", neighbours.pairs)?;
        put(&found, "pairs_with_common", neighbours.any_common)?;
        put(&found, "common_experts", neighbours.common)?;
        put(&found, "jaccard_sums", neighbours.jaccard_sums)?;
        if let Some(weights) = neighbours.weights {
            put(&found, "pairs_of_same_first", weights.same_first)?;
            put(&found, "locality_sums", weights.locality_sums)?;
            put(&found, "pairs_without_shares", weights.without_shares)?;
        }
    }
    Ok(found)
}

pub(crate) fn put<T: Element, D: ndarray::Dimension>(
    found: &Bound<'_, PyDict>,
    name: &str,
    array: ndarray::Array<T, D>,
) -> PyResult<()> {
    found.set_item(name, array.into_pyarray(found.py()))
}
