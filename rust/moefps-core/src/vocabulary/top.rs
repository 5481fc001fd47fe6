//! The token ids that choose each expert most.

use std::cmp::Ordering;

/// How often the tokens of a token id choose an expert.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub(super) id: i32,
    /// Those that choose it.
    pub(super) count: u32,
    /// All of them.
    pub(super) total: u32,
}

impl Word {
    /// Compares shares, without rounding.
    fn by_share(&self, other: &Self) -> Ordering {
        (u64::from(self.count) * u64::from(other.total)).cmp(&(u64::from(other.count) * u64::from(self.total)))
    }
}

/// For each expert, some token ids by descending share, the lowest of equals first.
pub(super) struct TopLists {
    most: usize,
    lists: Vec<Vec<Word>>,
}

impl TopLists {
    pub(super) fn new(experts: usize, most: usize) -> Self {
        Self { most, lists: vec![Vec::new(); experts] }
    }

    /// Takes a token id that is higher than those that an expert has.
    #[inline]
    pub(super) fn take(&mut self, expert: usize, word: Word) {
        let list = &mut self.lists[expert];
        if list.len() == self.most && list.last().is_none_or(|last| word.by_share(last).is_le()) {
            return;
        }
        let place = list.partition_point(|better| better.by_share(&word).is_ge());
        list.insert(place, word);
        list.truncate(self.most);
    }

    /// Takes what others found among higher token ids.
    pub(super) fn merge(&mut self, other: &Self) {
        other.iter().for_each(|(expert, _, word)| self.take(expert, word));
    }

    /// Experts, ranks from 0 on, and token ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, usize, Word)> {
        let ranked = |(expert, list): (usize, &Vec<Word>)| {
            list.clone().into_iter().enumerate().map(move |(rank, word)| (expert, rank, word))
        };
        self.lists.iter().enumerate().flat_map(ranked)
    }
}
