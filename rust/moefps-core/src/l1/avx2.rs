//! AVX2.

use std::arch::x86_64::*;

use super::lanes::{FLOAT_LANES, Lanes};

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// As for AVX-512: whole 64-bit numbers and their upper halves, added up.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    whole: __m256i,
    upper: __m256i,
}

#[inline(always)]
unsafe fn reduce(v: __m256i) -> u64 {
    let mut lanes = [0u64; 4];
    // SAFETY: `lanes` is as large as the vector.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), v) };
    lanes.iter().fold(0, |a, &b| a.wrapping_add(b))
}

// SAFETY throughout: the trait's contract gives the instruction set and pointers that are good for a vector.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx2 {
    const LANES: usize = 8;
    type Ints = __m256i;
    type Sums = Sums;
    type Floats = [__m256d; 2];

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self::Ints {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u32, v: Self::Ints) {
        unsafe { _mm256_storeu_si256(to.cast(), v) }
    }
    #[inline(always)]
    unsafe fn splat(v: u32) -> Self::Ints {
        unsafe { _mm256_set1_epi32(v.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { _mm256_max_epu32(a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shift_right<const BITS: u32>(a: Self::Ints) -> Self::Ints {
        unsafe { _mm256_srl_epi32(a, _mm_cvtsi32_si128(BITS.cast_signed())) }
    }
    #[inline(always)]
    unsafe fn count_equal(count: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { _mm256_sub_epi32(count, _mm256_cmpeq_epi32(a, b)) }
    }
    #[inline(always)]
    unsafe fn difference(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { _mm256_sub_epi32(_mm256_max_epu32(a, b), _mm256_min_epu32(a, b)) }
    }

    #[inline(always)]
    unsafe fn no_sums() -> Self::Sums {
        unsafe { Sums { whole: _mm256_setzero_si256(), upper: _mm256_setzero_si256() } }
    }
    #[inline(always)]
    unsafe fn widen(sums: Self::Sums, v: Self::Ints) -> Self::Sums {
        unsafe {
            Sums {
                whole: _mm256_add_epi64(sums.whole, v),
                upper: _mm256_add_epi64(sums.upper, _mm256_srli_epi64::<32>(v)),
            }
        }
    }
    #[inline(always)]
    unsafe fn total(sums: Self::Sums) -> u64 {
        unsafe {
            let lower = _mm256_sub_epi64(sums.whole, _mm256_slli_epi64::<32>(sums.upper));
            reduce(_mm256_add_epi64(lower, sums.upper))
        }
    }

    #[inline(always)]
    unsafe fn add_byte_differences(sums: Self::Sums, a: *const u8, b: *const u8) -> Self::Sums {
        unsafe {
            let d = _mm256_sad_epu8(_mm256_loadu_si256(a.cast()), _mm256_loadu_si256(b.cast()));
            Sums { whole: _mm256_add_epi64(sums.whole, d), ..sums }
        }
    }
    #[inline(always)]
    unsafe fn total_bytes(sums: Self::Sums) -> u64 {
        unsafe { reduce(sums.whole) }
    }
    #[inline(always)]
    unsafe fn store_byte_sums(to: *mut u64, sums: Self::Sums) {
        unsafe { _mm256_storeu_si256(to.cast(), sums.whole) }
    }

    #[inline(always)]
    unsafe fn no_floats() -> Self::Floats {
        unsafe { [_mm256_setzero_pd(); 2] }
    }
    #[inline(always)]
    unsafe fn load_floats(from: *const f64) -> Self::Floats {
        unsafe { [_mm256_loadu_pd(from), _mm256_loadu_pd(from.add(4))] }
    }
    #[inline(always)]
    unsafe fn add_difference(sum: Self::Floats, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        unsafe {
            let sign = _mm256_set1_pd(-0.0);
            [
                _mm256_add_pd(sum[0], _mm256_andnot_pd(sign, _mm256_sub_pd(a[0], b[0]))),
                _mm256_add_pd(sum[1], _mm256_andnot_pd(sign, _mm256_sub_pd(a[1], b[1]))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn floats(v: Self::Floats) -> [f64; FLOAT_LANES] {
        let mut out = [0.0; FLOAT_LANES];
        unsafe {
            _mm256_storeu_pd(out.as_mut_ptr(), v[0]);
            _mm256_storeu_pd(out.as_mut_ptr().add(4), v[1]);
        }
        out
    }
}
