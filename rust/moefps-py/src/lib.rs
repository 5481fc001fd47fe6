//! `moefps._core`: the kernels of `moefps-core` for Python. Checks arrays, releases the GIL, polls for Ctrl-C, maps
//! errors; the arithmetic is elsewhere.

mod activation;
mod agreement;
mod array;
mod call;
mod count;
mod distance;
mod error;
mod logit;
mod segment;
mod selection;
mod trace;

use pyo3::prelude::*;

/// The Rust kernels of moefps. Use them through `moefps` or `moefps.kernels`.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::activation::sum_activations;
    #[pymodule_export]
    use super::agreement::compare_choices;
    #[pymodule_export]
    use super::count::count_routing;
    #[pymodule_export]
    use super::distance::{mean_distances, wasserstein_cross, wasserstein_matrix};
    #[pymodule_export]
    use super::logit::sum_logits;
    #[pymodule_export]
    use super::segment::{count_segments, count_vocabulary};
    #[pymodule_export]
    use super::selection::{cover, fps, select};

    use pyo3::prelude::*;

    /// Names of the instruction sets that this machine has, slowest first.
    #[pyfunction]
    fn simd_levels() -> Vec<&'static str> {
        moefps_core::l1::Simd::available().into_iter().map(moefps_core::l1::Simd::name).collect()
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
