//! The arithmetic of the L1 kernel over the vectors of any instruction set.

use super::for_each_simd;
use super::lanes::{FLOAT_LANES, Lanes};

/// Rows of a register tile: this many on the left …
const LEFT: usize = 4;
/// … times this many on the right. Eight pairs of sums, partial sums and operands fill 32 vector registers.
const RIGHT: usize = 2;

/// Float features whose differences are added up in lanes before the lanes are added up. Part of the result: another
/// value gives other last bits.
pub(crate) const FLOAT_CHUNK: usize = 1024;

/// Rows of a feature matrix.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a, T> {
    values: &'a [T],
    rows: usize,
    stride: usize,
}

impl<'a, T> Panel<'a, T> {
    /// `rows` rows that start `stride` elements apart.
    pub(crate) fn new(values: &'a [T], rows: usize, stride: usize) -> Self {
        assert_eq!(values.len(), rows * stride);
        Self { values, rows, stride }
    }

    fn pointers<const R: usize>(&self, first: usize) -> [*const T; R] {
        assert!(first + R <= self.rows);
        std::array::from_fn(|r| self.values[(first + r) * self.stride..].as_ptr())
    }
}

/// Calls `tile(first_left, first_right)` for every register tile, with smaller ones along the edges.
macro_rules! for_each_register_tile {
    ($left:expr, $right:expr, $tile:ident $(, $arg:expr)*) => {{
        let (rows, columns) = ($left.rows, $right.rows);
        let (whole_rows, whole_columns) = (rows - rows % LEFT, columns - columns % RIGHT);
        let mut i = 0;
        while i < rows {
            let (mut j, whole) = (0, i < whole_rows);
            while j < columns {
                match (whole, j < whole_columns) {
                    (true, true) => $tile::<L, LEFT, RIGHT>($left, $right, i, j $(, $arg)*),
                    (true, false) => $tile::<L, LEFT, 1>($left, $right, i, j $(, $arg)*),
                    (false, true) => $tile::<L, 1, RIGHT>($left, $right, i, j $(, $arg)*),
                    (false, false) => $tile::<L, 1, 1>($left, $right, i, j $(, $arg)*),
                }
                j += if j < whole_columns { RIGHT } else { 1 };
            }
            i += if whole { LEFT } else { 1 };
        }
    }};
}

for_each_simd! {
    /// Adds `Σ max(left[i][k], right[j][k])` over `k` in `from..groups.last()` to `out[i * right.rows + j]`.
    ///
    /// `groups` are the ends of ranges of `k`, multiples of the vector length, within which the maxima of a lane add up
    /// to less than 2^32 ([`group_ends`]).
    pub(crate) fn add_maxima(left: Panel<'_, u32>, right: Panel<'_, u32>, from: usize, groups: &[usize], out: &mut [u64]) = add_maxima_with;
}

#[inline(always)]
unsafe fn add_maxima_with<L: Lanes>(
    _: L,
    left: Panel<'_, u32>,
    right: Panel<'_, u32>,
    from: usize,
    groups: &[usize],
    out: &mut [u64],
) {
    assert_eq!(out.len(), left.rows * right.rows);
    let end = groups.last().copied().unwrap_or(from);
    assert!(end <= left.stride && end <= right.stride && from.is_multiple_of(L::LANES));
    // No group is empty.
    assert!(groups.first().is_none_or(|&end| end > from) && groups.is_sorted_by(|a, b| a < b));
    assert!(groups.iter().all(|end| end.is_multiple_of(L::LANES)));
    // SAFETY: all vectors lie inside the rows, by the assertions above; the caller vouches for the instruction set.
    unsafe { for_each_register_tile!(left, right, maxima_tile, from, groups, &mut *out) }
}

