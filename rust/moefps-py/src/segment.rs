//! Windows of tokens, caches of experts, and the vocabulary of experts.

use moefps_core::choice::Choices;
use moefps_core::count::Layer;
use moefps_core::segment::{self, Question};
use moefps_core::vocabulary;
use numpy::{IntoPyArray, PyReadonlyArray1, PyReadonlyArray3};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::call::run;
use crate::error::named;

/// The attributes of `moefps.kernels.segments.Choices`.
#[derive(FromPyObject)]
pub(crate) struct ChoicesArgument<'py> {
    expert_ids: PyReadonlyArray3<'py, i16>,
    n_experts: Vec<usize>,
    passive_experts: Vec<usize>,
    top_k: Vec<usize>,
}

impl ChoicesArgument<'_> {
    fn layers(&self, py: Python<'_>) -> PyResult<Vec<Layer>> {
        let n = self.n_experts.len();
        if [self.passive_experts.len(), self.top_k.len()] != [n; 2] {
            return Err(named(py, "ShapeError", "layers: lists of different lengths".into()));
        }
        let layer = |l: usize| Layer {
            n_experts: self.n_experts[l],
            passive_experts: self.passive_experts[l],
            top_k: self.top_k[l],
            signed_weights: false,
        };
        Ok((0..n).map(layer).collect())
    }
}

/// Counts windows and follows caches; arrays by name.
#[pyfunction]
#[pyo3(signature = (choices, follows, *, window, histograms, cache_sizes, n_threads, progress))]
#[allow(clippy::too_many_arguments)]
pub(crate) fn count_segments<'py>(
    py: Python<'py>,
    choices: ChoicesArgument<'py>,
    follows: PyReadonlyArray1<'py, bool>,
    window: usize,
    histograms: bool,
    cache_sizes: Option<Vec<usize>>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let layers = choices.layers(py)?;
    let view = Choices { expert_ids: choices.expert_ids.as_array(), layers: &layers };
    let follows = follows.as_slice()?;
    let question = Question { window, histograms, cache_sizes: cache_sizes.as_deref() };
    let counts = run(py, n_threads, progress, |task| segment::count(&view, follows, &question, task))?;
    let found = PyDict::new(py);
    found.set_item("windows", counts.windows.into_pyarray(py))?;
    if let Some(histograms) = counts.histograms {
        found.set_item("histograms", histograms.into_pyarray(py))?;
    }
    if let Some(cache) = counts.cache {
        found.set_item("hits", cache.hits.into_pyarray(py))?;
        found.set_item("activations", cache.activations.into_pyarray(py))?;
    }
    Ok(found)
}

/// Counts which experts the tokens of each token id choose; arrays by name.
#[pyfunction]
#[pyo3(signature = (choices, token_ids, *, min_count, top, entries, n_threads, progress))]
#[allow(clippy::too_many_arguments)]
pub(crate) fn count_vocabulary<'py>(
    py: Python<'py>,
    choices: ChoicesArgument<'py>,
    token_ids: PyReadonlyArray1<'py, i32>,
    min_count: u32,
    top: usize,
    entries: bool,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let layers = choices.layers(py)?;
    let view = Choices { expert_ids: choices.expert_ids.as_array(), layers: &layers };
    let token_ids = token_ids.as_slice()?;
    let question = vocabulary::Question { min_count, top, entries };
    let counts = run(py, n_threads, progress, |task| vocabulary::count(&view, token_ids, &question, task))?;
    let found = PyDict::new(py);
    found.set_item("tokens", counts.tokens.into_pyarray(py))?;
    found.set_item("tokens_without_id", counts.without_id.into_pyarray(py))?;
    found.set_item("tokens_counted", counts.counted.into_pyarray(py))?;
    found.set_item("n_token_ids", counts.token_ids.into_pyarray(py))?;
    found.set_item("top_token_ids", counts.top_ids.into_pyarray(py))?;
    found.set_item("top_counts", counts.top_counts.into_pyarray(py))?;
    found.set_item("top_totals", counts.top_totals.into_pyarray(py))?;
    if let Some(entries) = counts.entries {
        found.set_item("entry_layer", entries.layers.into_pyarray(py))?;
        found.set_item("entry_token_id", entries.token_ids.into_pyarray(py))?;
        found.set_item("entry_expert", entries.experts.into_pyarray(py))?;
        found.set_item("entry_count", entries.counts.into_pyarray(py))?;
        found.set_item("entry_total", entries.totals.into_pyarray(py))?;
    }
    Ok(found)
}
