//! The loops, over the vectors of any instruction set.

use std::hint::black_box;

use crate::{Place, ROW};

/// Vectors on the left of a register tile, and on its right.
const LEFT: usize = 4;
const RIGHT: usize = 2;

/// Turns of the loop over registers.
const TURNS: usize = 4096;

/// Adds |a - b|, or what stands for it, to a sum, lane by lane.
///
/// # Safety
/// Every method needs the instruction set of the type, and pointers that are good for a vector.
pub(crate) trait Step {
    /// Numbers in a vector.
    const LANES: usize;
    /// A vector.
    type Vector: Copy;

    unsafe fn load(from: *const u8) -> Self::Vector;
    /// The same vector, of which the compiler no longer knows what is in it. Costs no instruction.
    unsafe fn unknown(v: Self::Vector) -> Self::Vector;
    unsafe fn add(sum: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector;
}

/// One pass, and how many elements it took in.
///
/// # Safety
/// The instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn pass<S: Step>(place: Place, data: &[u8]) -> usize {
    assert!(data.len() >= 8 * ROW);
    // SAFETY: all loads are from the first eight rows, or from whole rows of `data`.
    unsafe {
        match place {
            Place::Registers => registers::<S>(data),
            Place::L1 => l1::<S>(data),
            Place::Memory => memory::<S>(data),
        }
    }
}

/// Every left vector with every right one: eight sums in a row that do not wait for one another.
#[inline(always)]
unsafe fn add_all<S: Step>(sums: &mut [[S::Vector; RIGHT]; LEFT], a: [S::Vector; LEFT], b: [S::Vector; RIGHT]) {
    for (sums, a) in sums.iter_mut().zip(a) {
        for (sum, b) in sums.iter_mut().zip(b) {
            // SAFETY: the caller has the instruction set.
            *sum = unsafe { S::add(*sum, a, b) };
        }
    }
}

#[inline(always)]
unsafe fn registers<S: Step>(data: &[u8]) -> usize {
    // SAFETY: see `pass`.
    unsafe {
        let first = S::load(data.as_ptr());
        let (mut sums, mut a, b) = ([[first; RIGHT]; LEFT], [first; LEFT], [first; RIGHT]);
        let b = b.map(|b| S::unknown(b));
        for _ in 0..TURNS {
            // Else the compiler would compute the differences once, before the loop.
            a = a.map(|a| S::unknown(a));
            add_all::<S>(&mut sums, a, b);
        }
        black_box(sums);
    }
    TURNS * LEFT * RIGHT * S::LANES
}

#[inline(always)]
unsafe fn l1<S: Step>(data: &[u8]) -> usize {
    let row = |i: usize| data[i * ROW..].as_ptr();
    let vector = size_of::<S::Vector>();
    // SAFETY: see `pass`.
    unsafe {
        let mut sums = [[S::load(row(0)); RIGHT]; LEFT];
        for at in (0..ROW).step_by(vector) {
            let a: [S::Vector; LEFT] = std::array::from_fn(|i| S::load(row(i).add(at)));
            let b: [S::Vector; RIGHT] = std::array::from_fn(|j| S::load(row(LEFT + j).add(at)));
            add_all::<S>(&mut sums, a, b);
        }
        black_box(sums);
    }
    ROW / vector * LEFT * RIGHT * S::LANES
}

#[inline(always)]
unsafe fn memory<S: Step>(data: &[u8]) -> usize {
    let vector = size_of::<S::Vector>();
    let (one, many) = data.split_at(ROW);
    let mut rows = 0;
    // SAFETY: see `pass`.
    unsafe {
        let mut sums = [S::load(one.as_ptr()); LEFT];
        for row in many.chunks_exact(ROW) {
            for at in (0..ROW).step_by(LEFT * vector) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let at = at + i * vector;
                    *sum = S::add(*sum, S::load(one.as_ptr().add(at)), S::load(row.as_ptr().add(at)));
                }
            }
            rows += 1;
        }
        black_box(sums);
    }
    rows * (ROW / vector) * S::LANES
}

/// Defines a [`Step`].
macro_rules! step {
    ($(#[$doc:meta])* $name:ident: [$lane:ty; $lanes:literal] in $vector:ty, $features:literal, $register:ident, $load:ident, |$sum:ident, $a:ident, $b:ident| $add:expr) => {
        $(#[$doc])*
        pub(crate) struct $name;

        // SAFETY throughout: the trait's contract gives the instruction set and the pointers.
        #[allow(clippy::undocumented_unsafe_blocks)]
        impl $crate::step::Step for $name {
            const LANES: usize = $lanes;
            type Vector = $vector;

            #[inline(always)]
            unsafe fn load(from: *const u8) -> $vector {
                unsafe { $load(from.cast()) }
            }
            // Assembly wants the instruction set here, which does not go with `inline(always)`.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn unknown(mut v: $vector) -> $vector {
                unsafe {
                    std::arch::asm!("/* {0} */", inout($register) v, options(nomem, nostack, preserves_flags));
                }
                v
            }
            #[inline(always)]
            unsafe fn add($sum: $vector, $a: $vector, $b: $vector) -> $vector {
                unsafe { $add }
            }
        }
    };
}
pub(crate) use step;
