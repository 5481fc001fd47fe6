//! The kernels, each alone: ground metrics, the matrix, selection with and without a matrix.
//!
//! Every kernel runs with each instruction set that the machine has, on one thread; what scales with threads runs on
//! all cores, too. Throughput is in elements: numbers turned into features for a ground metric, |a - b| added up for
//! the matrix.

mod planted;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput};
use moefps_core::fps::fps;
use moefps_core::ground::{Ground, Metric, Reduce};
use moefps_core::l1::{SIMD_VARIABLE, Simd};
use moefps_core::matrix::{Arithmetic, Pairs, matrix};
use moefps_core::output::Memory;
use moefps_core::sample::{Samples, Values};
use moefps_core::select::select;
use moefps_core::start::{Goal, Start};
use moefps_core::sum::{Precision, mean_distances};
use moefps_core::task::Task;
use ndarray::{Array2, Array3};

use planted::planted;

/// Layers and experts of the fingerprints.
const SHAPE: (usize, usize) = (26, 64);

fn samples(x: &Array3<f32>) -> Samples<'_> {
    Samples { name: "X", values: Values::F32(x.view()), normalize: false }
}

fn ground(metric: Metric) -> Ground {
    Ground::new(metric, Reduce::Sum, None, SHAPE.0, SHAPE.1).expect("a valid ground")
}

/// Runs `work` on a pool of `threads` threads.
fn on<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(work)
}

/// One thread, and all cores where there are more.
fn thread_counts() -> Vec<usize> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    if cores > 1 { vec![1, cores] } else { vec![1] }
}

/// Calls `bench(name)` once for every instruction set, with that one in force.
fn with_each_simd(mut bench: impl FnMut(&'static str)) {
    let wanted = std::env::var_os(SIMD_VARIABLE);
    for simd in Simd::available() {
        // SAFETY: between benchmarks no other thread reads or writes the environment.
        unsafe { std::env::set_var(SIMD_VARIABLE, simd.name()) };
        bench(simd.name());
    }
    // SAFETY: as above.
    unsafe {
        match wanted {
            Some(wanted) => std::env::set_var(SIMD_VARIABLE, wanted),
            None => std::env::remove_var(SIMD_VARIABLE),
        }
    }
}

/// The instruction set that is used unless told otherwise.
fn best() -> &'static str {
    Simd::choose().expect("an instruction set that this machine has").name()
}

/// What is measured, with which instruction set, on how many threads.
fn id(what: &str, simd: &str, threads: usize) -> BenchmarkId {
    BenchmarkId::new(what, format!("{simd} x {threads}"))
}

fn group<'a>(criterion: &'a mut Criterion, name: &str, elements: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(elements as u64));
    group
}

fn bench_ground(criterion: &mut Criterion) {
    let x = planted(512, SHAPE);
    let positions = (0..x.len() / 512).map(|i| ((i * 7919) % 101) as f64).collect();
    let metrics = [
        ("index", Metric::Index),
        ("values", Metric::Values),
        ("discrete", Metric::Discrete),
        ("positions", Metric::Positions(positions)),
    ];
    for (name, metric) in metrics {
        let ground = ground(metric);
        let mut group = group(criterion, "ground", x.len());
        with_each_simd(|simd| {
            group.bench_function(id(&format!("{name}, fixed"), simd, 1), |b| {
                on(1, || b.iter(|| ground.fixed(&samples(&x), &Task::new()).map(drop).expect("features")));
            });
        });
        group.bench_function(id(&format!("{name}, float"), best(), 1), |b| {
            on(1, || b.iter(|| ground.float(&samples(&x), &Task::new()).map(drop).expect("features")));
        });
    }
}

fn bench_matrix_in<T: Arithmetic>(criterion: &mut Criterion, arithmetic: &str) {
    let x = planted(512, SHAPE);
    let (n, ground) = (x.dim().0, ground(Metric::Index));
    let mut d = vec![T::zeroed(); n * n];
    let mut group = group(criterion, "matrix", n * (n - 1) / 2 * ground.features());
    let mut run = || {
        let result = matrix(&samples(&x), &ground, Pairs::Square, &Memory::new(&mut d), &Task::new());
        result.expect("distances");
    };
    with_each_simd(|simd| {
        group.bench_function(id(arithmetic, simd, 1), |b| {
            on(1, || b.iter(&mut run));
        });
    });
    for threads in thread_counts().into_iter().skip(1) {
        group.bench_function(id(arithmetic, best(), threads), |b| {
            on(threads, || b.iter(&mut run));
        });
    }
}

fn bench_matrix(criterion: &mut Criterion) {
    bench_matrix_in::<f32>(criterion, "fixed");
    bench_matrix_in::<f64>(criterion, "float");
}

fn bench_select(criterion: &mut Criterion) {
    let (x, ground) = (planted(3000, SHAPE), ground(Metric::Index));
    let mut group = criterion.benchmark_group("select");
    group.sampling_mode(SamplingMode::Flat);
    for (arithmetic, precision) in [("fixed", Precision::Float32), ("float", Precision::Float64)] {
        for (name, prune, start) in [
            ("pruned", true, Start::Indices(vec![0])),
            ("unpruned", false, Start::Indices(vec![0])),
            ("pruned from the medoid", true, Start::Medoid),
        ] {
            let goal = Goal { n_select: 300, stop_radius: None, start };
            for threads in thread_counts() {
                group.bench_function(id(&format!("{name}, {arithmetic}"), best(), threads), |b| {
                    let run = || select(&samples(&x), &ground, precision, &goal, prune, &Task::new());
                    on(threads, || b.iter(|| run().expect("a selection")));
                });
            }
        }
    }
}

fn bench_sums(criterion: &mut Criterion) {
    let (x, ground) = (planted(3000, SHAPE), ground(Metric::Index));
    let mut group = group(criterion, "mean_distances", x.dim().0 * ground.features());
    for (arithmetic, precision) in [("fixed", Precision::Float32), ("float", Precision::Float64)] {
        group.bench_function(id(arithmetic, best(), 1), |b| {
            on(1, || b.iter(|| mean_distances(&samples(&x), &ground, precision, &Task::new()).expect("means")));
        });
    }
}

fn bench_fps(criterion: &mut Criterion) {
    let x = planted(2000, SHAPE);
    let n = x.dim().0;
    let mut d = Array2::<f32>::zeros((n, n));
    let memory = Memory::new(d.as_slice_mut().expect("contiguous"));
    matrix(&samples(&x), &ground(Metric::Index), Pairs::Square, &memory, &Task::new()).expect("distances");
    let mut group = group(criterion, "fps", n * n);
    for threads in thread_counts() {
        let goal = Goal { n_select: 300, stop_radius: None, start: Start::Indices(vec![0]) };
        group.bench_function(id("from the matrix", best(), threads), |b| {
            on(threads, || b.iter(|| fps(&d.view(), &goal, &Task::new()).expect("a selection")));
        });
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
        .nresamples(10_000)
        .without_plots()
        .configure_from_args();
    bench_ground(&mut criterion);
    bench_matrix(&mut criterion);
    bench_select(&mut criterion);
    bench_sums(&mut criterion);
    bench_fps(&mut criterion);
    criterion.final_summary();
}
