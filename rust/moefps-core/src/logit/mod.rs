//! Sums over the full distributions of a trace's tokens, in one pass: what entropies, margins, mean probabilities and
//! the z-loss are made of.
//!
//! The logits are read in chunks of tokens, in order, so those that are larger than memory stream through. Within a
//! chunk each layer is a piece of work with sums of its own (`state`), as in [`crate::count`]: nothing is shared between
//! threads, and every sum is added up in one fixed order. A token's row is widened (`row`), checked (`check`), and
//! turned into a distribution (`score`) with an exponential that is the same on every machine (`exp`).

mod check;
mod exp;
mod row;
mod score;
mod state;

use half::f16;
use ndarray::ArrayView3;
use rayon::prelude::*;

pub use crate::count::Groups;
use crate::l1::{Simd, for_each_simd, lanes::Lanes};
use crate::task::Task;
use crate::{Error, Result};
use check::Wrong;
use row::Row;
use state::LayerState;
pub use state::LogitSums;

/// Bytes of a trace that are read between two meetings of the threads; they stay in the cache while each layer picks
/// its part out of them.
const CHUNK_BYTES: usize = 4 << 20;
/// Pieces of work in a chunk, at least: a trace of few layers is cut along the tokens, too. Fixed, since it decides
/// the order of the additions.
const PIECES: usize = 16;
/// Sums that the pieces of one layer may have beside those of the first, in bytes.
const SPARE_BYTES: usize = 256 << 20;

/// What routers computed for every expert, `[T, L, E]`.
#[derive(Clone, Copy, Debug)]
pub enum Logits<'a> {
    /// Half precision.
    F16(ArrayView3<'a, f16>),
    /// Single precision.
    F32(ArrayView3<'a, f32>),
}

impl Logits<'_> {
    fn shape(&self) -> (usize, usize, usize) {
        match self {
            Self::F16(x) => x.dim(),
            Self::F32(x) => x.dim(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F16(_) => 2,
            Self::F32(_) => 4,
        }
    }

    /// How far from 1 probabilities may sum.
    fn tolerance(&self) -> f64 {
        match self {
            Self::F16(_) => 1e-2,
            Self::F32(_) => 1e-4,
        }
    }
}

/// How logits become scores, of which each one's share is its probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Exponentials.
    Softmax,
    /// Logistic functions.
    Sigmoid,
    /// Square roots of softplus.
    SqrtSoftplus,
    /// They are probabilities already.
    Probabilities,
}

/// What one layer's router chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// All that it can choose, passive experts among them.
    pub n_experts: usize,
    /// The last so many do nothing: a slot on one counts as empty, and they have no part in the distribution.
    pub passive_experts: usize,
    /// Slots; those past them must be empty.
    pub top_k: usize,
    /// Without it, the logits tell no distribution, and the layer is not read.
    pub scoring: Option<Scoring>,
}

impl Layer {
    /// Experts that do something.
    #[must_use]
    pub fn active_experts(&self) -> usize {
        self.n_experts.saturating_sub(self.passive_experts)
    }
}

/// A trace with logits. Nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// `[T, L, k]`, -1 where a slot is empty.
    pub expert_ids: ArrayView3<'a, i16>,
    /// `[T, L, E]`, E at least the experts of the layer that has most.
    pub router_logits: Logits<'a>,
    /// L of them.
    pub layers: &'a [Layer],
    /// Without it, all tokens are of one group.
    pub groups: Option<Groups<'a>>,
}

impl Trace<'_> {
    /// What does not fit together, in the words of the Python arguments.
    fn check(&self) -> Result<()> {
        let (t, l, k) = self.expert_ids.dim();
        let wrong = |message: String| Err(Error::Argument(message));
        if l == 0 || k == 0 || self.layers.len() != l {
            return wrong(format!("expert_ids: shape [{t}, {l}, {k}] for {} layers", self.layers.len()));
        }
        let (rows, layers, columns) = self.router_logits.shape();
        if (rows, layers) != (t, l) {
            return wrong(format!("router_logits: shape [{rows}, {layers}, {columns}]; accepted: [{t}, {l}, E]"));
        }
        if let Some(groups) = self.groups
            && groups.ids.len() != t
        {
            return wrong(format!("groups: {} tokens; accepted: {t}", groups.ids.len()));
        }
        let most = columns.min(i16::MAX as usize);
        for (index, layer) in self.layers.iter().enumerate() {
            if layer.active_experts() == 0 || layer.n_experts > most || layer.top_k > k {
                return wrong(format!("layer {index}: {layer:?}; accepted: 1 to {most} experts, up to {k} slots"));
            }
        }
        Ok(())
    }

    fn n_groups(&self) -> usize {
        self.groups.map_or(1, |groups| groups.count)
    }

    /// The group of a token.
    fn group(&self, token: usize) -> usize {
        self.groups.map_or(0, |groups| groups.ids[token] as usize)
    }

    /// Tokens that one piece of work takes at a time.
    fn rows_of_part(&self) -> usize {
        let (_, l, k) = self.expert_ids.dim();
        let columns = self.router_logits.shape().2;
        (CHUNK_BYTES / (l * (k * size_of::<i16>() + columns * self.router_logits.bytes()))).max(1)
    }
}

