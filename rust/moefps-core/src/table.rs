//! What was counted of each layer, as arrays of all layers.

use ndarray::{Array2, Array3, s};

/// `[G, L]`, of a number of each layer and group.
pub(crate) fn by_group<C, T>(layers: &[C], groups: usize, number: impl Fn(&C, usize) -> T) -> Array2<T> {
    Array2::from_shape_fn((groups, layers.len()), |(group, layer)| number(&layers[layer], group))
}

/// `[G, L, E]`, of a number of each expert of each layer and group; zeros for experts that a layer does not have.
pub(crate) fn by_expert<C, N: Copy, T: Clone + Default>(
    layers: &[C],
    (groups, experts): (usize, usize),
    numbers: impl Fn(&C, usize) -> &[N],
    convert: impl Fn(N) -> T,
) -> Array3<T> {
    let mut values = Array3::default((groups, layers.len(), experts));
    for (index, layer) in layers.iter().enumerate() {
        for group in 0..groups {
            let counted = numbers(layer, group);
            let mut row = values.slice_mut(s![group, index, ..counted.len()]);
            row.iter_mut().zip(counted).for_each(|(to, &from)| *to = convert(from));
        }
    }
    values
}
