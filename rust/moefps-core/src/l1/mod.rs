//! The L1 kernel: sums of absolute differences of feature vectors, written once and compiled for every instruction set.
//!
//! Fixed-point features use Σ|a-b| = 2 Σmax(a,b) - Σa - Σb: a maximum and an addition a lane, in integers, so the
//! result is exact whatever the order. Float features are added up in eight lanes in one fixed order, whatever the
//! width of the machine's vectors. Either way every instruction set gives the same bits.
//!
//! [`lanes::Lanes`] is what an instruction set has to offer, one file each; [`tile`] is the arithmetic over it;
//! [`Simd`] picks one at run time.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
pub(crate) mod tile;

use crate::{Error, Result};

/// Forces a lower instruction set than the machine has.
pub const SIMD_VARIABLE: &str = "MOEFPS_SIMD";

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simd {
    /// Plain Rust.
    Scalar,
    /// x86-64 with AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 64-bit Arm.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Simd {
    /// What this machine has, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut available = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") {
                available.push(Self::Avx2);
            }
            if std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512dq")
                && std::arch::is_x86_feature_detected!("avx512vl")
            {
                available.push(Self::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        available.push(Self::Neon);
        available
    }

    /// The name that [`SIMD_VARIABLE`] takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
        }
    }

    /// The fastest available, or the one that the environment asks for.
    ///
    /// # Errors
    /// The environment names one that this machine lacks.
    pub fn choose() -> Result<Self> {
        let available = Self::available();
        match std::env::var(SIMD_VARIABLE) {
            Ok(wanted) if !wanted.is_empty() => {
                available.iter().copied().find(|simd| simd.name() == wanted).ok_or_else(|| {
                    let names: Vec<_> = available.iter().map(|simd| simd.name()).collect();
                    Error::Argument(format!("{SIMD_VARIABLE}: {wanted:?}; accepted here: {}", names.join(", ")))
                })
            }
            _ => Ok(available.last().copied().unwrap_or(Self::Scalar)),
        }
    }

    /// 32-bit lanes of a vector.
    pub(crate) fn lanes(self) -> usize {
        use lanes::Lanes;
        match self {
            Self::Scalar => scalar::Scalar::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::Avx512::LANES,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::Neon::LANES,
        }
    }
}

/// Defines `pub(crate) fn $name($simd, $args…)`, which runs the generic `$body::<L>` of the same arguments compiled
/// for the instruction set `$simd`. One such function is one crossing from portable code into vector code, so what is
/// inside should be worth a call.
macro_rules! for_each_simd {
    ($(#[$doc:meta])* $vis:vis fn $name:ident $(<$($g:ident : $bound:path),+>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;) => {
        $(#[$doc])*
        $vis fn $name $(<$($g: $bound),+>)? (simd: $crate::l1::Simd, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2 $(<$($g: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function has the features that the lanes need.
                unsafe { $body($crate::l1::lanes::AVX2, $($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512 $(<$($g: $bound),+>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function has the features that the lanes need.
                unsafe { $body($crate::l1::lanes::AVX512, $($arg),*) }
            }
            match simd {
                // SAFETY: plain Rust needs no feature.
                $crate::l1::Simd::Scalar => unsafe { $body($crate::l1::lanes::SCALAR, $($arg),*) },
                // SAFETY: a `Simd` value exists only for what the machine has.
                #[cfg(target_arch = "x86_64")]
                $crate::l1::Simd::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::l1::Simd::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: every 64-bit Arm processor that Rust targets has NEON.
                #[cfg(target_arch = "aarch64")]
                $crate::l1::Simd::Neon => unsafe { $body($crate::l1::lanes::NEON, $($arg),*) },
            }
        }
    };
}
pub(crate) use for_each_simd;

/// Asks for the first cache lines of a row ahead of their use; from there on the processor sees where it goes.
#[inline(always)]
pub(crate) fn prefetch<T>(row: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..PREFETCHED_LINES.min(size_of_val(row) / 64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing; the address is inside the row.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().cast::<i8>().add(line * 64)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// Cache lines that [`prefetch`] asks for.
#[cfg(target_arch = "x86_64")]
const PREFETCHED_LINES: usize = 8;
