//! AVX-512 (F, BW, DQ, VL).

use std::arch::x86_64::*;

use super::lanes::{FLOAT_LANES, Lanes};

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// Sums of pairs of lanes, seen as 64-bit numbers: those numbers added up, and their upper halves added up. The lower
/// halves follow from the two, which saves the instruction that would mask them out.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    whole: __m512i,
    upper: __m512i,
}

// SAFETY throughout: the trait's contract gives the instruction set and pointers that are good for a vector.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx512 {
    const LANES: usize = 16;
    type Ints = __m512i;
    type Sums = Sums;
    type Floats = __m512d;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self::Ints {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u32, v: Self::Ints) {
        unsafe { _mm512_storeu_si512(to.cast(), v) }
    }
    #[inline(always)]
    unsafe fn splat(v: u32) -> Self::Ints {
        unsafe { _mm512_set1_epi32(v.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { _mm512_max_epu32(a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shift_right<const BITS: u32>(a: Self::Ints) -> Self::Ints {
        unsafe { _mm512_srli_epi32::<BITS>(a) }
    }
    #[inline(always)]
    unsafe fn count_equal(count: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { _mm512_mask_add_epi32(count, _mm512_cmpeq_epi32_mask(a, b), count, _mm512_set1_epi32(1)) }
    }
    #[inline(always)]
    unsafe fn difference(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { _mm512_sub_epi32(_mm512_max_epu32(a, b), _mm512_min_epu32(a, b)) }
    }

    #[inline(always)]
    unsafe fn no_sums() -> Self::Sums {
        unsafe { Sums { whole: _mm512_setzero_si512(), upper: _mm512_setzero_si512() } }
    }
    #[inline(always)]
    unsafe fn widen(sums: Self::Sums, v: Self::Ints) -> Self::Sums {
        unsafe {
            Sums {
                whole: _mm512_add_epi64(sums.whole, v),
                upper: _mm512_add_epi64(sums.upper, _mm512_srli_epi64::<32>(v)),
            }
        }
    }
    #[inline(always)]
    unsafe fn total(sums: Self::Sums) -> u64 {
        unsafe {
            let lower = _mm512_sub_epi64(sums.whole, _mm512_slli_epi64::<32>(sums.upper));
            _mm512_reduce_add_epi64(_mm512_add_epi64(lower, sums.upper)).cast_unsigned()
        }
    }

    #[inline(always)]
    unsafe fn add_byte_differences(sums: Self::Sums, a: *const u8, b: *const u8) -> Self::Sums {
        unsafe {
            let d = _mm512_sad_epu8(_mm512_loadu_si512(a.cast()), _mm512_loadu_si512(b.cast()));
            Sums { whole: _mm512_add_epi64(sums.whole, d), ..sums }
        }
    }
    #[inline(always)]
    unsafe fn total_bytes(sums: Self::Sums) -> u64 {
        unsafe { _mm512_reduce_add_epi64(sums.whole).cast_unsigned() }
    }
    #[inline(always)]
    unsafe fn store_byte_sums(to: *mut u64, sums: Self::Sums) {
        unsafe { _mm512_storeu_si512(to.cast(), sums.whole) }
    }

    #[inline(always)]
    unsafe fn no_floats() -> Self::Floats {
        unsafe { _mm512_setzero_pd() }
    }
    #[inline(always)]
    unsafe fn load_floats(from: *const f64) -> Self::Floats {
        unsafe { _mm512_loadu_pd(from) }
    }
    #[inline(always)]
    unsafe fn add_difference(sum: Self::Floats, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        unsafe { _mm512_add_pd(sum, _mm512_abs_pd(_mm512_sub_pd(a, b))) }
    }
    #[inline(always)]
    unsafe fn floats(v: Self::Floats) -> [f64; FLOAT_LANES] {
        let mut out = [0.0; FLOAT_LANES];
        unsafe { _mm512_storeu_pd(out.as_mut_ptr(), v) };
        out
    }
}
