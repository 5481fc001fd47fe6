//! How strongly experts are active, on the tokens of each group: counts, largest values and sums of the activations
//! above a threshold, and a histogram of all of them, in one pass over a trace.
//!
//! An activation is a number for a token and an expert that it chose: the gate weight, that weight divided by the
//! token's sum, or a number of the router's full distribution, which every expert has ([`probability`]). The trace is
//! read in chunks of tokens, in order, so one that is larger than memory streams through. Within a chunk, each part of
//! each layer is a piece of work with counters of its own ([`state`]); they are put together in one fixed order.

mod check;
mod probability;
mod row;
mod slot;
mod state;

use ndarray::ArrayView3;
use rayon::prelude::*;

use crate::count::{Groups, Layer};
use crate::l1::Simd;
use crate::sample::{Samples, Values};
use crate::task::Task;
use crate::{Error, Result};
use check::Wrong;
pub use probability::Scoring;
use slot::Tile;
use state::LayerState;
pub use state::Sums;

/// Bytes of a trace that are read between two meetings of the threads.
const CHUNK_BYTES: usize = 4 << 20;
/// Pieces of work in a chunk, at least: a trace of few layers is cut along the tokens, too. Fixed, since it decides
/// the order of the additions.
const PIECES: usize = 16;
/// Counters that the pieces of one layer may have beside those of the first, in bytes.
const SPARE_BYTES: usize = 256 << 20;

/// Where activations come from. Arrays have L layers, of which some are looked at.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Gate weights of the chosen experts.
    Slots {
        /// `[T, L, k]`, -1 where a slot is empty.
        expert_ids: ArrayView3<'a, i16>,
        /// `[T, L, k]`
        expert_weights: Values<'a>,
        /// Whether they are divided by their sum over the token's filled slots.
        renormalized: bool,
    },
    /// The router's full distribution, for tokens with a filled slot.
    Router {
        /// `[T, L, k]`
        expert_ids: ArrayView3<'a, i16>,
        /// `[T, L, E]`
        router_logits: Values<'a>,
    },
    /// `[T, L, E]`: activations as they are; a zero is none, and a row of zeros is no token.
    Dense(Values<'a>),
}

/// A layer that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    /// Its place in the arrays.
    pub index: usize,
    /// What its router chooses from.
    pub layer: Layer,
    /// What its logits mean; only [`Source::Router`] asks.
    pub scoring: Scoring,
}

/// Bins of equal width from 0 to `highest`. A bin owns its lower edge, the last one its upper edge, too.
#[derive(Clone, Copy, Debug)]
pub struct Bins {
    /// How many there are.
    pub count: usize,
    /// Where the last one ends.
    pub highest: f64,
}

/// What to sum up. Nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The activations.
    pub source: Source<'a>,
    /// The layers, in the order in which they are wanted.
    pub layers: &'a [Chosen],
    /// Without it, all tokens are of one group.
    pub groups: Option<Groups<'a>>,
    /// Activations count if they are larger.
    pub threshold: f64,
    /// The histogram of all activations.
    pub bins: Bins,
}

impl<'a> Source<'a> {
    /// The array of numbers, by its Python name.
    fn numbers(&self) -> Samples<'a> {
        let (name, values) = match *self {
            Self::Slots { expert_weights, .. } => ("expert_weights", expert_weights),
            Self::Router { router_logits, .. } => ("router_logits", router_logits),
            Self::Dense(values) => ("activations", values),
        };
        Samples { name, values, normalize: false }
    }

    fn expert_ids(&self) -> Option<ArrayView3<'a, i16>> {
        match *self {
            Self::Slots { expert_ids, .. } | Self::Router { expert_ids, .. } => Some(expert_ids),
            Self::Dense(_) => None,
        }
    }
}

