//! Exact Wasserstein distances between Mixture-of-Experts routing fingerprints, and farthest point sampling over them.
//!
//! Every ground metric on offer makes the sum over layers of the 1-D Wasserstein distance an L1 distance between two
//! vectors of features ([`ground`]). Below that there is one L1 kernel ([`l1`]), a tiled matrix over it ([`matrix`]),
//! and farthest point sampling with ([`fps`]) or without ([`select`]) that matrix.
//!
//! Beside them, [`count`] reduces a trace of token-level routing to what routing metrics are made of, [`logit`] the
//! full distributions that its routers computed, [`segment`] its windows of tokens, and [`vocabulary`] its token ids.
//! [`activation`] sums up how strongly experts are active on the tokens of each group, [`agreement`] how far two traces
//! of the same tokens agree. All are told of layers and groups alike ([`trace`]). Those that add up floats do it in one
//! pass (`chunk`), through tiles of tokens (`tile`) or a token's distribution over experts (`distribution`).
//!
//! The crate knows nothing of Python. Long calls take a [`task::Task`], through which another thread follows and
//! cancels them, and run on the rayon pool that they are called in. No result depends on the number of threads or on
//! the instruction set.

pub mod activation;
pub mod agreement;
mod aligned;
pub mod bounds;
mod cache;
pub mod choice;
mod chunk;
pub mod count;
mod distribution;
pub mod error;
mod exact;
pub mod fps;
pub mod ground;
pub mod l1;
pub mod logit;
mod math;
pub mod matrix;
mod medoid;
mod nearest;
pub mod output;
pub mod sample;
pub mod segment;
pub mod select;
pub mod start;
pub mod sum;
mod table;
pub mod task;
mod tile;
pub mod trace;
pub mod vocabulary;

pub use error::{Error, Result};
