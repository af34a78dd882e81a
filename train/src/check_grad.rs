//! Checks gradients of a compiled function against two computations that share no rule with them: forward mode, and central
//! differences. Both run in f64 where the function allows it, so that what differs is the gradient.
//!
//! ```
//! use graphc_ir::{DType, ModuleBuilder, composite::mse, shape};
//! use graphc_train::{check_grad::CheckGrad, nn::{Dense, Layer}, session::Session};
//!
//! let m = ModuleBuilder::new("line");
//! let dense = Dense::new(&m, "dense", 3, 1);
//! m.function("loss", |f| {
//!     let x = f.input("x", DType::F32, shape!["B", 3]);
//!     f.output("loss", mse(dense.apply(x).tanh(), f.input("y", DType::F32, shape!["B", 1])));
//! });
//! let session = Session::new(m.build()?, 1)?;
//! let (x, y) = ([0.1f32, 0.2, 0.3, -0.4, 0.5, -0.6], [1.0f32, 2.0]);
//! let certificate = CheckGrad::new().run(&session, "loss", &[("x", (&x).into()), ("y", (&y).into())])?;
//! assert!(certificate.passed(), "{certificate}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::data::{Row, random};
use crate::session::{Session, SessionError};
use graphc_compiler::Rebuilder;
use graphc_ir::ops::Input;
use graphc_ir::{
    BuildErrors, DType, Function, FunctionBuilder, Module, Op, Origin, Output, Param, TensorType, TypeError,
    gradient_function_of, jvp,
};
use graphc_runtime::{Elements, RuntimeError, Value};
use serde::Serialize;
use std::fmt;

/// Why gradients cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckGradError {
    /// There is no gradient, such as of an operation without a rule.
    #[error(transparent)]
    Gradient(#[from] BuildErrors),
    /// A shape rule is broken for these numbers of the dimensions.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// The function, or what it is checked against, cannot be compiled or run.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<RuntimeError> for CheckGradError {
    fn from(e: RuntimeError) -> Self {
        Self::Session(e.into())
    }
}

/// How gradients are checked.
///
/// For each variable `p` and random directions `v` of +1 and -1 the product of the compiled gradient with `v` is compared
/// with the derivative along `v` by forward mode, and with `(f(p + h v) - f(p - h v)) / 2 h`. The error is relative to the
/// Euclidean norm of the gradient, which is the typical size of that product; but at least to a thousandth of the largest norm
/// of all variables, as gradients that are zero but for rounding have no meaningful relative error.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckGrad {
    wrt: Vec<String>,
    dims: Vec<(String, usize)>,
    seed: u64,
    directions: usize,
    step: Option<f64>,
    tolerance: Option<f64>,
}

impl Default for CheckGrad {
    fn default() -> Self {
        Self { wrt: Vec::new(), dims: Vec::new(), seed: 1, directions: 3, step: None, tolerance: None }
    }
}

impl CheckGrad {
    /// All trainable parameters, or all float inputs if there are none; three directions.
    pub fn new() -> Self {
        Self::default()
    }

    /// With respect to these inputs and state variables.
    pub fn wrt(self, names: Vec<String>) -> Self {
        Self { wrt: names, ..self }
    }

    /// Gives a named dimension a number, where it does not follow from the lengths of the inputs.
    pub fn dim(mut self, name: &str, extent: usize) -> Self {
        self.dims.push((name.to_owned(), extent));
        self
    }

    /// Seed of the directions: 1.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Number of directions for each variable: 3.
    pub fn directions(self, directions: usize) -> Self {
        Self { directions: directions.max(1), ..self }
    }

    /// The step `h` of differences: 1e-6 in f64, 1e-2 in f32.
    pub fn step(self, step: f64) -> Self {
        Self { step: Some(step), ..self }
    }

    /// Largest relative error: 1e-6 for a function that computes in f64, 1e-3 in f32, 5e-2 with half floats or if the
    /// function cannot be computed in f64.
    pub fn tolerance(self, tolerance: f64) -> Self {
        Self { tolerance: Some(tolerance), ..self }
    }

