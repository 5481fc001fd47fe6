//! What routing metrics are made of: histograms and sums over the tokens of a trace, in one pass.
//!
//! The trace is read in chunks of tokens, in order, so one that is larger than memory streams through. Within a chunk
//! each layer is a piece of work with counters of its own (`state`): nothing is shared between threads, and every sum
//! is added up in one fixed order. A piece takes `tile::TILE` tokens at a time, slot by slot (`tile`), through
//! checks (`check`), weights (`confidence`), histograms (`load`), pairs of experts (`coactivation`) and pairs
//! of neighbouring tokens (`neighbour`).
#![expect(clippy::needless_range_loop, reason = "loops over the tokens of a tile touch several rows at once")]

mod check;
mod coactivation;
mod confidence;
pub(crate) mod ln;
mod load;
mod neighbour;
mod output;
pub(crate) mod state;
pub(crate) mod tile;

use half::f16;
use ndarray::ArrayView3;
use rayon::prelude::*;

use crate::l1::{Simd, for_each_simd, lanes::Lanes};
use crate::task::Task;
use crate::{Error, Result};
use check::Wrong;
pub use output::{Counts, NeighbourCounts, NeighbourWeights, WeightCounts};
use state::LayerState;
use tile::{TILE, Tile};

/// Bytes of a trace that are read between two meetings of the threads; they stay in the cache while each layer picks
/// its part out of them.
const CHUNK_BYTES: usize = 4 << 20;
/// Counters of pairs that each token of a chunk makes worth fetching: with many experts, they do not all stay there.
const PAIRS_PER_ROW: usize = 16;
/// Pieces of work in a chunk, at least: a trace of few layers is cut along the tokens, too. Fixed, since it decides
/// the order of the additions.
const PIECES: usize = 16;
/// Counters that the pieces of one layer may have beside those of the first, in bytes.
const SPARE_BYTES: usize = 256 << 20;

/// Gate weights `[T, L, k]`.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// Half precision.
    F16(ArrayView3<'a, f16>),
    /// Single precision.
    F32(ArrayView3<'a, f32>),
}

impl Weights<'_> {
    fn shape(&self) -> (usize, usize, usize) {
        match self {
            Self::F16(w) => w.dim(),
            Self::F32(w) => w.dim(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F16(_) => 2,
            Self::F32(_) => 4,
        }
    }
}

/// What one layer's router chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// All that it can choose, passive experts among them.
    pub n_experts: usize,
    /// The last so many do nothing, and a slot on one counts as empty.
    pub passive_experts: usize,
    /// Slots; those past them must be empty.
    pub top_k: usize,
    /// Whether weights may be negative.
    pub signed_weights: bool,
}

impl Layer {
    /// Experts that do something.
    #[must_use]
    pub fn active_experts(&self) -> usize {
        self.n_experts.saturating_sub(self.passive_experts)
    }
}

/// Which pairs of experts are chosen together, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coactivation {
    /// Not counted.
    None,
    /// Over all tokens.
    Whole,
    /// For each group.
    ByGroup,
}

/// A group for each token.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a> {
    /// `[T]`
    pub ids: &'a [u32],
    /// How many there are.
    pub count: usize,
}

/// A trace, and what goes with its tokens. Nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// `[T, L, k]`, -1 where a slot is empty.
    pub expert_ids: ArrayView3<'a, i16>,
    /// `[T, L, k]`; without them, what needs weights is not counted.
    pub expert_weights: Option<Weights<'a>>,
    /// L of them.
    pub layers: &'a [Layer],
    /// `[T]`: whether a row is the next token of the sequence of the row before; without it, neighbours are not counted.
    pub follows: Option<&'a [bool]>,
    /// Without it, all tokens are of one group.
    pub groups: Option<Groups<'a>>,
    /// Pairs of experts.
    pub coactivation: Coactivation,
}

impl Trace<'_> {
    /// What does not fit together, in the words of the Python arguments.
    fn check(&self) -> Result<()> {
        let (t, l, k) = self.expert_ids.dim();
        let wrong = |message: String| Err(Error::Argument(message));
        if l == 0 || k == 0 || self.layers.len() != l {
            return wrong(format!("expert_ids: shape [{t}, {l}, {k}] for {} layers", self.layers.len()));
        }
        // Counters have 32 bits.
        if t.saturating_mul(k) >= u32::MAX as usize || k > usize::from(u16::MAX) {
            return wrong(format!("expert_ids: {t} tokens of {k} slots; accepted: up to 2^32 slots a layer at a time"));
        }
        if let Some(weights) = self.expert_weights
            && weights.shape() != (t, l, k)
        {
            return wrong(format!("expert_weights: shape {:?}; accepted: {:?}", weights.shape(), (t, l, k)));
        }
        let lengths = [("follows", self.follows.map(<[_]>::len)), ("groups", self.groups.map(|g| g.ids.len()))];
        for (name, length) in lengths {
            if length.is_some_and(|n| n != t) {
                return wrong(format!("{name}: {} tokens; accepted: {t}", length.unwrap_or(0)));
            }
        }
        for (index, layer) in self.layers.iter().enumerate() {
            if layer.active_experts() == 0 || layer.n_experts > i16::MAX as usize || layer.top_k > k {
                return wrong(format!("layer {index}: {layer:?}; accepted: 1 to 32767 experts, up to {k} slots"));
            }
        }
        Ok(())
    }

    fn n_groups(&self) -> usize {
        self.groups.map_or(1, |groups| groups.count)
    }

    fn row_bytes(&self) -> usize {
        let (_, l, k) = self.expert_ids.dim();
        l * k * (size_of::<i16>() + self.expert_weights.map_or(0, |w| w.bytes()))
    }

    /// Tokens that one piece of work takes at a time.
    fn rows_of_part(&self) -> usize {
        let widest = self.layers.iter().map(Layer::active_experts).max().unwrap_or(0);
        let for_pairs = if self.coactivation == Coactivation::None { 0 } else { widest * widest / PAIRS_PER_ROW };
        (CHUNK_BYTES / self.row_bytes()).max(for_pairs).max(1).next_multiple_of(TILE)
    }

    /// Finds the first token of a group that does not exist, among `rows`.
    fn check_groups(&self, rows: std::ops::Range<usize>) -> Result<()> {
        let Some(groups) = self.groups else { return Ok(()) };
        match groups.ids[rows.clone()].iter().position(|&g| g as usize >= groups.count) {
            None => Ok(()),
            Some(at) => {
                let row = rows.start + at;
                let (found, last) = (groups.ids[row], groups.count.saturating_sub(1));
                Err(Error::Data(format!("groups: token row {row} is {found}; accepted: 0 to {last}")))
            }
        }
    }
}

