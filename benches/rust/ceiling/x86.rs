//! AVX2 and AVX-512.

use std::arch::x86_64::*;

use crate::step::{pass, step};
use crate::{Kind, Place};

step!(
    /// Σ|a-b| is 2 Σmax(a,b) - Σa - Σb, of which only the maxima have to be added for every pair.
    MaxU32x8: [u32; 8] in __m256i, "avx2", ymm_reg, _mm256_loadu_si256,
    |sum, a, b| _mm256_add_epi32(sum, _mm256_max_epu32(a, b))
);
step!(
    /// A difference, its absolute value, a sum.
    DifferenceF32x8: [f32; 8] in __m256, "avx2", ymm_reg, _mm256_loadu_ps,
    |sum, a, b| _mm256_add_ps(sum, _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_sub_ps(a, b)))
);
step!(
    /// As above.
    DifferenceF64x4: [f64; 4] in __m256d, "avx2", ymm_reg, _mm256_loadu_pd,
    |sum, a, b| _mm256_add_pd(sum, _mm256_andnot_pd(_mm256_set1_pd(-0.0), _mm256_sub_pd(a, b)))
);
step!(
    /// See [`MaxU32x8`].
    MaxU32x16: [u32; 16] in __m512i, "avx512f", zmm_reg, _mm512_loadu_si512,
    |sum, a, b| _mm512_add_epi32(sum, _mm512_max_epu32(a, b))
);
step!(
    /// See [`DifferenceF32x8`].
    DifferenceF32x16: [f32; 16] in __m512, "avx512f", zmm_reg, _mm512_loadu_ps,
    |sum, a, b| _mm512_add_ps(sum, _mm512_abs_ps(_mm512_sub_ps(a, b)))
);
step!(
    /// See [`DifferenceF32x8`].
    DifferenceF64x8: [f64; 8] in __m512d, "avx512f", zmm_reg, _mm512_loadu_pd,
    |sum, a, b| _mm512_add_pd(sum, _mm512_abs_pd(_mm512_sub_pd(a, b)))
);

pub(crate) fn avx2(kind: Kind, place: Place, data: &[u8]) -> usize {
    #[target_feature(enable = "avx2")]
    fn run(kind: Kind, place: Place, data: &[u8]) -> usize {
        // SAFETY: this function has the instruction set.
        unsafe {
            match kind {
                Kind::MaxU32 => pass::<MaxU32x8>(place, data),
                Kind::DifferenceF32 => pass::<DifferenceF32x8>(place, data),
                Kind::DifferenceF64 => pass::<DifferenceF64x4>(place, data),
            }
        }
    }
    // SAFETY: called for a machine that has AVX2.
    unsafe { run(kind, place, data) }
}

pub(crate) fn avx512(kind: Kind, place: Place, data: &[u8]) -> usize {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn run(kind: Kind, place: Place, data: &[u8]) -> usize {
        // SAFETY: this function has the instruction set.
        unsafe {
            match kind {
                Kind::MaxU32 => pass::<MaxU32x16>(place, data),
                Kind::DifferenceF32 => pass::<DifferenceF32x16>(place, data),
                Kind::DifferenceF64 => pass::<DifferenceF64x8>(place, data),
            }
        }
    }
    // SAFETY: called for a machine that has AVX-512.
    unsafe { run(kind, place, data) }
}