    /// Checks the gradient of the first output of a function, at the state of the session and these inputs. The session stays as
    /// it is; what is checked is compiled as it compiles.
    ///
    /// # Errors
    /// [`CheckGradError`]. Wrong gradients are no error here: see [`Certificate::passed`].
    pub fn run(
        &self,
        session: &Session,
        function: &str,
        inputs: &[(&str, Value<'_>)],
    ) -> Result<Certificate, CheckGradError> {
        let dims: Vec<(&str, usize)> = self.dims.iter().map(|(n, d)| (n.as_str(), *d)).collect();
        let bindings = session.bindings(function, &dims, inputs)?;
        let mut module = session.module().clone();
        module.functions.retain(|f| &*f.name == function);
        for f in &mut module.functions {
            *f = Function { updates: Vec::new(), ..f.bind(&bindings)? };
        }
        let names = self.names(&module);
        let wrt: Vec<&str> = names.iter().map(String::as_str).collect();
        let gradient = gradient_function_of(&module, function, &wrt)?;
        let float = lowest(&module.functions[0]);
        let reference = Reference::new(&module, &wrt)?;
        let wide = reference.float == DType::F64;

        let mut own = session.with_module(Module { functions: vec![gradient.clone()], ..module.clone() })?;
        copy_state(session, &mut own)?;
        let outputs = own.run(&gradient.name, inputs)?;
        let mut gradients: Vec<Elements> = Vec::with_capacity(wrt.len());
        for name in &wrt {
            let name = format!("grad/{name}");
            let found = outputs.iter().find(|(n, _, _)| *n == name);
            gradients
                .push(found.map_or(Elements::zeros(float, 0), |(_, _, value)| owned(value, value.dtype())));
        }

        let step = self.step.unwrap_or(if wide { 1e-6 } else { 1e-2 });
        let tolerance = self.tolerance.unwrap_or(match float {
            DType::F64 => 1e-6,
            DType::F32 if wide => 1e-3,
            _ => 5e-2,
        });
        let mut point = Point::new(session, reference, inputs)?;
        let norms: Vec<f64> = gradients.iter().map(norm).collect();
        let floor = norms.iter().copied().fold(0.0, f64::max) * 1e-3;
        let mut variables = Vec::with_capacity(wrt.len());
        for (i, (name, gradient)) in wrt.iter().zip(&gradients).enumerate() {
            let n = gradient.value().len();
            let mut variable = Variable {
                name: (*name).to_owned(),
                elements: n,
                norm: norms[i],
                forward_error: point.reference.tangent.as_ref().map(|_| 0.0),
                difference_error: 0.0,
                passed: false,
            };
            for direction in 0..self.directions {
                let mut bits = random(Row { index: i, seed: self.seed, epoch: direction as u64 });
                let v: Vec<f64> = (0..n).map(|_| if bits.unit() < 0.5 { -1.0 } else { 1.0 }).collect();
                let product: f64 = v.iter().enumerate().map(|(j, v)| gradient.get(j).to_f64() * v).sum();
                let scale = |x: f64| norms[i].max(x.abs()).max(floor);
                let error = |x: f64| if x == product { 0.0 } else { (x - product).abs() / scale(x) };
                if let Some(worst) = &mut variable.forward_error {
                    *worst = larger(*worst, error(point.along(name, &v)?));
                }
                let difference =
                    (point.moved(name, &v, step)? - point.moved(name, &v, -step)?) / (2.0 * step);
                variable.difference_error = larger(variable.difference_error, error(difference));
            }
            variable.passed = variable.error() <= tolerance;
            variables.push(variable);
        }
        Ok(Certificate {
            function: function.to_owned(),
            float: float.to_string(),
            reference: point.reference.float.to_string(),
            bindings: bindings.to_string(),
            seed: self.seed,
            directions: self.directions,
            step,
            tolerance,
            variables,
        })
    }

    /// Names of the variables.
    fn names(&self, module: &Module) -> Vec<String> {
        if !self.wrt.is_empty() {
            return self.wrt.clone();
        }
        let trainable: Vec<String> =
            module.trainable().map(|id| module.state[id.index()].name.to_string()).collect();
        if !trainable.is_empty() {
            return trainable;
        }
        let floats = |f: &Function| -> Vec<String> {
            let float = |i: &&graphc_ir::NodeId| f.graph.ty(**i).dtype.is_float();
            f.inputs.iter().filter(float).map(|&i| f.input_name(i).to_owned()).collect()
        };
        module.functions.first().map_or(Vec::new(), floats)
    }
}

/// What was found of one variable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Variable {
    /// Name of the parameter or input.
    pub name: String,
    /// Number of its elements.
    pub elements: usize,
    /// Euclidean norm of its gradient.
    pub norm: f64,
    /// Largest relative error against forward mode; none if an operation has no rule for it.
    pub forward_error: Option<f64>,
    /// Largest relative error against central differences.
    pub difference_error: f64,
    /// Whether both are within the tolerance.
    pub passed: bool,
}

impl Variable {
    /// The larger error; NaN if something is not finite.
    pub fn error(&self) -> f64 {
        larger(self.forward_error.unwrap_or(0.0), self.difference_error)
    }
}

/// What was checked and found. Printed, a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Certificate {
    /// The function.
    pub function: String,
    /// Its least precise type of floats.
    pub float: String,
    /// Type of floats of what it was checked against.
    pub reference: String,
    /// Numbers of its dimensions.
    pub bindings: String,
    /// See [`CheckGrad::seed`].
    pub seed: u64,
    /// See [`CheckGrad::directions`].
    pub directions: usize,
    /// See [`CheckGrad::step`].
    pub step: f64,
    /// See [`CheckGrad::tolerance`].
    pub tolerance: f64,
    /// The variables, in the order of declaration.
    pub variables: Vec<Variable>,
}

