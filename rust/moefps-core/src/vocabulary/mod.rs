//! Which experts the tokens of each token id choose.
//!
//! The counters of a layer have a row for each token id and a column for each expert. They are cut between token ids
//! (`piece`), so that several threads can work on one layer, and as many pieces as a budget of memory allows are
//! counted in one pass over the trace, which is read in steps. Of the counters only what was asked for is kept: the
//! token ids that choose each expert most, and the counts that are not 0.

mod piece;
mod top;
mod word;

use std::ops::Range;

use ndarray::{Array1, Array3};
use rayon::prelude::*;

use crate::choice::Choices;
use crate::task::Task;
use crate::trace::{Layer, check_length};
use crate::{Error, Result};
use piece::{Answer, Piece};
use top::TopLists;
use word::Words;

/// Bytes of counters that are filled in one pass over the trace.
const PASS_BYTES: usize = 512 << 20;
/// Bytes of counters of one piece; more only where a single token id has more.
const PIECE_BYTES: usize = 64 << 20;
/// Bytes of a trace that are read between two meetings of the threads; they stay in the cache while each piece picks
/// its part out of them.
const STEP_BYTES: usize = 1 << 19;
/// Pieces of work for each thread, at least, where there are as many token ids.
const PIECES_PER_THREAD: usize = 4;

/// What is to be counted.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// A token id that fewer tokens of a layer have is left out there.
    pub min_count: u32,
    /// How many of the token ids that choose it most are found for each expert.
    pub top: usize,
    /// Whether to keep all counts that are not 0.
    pub entries: bool,
}

/// What a trace was reduced to. A token counts in the layers in which it chooses an expert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// `[L]`: tokens.
    pub tokens: Array1<i64>,
    /// `[L]`: those that have no token id.
    pub without_id: Array1<i64>,
    /// `[L]`: those whose token id is frequent enough.
    pub counted: Array1<i64>,
    /// `[L]`: how many such token ids there are.
    pub token_ids: Array1<i64>,
    /// `[L, E, top]`: the token ids whose tokens choose an expert with the largest share, the lowest of equals first;
    /// -1 where there are no more.
    pub top_ids: Array3<i64>,
    /// `[L, E, top]`: how many of their tokens do.
    pub top_counts: Array3<i64>,
    /// `[L, E, top]`: how many tokens they have.
    pub top_totals: Array3<i64>,
    /// Where they were asked for.
    pub entries: Option<Entries>,
}

/// Counts that are not 0, by layer, token id and expert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// The layer of each.
    pub layers: Vec<i32>,
    /// The token id.
    pub token_ids: Vec<i32>,
    /// The expert.
    pub experts: Vec<i32>,
    /// Tokens of that id that choose the expert.
    pub counts: Vec<u32>,
    /// Tokens of that id.
    pub totals: Vec<u32>,
}

impl Entries {
    /// Makes room for `n` entries.
    fn reserve(&mut self, n: usize) -> Result<()> {
        let bytes = n.saturating_mul(size_of::<[u32; 5]>());
        let memory = |_| Error::Memory { what: "the table of token ids and experts", bytes };
        self.layers.try_reserve_exact(n).map_err(memory)?;
        self.token_ids.try_reserve_exact(n).map_err(memory)?;
        self.experts.try_reserve_exact(n).map_err(memory)?;
        self.counts.try_reserve_exact(n).map_err(memory)?;
        self.totals.try_reserve_exact(n).map_err(memory)
    }

    fn append(&mut self, mut other: Self) {
        self.layers.append(&mut other.layers);
        self.token_ids.append(&mut other.token_ids);
        self.experts.append(&mut other.experts);
        self.counts.append(&mut other.counts);
        self.totals.append(&mut other.totals);
    }
}

