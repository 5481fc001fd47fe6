//! How much two traces of the same tokens agree: sums over aligned pairs of tokens, in one pass.
//!
//! A pair is a token of one trace and the same token of the other. Pairs are read in chunks, in the order given, so
//! traces that are larger than memory stream through. Within a chunk each layer is a piece of work with counters of its
//! own (`state`): nothing is shared between threads, and every sum is added up in one fixed order. A piece takes
//! [`TILE`] pairs at a time: both sides are brought into the order of their experts (`choice`), then compared (`pair`).
//! Exchanging the two traces exchanges what is said of each, and changes nothing else, to the last bit.
#![expect(clippy::needless_range_loop, reason = "loops over the pairs of a tile touch several rows at once")]

mod check;
mod choice;
mod exp;
mod output;
mod pair;
mod state;

use ndarray::ArrayView3;
use rayon::prelude::*;

use crate::count::{Groups, Layer, Weights};
use crate::l1::{Simd, for_each_simd, lanes::Lanes};
use crate::task::Task;
use crate::{Error, Result};
use check::Wrong;
pub use output::{Agreement, Usage, WeightAgreement};
use pair::Tile;
use state::LayerState;

/// Pairs that are compared at once.
const TILE: usize = 128;
/// A value for each of them.
type Row<T> = [T; TILE];

/// Bytes of both traces that are read between two meetings of the threads; they stay in the cache while each layer
/// picks its part out of them.
const CHUNK_BYTES: usize = 4 << 20;
/// Pieces of work in a chunk, at least: traces of few layers are cut along the pairs, too. Fixed, since it decides the
/// order of the additions.
const PIECES: usize = 16;
/// Counters that the pieces of one layer may have beside those of the first, in bytes.
const SPARE_BYTES: usize = 256 << 20;
/// Ranks that count as the top.
pub const TOP: usize = 5;

/// One of the two traces. Nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// `[T, L, k]`, -1 where a slot is empty.
    pub expert_ids: ArrayView3<'a, i16>,
    /// `[T, L, k]`, for both sides or for none.
    pub expert_weights: Option<Weights<'a>>,
    /// `[P]`: the row of each pair; without it, pair p is row p.
    pub rows: Option<&'a [i64]>,
}

impl Side<'_> {
    fn row(&self, pair: usize) -> usize {
        // Rows were found to be those of the trace.
        self.rows.map_or(pair, |rows| rows[pair] as usize)
    }

    fn row_bytes(&self, layers: usize) -> usize {
        let weight = match self.expert_weights {
            None => 0,
            Some(Weights::F16(_)) => 2,
            Some(Weights::F32(_)) => 4,
        };
        layers * self.expert_ids.dim().2 * (size_of::<i16>() + weight)
    }

    /// What does not fit together within a side, in the words of the Python arguments.
    fn check(&self, name: char, pairs: usize) -> Result<()> {
        let shape = self.expert_ids.dim();
        let weights = match &self.expert_weights {
            None => shape,
            Some(Weights::F16(weights)) => weights.dim(),
            Some(Weights::F32(weights)) => weights.dim(),
        };
        if weights != shape {
            return Err(Error::Argument(format!("weights_{name}: shape {weights:?}; accepted: {shape:?}")));
        }
        let found = self.rows.map_or(shape.0, <[_]>::len);
        if found != pairs {
            let what = if self.rows.is_some() { "rows" } else { "ids" };
            return Err(Error::Argument(format!("{what}_{name}: {found} rows; accepted: {pairs}, as the other side")));
        }
        Ok(())
    }

    fn check_rows(&self, name: char, pairs: std::ops::Range<usize>) -> Result<()> {
        let (Some(rows), count) = (self.rows, self.expert_ids.dim().0) else { return Ok(()) };
        let is_bad = |&row: &i64| usize::try_from(row).map_or(true, |row| row >= count);
        match rows[pairs.clone()].iter().position(is_bad) {
            None => Ok(()),
            Some(at) => {
                let (pair, last) = (pairs.start + at, count as i64 - 1);
                Err(Error::Data(format!("rows_{name}: entry {pair} is {}; accepted: 0 to {last}", rows[pair])))
            }
        }
    }
}

/// Two traces, and which of their tokens belong together.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The one.
    pub a: Side<'a>,
    /// The other; of as many layers and slots.
    pub b: Side<'a>,
    /// What the routers of both choose from, L of them.
    pub layers: &'a [Layer],
    /// Which layers are compared.
    pub chosen: &'a [usize],
    /// `[P]`; without it, all pairs are of one group.
    pub groups: Option<Groups<'a>>,
    /// Whether pairs without shares are left out of everything.
    pub require_shares: bool,
    /// Whether to count how often each expert is chosen.
    pub usage: bool,
}