#[inline(always)]
unsafe fn maxima_tile<L: Lanes, const M: usize, const N: usize>(
    left: Panel<'_, u32>,
    right: Panel<'_, u32>,
    i: usize,
    j: usize,
    from: usize,
    groups: &[usize],
    out: &mut [u64],
) {
    let (a, b) = (left.pointers::<M>(i), right.pointers::<N>(j));
    // SAFETY: see `add_maxima_with`.
    unsafe {
        let mut sums = [[L::no_sums(); N]; M];
        let mut k = from;
        for &end in groups {
            let mut partial = maxima_at::<L, M, N>(a, b, k);
            k += L::LANES;
            while k < end {
                let maxima = maxima_at::<L, M, N>(a, b, k);
                for (partial, maxima) in partial.iter_mut().zip(maxima) {
                    for (partial, max) in partial.iter_mut().zip(maxima) {
                        *partial = L::add(*partial, max);
                    }
                }
                k += L::LANES;
            }
            for (sums, partial) in sums.iter_mut().zip(partial) {
                for (sums, partial) in sums.iter_mut().zip(partial) {
                    *sums = L::widen(*sums, partial);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (c, sums) in sums.into_iter().enumerate() {
                out[(i + r) * right.rows + j + c] += L::total(sums);
            }
        }
    }
}

/// One vector of maxima for each pair of rows.
#[inline(always)]
unsafe fn maxima_at<L: Lanes, const M: usize, const N: usize>(
    a: [*const u32; M],
    b: [*const u32; N],
    k: usize,
) -> [[L::Ints; N]; M] {
    // SAFETY: see `add_maxima_with`.
    unsafe {
        let b = b.map(|b| L::load(b.add(k)));
        a.map(|a| {
            let a = L::load(a.add(k));
            b.map(|b| L::max(a, b))
        })
    }
}

/// Splits features into the longest ranges within which no lane of `lanes` can overflow 32 bits, given the largest
/// value of each feature.
pub(crate) fn group_ends(largest: &[u32], lanes: usize) -> Vec<usize> {
    let mut ends = Vec::new();
    let (mut filled, mut end) = (0u64, 0);
    for step in largest.chunks(lanes) {
        let step_largest = u64::from(step.iter().copied().max().unwrap_or(0));
        if filled + step_largest > u64::from(u32::MAX) {
            ends.push(end);
            filled = 0;
        }
        filled += step_largest;
        end += lanes;
    }
    ends.push(end);
    ends
}

for_each_simd! {
    /// Adds `Σ |left[i][k] - right[j][k]|` over the chunk of [`FLOAT_CHUNK`] features from `from` on to
    /// `out[i * right.rows + j]`. Chunks have to be added in order.
    pub(crate) fn add_float_differences(left: Panel<'_, f64>, right: Panel<'_, f64>, from: usize, out: &mut [f64]) = add_float_differences_with;
}

#[inline(always)]
unsafe fn add_float_differences_with<L: Lanes>(
    _: L,
    left: Panel<'_, f64>,
    right: Panel<'_, f64>,
    from: usize,
    out: &mut [f64],
) {
    assert_eq!(out.len(), left.rows * right.rows);
    assert!(left.stride == right.stride && left.stride.is_multiple_of(FLOAT_LANES) && from.is_multiple_of(FLOAT_LANES));
    let end = left.stride.min(from + FLOAT_CHUNK);
    // SAFETY: all vectors lie inside the rows, by the assertions above; the caller vouches for the instruction set.
    unsafe { for_each_register_tile!(left, right, differences_tile, from, end, &mut *out) }
}

#[inline(always)]
unsafe fn differences_tile<L: Lanes, const M: usize, const N: usize>(
    left: Panel<'_, f64>,
    right: Panel<'_, f64>,
    i: usize,
    j: usize,
    from: usize,
    end: usize,
    out: &mut [f64],
) {
    let (a, b) = (left.pointers::<M>(i), right.pointers::<N>(j));
    // SAFETY: see `add_float_differences_with`.
    unsafe {
        let mut sums = [[L::no_floats(); N]; M];
        let mut k = from;
        while k < end {
            let b = b.map(|b| L::load_floats(b.add(k)));
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = L::load_floats(a.add(k));
                for (sums, b) in sums.iter_mut().zip(b) {
                    *sums = L::add_difference(*sums, a, b);
                }
            }
            k += FLOAT_LANES;
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (c, sums) in sums.into_iter().enumerate() {
                out[(i + r) * right.rows + j + c] += add_lanes(L::floats(sums));
            }
        }
    }
}

/// The one order in which lanes are added.
#[inline(always)]
fn add_lanes(v: [f64; FLOAT_LANES]) -> f64 {
    ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
}

/// `Σ |a - b|` of two rows of float features, with the bits that [`add_float_differences`] gives.
///
/// # Safety
/// The instruction set of `L`.
#[inline(always)]
pub(crate) unsafe fn float_distance<L: Lanes>(a: &[f64], b: &[f64]) -> f64 {
    assert!(a.len() == b.len() && a.len().is_multiple_of(FLOAT_LANES));
    let mut total = 0.0;
    for from in (0..a.len()).step_by(FLOAT_CHUNK) {
        // SAFETY: vectors end at the chunk's end, which is inside both rows.
        unsafe {
            let mut sums = L::no_floats();
            for k in (from..a.len().min(from + FLOAT_CHUNK)).step_by(FLOAT_LANES) {
                sums = L::add_difference(sums, L::load_floats(a.as_ptr().add(k)), L::load_floats(b.as_ptr().add(k)));
            }
            total += add_lanes(L::floats(sums));
        }
    }
    total
}

/// `Σ |a - b|` of two rows of numbers below 2^31. For single pairs, where memory is slower than any arithmetic, so that
/// nothing is gained by sums known before.
///
/// # Safety
/// The instruction set of `L`.
#[inline(always)]
pub(crate) unsafe fn fixed_distance<L: Lanes>(a: &[u32], b: &[u32]) -> u64 {
    assert!(a.len() == b.len() && a.len().is_multiple_of(L::LANES));
    let (steps, mut k) = (a.len() / L::LANES, 0);
    // SAFETY: vectors end at the rows' end. Two differences below 2^31 fit into 32 bits.
    unsafe {
        let (a, b) = (a.as_ptr(), b.as_ptr());
        let mut sums = [L::no_sums(); 2];
        let at = |k: usize| L::difference(L::load(a.add(k)), L::load(b.add(k)));
        for _ in 0..steps / 4 {
            sums[0] = L::widen(sums[0], L::add(at(k), at(k + L::LANES)));
            sums[1] = L::widen(sums[1], L::add(at(k + 2 * L::LANES), at(k + 3 * L::LANES)));
            k += 4 * L::LANES;
        }
        for _ in 0..steps % 4 {
            sums[0] = L::widen(sums[0], at(k));
            k += L::LANES;
        }
        L::total(sums[0]) + L::total(sums[1])
    }
}

/// `Σ |a - b|` of two rows of bytes.
///
/// # Safety
/// The instruction set of `L`.
#[inline(always)]
pub(crate) unsafe fn byte_distance<L: Lanes>(a: &[u8], b: &[u8]) -> u64 {
    assert!(a.len() == b.len() && a.len().is_multiple_of(4 * L::LANES));
    // SAFETY: vectors end at the rows' end.
    unsafe {
        let mut sums = L::no_sums();
        for k in (0..a.len()).step_by(4 * L::LANES) {
            sums = L::add_byte_differences(sums, a.as_ptr().add(k), b.as_ptr().add(k));
        }
        L::total_bytes(sums)
    }
}

/// Rows that [`column_distances`] takes at a time.
pub(crate) const COLUMN: usize = 16;

/// Bytes of a row that it takes at a time.
pub(crate) const WORD: usize = 8;

/// `Σ |center - columns[i]|` for [`COLUMN`] rows of bytes stored word by word: the first of every row, then the second.
///
/// # Safety
/// The instruction set of `L`.
#[inline(always)]
pub(crate) unsafe fn column_distances<L: Lanes>(
    center: &[[[u8; WORD]; WORD]],
    columns: &[u8],
    out: &mut [u64; COLUMN],
) {
    assert_eq!(columns.len(), center.len() * COLUMN * WORD);
    // SAFETY: vectors end at the columns' end; `COLUMN` is a multiple of every vector's words, of which `WORD` is the
    // most.
    unsafe {
        for first in (0..COLUMN).step_by(L::LANES / 2) {
            let mut sums = L::no_sums();
            for (k, word) in center.iter().enumerate() {
                let columns = columns.as_ptr().add((k * COLUMN + first) * WORD);
                sums = L::add_byte_differences(sums, word.as_ptr().cast(), columns);
            }
            L::store_byte_sums(out.as_mut_ptr().add(first), sums);
        }
    }
}
