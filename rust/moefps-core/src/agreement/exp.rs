//! The exponential, in a form that the compiler turns into vector code of any width with the same bits.

use std::f64::consts::{LN_2, LOG2_E};

/// 1.5 · 2^52: the last bits of a number that this is added to are the nearest integer to it.
const SHIFT: f64 = 6_755_399_441_055_744.0;
/// ln 2 without its last 21 bits, so that a small multiple of it is exact, and the rest.
const LN_2_HIGH: f64 = f64::from_bits(LN_2.to_bits() & !0x1f_ffff);
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// `e^x` of an `x` from 0 to 700, to about two units in the last place.
#[inline(always)]
pub(super) fn exp(x: f64) -> f64 {
    let shifted = x * LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    // From -½ ln 2 to ½ ln 2, where thirteen terms of the series leave out less than 2^-56.
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut sum = 1.0 / 6_227_020_800.0;
    for factorial in [479_001_600.0, 39_916_800.0, 3_628_800.0, 362_880.0, 40_320.0, 5040.0, 720.0, 120.0, 24.0, 6.0] {
        sum = sum * r + 1.0 / factorial;
    }
    let series = 1.0 + (r + r * r * (0.5 + r * sum));
    series * f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_ln_2_are_its_own() {
        // ln 2 has more digits than a double: this is what is past them.
        assert!((LN_2_HIGH + LN_2_LOW - LN_2).abs() < 2e-16);
        assert!((LN_2 - LN_2_HIGH - LN_2_LOW).abs() < 1e-16);
    }

    #[test]
    fn is_the_exponential() {
        assert_eq!(exp(0.0), 1.0);
        for i in 0..300_000 {
            let x = f64::from(i) * 4e-5;
            assert!((exp(x) / x.exp() - 1.0).abs() <= 5e-16, "{x}: {} {}", exp(x), x.exp());
        }
    }
}