/// Counts a trace, on the rayon pool that it is called in. The result does not depend on the number of threads.
///
/// # Errors
/// Arguments that do not fit each other, an id or weight that is not accepted (the first one by token, layer and slot),
/// or [`Error::Cancelled`].
pub fn count(trace: &Trace<'_>, task: &Task) -> Result<Counts> {
    trace.check()?;
    let simd = Simd::choose()?;
    let (tokens, layers, k) = trace.expert_ids.dim();
    task.announce((tokens * layers * k) as u64);
    let mut pieces = new_pieces(trace)?;
    let parts = pieces.len() / layers;
    let rows_of_part = trace.rows_of_part();
    let rows_of_chunk = rows_of_part * parts;
    for start in (0..tokens).step_by(rows_of_chunk) {
        trace.check_groups(start..tokens.min(start + rows_of_chunk))?;
        let wrong = pieces
            .par_iter_mut()
            .enumerate()
            .map_init(
                || Tile::new(k),
                |tile, (index, piece)| {
                    task.check()?;
                    let (layer, part) = (index / parts, index % parts);
                    let first = tokens.min(start + part * rows_of_part);
                    let rows = first..tokens.min(first + rows_of_part);
                    let wrong = count_rows(simd, trace, layer, rows.clone(), tile, piece);
                    task.advance((rows.len() * k) as u64);
                    Ok(wrong)
                },
            )
            .try_reduce(|| None, |a, b| Ok([a, b].into_iter().flatten().min_by_key(Wrong::place)))?;
        if let Some(wrong) = wrong {
            return Err(wrong.error(trace));
        }
    }
    Ok(output::collect(trace, pieces, parts))
}

/// Counters for every layer, for each part of a chunk; `parts` of one layer after those of another.
fn new_pieces(trace: &Trace<'_>) -> Result<Vec<LayerState>> {
    let bytes: usize = trace.layers.iter().map(|layer| LayerState::bytes(trace, layer)).fold(0, usize::saturating_add);
    let affordable = 1 + SPARE_BYTES / bytes.max(1);
    let parts = PIECES.div_ceil(trace.layers.len()).min(affordable);
    let mut pieces = Vec::with_capacity(parts * trace.layers.len());
    for layer in trace.layers {
        for _ in 0..parts {
            pieces.push(LayerState::new(trace, layer)?);
        }
    }
    Ok(pieces)
}

for_each_simd! {
    /// Counts some rows of a layer; returns the first value that is not accepted.
    fn count_rows(trace: &Trace<'_>, layer: usize, rows: std::ops::Range<usize>, tile: &mut Tile, state: &mut LayerState) -> Option<Wrong> = count_rows_with;
}

#[inline(always)]
unsafe fn count_rows_with<L: Lanes>(
    _: L,
    trace: &Trace<'_>,
    layer: usize,
    rows: std::ops::Range<usize>,
    tile: &mut Tile,
    state: &mut LayerState,
) -> Option<Wrong> {
    if rows.is_empty() {
        return None;
    }
    if trace.follows.is_some_and(|follows| follows[rows.start]) && rows.start > 0 {
        // The neighbour of the first row is counted with other rows; here it is only looked at.
        tile.load(trace, layer, rows.start - 1..rows.start);
        tile.weigh(trace, layer);
        tile.find_repeats(state);
        tile.merge_repeats(state, false);
        neighbour::look_at(tile, trace, layer, state);
    } else {
        state.forget_neighbour();
    }
    for start in rows.clone().step_by(TILE) {
        tile.load(trace, layer, start..rows.end.min(start + TILE));
        if tile.weigh(trace, layer) | !tile.ids_are_good(&trace.layers[layer]) {
            return Some(check::first_wrong(trace, layer, start..rows.end));
        }
        load::count(tile, trace, layer, state);
        if tile.find_repeats(state) {
            tile.merge_repeats(state, true);
        }
        coactivation::count(tile, trace, state);
        neighbour::count(tile, trace, layer, state);
    }
    None
}
