//! One pass over the rows of a trace, on many threads, with sums that do not depend on how many.
//!
//! Rows are read in chunks, in order, so a trace that is larger than memory streams through. Within a chunk each layer
//! is a piece of work, and in a trace of few layers each of some parts of its rows. Every piece has counters of its own:
//! nothing is shared between threads, and what the parts of a layer counted is added up in their order.

use std::ops::Range;

use rayon::prelude::*;

use crate::task::Task;
use crate::trace::changed;
use crate::{Error, Result};

/// Bytes of a trace that are read between two meetings of the threads; they stay in the cache while each layer picks
/// its part out of them.
const CHUNK_BYTES: usize = 4 << 20;
/// Pieces of work in a chunk, at least. Fixed, since it decides the order of the additions.
const PIECES: usize = 16;
/// Counters that the pieces of one layer may have beside those of the first, in bytes.
const SPARE_BYTES: usize = 256 << 20;

/// What is counted of the rows of a layer.
pub(crate) trait Counters: Send {
    /// Bytes that they take.
    fn bytes(&self) -> usize;

    /// Adds what was counted of rows that come after.
    fn merge(&mut self, later: &Self);
}

/// Adds numbers to numbers.
pub(crate) fn add<T: Copy + std::ops::AddAssign>(to: &mut [T], from: &[T]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
}

/// A value that is not accepted: where it is, and what there is to say.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) row: usize,
    pub(crate) layer: usize,
    pub(crate) error: Error,
}

impl Wrong {
    /// The first that `find` finds in rows of a layer that have one.
    #[cold]
    pub(crate) fn first(rows: Range<usize>, layer: usize, find: impl Fn(usize) -> Option<Error>) -> Self {
        let found = rows.clone().find_map(|row| Some((row, find(row)?)));
        let (row, error) = found.unwrap_or_else(|| (rows.start, changed(rows.start)));
        Self { row, layer, error }
    }
}

/// Rows that a piece of work takes at a time, of so many bytes each.
pub(crate) fn rows_of_part(row_bytes: usize) -> usize {
    (CHUNK_BYTES / row_bytes.max(1)).max(1)
}

/// A pass over a trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    pub(crate) rows: usize,
    /// Layers that are read.
    pub(crate) layers: usize,
    /// Rows that a piece of work takes at a time: decides the order of the additions.
    pub(crate) rows_of_part: usize,
    /// Units of work in a row of a layer.
    pub(crate) units: usize,
}

impl Pass {
    /// Runs on the rayon pool that it is called in, and returns what was counted of each layer.
    ///
    /// `new` makes the counters of a layer. `check` is called with the rows of a chunk before they are read. `add` adds
    /// some rows of a layer to its counters, with a room of its thread's own, and returns the first value that is not
    /// accepted.
    ///
    /// # Errors
    /// Those of `new` and `check`, the first wrong value by row and layer, or [`Error::Cancelled`].
    pub(crate) fn run<C: Counters, R>(
        &self,
        task: &Task,
        new: impl Fn(usize) -> Result<C>,
        check: impl Fn(Range<usize>) -> Result<()>,
        room: impl Fn() -> R + Send + Sync,
        add: impl Fn(usize, Range<usize>, &mut R, &mut C) -> Option<Wrong> + Send + Sync,
    ) -> Result<Vec<C>> {
        let Self { rows, layers, rows_of_part, units } = *self;
        task.announce((rows * layers * units) as u64);
        let (mut pieces, parts) = self.pieces(new)?;
        for start in (0..rows).step_by(rows_of_part * parts) {
            check(start..rows.min(start + rows_of_part * parts))?;
            let wrong = pieces
                .par_iter_mut()
                .enumerate()
                .map_init(&room, |room, (index, piece)| {
                    task.check()?;
                    let first = rows.min(start + index % parts * rows_of_part);
                    let part = first..rows.min(first + rows_of_part);
                    let wrong = add(index / parts, part.clone(), room, piece);
                    task.advance((part.len() * units) as u64);
                    Ok(wrong)
                })
                .try_reduce(|| None, |a, b| Ok(a.into_iter().chain(b).min_by_key(|wrong| (wrong.row, wrong.layer))))?;
            if let Some(wrong) = wrong {
                return Err(wrong.error);
            }
        }
        let mut pieces = pieces.into_iter();
        let merged = std::iter::from_fn(|| {
            let mut layer = pieces.next()?;
            pieces.by_ref().take(parts - 1).for_each(|part| layer.merge(&part));
            Some(layer)
        });
        Ok(merged.collect())
    }

    /// Counters for every part of every layer, those of one layer beside each other, and how many parts there are.
    fn pieces<C: Counters>(&self, new: impl Fn(usize) -> Result<C>) -> Result<(Vec<C>, usize)> {
        let firsts = (0..self.layers).map(&new).collect::<Result<Vec<_>>>()?;
        let bytes = firsts.iter().map(C::bytes).sum::<usize>();
        let parts = PIECES.div_ceil(self.layers).min(1 + SPARE_BYTES / bytes.max(1));
        let mut pieces = Vec::with_capacity(parts * self.layers);
        for (layer, first) in firsts.into_iter().enumerate() {
            pieces.push(first);
            for _ in 1..parts {
                pieces.push(new(layer)?);
            }
        }
        Ok((pieces, parts))
    }
}
