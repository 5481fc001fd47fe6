//! How strongly experts are active.

use moefps_core::activation::{self, Bins, Request, Source, Sums};
use numpy::PyReadonlyArray3;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::{Floats, put, unknown};
use crate::call::run;
use crate::trace::Rules;

/// The attributes of `moefps.kernels.activations.Request`, beside [`Rules`].
#[derive(FromPyObject)]
struct RequestArgument<'py> {
    activation: String,
    expert_ids: Option<PyReadonlyArray3<'py, i16>>,
    numbers: Floats<'py>,
    layers: Vec<usize>,
    threshold: f64,
    n_bins: usize,
    highest: f64,
}

impl RequestArgument<'_> {
    fn source(&self, py: Python<'_>) -> PyResult<Source<'_>> {
        let values = self.numbers.values();
        let ids = self.expert_ids.as_ref().map(PyReadonlyArray3::as_array);
        match (self.activation.as_str(), ids) {
            ("weights", Some(expert_ids)) => {
                Ok(Source::Slots { expert_ids, expert_weights: values, renormalized: false })
            }
            ("renormalized", Some(expert_ids)) => {
                Ok(Source::Slots { expert_ids, expert_weights: values, renormalized: true })
            }
            ("probs", Some(expert_ids)) => Ok(Source::Router { expert_ids, router_logits: values }),
            ("dense", None) => Ok(Source::Dense(values)),
            (other, _) => Err(unknown(py, "activation", other, "'weights', 'renormalized', 'probs'")),
        }
    }
}

/// Sums activations up; arrays by name.
#[pyfunction]
#[pyo3(signature = (request, *, n_threads, progress))]
pub(crate) fn sum_activations<'py>(
    py: Python<'py>,
    request: &Bound<'py, PyAny>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let (rules, request) = (request.extract::<Rules<'_>>()?, request.extract::<RequestArgument<'_>>()?);
    let layers = rules.layers(py)?;
    let view = Request {
        source: request.source(py)?,
        layers: &layers,
        chosen: &request.layers,
        groups: rules.groups()?,
        threshold: request.threshold,
        bins: Bins { count: request.n_bins, highest: request.highest },
    };
    let sums = run(py, n_threads, progress, |task| activation::sum(&view, task))?;
    arrays(py, sums)
}

fn arrays(py: Python<'_>, sums: Sums) -> PyResult<Bound<'_, PyDict>> {
    let found = PyDict::new(py);
    put(&found, "tokens", sums.tokens)?;
    put(&found, "left_out", sums.left_out)?;
    put(&found, "activations", sums.activations)?;
    put(&found, "counts", sums.counts)?;
    put(&found, "totals", sums.totals)?;
    put(&found, "maxima", sums.maxima)?;
    put(&found, "histogram", sums.histogram)?;
    put(&found, "below", sums.below)?;
    put(&found, "above", sums.above)?;
    Ok(found)
}
