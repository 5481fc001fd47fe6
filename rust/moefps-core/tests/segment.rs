//! Windows, caches and vocabularies of random traces: fast against plain, and whatever the threads.
#![allow(missing_docs)]

mod common;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use common::on;
use moefps_core::choice::Choices;
use moefps_core::segment::{self, Question, Segments};
use moefps_core::task::Task;
use moefps_core::trace::Layer;
use moefps_core::vocabulary::{self, Vocabulary};
use moefps_core::{Error, Result};
use ndarray::Array3;
use proptest::prelude::*;

const EXPERTS: i16 = 9;
const LAYERS: [Layer; 2] = [
    Layer { n_experts: 9, passive_experts: 2, top_k: 3, signed_weights: false, scoring: None },
    Layer { n_experts: 9, passive_experts: 0, top_k: 3, signed_weights: false, scoring: None },
];

/// Ids of some tokens, two layers and three slots; which tokens follow the one before; and their token ids.
fn traces() -> impl Strategy<Value = (Array3<i16>, Vec<bool>, Vec<i32>)> {
    (0usize..200).prop_flat_map(|tokens| {
        let ids = prop::collection::vec(-1..EXPERTS, tokens * 6);
        let follows = prop::collection::vec(prop::bool::weighted(0.95), tokens);
        let token_ids = prop::collection::vec(-1..12i32, tokens);
        let shaped = move |ids| Array3::from_shape_vec((tokens, 2, 3), ids).expect("ids");
        (ids.prop_map(shaped), follows, token_ids)
    })
}

fn segments(ids: &Array3<i16>, follows: &[bool], question: &Question<'_>, threads: usize) -> Result<Segments> {
    let choices = Choices { expert_ids: ids.view(), layers: &LAYERS };
    on(threads, || segment::count(&choices, follows, question, &Task::new()))
}

fn vocabulary(ids: &Array3<i16>, token_ids: &[i32], question: vocabulary::Question, threads: usize) -> Vocabulary {
    let choices = Choices { expert_ids: ids.view(), layers: &LAYERS };
    on(threads, || vocabulary::count(&choices, token_ids, &question, &Task::new())).expect("a vocabulary")
}

/// The experts that each token uses in a layer.
fn used(ids: &Array3<i16>, layer: usize) -> Vec<BTreeSet<usize>> {
    let active = LAYERS[layer].active_experts();
    let of =
        |t: usize| (0..3).filter_map(move |j| usize::try_from(ids[[t, layer, j]]).ok()).filter(move |&e| e < active);
    (0..ids.dim().0).map(|t| of(t).collect()).collect()
}

/// Tokens that follow each other and all use an expert.
fn runs(ids: &Array3<i16>, follows: &[bool], layer: usize) -> Vec<Vec<BTreeSet<usize>>> {
    let mut runs = vec![Vec::new()];
    for (experts, &follows) in used(ids, layer).into_iter().zip(follows) {
        if experts.is_empty() || !follows {
            runs.push(Vec::new());
        }
        if !experts.is_empty() {
            runs.last_mut().expect("a run").push(experts);
        }
    }
    runs
}

