//! The token ids of a trace.

use std::collections::HashMap;
use std::ops::Range;

/// The number of a token without an id.
pub(super) const NONE: u32 = u32::MAX;
/// The number of a token whose id is too rare.
const RARE: u32 = u32::MAX - 1;

/// The token ids that are frequent enough in the whole trace, so that they may be in a layer, numbered in their order.
pub(super) struct Words {
    /// By number.
    pub(super) ids: Vec<i32>,
    /// By number: how many tokens of the trace have each.
    counts: Vec<u32>,
    /// `[T]`: the number of each token's id.
    pub(super) numbers: Vec<u32>,
}

impl Words {
    pub(super) fn new(token_ids: &[i32], min_count: u32) -> Self {
        let mut counts: HashMap<i32, u32> = HashMap::new();
        for &id in token_ids {
            *counts.entry(id).or_default() += 1;
        }
        let frequent = counts.iter().filter(|&(&id, &count)| id != -1 && count >= min_count);
        let mut words: Vec<(i32, u32)> = frequent.map(|(&id, &count)| (id, count)).collect();
        words.sort_unstable();
        // From here on, what is told of an id is its number.
        counts.values_mut().for_each(|count| *count = RARE);
        counts.extend(words.iter().map(|word| word.0).zip(0..));
        counts.insert(-1, NONE);
        let numbers = token_ids.iter().map(|id| counts[id]).collect();
        let (ids, counts) = words.into_iter().unzip();
        Self { ids, counts, numbers }
    }

    /// Cuts the numbers into at least one range: about `parts` that have similarly many tokens, and each of at most
    /// `most` numbers.
    pub(super) fn cut(&self, parts: usize, most: usize) -> Vec<Range<usize>> {
        let tokens: u64 = self.counts.iter().map(|&count| u64::from(count)).sum();
        let enough = tokens.div_ceil(parts.max(1) as u64);
        let mut ranges = Vec::new();
        let (mut start, mut inside) = (0, 0);
        for (number, &count) in self.counts.iter().enumerate() {
            inside += u64::from(count);
            if inside >= enough || number + 1 - start == most {
                ranges.push(start..number + 1);
                (start, inside) = (number + 1, 0);
            }
        }
        if start < self.counts.len() || ranges.is_empty() {
            ranges.push(start..self.counts.len());
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_ids_have_no_number_of_their_own() {
        let words = Words::new(&[7, -1, 3, 7, 3, 9, 7], 2);
        assert_eq!(words.ids, [3, 7]);
        assert_eq!(words.numbers, [1, NONE, 0, 1, 0, RARE, 1]);
        let cut = |parts, most| words.cut(parts, most).into_iter().map(|range| range.end).collect::<Vec<_>>();
        assert_eq!([cut(1, 9), cut(2, 9), cut(5, 9), cut(1, 1)], [vec![2], vec![2], vec![1, 2], vec![1, 2]]);
        assert_eq!(Words::new(&[-1, -1], 1).cut(3, 9).len(), 1);
    }
}
