//! Plain Rust, which the compiler vectorises as far as the baseline of the target allows.

use super::lanes::{FLOAT_LANES, Lanes};

#[derive(Clone, Copy)]
pub(crate) struct Scalar;

impl Lanes for Scalar {
    const LANES: usize = 4;
    type Ints = [u32; 4];
    type Sums = [u64; 4];
    type Floats = [f64; FLOAT_LANES];

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self::Ints {
        // SAFETY: the caller's pointer is good for a vector.
        unsafe { from.cast::<[u32; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u32, v: Self::Ints) {
        // SAFETY: the caller's pointer is good for a vector.
        unsafe { to.cast::<[u32; 4]>().write(v) }
    }
    #[inline(always)]
    unsafe fn splat(v: u32) -> Self::Ints {
        [v; 4]
    }
    #[inline(always)]
    unsafe fn max(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        std::array::from_fn(|i| a[i].max(b[i]))
    }
    #[inline(always)]
    unsafe fn add(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn shift_right<const BITS: u32>(a: Self::Ints) -> Self::Ints {
        std::array::from_fn(|i| a[i] >> BITS)
    }
    #[inline(always)]
    unsafe fn count_equal(count: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        std::array::from_fn(|i| count[i] + u32::from(a[i] == b[i]))
    }
    #[inline(always)]
    unsafe fn difference(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        std::array::from_fn(|i| a[i].abs_diff(b[i]))
    }

    #[inline(always)]
    unsafe fn no_sums() -> Self::Sums {
        [0; 4]
    }
    #[inline(always)]
    unsafe fn widen(sums: Self::Sums, v: Self::Ints) -> Self::Sums {
        std::array::from_fn(|i| sums[i] + u64::from(v[i]))
    }
    #[inline(always)]
    unsafe fn total(sums: Self::Sums) -> u64 {
        sums.iter().sum()
    }

    #[inline(always)]
    unsafe fn add_byte_differences(mut sums: Self::Sums, a: *const u8, b: *const u8) -> Self::Sums {
        // SAFETY: the caller's pointers are good for 16 bytes.
        let (a, b) = unsafe { (a.cast::<[u8; 16]>().read(), b.cast::<[u8; 16]>().read()) };
        for (i, (&a, b)) in a.iter().zip(b).enumerate() {
            sums[i / 8] += u64::from(a.abs_diff(b));
        }
        sums
    }
    #[inline(always)]
    unsafe fn total_bytes(sums: Self::Sums) -> u64 {
        sums[0] + sums[1]
    }
    #[inline(always)]
    unsafe fn store_byte_sums(to: *mut u64, sums: Self::Sums) {
        // SAFETY: the caller's pointer is good for two sums.
        unsafe { to.cast::<[u64; 2]>().write([sums[0], sums[1]]) }
    }

    #[inline(always)]
    unsafe fn no_floats() -> Self::Floats {
        [0.0; FLOAT_LANES]
    }
    #[inline(always)]
    unsafe fn load_floats(from: *const f64) -> Self::Floats {
        // SAFETY: the caller's pointer is good for a vector.
        unsafe { from.cast::<[f64; FLOAT_LANES]>().read() }
    }
    #[inline(always)]
    unsafe fn add_difference(sum: Self::Floats, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        std::array::from_fn(|i| sum[i] + (a[i] - b[i]).abs())
    }
    #[inline(always)]
    unsafe fn floats(v: Self::Floats) -> [f64; FLOAT_LANES] {
        v
    }
}
