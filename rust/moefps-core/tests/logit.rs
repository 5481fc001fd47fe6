//! Sums over full distributions: fast against plain, and whatever the threads.
#![allow(missing_docs)]

mod common;

use common::on;
use half::f16;
use moefps_core::Error;
use moefps_core::logit::{LogitSums, Trace, sum};
use moefps_core::sample::Values;
use moefps_core::task::Task;
use moefps_core::trace::{Groups, Layer, Scoring};
use ndarray::Array3;
use proptest::prelude::*;

const EXPERTS: i16 = 12;

const fn layer(scoring: Scoring) -> Layer {
    Layer { n_experts: 12, passive_experts: 2, top_k: 3, signed_weights: false, scoring: Some(scoring) }
}

const LAYERS: [Layer; 3] = [layer(Scoring::Softmax), layer(Scoring::Sigmoid), layer(Scoring::SqrtSoftplus)];

/// Ids and logits of some tokens, three layers and three slots; the logits are halves as well as singles.
fn traces() -> impl Strategy<Value = (Array3<i16>, Array3<f32>)> {
    (1usize..200).prop_flat_map(|tokens| {
        let ids = prop::collection::vec(-1..EXPERTS, tokens * 9);
        let logits = prop::collection::vec(prop_oneof![Just(f32::NEG_INFINITY), -9f32..9.0], tokens * 36);
        (ids, logits).prop_map(move |(ids, logits)| {
            let logits = logits.into_iter().map(|x| f16::from_f32(x).to_f32()).collect();
            (
                Array3::from_shape_vec((tokens, 3, 3), ids).expect("ids"),
                Array3::from_shape_vec((tokens, 3, 12), logits).expect("logits"),
            )
        })
    })
}

fn sums<'a>(ids: &'a Array3<i16>, logits: Values<'a>, groups: Option<Groups<'a>>, threads: usize) -> LogitSums {
    let trace = Trace { expert_ids: ids.view(), router_logits: logits, layers: &LAYERS, groups };
    on(threads, || sum(&trace, &Task::new())).expect("sums")
}