impl Request<'_> {
    /// What does not fit together, in the words of the Python arguments.
    fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::Argument(message));
        let numbers = self.source.numbers();
        let (tokens, layers, width) = numbers.shape();
        let slots = self.source.expert_ids().map_or(0, |ids| ids.dim().2);
        // Counters have 32 bits.
        if tokens.saturating_mul(slots.max(1)) >= u32::MAX as usize {
            return wrong(format!("expert_ids: {tokens} tokens of {slots} slots; accepted: up to 2^32 slots a layer"));
        }
        if let Some(ids) = self.source.expert_ids() {
            let fits = match self.source {
                Source::Slots { .. } => ids.dim() == (tokens, layers, width),
                _ => (ids.dim().0, ids.dim().1) == (tokens, layers),
            };
            if !fits {
                let (name, shape) = (numbers.name, numbers.shape());
                return wrong(format!("{name}: shape {shape:?} beside expert_ids of {:?}", ids.dim()));
            }
        }
        for Chosen { index, layer, .. } in self.layers {
            let columns = if matches!(self.source, Source::Slots { .. }) { layer.n_experts } else { width };
            let too_many = layer.n_experts > columns.min(i16::MAX as usize);
            if *index >= layers || layer.active_experts() == 0 || too_many || layer.top_k > slots {
                return wrong(format!("layer {index}: {layer:?}; accepted: up to {columns} experts, {slots} slots"));
            }
        }
        if let Some(groups) = self.groups {
            if groups.ids.len() != tokens {
                return wrong(format!("groups: {} tokens; accepted: {tokens}", groups.ids.len()));
            }
            if let Some(row) = groups.ids.iter().position(|&group| group as usize >= groups.count) {
                let (found, last) = (groups.ids[row], groups.count.saturating_sub(1));
                return Err(Error::Data(format!("groups: token row {row} is {found}; accepted: 0 to {last}")));
            }
        }
        if self.layers.is_empty()
            || !(1..1 << 20).contains(&self.bins.count)
            || self.bins.highest.is_nan()
            || self.bins.highest <= 0.0
        {
            return wrong(format!("layers: {}, bins: {:?}; accepted: at least 1", self.layers.len(), self.bins));
        }
        Ok(())
    }

    fn n_groups(&self) -> usize {
        self.groups.map_or(1, |groups| groups.count)
    }

    /// Tokens of one group beside each other, counted from the first of `rows`, and the group.
    #[inline(always)]
    fn runs(&self, rows: std::ops::Range<usize>) -> impl Iterator<Item = (std::ops::Range<usize>, usize)> {
        let ids = self.groups.map(|groups| &groups.ids[rows.clone()]);
        let (len, mut start) = (rows.len(), 0);
        std::iter::from_fn(move || {
            let run = start..match ids {
                Some(ids) if start < len => {
                    let other = ids[start..].iter().position(|&id| id != ids[start]);
                    other.map_or(len, |n| start + n)
                }
                _ => len,
            };
            let group = ids.map_or(0, |ids| ids.get(start).map_or(0, |&id| id as usize));
            start = run.end;
            (!run.is_empty()).then_some((run, group))
        })
    }

    fn rows_of_part(&self) -> usize {
        let numbers = self.source.numbers();
        let (_, layers, width) = numbers.shape();
        let bytes = match numbers.values {
            Values::F16(_) => 2,
            Values::F32(_) => 4,
            Values::F64(_) => 8,
        };
        let slots = self.source.expert_ids().map_or(0, |ids| ids.dim().2);
        (CHUNK_BYTES / (layers * (width * bytes + slots * size_of::<i16>())).max(1)).max(1)
    }

    /// Room for what a thread reads at a time.
    fn scratch(&self) -> (Tile, Vec<f64>) {
        let width = self.source.numbers().shape().2;
        match self.source {
            Source::Slots { .. } => (Tile::new(width), Vec::new()),
            _ => (Tile::new(0), vec![0.0; width]),
        }
    }

    /// Counters for every layer, for each part of a chunk; `parts` of one layer after those of another.
    fn new_pieces(&self) -> Result<Vec<LayerState>> {
        let of_layer = |chosen: &Chosen| LayerState::bytes(self, &chosen.layer);
        let bytes = self.layers.iter().map(of_layer).fold(0, usize::saturating_add);
        let parts = PIECES.div_ceil(self.layers.len()).min(1 + SPARE_BYTES / bytes.max(1));
        let mut pieces = Vec::with_capacity(parts * self.layers.len());
        for chosen in self.layers {
            for _ in 0..parts {
                pieces.push(LayerState::new(self, &chosen.layer)?);
            }
        }
        Ok(pieces)
    }
}

/// Sums activations up, on the rayon pool that it is called in. The result does not depend on the number of threads.
///
/// # Errors
/// Arguments that do not fit each other, an id or a number that is not accepted (the first one by token, layer and
/// column), or [`Error::Cancelled`].
pub fn sum(request: &Request<'_>, task: &Task) -> Result<Sums> {
    request.check()?;
    let simd = Simd::choose()?;
    let (tokens, _, width) = request.source.numbers().shape();
    task.announce((tokens * request.layers.len() * width) as u64);
    let mut pieces = request.new_pieces()?;
    let parts = pieces.len() / request.layers.len();
    let rows_of_part = request.rows_of_part();
    let rows_of_chunk = rows_of_part * parts;
    for start in (0..tokens).step_by(rows_of_chunk) {
        let wrong = pieces
            .par_iter_mut()
            .enumerate()
            .map_init(
                || request.scratch(),
                |(tile, numbers), (index, piece)| {
                    task.check()?;
                    let first = tokens.min(start + index % parts * rows_of_part);
                    let rows = first..tokens.min(first + rows_of_part);
                    let chosen = &request.layers[index / parts];
                    let wrong = match request.source {
                        Source::Slots { .. } => slot::add_rows(simd, request, chosen, rows.clone(), tile, piece),
                        _ => row::add_rows(simd, request, chosen, rows.clone(), numbers, piece),
                    };
                    task.advance((rows.len() * width) as u64);
                    Ok(wrong)
                },
            )
            .try_reduce(|| None, |a, b| Ok([a, b].into_iter().flatten().min_by_key(Wrong::place)))?;
        if let Some(wrong) = wrong {
            return Err(wrong.error(request));
        }
    }
    Ok(state::collect(request, pieces, parts))
}
