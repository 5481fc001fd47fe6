//! How much two traces of the same tokens agree.

use moefps_core::agreement::{self, Agreement, Comparison, Side};
use numpy::{PyReadonlyArray1, PyReadonlyArray3};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::{Floats, put};
use crate::call::run;
use crate::trace::Rules;

/// The attributes of `moefps.kernels.agreement.Side`.
#[derive(FromPyObject)]
struct SideArgument<'py> {
    ids: PyReadonlyArray3<'py, i16>,
    weights: Option<Floats<'py>>,
    rows: Option<PyReadonlyArray1<'py, i64>>,
}

impl SideArgument<'_> {
    fn side(&self) -> PyResult<Side<'_>> {
        Ok(Side {
            expert_ids: self.ids.as_array(),
            expert_weights: self.weights.as_ref().map(Floats::values),
            rows: self.rows.as_ref().map(PyReadonlyArray1::as_slice).transpose()?,
        })
    }
}

/// The attributes of `moefps.kernels.agreement.Comparison`, beside [`Rules`].
#[derive(FromPyObject)]
struct ComparisonArgument<'py> {
    a: SideArgument<'py>,
    b: SideArgument<'py>,
    layers: Vec<usize>,
    require_shares: bool,
    usage: bool,
}

/// Compares two traces; arrays by name.
#[pyfunction]
#[pyo3(signature = (comparison, *, n_threads, progress))]
pub(crate) fn compare_choices<'py>(
    py: Python<'py>,
    comparison: &Bound<'py, PyAny>,
    n_threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let (rules, comparison) = (comparison.extract::<Rules<'_>>()?, comparison.extract::<ComparisonArgument<'_>>()?);
    let layers = rules.layers(py)?;
    let view = Comparison {
        a: comparison.a.side()?,
        b: comparison.b.side()?,
        layers: &layers,
        chosen: &comparison.layers,
        groups: rules.groups()?,
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
