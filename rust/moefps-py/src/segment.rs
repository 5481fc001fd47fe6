//! Windows of tokens, caches of experts, and the vocabulary of experts.

use moefps_core::choice::Choices;
use moefps_core::segment::{self, Question};
use moefps_core::vocabulary;
use numpy::{PyReadonlyArray1, PyReadonlyArray3};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::put;
use crate::call::run;
use crate::trace::Rules;

/// The attributes of `moefps.kernels.segments.Choices`, beside [`Rules`].
#[derive(FromPyObject)]
struct ChoicesArgument<'py> {
    expert_ids: PyReadonlyArray3<'py, i16>,
}

/// Counts windows and follows caches; arrays by name.
#[pyfunction]
#[pyo3(signature = (choices, follows, *, window, histograms, cache_sizes, n_threads, progress))]
#[allow(clippy::too_many_arguments)]
pub(crate) fn count_segments<'py>(
    py: Python<'py>,
    choices: &Bound<'py, PyAny>,
    follows: PyReadonlyArray1<'py, bool>,
    window: usize,
    histograms: bool,
    cache_sizes: Option<Vec<usize>>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let (layers, choices) = (choices.extract::<Rules<'_>>()?.layers(py)?, choices.extract::<ChoicesArgument<'_>>()?);
    let view = Choices { expert_ids: choices.expert_ids.as_array(), layers: &layers };
    let follows = follows.as_slice()?;
    let question = Question { window, histograms, cache_sizes: cache_sizes.as_deref() };
    let counts = run(py, n_threads, progress, |task| segment::count(&view, follows, &question, task))?;
    let found = PyDict::new(py);
    put(&found, "windows", counts.windows)?;
    if let Some(histograms) = counts.histograms {
        put(&found, "histograms", histograms)?;
    }
    if let Some(cache) = counts.cache {
        put(&found, "hits", cache.hits)?;
        put(&found, "activations", cache.activations)?;
    }
    Ok(found)
}

/// Counts which experts the tokens of each token id choose; arrays by name.
#[pyfunction]
#[pyo3(signature = (choices, token_ids, *, min_count, top, entries, n_threads, progress))]
#[allow(clippy::too_many_arguments)]
pub(crate) fn count_vocabulary<'py>(
    py: Python<'py>,
    choices: &Bound<'py, PyAny>,
    token_ids: PyReadonlyArray1<'py, i32>,
    min_count: u32,
    top: usize,
    entries: bool,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let (layers, choices) = (choices.extract::<Rules<'_>>()?.layers(py)?, choices.extract::<ChoicesArgument<'_>>()?);
    let view = Choices { expert_ids: choices.expert_ids.as_array(), layers: &layers };
    let token_ids = token_ids.as_slice()?;
    let question = vocabulary::Question { min_count, top, entries };
    let counts = run(py, n_threads, progress, |task| vocabulary::count(&view, token_ids, &question, task))?;
    let found = PyDict::new(py);
    put(&found, "tokens", counts.tokens)?;
    put(&found, "tokens_without_id", counts.without_id)?;
    put(&found, "tokens_counted", counts.counted)?;
    put(&found, "n_token_ids", counts.token_ids)?;
    put(&found, "top_token_ids", counts.top_ids)?;
    put(&found, "top_counts", counts.top_counts)?;
    put(&found, "top_totals", counts.top_totals)?;
    if let Some(entries) = counts.entries {
        put(&found, "entry_layer", entries.layers)?;
        put(&found, "entry_token_id", entries.token_ids)?;
        put(&found, "entry_expert", entries.experts)?;
        put(&found, "entry_count", entries.counts)?;
        put(&found, "entry_total", entries.totals)?;
    }
    Ok(found)
}
