//! How fast this machine could add up |a - b| at best, whatever the program: the bound that the kernels are held
//! against.
//!
//! Independent of the crate's own kernels, which it only asks for the instruction set. For each kind of number, the
//! same loop over a register tile of 4 x 2 vectors runs with its operands
//!
//! - in registers: arithmetic and nothing else, the bound of any program that does this arithmetic;
//! - in the L1 cache: each vector loaded, as a kernel over real data must;
//! - in memory: one row against rows of an array larger than the caches, the bound of a pass over all samples.
//!
//! `ceiling [--threads N] [--milliseconds T]` prints one line of JSON for each of them.

#[cfg(target_arch = "aarch64")]
mod arm;
mod step;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use moefps_core::l1::Simd;

/// Bytes of the array in memory, shared by all threads. Larger than the caches of most machines.
const MEMORY: usize = 256 << 20;

/// Bytes of a row: seven of them leave room in an L1 cache of 32 KiB.
pub(crate) const ROW: usize = 4096;

/// Passes between two looks at the clock.
const PASSES: usize = 64;

/// Where the operands are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing is loaded.
    Registers,
    /// Six rows, time and again.
    L1,
    /// One row of six against many, once each.
    Memory,
}

/// What is added up, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The maximum of two 32-bit integers, as the fixed-point kernel does.
    MaxU32,
    /// The absolute difference of two 32-bit floats.
    DifferenceF32,
    /// The absolute difference of two 64-bit floats.
    DifferenceF64,
}

/// Runs one pass over `data` and returns its elements; `None` where there is no such code for this machine.
pub(crate) fn pass(simd: Simd, kind: Kind, place: Place, data: &[u8]) -> Option<usize> {
    match simd {
        #[cfg(target_arch = "x86_64")]
        Simd::Avx512 => Some(x86::avx512(kind, place, data)),
        #[cfg(target_arch = "x86_64")]
        Simd::Avx2 => Some(x86::avx2(kind, place, data)),
        #[cfg(target_arch = "aarch64")]
        Simd::Neon => Some(arm::neon(kind, place, data)),
        Simd::Scalar => None,
    }
}

/// Elements that all `threads` together get through in a second.
fn rate(simd: Simd, kind: Kind, place: Place, threads: usize, time: Duration, memory: &[u8]) -> Option<f64> {
    let barrier = Barrier::new(threads);
    let share = memory.len() / threads / ROW * ROW;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, part) = (&barrier, &memory[thread * share..(thread + 1) * share]);
                scope.spawn(move || {
                    let near = vec![1; 8 * ROW];
                    let data = if place == Place::Memory { part } else { &near[..] };
                    let passes = if place == Place::Memory { 1 } else { PASSES };
                    barrier.wait();
                    // What comes first finds cold caches and a slow clock.
                    let warm_up = Instant::now();
                    while warm_up.elapsed() < time / 4 {
                        pass(simd, kind, place, black_box(data))?;
                    }
                    let (start, mut elements) = (Instant::now(), 0);
                    while start.elapsed() < time {
                        for _ in 0..passes {
                            elements += pass(simd, kind, place, black_box(data))?;
                        }
                    }
                    Some(elements as f64 / start.elapsed().as_secs_f64())
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().ok().flatten()).sum()
    })
}

fn argument(name: &str, default: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|a| a != name).skip(1);
    arguments.next().map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}: {value:?} is no number")))
}

fn main() {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = argument("--threads", cores);
    let time = Duration::from_millis(argument("--milliseconds", 200) as u64);
    let simd = Simd::choose().unwrap_or_else(|error| panic!("{error}"));
    let memory = vec![1u8; MEMORY];
    for (kind, name) in [(Kind::MaxU32, "max_u32"), (Kind::DifferenceF32, "f32"), (Kind::DifferenceF64, "f64")] {
        for (place, at) in [(Place::Registers, "registers"), (Place::L1, "l1"), (Place::Memory, "memory")] {
            if let Some(rate) = rate(simd, kind, place, threads, time, &memory) {
                println!(
                    r#"{{"kind": "{name}", "place": "{at}", "simd": "{}", "threads": {threads}, "elements_per_second": {rate:.4e}}}"#,
                    simd.name()
                );
            }
        }
    }
}
