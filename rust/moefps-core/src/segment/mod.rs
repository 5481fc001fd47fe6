//! Windows of tokens that follow each other: in how many of a window's tokens each expert is active, and what a cache
//! of experts that sees as far ahead would have found.
//!
//! Both are told by how often the experts are used by the last m tokens ([`window`]): these are a window, and for the
//! token before them they are the next m, by which its cache is kept ([`cache`](crate::cache)). So one pass counts both.
//!
//! A run is a sequence of rows that follow each other and all choose an expert in a layer. Windows do not go beyond it,
//! and a cache starts empty with it. The trace is read in steps, so one that is larger than memory streams through; in
//! a step, each layer is a piece of work, which goes on where it was. A trace of few layers is cut where its sequences
//! start, too. All that is counted are integers, so no cut changes them.

mod window;

use std::ops::Range;

use ndarray::{Array1, Array3, s};
use rayon::prelude::*;

use crate::cache::Cache;
use crate::choice::{Choices, Reader};
use crate::task::Task;
use crate::trace::check_length;
use crate::{Error, Result};
pub(crate) use window::Window;

/// The longest window.
pub const LONGEST_WINDOW: usize = 4096;
/// Bytes of a trace that are read between two meetings of the threads; they stay in the cache while each layer picks
/// its part out of them.
const STEP_BYTES: usize = 1 << 19;
/// Pieces of work for each thread, at least, where the trace can be cut into so many.
const PIECES_PER_THREAD: usize = 4;

/// What is to be counted.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Tokens of a window, m.
    pub window: usize,
    /// Whether to count in how many tokens of a window each expert is active.
    pub histograms: bool,
    /// `[L]`: experts that each layer's cache holds; without it, none is followed.
    pub cache_sizes: Option<&'a [usize]>,
}

/// What windows and caches were reduced to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    /// `[L]`: windows.
    pub windows: Array1<i64>,
    /// `[L, E, m + 1]`: windows in so many tokens of which an expert is active; zeros for experts that a layer does not
    /// have.
    pub histograms: Option<Array3<i64>>,
    /// Only where caches are followed.
    pub cache: Option<CacheCounts>,
}

/// What caches were reduced to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheCounts {
    /// `[L]`: experts that were in the cache when a token chose them.
    pub hits: Array1<i64>,
    /// `[L]`: experts that tokens chose, each once for a token.
    pub activations: Array1<i64>,
}

/// Counts windows and follows caches, on the rayon pool that it is called in. `follows` says of each row whether it is
/// the next token of the sequence of the row before.
///
/// # Errors
/// Arguments that do not fit each other, an id that is not accepted (the first one by token, layer and slot), too little
/// memory for the histograms, or [`Error::Cancelled`].
pub fn count(choices: &Choices<'_>, follows: &[bool], question: &Question<'_>, task: &Task) -> Result<Segments> {
    choices.check()?;
    check_length("follows", follows.len(), choices.expert_ids.dim().0)?;
    question.check(choices.layers.len())?;
    let (tokens, layers, k) = choices.expert_ids.dim();
    task.announce((tokens * layers * k) as u64);
    let sections = cut(follows, (PIECES_PER_THREAD * rayon::current_num_threads()).div_ceil(layers));
    let mut pieces = Vec::with_capacity(layers * sections.len());
    for layer in 0..layers {
        for rows in &sections {
            pieces.push(Piece::new(choices, layer, question, rows.clone())?);
        }
    }
    let step = (STEP_BYTES / (layers * k * size_of::<i16>() * sections.len())).max(16);
    while pieces.iter().any(|piece| !piece.rows.is_empty()) {
        let walk = |piece: &mut Piece<'_>| {
            task.check()?;
            let rows = piece.rows.start..piece.rows.end.min(piece.rows.start + step);
            piece.rows.start = rows.end;
            task.advance((rows.len() * k) as u64);
            Ok(rows.into_iter().find(|&row| piece.take(row, follows[row]).is_none()))
        };
        let wrong = pieces.par_iter_mut().map(walk).try_reduce(|| None, |a, b| Ok(a.or(b)))?;
        if let Some(row) = wrong {
            return Err(choices.error(row));
        }
    }
    pieces.par_iter_mut().for_each(Piece::end_run);
    Ok(collect(&pieces, sections.len(), layers, question))
}