impl Comparison<'_> {
    fn n_pairs(&self) -> usize {
        self.a.rows.map_or(self.a.expert_ids.dim().0, <[_]>::len)
    }

    fn n_groups(&self) -> usize {
        self.groups.map_or(1, |groups| groups.count)
    }

    fn is_weighted(&self) -> bool {
        self.a.expert_weights.is_some()
    }

    fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::Argument(message));
        let (pairs, (_, l, k)) = (self.n_pairs(), self.a.expert_ids.dim());
        let (_, other_l, other_k) = self.b.expert_ids.dim();
        if (l, k) != (other_l, other_k) || l == 0 || k == 0 || self.layers.len() != l {
            let layers = self.layers.len();
            return wrong(format!(
                "ids_b: {other_l} layers of {other_k} slots; ids_a: {l} of {k}, for {layers} layers"
            ));
        }
        if self.a.expert_weights.is_some() != self.b.expert_weights.is_some() {
            return wrong("weights_b: given for one side; accepted: for both, or for none".into());
        }
        if self.require_shares && !self.is_weighted() {
            return wrong("require_shares: without weights; accepted: false, or with weights".into());
        }
        // Counters of experts have 32 bits.
        if pairs.saturating_mul(k) >= u32::MAX as usize || k > usize::from(u16::MAX) {
            return wrong(format!("rows_a: {pairs} pairs of {k} slots; accepted: up to 2^32 slots a layer at a time"));
        }
        self.a.check('a', pairs)?;
        self.b.check('b', pairs)?;
        if let Some(groups) = self.groups
            && groups.ids.len() != pairs
        {
            return wrong(format!("groups: {} entries; accepted: {pairs}", groups.ids.len()));
        }
        for (index, layer) in self.layers.iter().enumerate() {
            if layer.active_experts() == 0 || layer.n_experts > i16::MAX as usize || layer.top_k > k {
                return wrong(format!("layer {index}: {layer:?}; accepted: 1 to 32767 experts, up to {k} slots"));
            }
        }
        if self.chosen.is_empty() || self.chosen.iter().any(|&layer| layer >= l) {
            return wrong(format!("layers: {:?}; accepted: some of 0 to {}", self.chosen, l - 1));
        }
        Ok(())
    }

    /// Pairs that one piece of work takes at a time.
    fn pairs_of_part(&self) -> usize {
        let layers = self.chosen.len();
        let bytes = self.a.row_bytes(layers) + self.b.row_bytes(layers);
        (CHUNK_BYTES / bytes).max(1).next_multiple_of(TILE)
    }

    /// Finds the first row or group that does not exist, among some pairs.
    fn check_pairs(&self, pairs: std::ops::Range<usize>) -> Result<()> {
        self.a.check_rows('a', pairs.clone())?;
        self.b.check_rows('b', pairs.clone())?;
        let Some(groups) = self.groups else { return Ok(()) };
        match groups.ids[pairs.clone()].iter().position(|&g| g as usize >= groups.count) {
            None => Ok(()),
            Some(at) => {
                let (pair, last) = (pairs.start + at, groups.count.saturating_sub(1));
                Err(Error::Data(format!("groups: entry {pair} is {}; accepted: 0 to {last}", groups.ids[pair])))
            }
        }
    }
}

/// Compares two traces, on the rayon pool that it is called in. The result does not depend on the number of threads.
///
/// # Errors
/// Arguments that do not fit each other, a row, group, id or weight that is not accepted (the first one by pair, side,
/// layer and slot), or [`Error::Cancelled`].
pub fn compare(comparison: &Comparison<'_>, task: &Task) -> Result<Agreement> {
    comparison.check()?;
    let simd = Simd::choose()?;
    let (pairs, layers) = (comparison.n_pairs(), comparison.chosen.len());
    task.announce((pairs * layers) as u64);
    let mut pieces = new_pieces(comparison)?;
    let parts = pieces.len() / layers;
    let pairs_of_part = comparison.pairs_of_part();
    let pairs_of_chunk = pairs_of_part * parts;
    for start in (0..pairs).step_by(pairs_of_chunk) {
        comparison.check_pairs(start..pairs.min(start + pairs_of_chunk))?;
        let wrong = pieces
            .par_iter_mut()
            .enumerate()
            .map_init(
                || Tile::new(comparison),
                |tile, (index, piece)| {
                    task.check()?;
                    let (layer, part) = (comparison.chosen[index / parts], index % parts);
                    let first = pairs.min(start + part * pairs_of_part);
                    let some = first..pairs.min(first + pairs_of_part);
                    let wrong = compare_pairs(simd, comparison, layer, some.clone(), tile, piece);
                    task.advance(some.len() as u64);
                    Ok(wrong)
                },
            )
            .try_reduce(|| None, |a, b| Ok([a, b].into_iter().flatten().min_by_key(Wrong::place)))?;
        if let Some(wrong) = wrong {
            return Err(wrong.error(comparison));
        }
    }
    Ok(output::collect(comparison, pieces, parts))
}

/// Counters for every layer, for each part of a chunk; `parts` of one layer after those of another.
fn new_pieces(comparison: &Comparison<'_>) -> Result<Vec<LayerState>> {
    let layers = || comparison.chosen.iter().map(|&layer| &comparison.layers[layer]);
    let bytes = layers().map(|layer| LayerState::bytes(comparison, layer)).fold(0, usize::saturating_add);
    let affordable = 1 + SPARE_BYTES / bytes.max(1);
    let parts = PIECES.div_ceil(comparison.chosen.len()).min(affordable);
    let mut pieces = Vec::with_capacity(parts * comparison.chosen.len());
    for layer in layers() {
        for _ in 0..parts {
            pieces.push(LayerState::new(comparison, layer)?);
        }
    }
    Ok(pieces)
}

for_each_simd! {
    /// Compares some pairs in a layer; returns the first value that is not accepted.
    fn compare_pairs(comparison: &Comparison<'_>, layer: usize, pairs: std::ops::Range<usize>, tile: &mut Tile, state: &mut LayerState) -> Option<Wrong> = compare_pairs_with;
}

#[inline(always)]
unsafe fn compare_pairs_with<L: Lanes>(
    _: L,
    comparison: &Comparison<'_>,
    layer: usize,
    pairs: std::ops::Range<usize>,
    tile: &mut Tile,
    state: &mut LayerState,
) -> Option<Wrong> {
    for start in pairs.clone().step_by(TILE) {
        let some = start..pairs.end.min(start + TILE);
        if !tile.load(comparison, layer, some.clone()) {
            return Some(check::first_wrong(comparison, layer, some));
        }
        tile.compare(comparison.require_shares);
        state.add(tile, comparison.groups.map(|groups| &groups.ids[some]));
    }
    None
}
