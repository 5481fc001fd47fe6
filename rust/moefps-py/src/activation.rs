//! How strongly experts are active.

use moefps_core::activation::{self, Bins, Chosen, Request, Scoring, Source, Sums};
use moefps_core::count::{Groups, Layer};
use numpy::{IntoPyArray, PyReadonlyArray1, PyReadonlyArray3};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::{Fingerprints, unknown};
use crate::call::run;
use crate::error::named;

/// The attributes of `moefps.kernels.activations.Request`.
#[derive(FromPyObject)]
pub(crate) struct RequestArgument<'py> {
    activation: String,
    expert_ids: Option<PyReadonlyArray3<'py, i16>>,
    numbers: Fingerprints<'py>,
    layers: Vec<usize>,
    n_experts: Vec<usize>,
    passive_experts: Vec<usize>,
    top_k: Vec<usize>,
    signed_weights: Vec<bool>,
    scoring: Vec<String>,
    groups: Option<PyReadonlyArray1<'py, u32>>,
    n_groups: usize,
    threshold: f64,
    n_bins: usize,
    highest: f64,
}

impl RequestArgument<'_> {
    fn source(&self, py: Python<'_>) -> PyResult<Source<'_>> {
        let values = self.numbers.samples("", false).values;
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

    fn chosen(&self, py: Python<'_>) -> PyResult<Vec<Chosen>> {
        let n = self.n_experts.len();
        let lengths = [self.passive_experts.len(), self.top_k.len(), self.signed_weights.len(), self.scoring.len()];
        if lengths != [n; 4] || self.layers.iter().any(|&index| index >= n) {
            return Err(named(py, "ShapeError", "layers: lists of different lengths".into()));
        }
        let of_layer = |&index: &usize| {
            let layer = Layer {
                n_experts: self.n_experts[index],
                passive_experts: self.passive_experts[index],
                top_k: self.top_k[index],
                signed_weights: self.signed_weights[index],
            };
            scoring(py, &self.scoring[index]).map(|scoring| Chosen { index, layer, scoring })
        };
        self.layers.iter().map(of_layer).collect()
    }
}

/// The words of `moefps.io.dump.scoring`.
fn scoring(py: Python<'_>, word: &str) -> PyResult<Scoring> {
    match word {
        "softmax" | "softmax_topk" => Ok(Scoring::Softmax),
        "sigmoid" => Ok(Scoring::Sigmoid),
        "sqrt_softplus" | "hash" => Ok(Scoring::SqrtSoftplus),
        "probabilities" => Ok(Scoring::Probabilities),
        other => Err(unknown(py, "scoring", other, "'softmax', 'sigmoid', 'sqrt_softplus', 'probabilities'")),
    }
}

/// Sums activations up; arrays by name.
#[pyfunction]
#[pyo3(signature = (request, *, n_threads, progress))]
pub(crate) fn sum_activations<'py>(
    py: Python<'py>,
    request: RequestArgument<'py>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let layers = request.chosen(py)?;
    let groups = request.groups.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    let view = Request {
        source: request.source(py)?,
        layers: &layers,
        groups: groups.map(|ids| Groups { ids, count: request.n_groups }),
        threshold: request.threshold,
        bins: Bins { count: request.n_bins, highest: request.highest },
    };
    let sums = run(py, n_threads, progress, |task| activation::sum(&view, task))?;
    arrays(py, sums)
}

fn arrays(py: Python<'_>, sums: Sums) -> PyResult<Bound<'_, PyDict>> {
    let found = PyDict::new(py);
    found.set_item("tokens", sums.tokens.into_pyarray(py))?;
    found.set_item("left_out", sums.left_out.into_pyarray(py))?;
    found.set_item("activations", sums.activations.into_pyarray(py))?;
    found.set_item("counts", sums.counts.into_pyarray(py))?;
    found.set_item("totals", sums.totals.into_pyarray(py))?;
    found.set_item("maxima", sums.maxima.into_pyarray(py))?;
    found.set_item("histogram", sums.histogram.into_pyarray(py))?;
    found.set_item("below", sums.below.into_pyarray(py))?;
    found.set_item("above", sums.above.into_pyarray(py))?;
    Ok(found)
}
