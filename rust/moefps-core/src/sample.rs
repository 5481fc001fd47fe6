//! What comes in: an array `[N, L, E]` of routing distributions in any float type and any memory order.

use half::f16;
use half::slice::HalfFloatSliceExt;
use ndarray::{ArrayView3, s};

use crate::{Error, Result};

/// A borrowed array of three axes, such as `[samples, layers, experts]`. Nothing is copied; rows are read as float64 one
/// at a time.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Half precision.
    F16(ArrayView3<'a, f16>),
    /// Single precision.
    F32(ArrayView3<'a, f32>),
    /// Double precision.
    F64(ArrayView3<'a, f64>),
}

impl Values<'_> {
    /// Its three lengths.
    #[must_use]
    pub fn shape(&self) -> (usize, usize, usize) {
        match self {
            Self::F16(x) => x.dim(),
            Self::F32(x) => x.dim(),
            Self::F64(x) => x.dim(),
        }
    }

    /// Bytes of an element.
    pub(crate) fn element_bytes(&self) -> usize {
        match self {
            Self::F16(_) => 2,
            Self::F32(_) => 4,
            Self::F64(_) => 8,
        }
    }

    /// One element.
    pub(crate) fn at(&self, place: [usize; 3]) -> f64 {
        match self {
            Self::F16(x) => x[place].to_f64(),
            Self::F32(x) => x[place].into(),
            Self::F64(x) => x[place],
        }
    }
}

/// Fingerprints with the name that error messages call them by.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    /// The argument's name, such as `X`.
    pub name: &'static str,
    /// The array itself.
    pub values: Values<'a>,
    /// Whether rows with any positive sum are accepted.
    pub normalize: bool,
}

impl Samples<'_> {
    /// `(samples, layers, experts)`.
    #[must_use]
    pub fn shape(&self) -> (usize, usize, usize) {
        self.values.shape()
    }

    /// How far from 1 a row may sum, and the dtype's name. Generous towards rounding, not towards mistakes.
    #[must_use]
    pub fn tolerance(&self) -> (f64, &'static str) {
        match self.values {
            Values::F16(_) => (2e-3, "float16"),
            Values::F32(_) => (1e-4, "float32"),
            Values::F64(_) => (1e-6, "float64"),
        }
    }

    /// Copies the rows `layer ..` of a sample, as many as `rows` has room for, as float64.
    #[inline(always)]
    pub(crate) fn read(&self, sample: usize, layer: usize, rows: &mut [f64]) {
        match &self.values {
            Values::F16(x) => copy(x, sample, layer, rows, |from, to| from.convert_to_f64_slice(to), f16::to_f64),
            Values::F32(x) => {
                let widen = |from: &[f32], to: &mut [f64]| to.iter_mut().zip(from).for_each(|(to, &v)| *to = v.into());
                copy(x, sample, layer, rows, widen, f64::from);
            }
            Values::F64(x) => copy(x, sample, layer, rows, |from, to| to.copy_from_slice(from), |v| v),
        }
    }

    /// Says what is wrong with a row whose checks failed, or accepts it.
    ///
    /// `total` is the row's float64 sum, added up from expert 0 on.
    pub(crate) fn check(&self, sample: usize, layer: usize, row: &[f64], total: f64) -> Result<()> {
        let name = self.name;
        if let Some(expert) = row.iter().position(|p| !p.is_finite() || *p < 0.0) {
            return Err(Error::Data(format!(
                "{name}: sample {sample}, layer {layer}, expert {expert} is {}; accepted: finite numbers >= 0",
                row[expert]
            )));
        }
        if total == 0.0 {
            return Err(Error::Data(format!(
                "{name}: sample {sample}, layer {layer} is all zeros; accepted: rows that sum to 1"
            )));
        }
        if !total.is_finite() {
            return Err(Error::Data(format!("{name}: sample {sample}, layer {layer} sums to {total}")));
        }
        let (tolerance, dtype) = self.tolerance();
        if !self.normalize && (total - 1.0).abs() > tolerance {
            return Err(Error::Data(format!(
                "{name}: sample {sample}, layer {layer} sums to {total}; accepted: 1 within {tolerance:e} for {dtype}, \
                 or any positive sum with normalize=True"
            )));
        }
        Ok(())
    }
}

/// Copies rows: at once where the whole array is contiguous, else one by one.
#[inline(always)]
fn copy<T: Copy>(
    from: &ArrayView3<'_, T>,
    sample: usize,
    layer: usize,
    to: &mut [f64],
    slice: impl Fn(&[T], &mut [f64]),
    element: impl Fn(T) -> f64,
) {
    let (_, layers, experts) = from.dim();
    if let Some(all) = from.as_slice() {
        let start = (sample * layers + layer) * experts;
        slice(&all[start..start + to.len()], to);
    } else {
        for (layer, to) in (layer..).zip(to.chunks_exact_mut(experts)) {
            to.iter_mut().zip(from.slice(s![sample, layer, ..])).for_each(|(to, &v)| *to = element(v));
        }
    }
}