impl Question<'_> {
    fn check(&self, layers: usize) -> Result<()> {
        if !(1..=LONGEST_WINDOW).contains(&self.window) {
            return Err(Error::Argument(format!("window: {}; accepted: 1 to {LONGEST_WINDOW}", self.window)));
        }
        match self.cache_sizes {
            Some(sizes) if sizes.len() != layers => {
                Err(Error::Argument(format!("cache_sizes: {} of {layers} layers; accepted: one for each", sizes.len())))
            }
            _ => Ok(()),
        }
    }
}

/// Cuts the rows of a trace where sequences start, into at most `parts` sections of similar length.
fn cut(follows: &[bool], parts: usize) -> Vec<Range<usize>> {
    let tokens = follows.len();
    let start_from = |row: usize| (row..tokens).find(|&row| !follows[row]).unwrap_or(tokens);
    let inner = (1..parts).map(|part| start_from((tokens * part / parts).max(1))).filter(|&row| row < tokens);
    let mut bounds: Vec<usize> = [0].into_iter().chain(inner).collect();
    bounds.dedup();
    bounds.push(tokens);
    bounds.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

/// Some rows of a layer, and what was counted of them.
struct Piece<'a> {
    /// Those that are left.
    rows: Range<usize>,
    reader: Reader<'a>,
    window: Window,
    cache: Option<Cache>,
}

impl<'a> Piece<'a> {
    fn new(choices: &Choices<'a>, layer: usize, question: &Question<'_>, rows: Range<usize>) -> Result<Self> {
        let reader = choices.reader(layer);
        let k = choices.expert_ids.dim().2;
        let window = Window::new(question.window, k, reader.active, question.histograms)?;
        let cache = question.cache_sizes.map(|sizes| Cache::new(sizes[layer], reader.active, k));
        Ok(Self { rows, reader, window, cache })
    }

    /// Takes the next token; nothing where an id is not accepted.
    #[inline(always)]
    fn take(&mut self, row: usize, follows: bool) -> Option<()> {
        let chosen = self.reader.read(row, self.window.room())?;
        if chosen == 0 || !follows {
            self.end_run();
        }
        if chosen > 0
            && let Some(left) = self.window.push(chosen)
            && let Some(cache) = &mut self.cache
        {
            cache.route(self.window.chosen(left), &self.window);
        }
        Some(())
    }

    /// Takes it that no token follows the last one.
    #[inline(never)]
    fn end_run(&mut self) {
        while let Some(left) = self.window.pop() {
            if let Some(cache) = &mut self.cache {
                cache.route(self.window.chosen(left), &self.window);
            }
        }
        if let Some(cache) = &mut self.cache {
            cache.clear();
        }
    }
}

/// Adds up the pieces of each layer.
fn collect(pieces: &[Piece<'_>], sections: usize, layers: usize, question: &Question<'_>) -> Segments {
    let experts = pieces.iter().map(|piece| piece.reader.active).max().unwrap_or(0);
    let mut windows = Array1::zeros(layers);
    let mut histograms = question.histograms.then(|| Array3::zeros((layers, experts, question.window + 1)));
    let mut cache =
        question.cache_sizes.map(|_| CacheCounts { hits: Array1::zeros(layers), activations: Array1::zeros(layers) });
    for (layer, pieces) in pieces.chunks_exact(sections).enumerate() {
        for piece in pieces {
            windows[layer] += piece.window.count();
            if let Some(histograms) = &mut histograms {
                piece.window.add_to(histograms.slice_mut(s![layer, ..piece.reader.active, ..]));
            }
            if let (Some(cache), Some(counted)) = (&mut cache, &piece.cache) {
                cache.hits[layer] += counted.hits;
                cache.activations[layer] += counted.activations;
            }
        }
    }
    Segments { windows, histograms, cache }
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn sections_start_with_a_sequence_and_hold_all_rows() {
        let follows: Vec<bool> = (0..97).map(|row| ![0, 1, 13, 60, 61, 90].contains(&row)).collect();
        for parts in 1..9 {
            let sections = cut(&follows, parts);
            assert!(sections.len() <= parts);
            assert_eq!((sections[0].start, sections[sections.len() - 1].end), (0, 97));
            assert!(sections.windows(2).all(|pair| pair[0].end == pair[1].start && !follows[pair[1].start]));
        }
        assert_eq!(cut(&[true; 5], 3).len(), 1);
        assert_eq!(cut(&[], 3).len(), 1);
    }
}
