//! The natural logarithm, in a form that the compiler turns into vector code of any width with the same bits.

/// Adding this to the bits of a number carries into the exponent where the mantissa is past the square root of 2.
const CARRY: u64 = (1023 << 52) - 0x3fe6_a09e_667f_3bcd;
const ONE: u64 = 1023 << 52;
/// 2^52: its mantissa holds an integer as it is.
const SHIFT: f64 = 4_503_599_627_370_496.0;

/// `ln x` of a positive normal `x`, to about a unit in the last place of the larger of the result and 1; for any other
/// number something finite.
#[inline(always)]
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    // x = m * 2^(e - 1023) with m from √½ to √2.
    let e = bits.wrapping_add(CARRY) >> 52;
    let m = f64::from_bits(bits.wrapping_sub(e << 52).wrapping_add(ONE));
    let exponent = f64::from_bits(SHIFT.to_bits() | e) - (SHIFT + 1023.0);
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

#[cfg(test)]
mod tests {
    use super::ln;

    #[test]
    fn is_the_logarithm() {
        for i in 1..200_000 {
            for x in [f64::from(i) / 100_000.0, f64::from(i) * 1e-40, f64::from(i) * 1e30, 1.0 + f64::from(i) * 1e-12] {
                assert!((ln(x) - x.ln()).abs() <= 3e-16 * x.ln().abs().max(1.0), "{x}: {} {}", ln(x), x.ln());
            }
        }
    }

    #[test]
    fn anything_else_is_finite() {
        for x in [0.0, -0.0, -1.0, -1e300, -1e-300] {
            assert!(ln(x).is_finite(), "{x}");
        }
        assert_eq!(ln(1.0), 0.0);
    }
}
