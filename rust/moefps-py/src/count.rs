//! What routing metrics are made of.

use moefps_core::count::{self, Coactivation, Counts, Trace};
use numpy::{PyReadonlyArray1, PyReadonlyArray3};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::{Floats, put, unknown};
use crate::call::run;
use crate::trace::Rules;

/// The attributes of `moefps.kernels.counting.Trace`, beside [`Rules`].
#[derive(FromPyObject)]
struct TraceArgument<'py> {
    expert_ids: PyReadonlyArray3<'py, i16>,
    expert_weights: Option<Floats<'py>>,
    follows: Option<PyReadonlyArray1<'py, bool>>,
    coactivation: String,
}

impl TraceArgument<'_> {
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
    trace: &Bound<'py, PyAny>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let (rules, trace) = (trace.extract::<Rules<'_>>()?, trace.extract::<TraceArgument<'_>>()?);
    let layers = rules.layers(py)?;
    let follows = trace.follows.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    let view = Trace {
        expert_ids: trace.expert_ids.as_array(),
        expert_weights: trace.expert_weights.as_ref().map(Floats::values),
        layers: &layers,
        follows,
        groups: rules.groups()?,
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
