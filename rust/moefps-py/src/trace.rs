//! What all requests about traces say alike.

use moefps_core::trace::{Groups, Layer, Scoring};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::array::unknown;
use crate::error::named;

/// The attributes that say what the layers' routers choose from, and which groups the tokens are of. Requests that ask
/// nothing of weights, logits or groups lack theirs.
#[derive(FromPyObject)]
pub(crate) struct Rules<'py> {
    n_experts: Vec<usize>,
    passive_experts: Vec<usize>,
    top_k: Vec<usize>,
    #[pyo3(default)]
    signed_weights: Option<Vec<bool>>,
    #[pyo3(default)]
    scoring: Option<Vec<String>>,
    #[pyo3(default)]
    groups: Option<PyReadonlyArray1<'py, u32>>,
    #[pyo3(default)]
    n_groups: usize,
}

impl Rules<'_> {
    pub(crate) fn layers(&self, py: Python<'_>) -> PyResult<Vec<Layer>> {
        let n = self.n_experts.len();
        let signs = self.signed_weights.as_ref().map_or(n, Vec::len);
        let scorings = self.scoring.as_ref().map_or(n, Vec::len);
        if [self.passive_experts.len(), self.top_k.len(), signs, scorings] != [n; 4] {
            return Err(named(py, "ShapeError", "layers: lists of different lengths".into()));
        }
        let layer = |l: usize| {
            Ok(Layer {
                n_experts: self.n_experts[l],
                passive_experts: self.passive_experts[l],
                top_k: self.top_k[l],
                signed_weights: self.signed_weights.as_ref().is_some_and(|signed| signed[l]),
                scoring: self.scoring.as_ref().map_or(Ok(None), |words| scoring(py, &words[l]))?,
            })
        };
        (0..n).map(layer).collect()
    }

    pub(crate) fn groups(&self) -> PyResult<Option<Groups<'_>>> {
        let ids = self.groups.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
        Ok(ids.map(|ids| Groups { ids, count: self.n_groups }))
    }
}

/// The words of `moefps.io.dump.scoring`.
fn scoring(py: Python<'_>, word: &str) -> PyResult<Option<Scoring>> {
    match word {
        "softmax" | "softmax_topk" => Ok(Some(Scoring::Softmax)),
        "sigmoid" => Ok(Some(Scoring::Sigmoid)),
        "sqrt_softplus" | "hash" => Ok(Some(Scoring::SqrtSoftplus)),
        "probabilities" => Ok(Some(Scoring::Probabilities)),
        "other" => Ok(None),
        found => Err(unknown(py, "scoring", found, "the scorings of a dump's layers")),
    }
}
