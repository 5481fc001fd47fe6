//! NEON, which every 64-bit Arm processor has.

use std::arch::aarch64::*;

use super::lanes::{FLOAT_LANES, Lanes};

#[derive(Clone, Copy)]
pub(crate) struct Neon;

// SAFETY throughout: the trait's contract gives the instruction set and pointers that are good for a vector.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Neon {
    const LANES: usize = 4;
    type Ints = uint32x4_t;
    type Sums = uint64x2_t;
    type Floats = [float64x2_t; 4];

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self::Ints {
        unsafe { vld1q_u32(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u32, v: Self::Ints) {
        unsafe { vst1q_u32(to, v) }
    }
    #[inline(always)]
    unsafe fn splat(v: u32) -> Self::Ints {
        unsafe { vdupq_n_u32(v) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { vmaxq_u32(a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { vaddq_u32(a, b) }
    }
    #[inline(always)]
    unsafe fn shift_right<const BITS: u32>(a: Self::Ints) -> Self::Ints {
        unsafe { vshlq_u32(a, vdupq_n_s32(-BITS.cast_signed())) }
    }
    #[inline(always)]
    unsafe fn count_equal(count: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { vsubq_u32(count, vceqq_u32(a, b)) }
    }
    #[inline(always)]
    unsafe fn difference(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { vabdq_u32(a, b) }
    }

    #[inline(always)]
    unsafe fn no_sums() -> Self::Sums {
        unsafe { vdupq_n_u64(0) }
    }
    #[inline(always)]
    unsafe fn widen(sums: Self::Sums, v: Self::Ints) -> Self::Sums {
        unsafe { vpadalq_u32(sums, v) }
    }
    #[inline(always)]
    unsafe fn total(sums: Self::Sums) -> u64 {
        unsafe { vaddvq_u64(sums) }
    }

    #[inline(always)]
    unsafe fn add_byte_differences(sums: Self::Sums, a: *const u8, b: *const u8) -> Self::Sums {
        unsafe {
            let d = vabdq_u8(vld1q_u8(a), vld1q_u8(b));
            vpadalq_u32(sums, vpaddlq_u16(vpaddlq_u8(d)))
        }
    }
    #[inline(always)]
    unsafe fn total_bytes(sums: Self::Sums) -> u64 {
        unsafe { vaddvq_u64(sums) }
    }
    #[inline(always)]
    unsafe fn store_byte_sums(to: *mut u64, sums: Self::Sums) {
        unsafe { vst1q_u64(to, sums) }
    }

    #[inline(always)]
    unsafe fn no_floats() -> Self::Floats {
        unsafe { [vdupq_n_f64(0.0); 4] }
    }
    #[inline(always)]
    unsafe fn load_floats(from: *const f64) -> Self::Floats {
        unsafe { [vld1q_f64(from), vld1q_f64(from.add(2)), vld1q_f64(from.add(4)), vld1q_f64(from.add(6))] }
    }
    #[inline(always)]
    unsafe fn add_difference(sum: Self::Floats, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        unsafe {
            [
                vaddq_f64(sum[0], vabdq_f64(a[0], b[0])),
                vaddq_f64(sum[1], vabdq_f64(a[1], b[1])),
                vaddq_f64(sum[2], vabdq_f64(a[2], b[2])),
                vaddq_f64(sum[3], vabdq_f64(a[3], b[3])),
            ]
        }
    }
    #[inline(always)]
    unsafe fn floats(v: Self::Floats) -> [f64; FLOAT_LANES] {
        let mut out = [0.0; FLOAT_LANES];
        unsafe {
            vst1q_f64(out.as_mut_ptr(), v[0]);
            vst1q_f64(out.as_mut_ptr().add(2), v[1]);
            vst1q_f64(out.as_mut_ptr().add(4), v[2]);
            vst1q_f64(out.as_mut_ptr().add(6), v[3]);
        }
        out
    }
}
