//! Sums over the full distributions of a trace.

use moefps_core::logit::{self, LogitSums, Trace};
use numpy::PyReadonlyArray3;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::{Floats, put};
use crate::call::run;
use crate::trace::Rules;

/// The attributes of `moefps.kernels.logits.LogitTrace`, beside [`Rules`].
#[derive(FromPyObject)]
struct LogitTraceArgument<'py> {
    expert_ids: PyReadonlyArray3<'py, i16>,
    router_logits: Floats<'py>,
}

/// Adds up the distributions of a trace; arrays by name.
#[pyfunction]
#[pyo3(signature = (trace, *, n_threads, progress))]
pub(crate) fn sum_logits<'py>(
    py: Python<'py>,
    trace: &Bound<'py, PyAny>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let (rules, trace) = (trace.extract::<Rules<'_>>()?, trace.extract::<LogitTraceArgument<'_>>()?);
    let layers = rules.layers(py)?;
    let view = Trace {
        expert_ids: trace.expert_ids.as_array(),
        router_logits: trace.router_logits.values(),
        layers: &layers,
        groups: rules.groups()?,
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
