//! Row-major matrices whose rows start on cache lines.

use std::marker::PhantomData;

use bytemuck::Pod;
use memmap2::MmapMut;
use rayon::prelude::*;

use crate::{Error, Result};

/// Bytes of a cache line.
const LINE: usize = 64;

/// A zeroed matrix of `rows` rows. Each row is padded with zeros to a whole and odd number of cache lines: whole, so
/// that a vector load never straddles two; odd, so that the same column of neighbouring rows never falls into the same
/// cache set, as it would with the powers of two that layer and expert counts like to be.
///
/// The memory is mapped, not allocated: it starts on a page, and large pages can be asked for, without which every row
/// is on a page of its own.
pub(crate) struct AlignedMatrix<T> {
    memory: MmapMut,
    rows: usize,
    stride: usize,
    width: usize,
    element: PhantomData<T>,
}

impl<T: Pod> AlignedMatrix<T> {
    pub(crate) fn zeroed(rows: usize, width: usize, what: &'static str) -> Result<Self> {
        let lines_per_row = (width * size_of::<T>()).div_ceil(LINE) | 1;
        let bytes = rows.saturating_mul(lines_per_row).saturating_mul(LINE);
        let memory = MmapMut::map_anon(bytes).map_err(|_| Error::Memory { what, bytes })?;
        #[cfg(target_os = "linux")]
        // Advice: where the kernel has no large pages it stays with small ones.
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(Self { memory, rows, stride: lines_per_row * LINE / size_of::<T>(), width, element: PhantomData })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row that carry data; the rest of the stride is zero.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Elements from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        bytemuck::cast_slice(&self.memory)
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.memory)
    }

    /// Row `i` with its padding.
    pub(crate) fn row(&self, i: usize) -> &[T] {
        &self.as_slice()[i * self.stride..(i + 1) * self.stride]
    }
}

impl AlignedMatrix<u32> {
    /// The smallest and the largest value of each column.
    pub(crate) fn column_range(&self) -> (Vec<u32>, Vec<u32>) {
        const ROWS: usize = 128;
        let nothing = || (vec![u32::MAX; self.width], vec![0; self.width]);
        let extremes = |rows: &[u32]| {
            let (mut low, mut high) = nothing();
            for row in rows.chunks_exact(self.stride) {
                low.iter_mut().zip(row).for_each(|(low, &v)| *low = (*low).min(v));
                high.iter_mut().zip(row).for_each(|(high, &v)| *high = (*high).max(v));
            }
            (low, high)
        };
        self.as_slice().par_chunks(self.stride * ROWS).map(extremes).reduce(nothing, |(mut low, mut high), (l, h)| {
            low.iter_mut().zip(l).for_each(|(a, b)| *a = (*a).min(b));
            high.iter_mut().zip(h).for_each(|(a, b)| *a = (*a).max(b));
            (low, high)
        })
    }
}