fn score(scoring: Scoring, x: f64) -> f64 {
    match scoring {
        Scoring::Softmax => x.exp(),
        Scoring::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Scoring::SqrtSoftplus => x.exp().ln_1p().sqrt(),
        Scoring::Probabilities => x,
    }
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-12 * expected.abs().max(1.0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sums_are_what_the_definitions_say((ids, logits) in traces()) {
        let found = sums(&ids, Values::F32(logits.view()), None, 2);
        for (l, rules) in LAYERS.iter().enumerate() {
            let scoring = rules.scoring.expect("scoring");
            let (mut tokens, mut entropy, mut z, mut top1, mut selection) = (0, 0.0, 0.0, 0.0, 0.0);
            let mut probs = [0.0; 10];
            for t in 0..ids.dim().0 {
                let chosen: Vec<usize> = (0..3).filter_map(|j| usize::try_from(ids[[t, l, j]]).ok()).collect();
                let chosen: Vec<usize> = chosen.into_iter().filter(|&e| e < 10).collect();
                let p: Vec<f64> = (0..10).map(|e| score(scoring, logits[[t, l, e]].into())).collect();
                let total: f64 = p.iter().sum();
                if chosen.is_empty() || total == 0.0 {
                    continue;
                }
                let p: Vec<f64> = p.into_iter().map(|p| p / total).collect();
                tokens += 1;
                probs.iter_mut().zip(&p).for_each(|(sum, p)| *sum += p);
                entropy -= p.iter().filter(|&&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>();
                z += (0..12).map(|e| f64::from(logits[[t, l, e]]).exp()).sum::<f64>().ln().powi(2);
                let largest = |of: &mut dyn Iterator<Item = usize>| of.map(|e| p[e]).fold(0.0, f64::max);
                let first = largest(&mut (0..10));
                let at = p.iter().position(|&p| p == first).expect("the largest");
                top1 += first - largest(&mut (0..10).filter(|&e| e != at));
                selection += chosen.iter().map(|&e| p[e]).fold(1.0, f64::min);
                selection -= largest(&mut (0..10).filter(|e| !chosen.contains(e)));
            }
            prop_assert_eq!(found.tokens[[0, l]], tokens);
            prop_assert!(close(found.entropy_sums[[0, l]], entropy));
            prop_assert!(close(found.z_sums[[0, l]], z), "{} {}", found.z_sums[[0, l]], z);
            prop_assert!(close(found.top1_margin_sums[[0, l]], top1));
            prop_assert!(close(found.selection_margin_sums[[0, l]], selection));
            for (e, &p) in probs.iter().enumerate() {
                prop_assert!(close(found.prob_sums[[0, l, e]], p));
            }
        }
    }

    #[test]
    fn threads_and_precision_change_nothing((ids, logits) in traces(), threads in 2usize..9) {
        let groups: Vec<u32> = (0..ids.dim().0 as u32).map(|t| t / 5 % 3).collect();
        let (halves, doubles) = (logits.mapv(f16::from_f32), logits.mapv(f64::from));
        for groups in [None, Some(Groups { ids: &groups, count: 3 })] {
            let one = sums(&ids, Values::F32(logits.view()), groups, 1);
            prop_assert_eq!(&sums(&ids, Values::F32(logits.view()), groups, threads), &one);
            prop_assert_eq!(&sums(&ids, Values::F16(halves.view()), groups, threads), &one);
            prop_assert_eq!(&sums(&ids, Values::F64(doubles.view()), groups, threads), &one);
        }
    }
}

#[test]
fn a_cancelled_sum_ends() {
    let (ids, logits) = (Array3::zeros((1000, 3, 3)), Array3::<f32>::zeros((1000, 3, 12)));
    let trace =
        Trace { expert_ids: ids.view(), router_logits: Values::F32(logits.view()), layers: &LAYERS, groups: None };
    let task = Task::new();
    task.cancel();
    assert!(matches!(sum(&trace, &task), Err(Error::Cancelled)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let ids = Array3::zeros((4, 1, 3));
    let mut logits = Array3::<f32>::zeros((4, 1, 12));
    logits[[1, 0, 3]] = 1.0;
    let one = [layer(Scoring::Softmax)];
    let good = Trace { expert_ids: ids.view(), router_logits: Values::F32(logits.view()), layers: &one, groups: None };
    let message = |trace: Trace<'_>| sum(&trace, &Task::new()).expect_err("refused").to_string();
    assert!(sum(&good, &Task::new()).is_ok());
    assert!(message(Trace { layers: &[], ..good }).contains("0 layers"));
    let groups = Groups { ids: &[0, 1, 2, 0], count: 2 };
    assert_eq!(message(Trace { groups: Some(groups), ..good }), "groups: token row 2 is 2; accepted: 0 to 1");
    assert!(message(Trace { groups: Some(Groups { ids: &[0], count: 2 }), ..good }).contains("1 tokens; accepted: 4"));
    let wide = [Layer { n_experts: 13, ..one[0] }];
    assert!(message(Trace { layers: &wide, ..good }).contains("1 to 12 experts"));
    let idle = [Layer { passive_experts: 12, ..one[0] }];
    assert!(message(Trace { layers: &idle, ..good }).contains("layer 0"));
    let short = Array3::<f32>::zeros((3, 1, 12));
    assert!(message(Trace { router_logits: Values::F32(short.view()), ..good }).contains("router_logits"));
    // All zeros stand for no distribution; others have to sum to 1.
    let given = [Layer { passive_experts: 0, ..layer(Scoring::Probabilities) }];
    let sums = sum(&Trace { layers: &given, ..good }, &Task::new()).expect("sums");
    assert_eq!((sums.tokens[[0, 0]], sums.without_probs[[0, 0]], sums.z_tokens[[0, 0]]), (1, 3, 0));
    logits[[1, 0, 4]] = 0.5;
    let trace =
        Trace { expert_ids: ids.view(), router_logits: Values::F32(logits.view()), layers: &given, groups: None };
    assert!(message(trace).starts_with("router_logits: token row 1, layer 0 sums to 1.5"));
}
