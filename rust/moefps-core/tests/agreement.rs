//! Two traces compared: fast against plain, and whatever the threads.
#![allow(missing_docs)]

mod common;

use common::on;
use moefps_core::Error;
use moefps_core::agreement::{Agreement, Comparison, Side, compare};
use moefps_core::sample::Values;
use moefps_core::task::Task;
use moefps_core::trace::{Groups, Layer};
use ndarray::Array3;
use proptest::prelude::*;

const EXPERTS: i16 = 12;
const LAYER: Layer = Layer { n_experts: 12, passive_experts: 2, top_k: 3, signed_weights: false, scoring: None };

type Trace = (Array3<i16>, Array3<f32>);

/// Ids and weights of some tokens, two layers and three slots, for both sides.
fn traces() -> impl Strategy<Value = (Trace, Trace)> {
    (1usize..400).prop_flat_map(|tokens| (trace(tokens), trace(tokens)))
}

fn trace(tokens: usize) -> impl Strategy<Value = Trace> {
    let cells = tokens * 6;
    (prop::collection::vec(-1..EXPERTS, cells), prop::collection::vec(0u8..4, cells)).prop_map(move |(ids, weights)| {
        let shape = (tokens, 2, 3);
        let weights = weights.into_iter().map(|w| f32::from(w) / 4.0).collect();
        (Array3::from_shape_vec(shape, ids).expect("ids"), Array3::from_shape_vec(shape, weights).expect("weights"))
    })
}

fn side<'a>(trace: &'a Trace, rows: Option<&'a [i64]>) -> Side<'a> {
    Side { expert_ids: trace.0.view(), expert_weights: Some(Values::F32(trace.1.view())), rows }
}

fn compared<'a>(a: &'a Trace, b: &'a Trace) -> Comparison<'a> {
    Comparison {
        a: side(a, None),
        b: side(b, None),
        layers: &[LAYER, LAYER],
        chosen: &[0, 1],
        groups: None,
        require_shares: false,
        usage: true,
    }
}

fn agreement(comparison: &Comparison<'_>, threads: usize) -> Agreement {
    on(threads, || compare(comparison, &Task::new())).expect("an agreement")
}

/// ŵ of a token as a dense distribution, and which experts it chose; None for the first where the weights sum to 0.
fn dense(trace: &Trace, t: usize, layer: usize) -> (Option<Vec<f64>>, Vec<bool>) {
    let experts = LAYER.active_experts();
    let (mut weights, mut chosen) = (vec![0.0; experts], vec![false; experts]);
    for slot in 0..3 {
        if let Some(e) = usize::try_from(trace.0[[t, layer, slot]]).ok().filter(|&e| e < experts) {
            weights[e] += f64::from(trace.1[[t, layer, slot]]);
            chosen[e] = true;
        }
    }
    let sum: f64 = weights.iter().sum();
    ((sum > 0.0).then(|| weights.iter().map(|w| w / sum).collect()), chosen)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn measures_are_what_the_definitions_say((a, b) in traces()) {
        let found = agreement(&compared(&a, &b), 2);
        let weights = found.weights.as_ref().expect("weights");
        for layer in 0..2 {
            let (mut pairs, mut common, mut without, mut tv, mut js) = (0, 0, 0, 0.0, 0.0);
            for t in 0..a.0.dim().0 {
                let ((p, one), (q, other)) = (dense(&a, t, layer), dense(&b, t, layer));
                if !one.contains(&true) || !other.contains(&true) {
                    continue;
                }
                pairs += 1;
                common += one.iter().zip(&other).filter(|(one, other)| **one && **other).count() as i64;
                let (Some(p), Some(q)) = (p, q) else { without += 1; continue };
                for (p, q) in p.iter().zip(&q) {
                    tv += (p - q).abs() / 2.0;
                    let part = |x: f64| if x > 0.0 { x * (2.0 * x / (p + q)).log2() / 2.0 } else { 0.0 };
                    js += part(*p) + part(*q);
                }
            }
            prop_assert_eq!(found.pairs[[0, layer]], pairs);
            prop_assert_eq!(found.common[[0, layer]], common);
            prop_assert_eq!(weights.without_shares[[0, layer]], without);
            prop_assert!((weights.tv_sums[[0, layer]] - tv).abs() <= 1e-11 * (1.0 + tv));
            prop_assert!((weights.js_sums[[0, layer]] - js).abs() <= 1e-11 * (1.0 + js));
        }
    }

    #[test]
    fn threads_change_nothing((a, b) in traces(), threads in 2usize..9) {
        let rows: Vec<i64> = (0..a.0.dim().0 as i64).rev().collect();
        let groups: Vec<u32> = (0..rows.len() as u32).map(|t| t / 5 % 3).collect();
        let comparison = Comparison {
            b: side(&b, Some(&rows)),
            groups: Some(Groups { ids: &groups, count: 3 }),
            ..compared(&a, &b)
        };
        prop_assert_eq!(agreement(&comparison, threads), agreement(&comparison, 1));
    }
}

