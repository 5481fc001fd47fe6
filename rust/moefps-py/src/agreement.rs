//! How much two traces of the same tokens agree.

use moefps_core::agreement::{self, Agreement, Comparison, Side};
use moefps_core::count::{Groups, Layer};
use numpy::{PyReadonlyArray1, PyReadonlyArray3};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::call::run;
use crate::count::{GateWeights, put};
use crate::error::named;

/// The attributes of `moefps.kernels.agreement.Side`.
#[derive(FromPyObject)]
pub(crate) struct SideArgument<'py> {
    ids: PyReadonlyArray3<'py, i16>,
    weights: Option<GateWeights<'py>>,
    rows: Option<PyReadonlyArray1<'py, i64>>,
}

impl SideArgument<'_> {
    fn side(&self) -> PyResult<Side<'_>> {
        Ok(Side {
            expert_ids: self.ids.as_array(),
            expert_weights: self.weights.as_ref().map(GateWeights::weights),
            rows: self.rows.as_ref().map(PyReadonlyArray1::as_slice).transpose()?,
        })
    }
}

/// The attributes of `moefps.kernels.agreement.Comparison`.
#[derive(FromPyObject)]
pub(crate) struct ComparisonArgument<'py> {
    a: SideArgument<'py>,
    b: SideArgument<'py>,
    n_experts: Vec<usize>,
    passive_experts: Vec<usize>,
    top_k: Vec<usize>,
    signed_weights: Vec<bool>,
    layers: Vec<usize>,
    groups: Option<PyReadonlyArray1<'py, u32>>,
    n_groups: usize,
    require_shares: bool,
    usage: bool,
}

impl ComparisonArgument<'_> {
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
}

/// Compares two traces; arrays by name.
#[pyfunction]
#[pyo3(signature = (comparison, *, n_threads, progress))]
pub(crate) fn compare_choices<'py>(
    py: Python<'py>,
    comparison: ComparisonArgument<'py>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let layers = comparison.layers(py)?;
    let groups = comparison.groups.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    let view = Comparison {
        a: comparison.a.side()?,
        b: comparison.b.side()?,
        layers: &layers,
        chosen: &comparison.layers,
        groups: groups.map(|ids| Groups { ids, count: comparison.n_groups }),
        require_shares: comparison.require_shares,
        usage: comparison.usage,
    };
    let found = run(py, n_threads, progress, |task| agreement::compare(&view, task))?;
    arrays(py, found)
}

fn arrays(py: Python<'_>, agreement: Agreement) -> PyResult<Bound<'_, PyDict>> {
    let found = PyDict::new(py);
    put(&found, "pairs", agreement.pairs)?;
    put(&found, "common_experts", agreement.common)?;
    let [a, b] = agreement.experts;
    put(&found, "experts_a", a)?;
    put(&found, "experts_b", b)?;
    put(&found, "equal_sets", agreement.equal)?;
    put(&found, "jaccard_sums", agreement.jaccard_sums)?;
    if let Some(weights) = agreement.weights {
        put(&found, "pairs_without_shares", weights.without_shares)?;
        put(&found, "pairs_of_same_first", weights.same_first)?;
        put(&found, "common_top5", weights.common_top)?;
        put(&found, "tv_sums", weights.tv_sums)?;
        put(&found, "js_sums", weights.js_sums)?;
        let measures =
            [("entropy", weights.entropy_sums), ("neff", weights.neff_sums), ("margin", weights.margin_sums)];
        for (name, [a, b]) in measures {
            put(&found, &format!("{name}_sums_a"), a)?;
            put(&found, &format!("{name}_sums_b"), b)?;
        }
    }
    for (side, usage) in ["a", "b"].into_iter().zip(agreement.usage.into_iter().flatten()) {
        put(&found, &format!("activations_{side}"), usage.activations)?;
        if let Some(shares) = usage.share_sums {
            put(&found, &format!("share_sums_{side}"), shares)?;
        }
    }
    Ok(found)
}