impl Certificate {
    /// Whether all gradients are right.
    pub fn passed(&self) -> bool {
        self.variables.iter().all(|v| v.passed)
    }

    /// The variable with the largest error.
    pub fn worst(&self) -> Option<&Variable> {
        self.variables.iter().max_by(|a, b| a.error().total_cmp(&b.error()))
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.bindings.is_empty() { String::new() } else { format!(" with {}", self.bindings) };
        writeln!(
            f,
            "gradients of `{}` in {}{open}, against {} (seed {}, {} directions, step {:e})",
            self.function, self.float, self.reference, self.seed, self.directions, self.step
        )?;
        writeln!(f, "{:>10} {:>12} {:>12} {:>12}  variable", "elements", "norm", "forward", "differences")?;
        for v in &self.variables {
            let forward = v.forward_error.map_or("none".to_owned(), |e| format!("{e:.1e}"));
            let verdict = if v.passed { "" } else { ": WRONG" };
            writeln!(
                f,
                "{:>10} {:>12.4e} {forward:>12} {:>12.1e}  {}{verdict}",
                v.elements, v.norm, v.difference_error, v.name
            )?;
        }
        let wrong = self.variables.iter().filter(|v| !v.passed).count();
        let worst = self
            .worst()
            .map_or(String::new(), |v| format!(", largest relative error {:.1e} of {}", v.error(), v.name));
        let n = self.variables.len();
        write!(f, "{} of {n} right within {:e}{worst}", n - wrong, self.tolerance)
    }
}

/// The larger number; NaN if one is.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn norm(x: &Elements) -> f64 {
    (0..x.value().len()).map(|i| x.get(i).to_f64().powi(2)).sum::<f64>().sqrt()
}

/// The least precise type of floats in a function.
fn lowest(f: &Function) -> DType {
    let floats = f.graph.ids().map(|id| f.graph.ty(id).dtype).filter(|d| d.is_float());
    floats.min_by_key(|d| d.size_bytes()).unwrap_or(DType::F32)
}

/// Elements converted to another type.
fn owned(value: Value<'_>, dtype: DType) -> Elements {
    let mut same = Elements::zeros(value.dtype(), value.len());
    same.write(0, value);
    if dtype == value.dtype() {
        return same;
    }
    Elements::from_fn(dtype, value.len(), |i| same.get(i).to_f64())
}

