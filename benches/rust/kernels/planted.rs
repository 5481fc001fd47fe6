//! Fingerprints made on the spot: a few behaviours of uneven size, and scatter around them.

use ndarray::{Array3, Axis};

/// Share of a behaviour's own in what its samples use.
const CONTRAST: f32 = 0.25;

/// Behaviours; each has about twice as many samples as the next.
const BEHAVIOURS: usize = 10;

/// `n` samples `[n, layers, experts]`, the same on every machine.
pub(crate) fn planted(n: usize, (layers, experts): (usize, usize)) -> Array3<f32> {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let width = layers * experts;
    let usage = |random: &mut Random| -> Vec<f32> { (0..width).map(|_| random.uneven()).collect() };
    let shared = usage(&mut random);
    let own: Vec<Vec<f32>> = (0..BEHAVIOURS).map(|_| usage(&mut random)).collect();
    let mut x = Array3::zeros((n, layers, experts));
    for mut sample in x.outer_iter_mut() {
        let behaviour = (random.next().trailing_ones() as usize).min(BEHAVIOURS - 1);
        for ((v, shared), own) in sample.iter_mut().zip(&shared).zip(&own[behaviour]) {
            *v = ((1.0 - CONTRAST) * shared + CONTRAST * own) * random.scatter();
        }
    }
    for mut row in x.lanes_mut(Axis(2)) {
        let sum = row.sum();
        row /= sum;
    }
    x
}

/// Marsaglia's xorshift: any stream of numbers does.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A factor around 1, as the share of an expert shows in a text of some length.
    fn scatter(&mut self) -> f32 {
        (0..4).map(|_| self.uneven()).sum::<f32>() / 4.0
    }

    /// A positive number, mostly small: exponentially distributed.
    fn uneven(&mut self) -> f32 {
        let uniform = (self.next() >> 40) as f32 / (1u32 << 24) as f32;
        -(1.0 - uniform).ln() + 1e-6
    }
}