/// Counts a trace, on the rayon pool that it is called in. `token_ids` has the id of each token, -1 for none.
///
/// # Errors
/// Arguments that do not fit each other, an expert id that is not accepted (the first one by token, layer and slot), too
/// little memory for what was asked for, or [`Error::Cancelled`].
pub fn count(choices: &Choices<'_>, token_ids: &[i32], question: &Question, task: &Task) -> Result<Vocabulary> {
    choices.check()?;
    check_length("token_ids", token_ids.len(), choices.expert_ids.dim().0)?;
    let words = Words::new(token_ids, question.min_count);
    let jobs = plan(choices, &words);
    task.announce(token_ids.len().saturating_mul(jobs.len()) as u64);
    let mut answers = Vec::with_capacity(jobs.len());
    let mut rest = &jobs[..];
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|job| {
            bytes += job.bytes;
            bytes <= PASS_BYTES
        });
        let (pass, others) = rest.split_at(fitting.count().max(1));
        let pieces = fill(choices, &words, pass, task)?;
        answers.extend(pieces.into_par_iter().map(|piece| piece.answer(&words, question)).collect::<Result<Vec<_>>>()?);
        rest = others;
    }
    collect(choices, answers, question)
}

/// A piece of work: some token ids in one layer.
struct Job {
    layer: usize,
    /// Numbers of token ids.
    words: Range<usize>,
    /// Bytes of counters.
    bytes: usize,
}

/// Cuts the work, by layer and token id.
fn plan(choices: &Choices<'_>, words: &Words) -> Vec<Job> {
    let layers = choices.layers.len();
    let parts = (PIECES_PER_THREAD * rayon::current_num_threads()).div_ceil(layers);
    let mut jobs = Vec::new();
    for (layer, rules) in choices.layers.iter().enumerate() {
        let row_bytes = piece::width(rules.active_experts()) * size_of::<u32>();
        for words in words.cut(parts, (PIECE_BYTES / row_bytes).max(1)) {
            jobs.push(Job { layer, bytes: words.len() * row_bytes, words });
        }
    }
    jobs
}

/// Counts the pieces of one pass.
fn fill<'a>(choices: &Choices<'a>, words: &Words, jobs: &[Job], task: &Task) -> Result<Vec<Piece<'a>>> {
    let (tokens, layers, k) = choices.expert_ids.dim();
    let mut pieces = jobs.iter().map(|job| Piece::new(choices, job)).collect::<Result<Vec<_>>>()?;
    let step = (STEP_BYTES / (layers * k * size_of::<i16>())).max(16);
    for start in (0..tokens).step_by(step) {
        let rows = start..tokens.min(start + step);
        let walk = |piece: &mut Piece<'_>| {
            task.check()?;
            task.advance(rows.len() as u64);
            Ok(rows.clone().find(|&row| piece.take(row, words.numbers[row]).is_none()))
        };
        let wrong = pieces.par_iter_mut().map(walk).try_reduce(|| None, |a, b| Ok(a.or(b)))?;
        if let Some(row) = wrong {
            return Err(choices.error(row));
        }
    }
    Ok(pieces)
}

/// Puts the answers of all pieces together, in order.
fn collect(choices: &Choices<'_>, answers: Vec<Answer>, question: &Question) -> Result<Vocabulary> {
    let layers = choices.layers.len();
    let experts = choices.layers.iter().map(Layer::active_experts).max().unwrap_or(0);
    let mut lists: Vec<TopLists> =
        choices.layers.iter().map(|layer| TopLists::new(layer.active_experts(), question.top)).collect();
    let shape = (layers, experts, question.top);
    let mut found = Vocabulary {
        tokens: Array1::zeros(layers),
        without_id: Array1::zeros(layers),
        counted: Array1::zeros(layers),
        token_ids: Array1::zeros(layers),
        top_ids: Array3::from_elem(shape, -1),
        top_counts: Array3::zeros(shape),
        top_totals: Array3::zeros(shape),
        entries: None,
    };
    let mut entries = Entries::default();
    entries.reserve(answers.iter().map(|answer| answer.entries.counts.len()).sum())?;
    for answer in answers {
        let layer = answer.layer;
        found.tokens[layer] += answer.tokens;
        found.without_id[layer] += answer.without_id;
        found.counted[layer] += answer.counted;
        found.token_ids[layer] += answer.token_ids;
        lists[layer].merge(&answer.top);
        entries.append(answer.entries);
    }
    for (layer, lists) in lists.iter().enumerate() {
        for (expert, rank, word) in lists.iter() {
            let place = [layer, expert, rank];
            found.top_ids[place] = word.id.into();
            found.top_counts[place] = word.count.into();
            found.top_totals[place] = word.total.into();
        }
    }
    found.entries = question.entries.then_some(entries);
    Ok(found)
}
