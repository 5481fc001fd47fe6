//! The counters of some token ids in one layer.

use std::ops::Range;

use super::top::{TopLists, Word};
use super::word::{NONE, Words};
use super::{Entries, Job, Question};
use crate::Result;
use crate::choice::{Choices, Reader};
use crate::trace::zeros;

/// Counters of a token id: one for each expert, and one for all of its tokens.
pub(super) fn width(experts: usize) -> usize {
    experts + 1
}

/// Counters, and what fills them.
pub(super) struct Piece<'a> {
    layer: usize,
    words: Range<usize>,
    reader: Reader<'a>,
    /// Room for the experts of a token.
    chosen: Vec<u16>,
    width: usize,
    /// `[words, width]`
    counters: Vec<u32>,
    /// Tokens of all ids: only in the first piece of a layer, which reads every token.
    tokens: i64,
    without_id: i64,
}

/// What is kept of a piece.
pub(super) struct Answer {
    pub(super) layer: usize,
    pub(super) tokens: i64,
    pub(super) without_id: i64,
    pub(super) counted: i64,
    pub(super) token_ids: i64,
    pub(super) top: TopLists,
    pub(super) entries: Entries,
}

impl<'a> Piece<'a> {
    pub(super) fn new(choices: &Choices<'a>, job: &Job) -> Result<Self> {
        let reader = choices.reader(job.layer);
        let width = width(reader.active);
        let counters = zeros(job.words.len() * width)?;
        let chosen = vec![0; choices.expert_ids.dim().2];
        let words = job.words.clone();
        Ok(Self { layer: job.layer, words, reader, chosen, width, counters, tokens: 0, without_id: 0 })
    }

    fn is_first(&self) -> bool {
        self.words.start == 0
    }

    /// Takes a token, whose id has that number; nothing where an expert id is not accepted.
    #[inline]
    pub(super) fn take(&mut self, row: usize, number: u32) -> Option<()> {
        let number = number as usize;
        let mine = self.words.contains(&number);
        if !mine && !self.is_first() {
            return Some(());
        }
        let n = self.reader.read(row, &mut self.chosen)?;
        if n == 0 {
            return Some(());
        }
        self.tokens += 1;
        self.without_id += i64::from(number == NONE as usize);
        if mine {
            let counters = &mut self.counters[(number - self.words.start) * self.width..][..self.width];
            self.chosen[..n].iter().for_each(|&id| counters[usize::from(id)] += 1);
            counters[self.width - 1] += 1;
        }
        Some(())
    }

    /// Gives up the counters for what was asked for.
    pub(super) fn answer(self, words: &Words, question: &Question) -> Result<Answer> {
        let first = self.is_first();
        let mut answer = Answer {
            layer: self.layer,
            tokens: if first { self.tokens } else { 0 },
            without_id: if first { self.without_id } else { 0 },
            counted: 0,
            token_ids: 0,
            top: TopLists::new(self.reader.active, question.top),
            entries: Entries::default(),
        };
        let frequent = || {
            let rows = words.ids[self.words.clone()].iter().zip(self.counters.chunks_exact(self.width));
            rows.filter_map(|(&id, row)| {
                let (&total, counts) = row.split_last()?;
                (total >= question.min_count.max(1)).then_some((id, total, counts))
            })
        };
        if question.entries {
            answer.entries.reserve(frequent().map(|(_, _, counts)| counts.iter().filter(|&&n| n > 0).count()).sum())?;
        }
        for (id, total, counts) in frequent() {
            answer.counted += i64::from(total);
            answer.token_ids += 1;
            for (expert, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
                answer.top.take(expert, Word { id, count, total });
                if question.entries {
                    answer.entries.layers.push(self.layer as i32);
                    answer.entries.token_ids.push(id);
                    answer.entries.experts.push(expert as i32);
                    answer.entries.counts.push(count);
                    answer.entries.totals.push(total);
                }
            }
        }
        Ok(answer)
    }
}
