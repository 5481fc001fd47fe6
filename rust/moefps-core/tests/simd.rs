//! The same bits for every instruction set and number of threads. One test in a process of its own, since the
//! instruction set is chosen by a variable of the environment.
#![allow(missing_docs)]

mod common;

use common::{distances, fingerprints, ground, metrics, on, picks};
use moefps_core::l1::{SIMD_VARIABLE, Simd};
use moefps_core::start::Start;
use moefps_core::sum::Precision;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

#[test]
fn same_bits_everywhere() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..24 {
        let x = fingerprints().new_tree(&mut runner).expect("fingerprints").current();
        let (n, layers, experts) = x.dim();
        for metric in metrics(layers, experts) {
            let ground = ground(metric, &x);
            let all = || {
                let single = picks(&x, &ground, Precision::Float32, Start::Medoid, n, true);
                let double = picks(&x, &ground, Precision::Float64, Start::Farthest, n, true);
                (distances::<f32>(&x, &ground), distances::<f64>(&x, &ground), single, double)
            };
            let expected = on(1, all);
            for simd in Simd::available() {
                // SAFETY: no other thread of this process reads or writes the environment now.
                unsafe { std::env::set_var(SIMD_VARIABLE, simd.name()) };
                for threads in [1, 2, 8] {
                    assert_eq!(on(threads, all), expected, "{} on {threads} threads", simd.name());
                }
                // SAFETY: as above.
                unsafe { std::env::remove_var(SIMD_VARIABLE) };
            }
        }
    }
    // SAFETY: as above.
    unsafe { std::env::set_var(SIMD_VARIABLE, "mmx") };
    let refused = Simd::choose().expect_err("there is no such level").to_string();
    assert!(refused.starts_with("MOEFPS_SIMD: \"mmx\"; accepted here: scalar"), "{refused}");
}
