//! The exponential, in a form that the compiler turns into vector code of any width with the same bits.

use crate::count::ln::ln;

/// 1.5 · 2^52: what is added to it is rounded to an integer, which its last bits then hold.
const SHIFT: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts, the first of so few bits that its products with exponents are exact; as FreeBSD's e_exp.c has it.
const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// Below this, the result is 0.
const LOWEST: f64 = -746.0;
/// Exponents are moved by so much, so that results below the smallest normal number come out right, too.
const LIFT: u64 = 64;

/// `e^x` of a number that is not positive, to about a unit in the last place; 0 for NaN.
#[inline(always)]
pub(super) fn exp(x: f64) -> f64 {
    let x = if x > LOWEST { x } else { LOWEST };
    let shifted = x * std::f64::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    // e^x = 2^n e^r with |r| up to ln √2, where Taylor's series is off by less than 2^-57 after 13 terms. In two halves,
    // so that one need not wait for the other.
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let z = r * r;
    let even = 1.0 / 2.0
        + z * (1.0 / 24.0
            + z * (1.0 / 720.0 + z * (1.0 / 40_320.0 + z * (1.0 / 3_628_800.0 + z * (1.0 / 479_001_600.0)))));
    let odd = 1.0 / 6.0
        + z * (1.0 / 120.0
            + z * (1.0 / 5_040.0 + z * (1.0 / 362_880.0 + z * (1.0 / 39_916_800.0 + z * (1.0 / 6_227_020_800.0)))));
    let mantissa = 1.0 + (r + z * (even + r * odd));
    let exponent = shifted.to_bits().wrapping_sub(SHIFT.to_bits()).wrapping_add(1023 + LIFT);
    mantissa * f64::from_bits(exponent << 52) * (1.0 / (1u128 << LIFT) as f64)
}

/// `ln(1 + x)` of a number from 0 to 1.
#[inline(always)]
pub(super) fn ln_1p(x: f64) -> f64 {
    let sum = 1.0 + x;
    // What the sum has lost is so little that a straight line tells what the logarithm lost by it.
    ln(sum) + (x - (sum - 1.0)) / sum
}

#[cfg(test)]
mod tests {
    use super::{exp, ln_1p};

    #[test]
    fn is_the_exponential() {
        for i in 0..400_000 {
            for x in [f64::from(i) * -1e-6, f64::from(i) * -1.77e-3, f64::from(i) * -1e-14] {
                assert!((exp(x) - x.exp()).abs() <= 4e-16 * x.exp(), "{x}: {} {}", exp(x), x.exp());
            }
        }
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn ends_at_zero() {
        for i in 0..40_000 {
            let x = f64::from(i).mul_add(-1e-3, -707.0);
            // Half a unit of the smallest numbers rounds to one.
            assert!((exp(x) - x.exp()).abs() <= 4e-16 * x.exp() + 5e-324, "{x}: {} {}", exp(x), x.exp());
        }
        for x in [-747.0, -1e300, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(exp(x), 0.0, "{x}");
        }
    }

    #[test]
    fn is_the_logarithm_near_one() {
        for i in 0..=100_000 {
            for x in [f64::from(i) / 100_000.0, f64::from(i) * 1e-20, f64::from(i) * 1e-12] {
                assert!((ln_1p(x) - x.ln_1p()).abs() <= 1e-15 * x.ln_1p(), "{x}: {} {}", ln_1p(x), x.ln_1p());
            }
        }
    }
}
