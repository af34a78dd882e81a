//! Derivatives of higher order and whole derivative matrices.

use super::{gradients, jvp, vjp, vmap};
use crate::builder::Tensor;
use crate::types::{DType, Shape};

/// Hessian-vector product: for a float scalar `output` and pairs (input, direction of its type) the
/// product of the matrix of second derivatives with the direction, one tensor of each input's type.
/// It is the derivative of the gradient along the direction, forward over reverse: a small multiple
/// of the cost of the gradient, and the matrix is never formed. Mistakes are recorded as in
/// [`gradients`].
///
/// ```
/// use graphc_ir::{DType, Literal, ModuleBuilder, evaluate, hvp};
///
/// let m = ModuleBuilder::new("m");
/// m.function("f", |f| {
///     let (x, v) = (f.input("x", DType::F64, [2]), f.input("v", DType::F64, [2]));
///     // sum(x^3) has the Hessian diag(6 x).
///     f.output("hv", hvp((x * x * x).reduce_sum(&[0]), &[(x, v)])[0]);
/// });
/// let module = m.build().unwrap();
/// let (x, v) = (Literal::new(&[2], vec![1.0, 2.0]).unwrap(), Literal::new(&[2], vec![1.0, -1.0]).unwrap());
/// let out = evaluate(&module.functions[0], &[x, v], |_| unreachable!("no state")).unwrap().outputs;
/// assert_eq!(out[0], Literal::new(&[2], vec![6.0, -12.0]).unwrap());
/// ```
#[track_caller]
pub fn hvp<'f>(output: Tensor<'f>, inputs: &[(Tensor<'f>, Tensor<'f>)]) -> Vec<Tensor<'f>> {
    let wrt: Vec<Tensor<'f>> = inputs.iter().map(|&(x, _)| x).collect();
    jvp(&gradients(output, &wrt), inputs)
}

/// Jacobian matrices of `output`, any float tensor whose extents are numbers: for each of `wrt` a
/// tensor of shape `output.shape ++ wrt.shape`, `J[i.., j..] = d output[i..] / d wrt[j..]`. One
/// backward pass for each element of `output`, all at once by [`vmap`]: meant for small outputs.
/// Mistakes are recorded as in [`vjp`] and [`vmap`].
///
/// ```
/// use graphc_ir::{DType, Literal, ModuleBuilder, evaluate, jacobian};
///
/// let m = ModuleBuilder::new("m");
/// m.function("f", |f| {
///     let x = f.input("x", DType::F64, [2]);
///     f.output("j", jacobian(x * x, &[x])[0]);
/// });
/// let module = m.build().unwrap();
/// let x = Literal::new(&[2], vec![3.0, 4.0]).unwrap();
/// let out = evaluate(&module.functions[0], &[x], |_| unreachable!("no state")).unwrap().outputs;
/// assert_eq!(out[0], Literal::new(&[2, 2], vec![6.0, 0.0, 0.0, 8.0]).unwrap());
/// ```
#[track_caller]
pub fn jacobian<'f>(output: Tensor<'f>, wrt: &[Tensor<'f>]) -> Vec<Tensor<'f>> {
    let f = output.builder();
    let ty = output.ty();
    let poison = || vec![f.poison(); wrt.len()];
    if output.is_poison() || wrt.iter().any(|x| x.is_poison()) {
        return poison();
    }
    let Some(n) = ty.shape.num_elements().filter(|_| ty.dtype.is_float()) else {
        f.misuse(format!("jacobian: the output is {ty}, it must be a float of extents that are numbers"));
        return poison();
    };
    // One example per element of the output: the cotangent that is 1 there.
    let same = f.iota(DType::I64, [n, n], 0).eq(f.iota(DType::I64, [n, n], 1));
    let rows: Shape = std::iter::once(&n.into()).chain(ty.shape.iter()).collect();
    let units = same.cast(ty.dtype).reshape(rows);
    let of_rows = vmap(&[(units, 0)], |ct| vjp(&[(output, ct[0])], wrt));
    let whole = |(j, x): (Tensor<'f>, &Tensor<'f>)| {
        j.reshape(ty.shape.iter().chain(x.shape().iter()).collect::<Shape>())
    };
    of_rows.into_iter().zip(wrt).map(whole).collect()
}

/// Matrices of second derivatives of the float scalar `output`: `hessian(y, wrt)[a][b]` has the
/// shape `wrt[a].shape ++ wrt[b].shape` and holds `d^2 y / (d wrt[a] d wrt[b])`. The [`jacobian`] of
/// the gradients, so meant for inputs of few elements, whose extents are numbers: see [`hvp`] for
/// others.
///
/// ```
/// use graphc_ir::{DType, Literal, ModuleBuilder, evaluate, hessian};
///
/// let m = ModuleBuilder::new("m");
/// m.function("f", |f| {
///     let x = f.input("x", DType::F64, [2]);
///     let product = x.reduce_prod(&[0]);
///     f.output("h", hessian(product * product, &[x])[0][0]);
/// });
/// let module = m.build().unwrap();
/// let x = Literal::new(&[2], vec![3.0, 5.0]).unwrap();
/// let out = evaluate(&module.functions[0], &[x], |_| unreachable!("no state")).unwrap().outputs;
/// assert_eq!(out[0], Literal::new(&[2, 2], vec![50.0, 60.0, 60.0, 18.0]).unwrap());
/// ```
#[track_caller]
pub fn hessian<'f>(output: Tensor<'f>, wrt: &[Tensor<'f>]) -> Vec<Vec<Tensor<'f>>> {
    gradients(output, wrt).into_iter().map(|g| jacobian(g, wrt)).collect()
}
