//! How often the experts are used by the last m tokens of a run.
//!
//! A token that comes or goes changes the counts of its own experts only. A histogram over windows is kept in as few
//! steps: when the count of an expert changes, all windows since it last did are added to the bar of the old count.

use ndarray::ArrayViewMut2;

use crate::Result;
use crate::trace::zeros;

/// What is known of an expert.
#[derive(Clone, Copy, Debug, Default)]
struct Expert {
    /// How many of the last m tokens use it.
    count: u32,
    /// How many windows there were when that last changed.
    since: u32,
}

/// The last tokens of a run, at most m.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    size: usize,
    k: usize,
    /// `[m + 1, k]`: the experts that each token uses; one place more, so that a token that comes and one that goes are
    /// both there.
    ring: Vec<u16>,
    /// `[m + 1]`: how many of them there are.
    lengths: Vec<u16>,
    /// The place of the oldest token.
    oldest: usize,
    /// Tokens.
    len: usize,
    experts: Vec<Expert>,
    /// `[E, m + 1]`, or empty; that of 0 is not kept.
    histogram: Vec<u32>,
    /// Windows up to now.
    windows: u32,
}

impl Window {
    /// No tokens yet, of `k` slots.
    pub(super) fn new(size: usize, k: usize, experts: usize, histogram: bool) -> Result<Self> {
        Ok(Self {
            size,
            k,
            ring: zeros((size + 1) * k)?,
            lengths: zeros(size + 1)?,
            oldest: 0,
            len: 0,
            experts: zeros(experts)?,
            histogram: zeros(if histogram { experts * (size + 1) } else { 0 })?,
            windows: 0,
        })
    }

    /// The place of the next token.
    #[inline(always)]
    fn next(&self) -> usize {
        let place = self.oldest + self.len;
        if place > self.size { place - (self.size + 1) } else { place }
    }

    /// Where the experts of the next token are to be written.
    #[inline(always)]
    pub(super) fn room(&mut self) -> &mut [u16] {
        let place = self.next();
        &mut self.ring[place * self.k..][..self.k]
    }

    /// The experts of the token at a place.
    #[inline(always)]
    pub(super) fn chosen(&self, place: usize) -> &[u16] {
        &self.ring[place * self.k..][..usize::from(self.lengths[place])]
    }

    /// How many of the last tokens use an expert.
    #[inline(always)]
    pub(crate) fn uses(&self, expert: u16) -> u32 {
        self.experts[usize::from(expert)].count
    }

    /// Takes the token that was written to [`Self::room`]. Where there are more than m then, the oldest one leaves, and
    /// its place is returned: as long as the next one is not written, it can be read.
    #[inline(always)]
    pub(super) fn push(&mut self, chosen: usize) -> Option<usize> {
        let place = self.next();
        // No more than the slots, which fit.
        self.lengths[place] = chosen as u16;
        let left = if self.len == self.size { self.pop() } else { None };
        self.change(place, 1);
        self.len += 1;
        self.windows += u32::from(self.len == self.size);
        left
    }

    /// Lets the oldest token leave, and returns its place.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        let place = self.oldest;
        self.change(place, u32::MAX);
        self.oldest = if place == self.size { 0 } else { place + 1 };
        self.len -= 1;
        Some(place)
    }

    /// Adds 1 or -1 to the counts of a token's experts.
    #[inline(always)]
    fn change(&mut self, place: usize, by: u32) {
        let chosen = &self.ring[place * self.k..][..usize::from(self.lengths[place])];
        for &id in chosen {
            let expert = &mut self.experts[usize::from(id)];
            if let Some(bar) = self.histogram.get_mut(usize::from(id) * (self.size + 1) + expert.count as usize) {
                *bar += self.windows - expert.since;
            }
            *expert = Expert { count: expert.count.wrapping_add(by), since: self.windows };
        }
    }

    /// Windows of m tokens.
    pub(super) fn count(&self) -> i64 {
        self.windows.into()
    }

    /// Adds the histogram, of which all tokens have left, to `[E, m + 1]`.
    pub(super) fn add_to(&self, mut total: ArrayViewMut2<'_, i64>) {
        for (mut total, bars) in total.outer_iter_mut().zip(self.histogram.chunks_exact(self.size + 1)) {
            let mut without = i64::from(self.windows);
            for (total, &bar) in total.iter_mut().zip(bars).skip(1) {
                *total += i64::from(bar);
                without -= i64::from(bar);
            }
            total[0] += without;
        }
    }
}
