//! Elementary functions, in a form that the compiler turns into vector code of any width with the same bits.

/// Adding this to the bits of a number carries into the exponent where the mantissa is past the square root of 2.
const CARRY: u64 = (1023 << 52) - 0x3fe6_a09e_667f_3bcd;
const ONE: u64 = 1023 << 52;
/// 2^52: its mantissa holds an integer as it is.
const INTEGER: f64 = 4_503_599_627_370_496.0;
/// 1.5 · 2^52: what is added to it is rounded to an integer, which its last bits then hold.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts, the first of so few bits that its products with exponents are exact; as FreeBSD's e_exp.c has it.
const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// Below this, an exponential is 0.
const LOWEST: f64 = -746.0;
/// Exponents are moved by so much, so that results below the smallest normal number come out right, too.
const LIFT: u64 = 64;

/// `ln x` of a positive normal `x`, to about a unit in the last place of the larger of the result and 1; for any other
/// number something finite.
#[inline(always)]
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    // x = m * 2^(e - 1023) with m from √½ to √2.
    let e = bits.wrapping_add(CARRY) >> 52;
    let m = f64::from_bits(bits.wrapping_sub(e << 52).wrapping_add(ONE));
    let exponent = f64::from_bits(INTEGER.to_bits() | e) - (INTEGER + 1023.0);
    // ln m = 2 artanh s = 2 s + s R(s²), R as in FreeBSD's e_log.c, which is off by less than 2^-58 here. In two halves,
    // so that one need not wait for the other.
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let w = z * z;
    let odd = w * (3.999_999_999_940_942e-1 + w * (2.222_219_843_214_978_4e-1 + w * 1.531_383_769_920_937_3e-1));
    let even = z
        * (6.666_666_666_666_735e-1
            + w * (2.857_142_874_366_239e-1 + w * (1.818_357_216_161_805e-1 + w * 1.479_819_860_511_658_6e-1)));
    exponent * std::f64::consts::LN_2 + (2.0 * s + s * (odd + even))
}

/// `e^x` of a number up to 600, to about a unit in the last place; 0 for NaN.
#[inline(always)]
pub(crate) fn exp(x: f64) -> f64 {
    let x = if x > LOWEST { x } else { LOWEST };
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
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
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(1023 + LIFT);
    mantissa * f64::from_bits(exponent << 52) * (1.0 / (1u128 << LIFT) as f64)
}

/// `ln(1 + x)` of a number from 0 to 1.
#[inline(always)]
pub(crate) fn ln_1p(x: f64) -> f64 {
    let sum = 1.0 + x;
    // What the sum has lost is so little that a straight line tells what the logarithm lost by it.
    ln(sum) + (x - (sum - 1.0)) / sum
}

#[cfg(test)]
mod tests {
    use super::{exp, ln, ln_1p};

    #[test]
    fn is_the_logarithm() {
        for i in 1..200_000 {
            for x in [f64::from(i) / 100_000.0, f64::from(i) * 1e-40, f64::from(i) * 1e30, 1.0 + f64::from(i) * 1e-12] {
                assert!((ln(x) - x.ln()).abs() <= 3e-16 * x.ln().abs().max(1.0), "{x}: {} {}", ln(x), x.ln());
            }
        }
    }

    #[test]
    fn the_logarithm_of_anything_else_is_finite() {
        for x in [0.0, -0.0, -1.0, -1e300, -1e-300] {
            assert!(ln(x).is_finite(), "{x}");
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn is_the_exponential() {
        for i in 0..400_000 {
            for x in [-1e-6, -1.77e-3, -1e-14, 4e-5, 1.5e-3].map(|step| f64::from(i) * step) {
                assert!((exp(x) - x.exp()).abs() <= 4e-16 * x.exp(), "{x}: {} {}", exp(x), x.exp());
            }
        }
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn the_exponential_ends_at_zero() {
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
