//! NEON.

use std::arch::aarch64::*;

use crate::step::{pass, step};
use crate::{Kind, Place};

step!(
    /// Σ|a-b| is 2 Σmax(a,b) - Σa - Σb, of which only the maxima have to be added for every pair.
    MaxU32x4: [u32; 4] in uint32x4_t, "neon", vreg, vld1q_u32,
    |sum, a, b| vaddq_u32(sum, vmaxq_u32(a, b))
);
step!(
    /// An absolute difference and a sum.
    DifferenceF32x4: [f32; 4] in float32x4_t, "neon", vreg, vld1q_f32,
    |sum, a, b| vaddq_f32(sum, vabdq_f32(a, b))
);
step!(
    /// As above.
    DifferenceF64x2: [f64; 2] in float64x2_t, "neon", vreg, vld1q_f64,
    |sum, a, b| vaddq_f64(sum, vabdq_f64(a, b))
);

pub(crate) fn neon(kind: Kind, place: Place, data: &[u8]) -> usize {
    // SAFETY: every 64-bit Arm processor that Rust targets has NEON.
    unsafe {
        match kind {
            Kind::MaxU32 => pass::<MaxU32x4>(place, data),
            Kind::DifferenceF32 => pass::<DifferenceF32x4>(place, data),
            Kind::DifferenceF64 => pass::<DifferenceF64x2>(place, data),
        }
    }
}