/// Adds up the distributions of a trace, on the rayon pool that it is called in. The result does not depend on the
/// number of threads.
///
/// # Errors
/// Arguments that do not fit each other, an id, group or logit that is not accepted (the first one by token and layer),
/// or [`Error::Cancelled`].
pub fn sum(trace: &Trace<'_>, task: &Task) -> Result<LogitSums> {
    trace.check()?;
    let simd = Simd::choose()?;
    let (tokens, layers, _) = trace.expert_ids.dim();
    let columns = trace.router_logits.shape().2;
    task.announce((tokens * layers * columns) as u64);
    let mut pieces = new_pieces(trace)?;
    let parts = pieces.len() / layers;
    let rows_of_part = trace.rows_of_part();
    for start in (0..tokens).step_by(rows_of_part * parts) {
        let wrong = pieces
            .par_iter_mut()
            .enumerate()
            .map_init(
                || Row::new(columns),
                |row, (index, piece)| {
                    task.check()?;
                    let (layer, part) = (index / parts, index % parts);
                    let first = tokens.min(start + part * rows_of_part);
                    let rows = first..tokens.min(first + rows_of_part);
                    let wrong = add_rows(simd, trace, layer, rows.clone(), row, piece);
                    task.advance((rows.len() * columns) as u64);
                    Ok(wrong)
                },
            )
            .try_reduce(|| None, |a, b| Ok([a, b].into_iter().flatten().min_by_key(Wrong::place)))?;
        if let Some(wrong) = wrong {
            return Err(wrong.error(trace));
        }
    }
    Ok(state::collect(trace, pieces, parts))
}

/// Sums for every layer, for each part of a chunk; `parts` of one layer after those of another.
fn new_pieces(trace: &Trace<'_>) -> Result<Vec<LayerState>> {
    let groups = trace.n_groups();
    let bytes = trace.layers.iter().map(|layer| LayerState::bytes(layer, groups)).fold(0, usize::saturating_add);
    let affordable = 1 + SPARE_BYTES / bytes.max(1);
    let parts = PIECES.div_ceil(trace.layers.len()).min(affordable);
    let mut pieces = Vec::with_capacity(parts * trace.layers.len());
    for layer in trace.layers {
        for _ in 0..parts {
            pieces.push(LayerState::new(layer, groups)?);
        }
    }
    Ok(pieces)
}

for_each_simd! {
    /// Adds some rows of a layer; returns the first value that is not accepted.
    fn add_rows(trace: &Trace<'_>, layer: usize, rows: std::ops::Range<usize>, row: &mut Row, state: &mut LayerState) -> Option<Wrong> = add_rows_with;
}

#[inline(always)]
unsafe fn add_rows_with<L: Lanes>(
    _: L,
    trace: &Trace<'_>,
    layer: usize,
    rows: std::ops::Range<usize>,
    row: &mut Row,
    state: &mut LayerState,
) -> Option<Wrong> {
    let rules = &trace.layers[layer];
    let scoring = rules.scoring?;
    for token in rows {
        let wrong = |what| Some(Wrong::new(token, layer, what));
        let group = trace.group(token);
        if group >= trace.n_groups() {
            return wrong(check::What::Group);
        }
        let filled = match row.choose(trace, layer, token) {
            Err(slot) => return wrong(check::What::Id { slot }),
            Ok(filled) => filled,
        };
        if !filled {
            continue;
        }
        row.load(trace, layer, token);
        if let Some(what) = check::logits(row, scoring, trace.router_logits.tolerance()) {
            return wrong(what);
        }
        if !row.chosen.is_empty() {
            state.add(row, scoring, group);
        }
    }
    None
}
