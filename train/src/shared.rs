//! State variables that several parts of a module use under one name.

use graphc_ir::{DType, FunctionBuilder, Initializer, Param, Shape};

/// The state variable of that name, declared unless it exists. One of another type is a recorded
/// mistake.
pub(crate) fn state(
    f: &FunctionBuilder,
    name: &str,
    dtype: DType,
    shape: impl Into<Shape>,
    init: Initializer,
) -> Param {
    let shape = shape.into();
    match f.find_param(name) {
        Some(known) if known.ty.dtype == dtype && known.ty.shape == shape => known,
        // Declaring it a second time records the mistake.
        _ => f.state(name, dtype, shape, init),
    }
}