/// Gives each variable of `to` the value that it has in `from`, in its own type.
fn copy_state(from: &Session, to: &mut Session) -> Result<(), RuntimeError> {
    for (entry, value) in from.state().iter() {
        let dtype = to.state().value(&entry.name)?.dtype();
        to.state_mut().copy_from(&entry.name, owned(value, dtype).value())?;
    }
    Ok(())
}

/// Beginning of the names of what is held fixed.
const FIXED: &str = "stop_gradient/";
/// Beginning of the names of directions.
const DIRECTION: &str = "direction/";

/// What gradients are checked against: functions that compute in `float`, by the definition of what the function
/// computes, without gradients of the user's own.
struct Reference {
    float: DType,
    state: Module,
    /// The function, and the values of all `stop_gradient`.
    base: Function,
    /// The function with these values as inputs: what a gradient takes for constant is constant.
    fixed: Function,
    /// The derivative along a direction, if all operations have a rule.
    tangent: Option<Function>,
}

impl Reference {
    /// Of the only function of a module, whose dimensions are numbers.
    fn new(module: &Module, wrt: &[&str]) -> Result<Self, CheckGradError> {
        let plain = module.functions[0].without_custom_gradients()?;
        let (float, function) = match plain.in_floats(DType::F64) {
            Ok(wide) => (DType::F64, wide),
            Err(_) => (DType::F32, plain),
        };
        let mut state = Module { functions: Vec::new(), ..module.clone() };
        for s in state.state.iter_mut().filter(|s| s.ty.dtype.is_float() && float == DType::F64) {
            s.ty.dtype = float;
        }
        let (base, fixed) = fix(&function)?;
        let input = |name: &str| function.inputs.iter().copied().find(|&i| function.input_name(i) == name);
        let tangent = FunctionBuilder::extend(&state, &function, |b| {
            let pair = |name: &&str| {
                let x = match (input(name), state.state_id(name)) {
                    (Some(id), _) => b.tensor(id),
                    (None, Some(id)) => b.read(&Param { id, ty: state.state[id.index()].ty.clone() }),
                    (None, None) => return None,
                };
                Some((x, b.input(&format!("{DIRECTION}{name}"), x.dtype(), x.shape())))
            };
            let pairs: Vec<_> = wrt.iter().filter_map(pair).collect();
            if let Some(first) = b.first_output() {
                b.output("derivative", jvp(&[first], &pairs)[0]);
            }
        });
        // A missing rule is no mistake: differences are left.
        let tangent = tangent.ok().map(|f| Function { name: "tangent".into(), ..f });
        Ok(Self { float, state, base, fixed, tangent })
    }
}

/// The function with the operand of each `stop_gradient` as an output, and the function with these as inputs.
fn fix(f: &Function) -> Result<(Function, Function), CheckGradError> {
    let stops = |id: &graphc_ir::NodeId| matches!(f.graph.op(*id), Op::StopGradient(_));
    let stopped: Vec<_> = f.graph.ids().filter(stops).collect();
    let name = |i: usize| format!("{FIXED}{i}");
    let mut base = Function { name: "base".into(), ..f.clone() };
    let outputs = stopped.iter().enumerate().map(|(i, &node)| Output { name: name(i).into(), node });
    base.outputs.extend(outputs);
    let mut rebuilder = Rebuilder::new(f);
    let mut inputs = Vec::with_capacity(stopped.len());
    for id in f.graph.ids() {
        if !stopped.contains(&id) {
            rebuilder.keep(id);
            continue;
        }
        let ty: TensorType = f.graph.ty(id).clone();
        let new = rebuilder.push(Input { ty }, &[], &Origin::default()).map_err(SessionError::from)?;
        rebuilder.replace(id, new);
        inputs.push(new);
    }
    let mut fixed = Function { name: "fixed".into(), ..rebuilder.finish() };
    for (i, &id) in inputs.iter().enumerate() {
        fixed.graph.origin_mut(id).name = Some(name(i).into());
    }
    fixed.inputs.extend(inputs);
    fixed.outputs.truncate(1);
    Ok((base, fixed))
}

