//! What the kernels ask of an instruction set.

#[cfg(target_arch = "x86_64")]
pub(crate) use super::avx2::Avx2 as Avx2Lanes;
#[cfg(target_arch = "x86_64")]
pub(crate) use super::avx512::Avx512 as Avx512Lanes;
#[cfg(target_arch = "aarch64")]
pub(crate) use super::neon::Neon as NeonLanes;
pub(crate) use super::scalar::Scalar as ScalarLanes;

/// The plain implementation.
pub(crate) const SCALAR: ScalarLanes = ScalarLanes;
/// The AVX2 implementation.
#[cfg(target_arch = "x86_64")]
pub(crate) const AVX2: Avx2Lanes = Avx2Lanes;
/// The AVX-512 implementation.
#[cfg(target_arch = "x86_64")]
pub(crate) const AVX512: Avx512Lanes = Avx512Lanes;
/// The NEON implementation.
#[cfg(target_arch = "aarch64")]
pub(crate) const NEON: NeonLanes = NeonLanes;

/// Lanes of the float kernel, on every machine.
pub(crate) const FLOAT_LANES: usize = 8;

/// Vector types and the operations on them. Integer arithmetic wraps.
///
/// # Safety
/// Every method needs the instruction set that the type is named after, and pointers that are good for a whole vector
/// (`LANES` integers, `FLOAT_LANES` floats, `4 * LANES` bytes). They are inlined into functions compiled for that instruction set.
pub(crate) trait Lanes: Copy {
    /// 32-bit lanes of a vector.
    const LANES: usize;
    /// A vector of 32-bit unsigned integers.
    type Ints: Copy;
    /// 64-bit sums of many `Ints`.
    type Sums: Copy;
    /// `FLOAT_LANES` float64 lanes.
    type Floats: Copy;

    unsafe fn load(from: *const u32) -> Self::Ints;
    unsafe fn store(to: *mut u32, v: Self::Ints);
    unsafe fn splat(v: u32) -> Self::Ints;
    unsafe fn max(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    unsafe fn add(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    unsafe fn shift_right<const BITS: u32>(a: Self::Ints) -> Self::Ints;
    /// `count + 1` in the lanes where `a == b`, `count` in the others.
    unsafe fn count_equal(count: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `|a - b|`
    unsafe fn difference(a: Self::Ints, b: Self::Ints) -> Self::Ints;

    unsafe fn no_sums() -> Self::Sums;
    /// Adds every lane of `v` to the sums.
    unsafe fn widen(sums: Self::Sums, v: Self::Ints) -> Self::Sums;
    /// The sum of all that was added.
    unsafe fn total(sums: Self::Sums) -> u64;

    /// Adds `|a - b|` of `4 * LANES` bytes to the sums, eight to each of the first `LANES / 2`.
    unsafe fn add_byte_differences(sums: Self::Sums, a: *const u8, b: *const u8) -> Self::Sums;
    /// The sum of all byte differences that were added.
    unsafe fn total_bytes(sums: Self::Sums) -> u64;
    /// Writes `LANES / 2` sums of byte differences.
    unsafe fn store_byte_sums(to: *mut u64, sums: Self::Sums);

    unsafe fn no_floats() -> Self::Floats;
    unsafe fn load_floats(from: *const f64) -> Self::Floats;
    /// `sum + |a - b|`, rounded after the subtraction and after the addition.
    unsafe fn add_difference(sum: Self::Floats, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn floats(v: Self::Floats) -> [f64; FLOAT_LANES];
}