/// Hits of a cache, by its definition.
fn plain_hits(run: &[BTreeSet<usize>], size: usize, window: usize) -> i64 {
    let (mut cache, mut hits) = (BTreeSet::new(), 0);
    for (t, experts) in run.iter().enumerate() {
        let next = &run[t + 1..run.len().min(t + 1 + window)];
        let uses = |e: usize| next.iter().filter(|experts| experts.contains(&e)).count();
        hits += experts.intersection(&cache).count() as i64;
        let mut missing: Vec<usize> = experts.difference(&cache).copied().collect();
        missing.sort_by_key(|&e| (Reverse(uses(e)), e));
        for loaded in missing {
            let others = cache.iter().copied().filter(|e| !experts.contains(e));
            let worst = others.min_by_key(|&e| (uses(e), Reverse(e)));
            match worst {
                _ if cache.len() < size => {}
                Some(worst) => assert!(cache.remove(&worst)),
                None => continue,
            }
            cache.insert(loaded);
        }
    }
    hits
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn segments_are_what_the_definitions_say((ids, follows, _) in traces(), window in 1usize..12, size in 0usize..9) {
        let sizes = [size, 3];
        let question = Question { window, histograms: true, cache_sizes: Some(&sizes) };
        let found = segments(&ids, &follows, &question, 2).expect("segments");
        let (histograms, cache) = (found.histograms.expect("histograms"), found.cache.expect("caches"));
        for (layer, rules) in LAYERS.iter().enumerate() {
            let runs = runs(&ids, &follows, layer);
            let windows: Vec<_> = runs.iter().flat_map(|run| run.windows(window)).collect();
            prop_assert_eq!(found.windows[layer], windows.len() as i64);
            for expert in 0..9 {
                let mut bars = vec![0i64; window + 1];
                if expert < rules.active_experts() {
                    windows.iter().for_each(|w| bars[w.iter().filter(|used| used.contains(&expert)).count()] += 1);
                }
                prop_assert_eq!(histograms.slice(ndarray::s![layer, expert, ..]).to_vec(), bars);
            }
            let hits: i64 = runs.iter().map(|run| plain_hits(run, sizes[layer], window)).sum();
            prop_assert_eq!(cache.hits[layer], hits);
            prop_assert_eq!(cache.activations[layer], runs.iter().flatten().map(|e| e.len() as i64).sum::<i64>());
        }
    }

    #[test]
    fn vocabularies_are_what_the_definitions_say((ids, _, token_ids) in traces(), min_count in 0u32..20, top in 0usize..5) {
        let question = vocabulary::Question { min_count, top, entries: true };
        let found = vocabulary(&ids, &token_ids, question, 2);
        let mut expected = Vec::new();
        for layer in 0..2 {
            let used = used(&ids, layer);
            let mut words: BTreeMap<i32, Vec<&BTreeSet<usize>>> = BTreeMap::new();
            for (&id, experts) in token_ids.iter().zip(&used).filter(|(_, experts)| !experts.is_empty()) {
                words.entry(id).or_default().push(experts);
            }
            prop_assert_eq!(found.tokens[layer], words.values().map(|tokens| tokens.len() as i64).sum::<i64>());
            prop_assert_eq!(found.without_id[layer], words.remove(&-1).map_or(0, |tokens| tokens.len() as i64));
            words.retain(|_, tokens| tokens.len() >= min_count as usize);
            prop_assert_eq!(found.counted[layer], words.values().map(|tokens| tokens.len() as i64).sum::<i64>());
            prop_assert_eq!(found.token_ids[layer], words.len() as i64);
            let mut shares = vec![Vec::new(); 9];
            for (&id, tokens) in &words {
                for (expert, shares) in shares.iter_mut().enumerate() {
                    let count = tokens.iter().filter(|used| used.contains(&expert)).count();
                    if count > 0 {
                        expected.push((layer as i32, id, expert as i32, count as u32, tokens.len() as u32));
                        shares.push((count as f64 / tokens.len() as f64, id));
                    }
                }
            }
            for (expert, mut shares) in shares.into_iter().enumerate() {
                shares.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                let best: Vec<i64> = shares.iter().map(|share| i64::from(share.1)).chain([-1; 5]).take(top).collect();
                prop_assert_eq!(found.top_ids.slice(ndarray::s![layer, expert, ..]).to_vec(), best);
            }
        }
        let e = found.entries.expect("entries");
        let entries: Vec<_> =
            (0..e.counts.len()).map(|i| (e.layers[i], e.token_ids[i], e.experts[i], e.counts[i], e.totals[i])).collect();
        prop_assert_eq!(entries, expected);
    }

    #[test]
    fn threads_change_nothing((ids, follows, token_ids) in traces(), threads in 2usize..9) {
        let question = Question { window: 4, histograms: true, cache_sizes: Some(&[5, 2]) };
        let all = |threads| segments(&ids, &follows, &question, threads).expect("segments");
        prop_assert_eq!(all(threads), all(1));
        let question = vocabulary::Question { min_count: 3, top: 2, entries: true };
        prop_assert_eq!(vocabulary(&ids, &token_ids, question, threads), vocabulary(&ids, &token_ids, question, 1));
    }
}

#[test]
fn cancelled_calls_end() {
    let ids = Array3::zeros((1000, 2, 3));
    let choices = Choices { expert_ids: ids.view(), layers: &LAYERS };
    let task = Task::new();
    task.cancel();
    let question = Question { window: 4, histograms: true, cache_sizes: None };
    assert!(matches!(segment::count(&choices, &[true; 1000], &question, &task), Err(Error::Cancelled)));
    let question = vocabulary::Question { min_count: 1, top: 1, entries: false };
    assert!(matches!(vocabulary::count(&choices, &[0; 1000], &question, &task), Err(Error::Cancelled)));
}

#[test]
fn the_first_wrong_id_is_named_whatever_the_threads() {
    let mut ids = Array3::zeros((900, 2, 3));
    ids[[701, 0, 1]] = 9;
    ids[[650, 1, 2]] = -2;
    let question = Question { window: 4, histograms: true, cache_sizes: None };
    for threads in [1, 2, 8] {
        let follows: Vec<bool> = (0..900).map(|row| row % 10 != 0).collect();
        let error = segments(&ids, &follows, &question, threads).expect_err("refused").to_string();
        assert_eq!(
            error,
            "expert_ids: token row 650, layer 1, slot 2 is -2; accepted: 0 to 8, or -1 for an empty slot"
        );
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let ids = Array3::zeros((4, 2, 3));
    let good = Question { window: 4, histograms: true, cache_sizes: None };
    let message = |follows: &[bool], question| segments(&ids, follows, &question, 1).expect_err("refused").to_string();
    assert!(message(&[true], good).contains("follows: 1 tokens; accepted: 4"));
    assert!(message(&[true; 4], Question { window: 0, ..good }).contains("window: 0; accepted: 1 to"));
    assert!(message(&[true; 4], Question { cache_sizes: Some(&[1]), ..good }).contains("cache_sizes: 1 of 2 layers"));
    let choices = Choices { expert_ids: ids.view(), layers: &LAYERS[..1] };
    let error = segment::count(&choices, &[true; 4], &good, &Task::new()).expect_err("refused");
    assert!(error.to_string().contains("1 layers"));
    let question = vocabulary::Question { min_count: 1, top: 1, entries: false };
    let choices = Choices { expert_ids: ids.view(), layers: &LAYERS };
    let error = vocabulary::count(&choices, &[1], &question, &Task::new()).expect_err("refused");
    assert!(error.to_string().contains("token_ids: 1 tokens; accepted: 4"));
}