/// A point at which functions of the reference are evaluated.
struct Point {
    reference: Reference,
    session: Session,
    inputs: Vec<(String, Elements)>,
    /// What is held fixed.
    fixed: Vec<(String, Elements)>,
    /// Zeros in place of directions.
    directions: Vec<(String, Elements)>,
}

impl Point {
    fn new(
        session: &Session,
        reference: Reference,
        inputs: &[(&str, Value<'_>)],
    ) -> Result<Self, CheckGradError> {
        let functions = [Some(&reference.base), Some(&reference.fixed), reference.tangent.as_ref()];
        let functions = functions.into_iter().flatten().cloned().collect();
        let mut own = session.with_module(Module { functions, ..reference.state.clone() })?;
        copy_state(session, &mut own)?;
        let convert = |&(name, value): &(&str, Value<'_>)| {
            let dtype = if value.dtype().is_float() && reference.float == DType::F64 {
                DType::F64
            } else {
                value.dtype()
            };
            (name.to_owned(), owned(value, dtype))
        };
        let inputs: Vec<(String, Elements)> = inputs.iter().map(convert).collect();
        let outputs = own.run("base", &values(&[&inputs]))?;
        let fixed = outputs.iter().filter(|(name, _, _)| name.starts_with(FIXED));
        let fixed = fixed.map(|(name, _, value)| (name.to_owned(), owned(value, value.dtype()))).collect();
        let directions = reference.tangent.iter().flat_map(|f| {
            let direction = |&i: &graphc_ir::NodeId| f.input_name(i).starts_with(DIRECTION);
            f.inputs.iter().copied().filter(direction).map(|i| {
                let ty = f.graph.ty(i);
                let n = ty.shape.num_elements().unwrap_or(0);
                (f.input_name(i).to_owned(), Elements::zeros(ty.dtype, n))
            })
        });
        let directions = directions.collect();
        Ok(Self { reference, session: own, inputs, fixed, directions })
    }

    /// The derivative with respect to a variable along `v`, by forward mode.
    fn along(&mut self, variable: &str, v: &[f64]) -> Result<f64, CheckGradError> {
        let name = format!("{DIRECTION}{variable}");
        for (_, direction) in self.directions.iter_mut().filter(|(n, _)| *n == name) {
            *direction = Elements::from_fn(direction.value().dtype(), v.len(), |i| v[i]);
        }
        let values = values(&[&self.inputs, &self.directions]);
        let derivative = first_of(&mut self.session, "tangent", &values, "derivative");
        for (_, direction) in self.directions.iter_mut().filter(|(n, _)| *n == name) {
            *direction = Elements::zeros(direction.value().dtype(), v.len());
        }
        derivative
    }

    /// The first output with a variable moved by `h v`.
    fn moved(&mut self, variable: &str, v: &[f64], h: f64) -> Result<f64, CheckGradError> {
        let output = self.reference.fixed.outputs[0].name.to_string();
        let moved =
            |x: &Elements| Elements::from_fn(x.value().dtype(), v.len(), |i| x.get(i).to_f64() + h * v[i]);
        if let Some(i) = self.inputs.iter().position(|(n, _)| n == variable) {
            let there = moved(&self.inputs[i].1);
            let here = std::mem::replace(&mut self.inputs[i].1, there);
            let result = first_of(&mut self.session, "fixed", &values(&[&self.inputs, &self.fixed]), &output);
            self.inputs[i].1 = here;
            return result;
        }
        let value = self.session.state().value(variable)?;
        let here = owned(value, value.dtype());
        self.session.state_mut().copy_from(variable, moved(&here).value())?;
        let result = first_of(&mut self.session, "fixed", &values(&[&self.inputs, &self.fixed]), &output);
        self.session.state_mut().copy_from(variable, here.value())?;
        result
    }
}

fn values<'a>(lists: &[&'a [(String, Elements)]]) -> Vec<(&'a str, Value<'a>)> {
    lists.iter().copied().flatten().map(|(name, e)| (name.as_str(), e.value())).collect()
}

