//! A cache of experts that knows what the next tokens use.
//!
//! A token's experts that are not in the cache are loaded. While there is room, they are added; then each takes the
//! place of the expert that the token does not use and that the next tokens use least, the highest id of equals. Where
//! the cache is smaller than what the token uses, so that there are more to load than places, those are kept that the
//! next tokens use most, the lowest ids of equals; the others are used without being kept.

use crate::segment::Window;

/// The cache of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    size: usize,
    /// The experts in it.
    held: Vec<u16>,
    /// `[E]`: where each expert is; [`Self::size`] for those that are nowhere.
    places: Vec<u32>,
    /// `[size + 1]`: for each place, and for nowhere, what is smallest for the expert that is to go first.
    keys: Vec<u32>,
    /// `[k]`: room for the experts of a token that are not in it.
    missing: Vec<u16>,
    /// Experts that were there when they were used.
    pub(crate) hits: i64,
    /// Experts that were used.
    pub(crate) activations: i64,
}

impl Cache {
    /// An empty cache of `size` of the `experts` of a layer, whose tokens use up to `k`.
    pub(crate) fn new(size: usize, experts: usize, k: usize) -> Self {
        // More than all never are in it.
        let size = size.min(experts);
        Self {
            size,
            held: Vec::with_capacity(size),
            places: vec![size as u32; experts],
            keys: vec![0; size + 1],
            missing: vec![0; k],
            hits: 0,
            activations: 0,
        }
    }

    /// Empties the cache.
    pub(crate) fn clear(&mut self) {
        for &id in &self.held {
            self.places[usize::from(id)] = self.size as u32;
        }
        self.held.clear();
    }

    /// Routes a token to the experts that it uses, each of them once, where `next` are the tokens after it.
    #[inline(always)]
    pub(crate) fn route(&mut self, chosen: &[u16], next: &Window) {
        let mut n = 0;
        for &id in chosen {
            // Written in any case, and kept where it is missing: which are is not to be foreseen.
            self.missing[n] = id;
            n += usize::from(self.places[usize::from(id)] == self.size as u32);
        }
        self.hits += (chosen.len() - n) as i64;
        self.activations += chosen.len() as i64;
        if n > 0 {
            self.load(chosen, n, next);
        }
    }

    /// Loads the first `n` of the missing experts.
    #[inline(always)]
    fn load(&mut self, chosen: &[u16], mut n: usize, next: &Window) {
        let room = self.size - self.held.len();
        let others = self.held.len() - (chosen.len() - n);
        if n > room + others {
            self.missing[..n].sort_unstable_by_key(|&id| (u32::MAX - next.uses(id), id));
            n = room + others;
        }
        let to_replace = n.saturating_sub(room);
        if to_replace > 0 {
            self.replace(chosen, to_replace, next);
        }
        for &id in &self.missing[to_replace..n] {
            self.places[usize::from(id)] = self.held.len() as u32;
            self.held.push(id);
        }
    }

    /// Puts the first `n` of the missing experts where others were.
    #[inline(always)]
    fn replace(&mut self, chosen: &[u16], n: usize, next: &Window) {
        let nowhere = self.size as u32;
        for (key, &id) in self.keys.iter_mut().zip(&self.held) {
            // A window is shorter than 2^15, and an id below it: no key is the largest number.
            *key = next.uses(id) << 16 | u32::from(!id);
        }
        for &id in chosen {
            self.keys[self.places[usize::from(id)] as usize] = u32::MAX;
        }
        for &id in &self.missing[..n] {
            let least = self.keys[..self.held.len()].iter().fold(u32::MAX, |least, &key| least.min(key));
            let gone = !(least as u16);
            let place = std::mem::replace(&mut self.places[usize::from(gone)], nowhere);
            self.places[usize::from(id)] = place;
            self.held[place as usize] = id;
            self.keys[place as usize] = u32::MAX;
        }
    }
}