#[test]
fn a_cancelled_comparison_ends() {
    let trace = (Array3::zeros((1000, 2, 3)), Array3::zeros((1000, 2, 3)));
    let task = Task::new();
    task.cancel();
    assert!(matches!(compare(&compared(&trace, &trace), &task), Err(Error::Cancelled)));
}

#[test]
fn what_does_not_fit_is_refused() {
    let trace: Trace = (Array3::zeros((4, 2, 3)), Array3::zeros((4, 2, 3)));
    let short: Trace = (Array3::zeros((3, 2, 3)), Array3::zeros((3, 2, 3)));
    let narrow: Trace = (Array3::zeros((4, 2, 2)), Array3::zeros((4, 2, 2)));
    let good = compared(&trace, &trace);
    let message = |comparison: Comparison<'_>| compare(&comparison, &Task::new()).expect_err("refused").to_string();
    assert!(compare(&good, &Task::new()).is_ok());
    assert!(message(Comparison { layers: &[], ..good }).contains("0 layers"));
    assert!(message(Comparison { chosen: &[], ..good }).contains("layers: []; accepted: some of 0 to 1"));
    assert!(message(Comparison { chosen: &[0, 2], ..good }).contains("layers: [0, 2]"));
    assert!(message(Comparison { b: side(&short, None), ..good }).contains("ids_b: 3 rows; accepted: 4"));
    assert!(message(Comparison { b: side(&narrow, None), ..good }).contains("of 2 slots"));
    assert!(message(Comparison { b: side(&trace, Some(&[0])), ..good }).contains("rows_b: 1 rows; accepted: 4"));
    let rows = message(Comparison { a: side(&trace, Some(&[0, 3, 4, 0])), ..good });
    assert_eq!(rows, "rows_a: entry 2 is 4; accepted: 0 to 3");
    let groups = Groups { ids: &[0, 1, 2, 0], count: 2 };
    assert_eq!(message(Comparison { groups: Some(groups), ..good }), "groups: entry 2 is 2; accepted: 0 to 1");
    let without = Side { expert_weights: None, ..good.b };
    assert!(message(Comparison { b: without, ..good }).contains("weights_b: given for one side"));
    let bare = Side { expert_weights: None, ..good.a };
    assert!(message(Comparison { a: bare, b: without, require_shares: true, ..good }).contains("require_shares"));
    let none = [Layer { passive_experts: 12, ..LAYER }; 2];
    assert!(message(Comparison { layers: &none, ..good }).contains("layer 0"));
}

#[test]
fn the_first_wrong_value_is_named() {
    let mut one: Trace = (Array3::zeros((300, 2, 3)), Array3::zeros((300, 2, 3)));
    let mut other = one.clone();
    let message =
        |a: &Trace, b: &Trace| on(2, || compare(&compared(a, b), &Task::new())).expect_err("refused").to_string();
    other.1[[200, 1, 2]] = f32::NAN;
    assert_eq!(
        message(&one, &other),
        "weights_b: token row 200, layer 1, slot 2 is NaN; accepted: finite numbers >= 0"
    );
    one.0[[200, 1, 0]] = 12;
    assert_eq!(
        message(&one, &other),
        "ids_a: token row 200, layer 1, slot 0 is 12; accepted: 0 to 11, or -1 for an empty slot"
    );
}