/// Element 0 of an output.
fn first_of(
    session: &mut Session,
    function: &str,
    inputs: &[(&str, Value<'_>)],
    output: &str,
) -> Result<f64, CheckGradError> {
    let outputs = session.run(function, inputs)?;
    let found = outputs.iter().find(|(name, _, _)| *name == output);
    Ok(found.map_or(f64::NAN, |(_, _, value)| owned(value, DType::F64).get(0).to_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphc_ir::{Initializer, ModuleBuilder, Tensor};

    /// Checks `body` of a parameter `w: f32[4]` and an input `x: f32[4]`.
    fn check(
        body: impl for<'f> Fn(&'f FunctionBuilder, Tensor<'f>, Tensor<'f>) -> Tensor<'f>,
    ) -> Certificate {
        let m = ModuleBuilder::new("m");
        let w = m.param("w", DType::F32, [4], Initializer::Uniform { lo: 0.5, hi: 1.5 });
        m.function("loss", |f| {
            let x = f.input("x", DType::F32, [4]);
            f.output("loss", body(f, f.read(&w), x));
        });
        let session = Session::new(m.build().unwrap(), 1).unwrap();
        let wrt = vec!["w".to_owned(), "x".to_owned()];
        let x = [0.3f32, -0.2, 0.7, 1.1];
        CheckGrad::new().wrt(wrt).run(&session, "loss", &[("x", (&x).into())]).unwrap()
    }

    #[test]
    fn right_gradients_pass() {
        let c = check(|_, w, x| (w * x).sin().reduce_sum(&[0]));
        assert!(c.passed(), "{c}");
        assert_eq!(c.reference, "f64");
        assert!(
            c.variables.iter().all(|v| v.error() < 1e-6 && v.forward_error.is_some() && v.norm > 0.1),
            "{c}"
        );
    }

    #[test]
    fn wrong_gradients_of_the_users_own_are_found() {
        let cube = |factor: f64| {
            check(move |f, w, x| {
                let cubes = f.custom_gradient(
                    &[w],
                    |_, w| vec![w[0] * w[0] * w[0]],
                    |_, w, _, ct| vec![ct[0] * w[0] * w[0] * factor],
                );
                (cubes[0] * x).reduce_sum(&[0])
            })
        };
        assert!(cube(3.0).passed());
        let c = cube(2.0);
        assert_eq!(c.variables.iter().map(|v| v.passed).collect::<Vec<_>>(), [false, true], "{c}");
        assert_eq!(c.worst().unwrap().name, "w");
        assert!(c.to_string().contains("  w: WRONG\n") && c.to_string().contains("\n1 of 2 right"), "{c}");
    }

    #[test]
    fn what_gradients_stop_at_is_constant() {
        let c = check(|_, w, x| ((w * x).stop_gradient() * w).reduce_sum(&[0]));
        assert!(c.passed(), "{c}");
        assert_eq!(c.variables[1].norm, 0.0);
    }

    #[test]
    fn functions_of_bits_are_checked_as_they_are() {
        let c = check(|f, w, x| {
            let sign = x.bitcast(DType::I32).lt(f.full(DType::I32, [4], 0.0));
            (sign.cast(DType::F32) * w * w).reduce_sum(&[0])
        });
        assert!(c.passed(), "{c}");
        assert_eq!((c.reference.as_str(), c.step), ("f32", 1e-2));
    }

    #[test]
    fn what_has_no_gradient_is_an_error() {
        let m = ModuleBuilder::new("m");
        m.function("f", |f| f.output("y", f.input("x", DType::F32, [2])));
        let session = Session::new(m.build().unwrap(), 1).unwrap();
        let error = CheckGrad::new().run(&session, "f", &[("x", (&[1.0f32, 2.0]).into())]).unwrap_err();
        assert!(error.to_string().contains("must be a float scalar"), "{error}");
    }
}
