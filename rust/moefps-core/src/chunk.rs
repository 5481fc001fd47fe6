//! One pass over the rows of a trace, on many threads, with sums that do not depend on how many.
//!
//! Rows are read in chunks, in order, so a trace that is larger than memory streams through. Within a chunk each layer
//! is a piece of work, and in a trace of few layers each of some parts of its rows. Every piece has counters of its own:
//! nothing is shared between threads, and what the parts of a layer counted is added up in their order.

use std::ops::Range;

use rayon::prelude::*;

use crate::l1::{Simd, for_each_simd, lanes::Lanes};
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

/// What is read, and what is counted of it.
pub(crate) trait Pass: Sync {
    /// What is counted of a layer.
    type Counters: Counters;
    /// What a thread needs to read rows.
    type Room;

    /// How much there is to read.
    fn extent(&self) -> Extent;

    /// Counters of a layer, where nothing was read yet.
    fn counters(&self, layer: usize) -> Result<Self::Counters>;

    /// Room for one thread.
    fn room(&self) -> Self::Room;

    /// Looks at what is the same for all layers in some rows that are to be read next.
    fn check_rows(&self, rows: Range<usize>) -> Result<()>;

    /// Adds some rows of a layer, and returns the first value that is not accepted. To be inlined always, since it is
    /// compiled for each instruction set.
    fn add(
        &self,
        layer: usize,
        rows: Range<usize>,
        room: &mut Self::Room,
        counters: &mut Self::Counters,
    ) -> Option<Wrong>;
}

/// How much there is to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) rows: usize,
    pub(crate) layers: usize,
    /// Rows that a piece of work takes at a time, which decides the order of the additions.
    pub(crate) rows_of_part: usize,
    /// Units of work in a row of a layer.
    pub(crate) units: usize,
}

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

/// Runs on the rayon pool that it is called in, and returns what was counted of each layer.
///
/// # Errors
/// Those of the pass, the first value by row and layer that is not accepted, or [`Error::Cancelled`].
pub(crate) fn run<P: Pass>(pass: &P, task: &Task) -> Result<Vec<P::Counters>> {
    let simd = Simd::choose()?;
    let Extent { rows, layers, rows_of_part, units } = pass.extent();
    task.announce((rows * layers * units) as u64);
    let (mut pieces, parts) = new_pieces(pass, layers)?;
    for start in (0..rows).step_by(rows_of_part * parts) {
        pass.check_rows(start..rows.min(start + rows_of_part * parts))?;
        let wrong = pieces
            .par_iter_mut()
            .enumerate()
            .map_init(
                || pass.room(),
                |room, (index, piece)| {
                    task.check()?;
                    let first = rows.min(start + index % parts * rows_of_part);
                    let part = first..rows.min(first + rows_of_part);
                    let wrong = add_part(simd, pass, index / parts, part.clone(), room, piece);
                    task.advance((part.len() * units) as u64);
                    Ok(wrong)
                },
            )
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
fn new_pieces<P: Pass>(pass: &P, layers: usize) -> Result<(Vec<P::Counters>, usize)> {
    let firsts = (0..layers).map(|layer| pass.counters(layer)).collect::<Result<Vec<_>>>()?;
    let bytes: usize = firsts.iter().map(Counters::bytes).sum();
    let parts = PIECES.div_ceil(layers).min(1 + SPARE_BYTES / bytes.max(1));
    let mut pieces = Vec::with_capacity(parts * layers);
    for (layer, first) in firsts.into_iter().enumerate() {
        pieces.push(first);
        for _ in 1..parts {
            pieces.push(pass.counters(layer)?);
        }
    }
    Ok((pieces, parts))
}

for_each_simd! {
    /// [`Pass::add`]
    fn add_part<P: Pass>(pass: &P, layer: usize, rows: Range<usize>, room: &mut P::Room, counters: &mut P::Counters) -> Option<Wrong> = add_part_with;
}

#[inline(always)]
unsafe fn add_part_with<L: Lanes, P: Pass>(
    _: L,
    pass: &P,
    layer: usize,
    rows: Range<usize>,
    room: &mut P::Room,
    counters: &mut P::Counters,
) -> Option<Wrong> {
    pass.add(layer, rows, room, counters)
}
