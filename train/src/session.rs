//! Runs the functions of a module over one state: compiles them as they are needed, once per
//! binding of their dimensions, and keeps the executables.

use crate::checkpoint::{self, CheckpointError};
use crate::init::initialize;
use crate::optim::LEARNING_RATE;
use graphc_compiler::{CompileError, CompileOptions, compile_executable, state_layout};
use graphc_ir::{Bindings, BuildErrors, DType, Dim, Module, StaticType, TensorType};
use graphc_runtime::{
    Element, Elements, Executable, Port, RunContext, RuntimeError, State, StateLayout, ThreadPool, Value,
    ValueMut,
};
use smallvec::SmallVec;
use std::path::Path;
use std::sync::Arc;

/// Why a session cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A function cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A function cannot be run, or the state refuses a value.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Initializers that do not fit their variables.
    #[error(transparent)]
    Initialize(#[from] BuildErrors),
    /// The module has no function of that name.
    #[error("there is no function `{name}`; the module has {}", known.join(", "))]
    UnknownFunction {
        /// The name asked for.
        name: String,
        /// Names of the module's functions.
        known: Vec<String>,
    },
    /// An input is not given.
    #[error("`{function}`: input `{input}` {ty} is not given")]
    MissingInput {
        /// The function.
        function: String,
        /// The input.
        input: String,
        /// Its type.
        ty: Box<TensorType>,
    },
    /// An input is given that the function does not have, or that is given twice.
    #[error("`{function}` has no use for input `{input}`: it takes each of {} once", known.join(", "))]
    UnknownInput {
        /// The function.
        function: String,
        /// The input.
        input: String,
        /// Names of the function's inputs.
        known: Vec<String>,
    },
    /// A dimension is given a number that the function does not use.
    #[error("`{function}` has no dimension `{dim}`")]
    UnknownDim {
        /// The function.
        function: String,
        /// The dimension.
        dim: String,
    },
    /// A dimension is not given, and does not follow from the lengths of the inputs.
    #[error(
        "`{function}`: dimension `{dim}` does not follow from the lengths of the inputs: give it a number"
    )]
    OpenDim {
        /// The function.
        function: String,
        /// The dimension.
        dim: String,
    },
    /// No extent of a dimension makes an input as long as it is.
    #[error("`{function}`: input `{input}` {ty} cannot have {len} elements, whatever `{dim}` is")]
    InputLength {
        /// The function.
        function: String,
        /// The input.
        input: String,
        /// Its type.
        ty: Box<TensorType>,
        /// Number of elements given.
        len: usize,
        /// The dimension.
        dim: String,
    },
    /// The function has no output of that name and element type.
    #[error("`{function}` has no output `{output}` of {dtype}")]
    UnknownOutput {
        /// The function.
        function: String,
        /// The output.
        output: String,
        /// Element type asked for.
        dtype: DType,
    },
}

/// A module with its state, ready to run.
///
/// ```no_run
/// # use graphc_train::{session::Session, data::Batches};
/// # fn train(module: graphc_ir::Module, data: &graphc_train::data::Dataset)
/// # -> Result<(), graphc_train::session::SessionError> {
/// let mut session = Session::new(module, 42)?;
/// let mut batches = Batches::shuffled(data, 50, 42);
/// while let Some(batch) = batches.next_batch() {
///     let inputs = [("x", batch.features.into()), ("y", batch.labels.into())];
///     let loss: f32 = session.run("train_step", &inputs)?.scalar("loss")?;
/// }
/// # Ok(()) }
/// ```
pub struct Session {
    module: Module,
    signatures: Vec<Signature>,
    options: CompileOptions,
    pool: Arc<ThreadPool>,
    layout: Arc<StateLayout>,
    state: State,
    /// Made with the first executable.
    cx: Option<RunContext>,
    compiled: Vec<Compiled>,
}

/// Inputs of a function and the names of its dimensions.
struct Signature {
    inputs: Vec<(String, TensorType)>,
    open: Vec<Arc<str>>,
}

/// Numbers of a function's open dimensions, in the order of [`Signature::open`].
type Extents = SmallVec<[usize; 4]>;

struct Compiled {
    /// Position of the function in the module.
    function: usize,
    extents: Extents,
    executable: Arc<Executable>,
    outputs: Vec<Elements>,
}

impl Session {
    /// A session whose state starts as [`initialize`] says, with as many threads as the machine
    /// allows (or the environment sets, see [`ThreadPool::global`]) and default options of
    /// compilation.
    ///
    /// # Errors
    /// [`SessionError::Initialize`]; a state that does not fit in memory; threads that cannot be
    /// started.
    pub fn new(module: Module, seed: u64) -> Result<Self, SessionError> {
        Self::with(module, seed, ThreadPool::global()?, CompileOptions::default())
    }

    /// A session on this pool and with these options of compilation, save that the number of
    /// threads is the pool's.
    ///
    /// # Errors
    /// [`SessionError::Initialize`]; a state that does not fit in memory.
    pub fn with(
        module: Module,
        seed: u64,
        pool: Arc<ThreadPool>,
        options: CompileOptions,
    ) -> Result<Self, SessionError> {
        let options = CompileOptions { max_threads: pool.num_threads(), ..options };
        let layout = Arc::new(state_layout(&module)?);
        let state = State::zeros(layout.clone())?;
        let signatures = module.functions.iter().map(|f| Signature {
            inputs: f.inputs.iter().map(|&i| (f.input_name(i).to_owned(), f.graph.ty(i).clone())).collect(),
            open: module.open_dims(f),
        });
        let signatures = signatures.collect();
        let (cx, compiled) = (None, Vec::new());
        let mut session = Self { module, signatures, options, pool, layout, state, cx, compiled };
        session.reset(seed)?;
        Ok(session)
    }

    /// Sets every state variable to its initial value for this seed.
    ///
    /// # Errors
    /// [`SessionError::Initialize`]; the state then is unchanged.
    pub fn reset(&mut self, seed: u64) -> Result<(), SessionError> {
        for (name, value) in initialize(&self.module, seed)? {
            self.state.copy_from(&name, Elements::from(&value).value())?;
        }
        Ok(())
    }

    /// The module.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The state, to be changed.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// Sets the learning rate of the optimizer for the steps to come.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownState`] if no function of the module trains.
    pub fn set_learning_rate(&mut self, lr: f32) -> Result<(), SessionError> {
        Ok(self.state.copy_from(LEARNING_RATE, &lr)?)
    }

    /// The learning rate of the optimizer.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownState`] if no function of the module trains.
    pub fn learning_rate(&self) -> Result<f32, SessionError> {
        Ok(self.state.get::<f32>(LEARNING_RATE)?[0])
    }

    /// Writes the state to a file. See [`checkpoint::save`].
    ///
    /// # Errors
    /// As [`checkpoint::save`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
        checkpoint::save(&self.state, path)
    }

    /// Reads the state from a file. See [`checkpoint::load`].
    ///
    /// # Errors
    /// As [`checkpoint::load`]; the state then is what it was before.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<(), CheckpointError> {
        checkpoint::load(&mut self.state, path)
    }

    /// Number of executables made so far.
    pub fn compiled(&self) -> usize {
        self.compiled.len()
    }

    /// The executable of a function for these dimensions, compiled unless it is known.
    ///
    /// # Errors
    /// [`SessionError::UnknownFunction`], [`SessionError::UnknownDim`], [`SessionError::OpenDim`],
    /// [`SessionError::Compile`].
    pub fn executable(
        &mut self,
        function: &str,
        dims: &[(&str, usize)],
    ) -> Result<Arc<Executable>, SessionError> {
        let index = self.function_index(function)?;
        let extents = self.infer(index, dims, &[])?;
        let i = self.find_or_compile(index, extents)?;
        Ok(self.compiled[i].executable.clone())
    }

    /// Runs a function. `inputs` are given by name in any order; named dimensions follow from their
    /// lengths. Updates the state, and gives the outputs, which stay valid until the next run.
    ///
    /// # Errors
    /// Any [`SessionError`]; the state is then unchanged.
    pub fn run(&mut self, function: &str, inputs: &[(&str, Value<'_>)]) -> Result<Outputs<'_>, SessionError> {
        self.run_with(function, &[], inputs)
    }

    /// As [`Session::run`], with numbers for dimensions that do not follow from the lengths of the
    /// inputs.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_with(
        &mut self,
        function: &str,
        dims: &[(&str, usize)],
        inputs: &[(&str, Value<'_>)],
    ) -> Result<Outputs<'_>, SessionError> {
        let index = self.function_index(function)?;
        let ordered = self.order(index, inputs)?;
        let extents = self.infer(index, dims, &ordered)?;
        let i = self.find_or_compile(index, extents)?;
        let Compiled { executable, outputs, .. } = &mut self.compiled[i];
        let cx = match &mut self.cx {
            Some(cx) => cx,
            none => none.insert(RunContext::new(executable, self.pool.clone())?),
        };
        let mut values: SmallVec<[ValueMut<'_>; 8]> = outputs.iter_mut().map(Elements::value_mut).collect();
        executable.run(cx, &mut self.state, &ordered, &mut values)?;
        drop(values);
        let Compiled { executable, outputs, .. } = &self.compiled[i];
        Ok(Outputs { function: executable.name(), ports: executable.outputs(), buffers: outputs })
    }

    /// A session of another module that runs in the same way.
    pub(crate) fn with_module(&self, module: Module) -> Result<Self, SessionError> {
        Self::with(module, 0, self.pool.clone(), self.options.clone())
    }

    /// Numbers for all open dimensions of a function: those given, and those that follow from its inputs.
    pub(crate) fn bindings(
        &self,
        function: &str,
        dims: &[(&str, usize)],
        inputs: &[(&str, Value<'_>)],
    ) -> Result<Bindings, SessionError> {
        let index = self.function_index(function)?;
        let ordered = self.order(index, inputs)?;
        let extents = self.infer(index, dims, &ordered)?;
        Ok(self.signatures[index].open.iter().map(|d| &**d).zip(extents).collect())
    }

    fn function_index(&self, name: &str) -> Result<usize, SessionError> {
        let functions = &self.module.functions;
        functions.iter().position(|f| &*f.name == name).ok_or_else(|| SessionError::UnknownFunction {
            name: name.to_owned(),
            known: functions.iter().map(|f| f.name.to_string()).collect(),
        })
    }

    fn function_name(&self, index: usize) -> String {
        self.module.functions[index].name.to_string()
    }

    /// The inputs in order of declaration.
    fn order<'v>(
        &self,
        index: usize,
        inputs: &[(&str, Value<'v>)],
    ) -> Result<SmallVec<[Value<'v>; 8]>, SessionError> {
        let declared = &self.signatures[index].inputs;
        let ordered = declared.iter().map(|(name, ty)| {
            inputs.iter().find(|(n, _)| n == name).map(|&(_, v)| v).ok_or_else(|| {
                let (function, input) = (self.function_name(index), name.clone());
                SessionError::MissingInput { function, input, ty: Box::new(ty.clone()) }
            })
        });
        let ordered = ordered.collect::<Result<SmallVec<_>, _>>()?;
        let superfluous = |&(i, (name, _)): &(usize, &(&str, Value<'_>))| {
            !declared.iter().any(|(n, _)| n == name) || inputs[..i].iter().any(|(n, _)| n == name)
        };
        if let Some((_, (name, _))) = inputs.iter().enumerate().find(superfluous) {
            return Err(SessionError::UnknownInput {
                function: self.function_name(index),
                input: (*name).to_owned(),
                known: declared.iter().map(|(n, _)| n.clone()).collect(),
            });
        }
        Ok(ordered)
    }

    /// Numbers for the open dimensions of a function: those given, then those that follow from an
    /// input in which all other dimensions are known.
    fn infer(
        &self,
        index: usize,
        dims: &[(&str, usize)],
        inputs: &[Value<'_>],
    ) -> Result<Extents, SessionError> {
        let Signature { inputs: declared, open } = &self.signatures[index];
        let function = || self.function_name(index);
        let mut known: SmallVec<[Option<usize>; 4]> = SmallVec::from_elem(None, open.len());
        for &(dim, extent) in dims {
            match open.iter().position(|o| &**o == dim) {
                Some(i) => known[i] = Some(extent),
                None => {
                    return Err(SessionError::UnknownDim { function: function(), dim: dim.to_owned() });
                }
            }
        }
        let mut progress = true;
        while progress {
            progress = false;
            for ((name, ty), value) in declared.iter().zip(inputs) {
                let Some((dim, times, others)) = single_unknown(ty, open, &known) else { continue };
                let Some(extent) = solve(value.len(), others, times) else {
                    return Err(SessionError::InputLength {
                        function: function(),
                        input: name.clone(),
                        ty: Box::new(ty.clone()),
                        len: value.len(),
                        dim: open[dim].to_string(),
                    });
                };
                known[dim] = Some(extent);
                progress = true;
            }
        }
        let of = |(i, extent): (usize, Option<usize>)| {
            extent.ok_or_else(|| SessionError::OpenDim { function: function(), dim: open[i].to_string() })
        };
        known.into_iter().enumerate().map(of).collect()
    }

    fn find_or_compile(&mut self, function: usize, extents: Extents) -> Result<usize, SessionError> {
        let known = self.compiled.iter().position(|c| c.function == function && c.extents == extents);
        if let Some(i) = known {
            return Ok(i);
        }
        let executable = self.compile(function, &extents)?;
        let outputs =
            executable.outputs().iter().map(|p| Elements::zeros(p.dtype, p.num_elements())).collect();
        self.compiled.push(Compiled { function, extents, executable, outputs });
        Ok(self.compiled.len() - 1)
    }

    fn compile(&self, function: usize, extents: &[usize]) -> Result<Arc<Executable>, SessionError> {
        let open = &self.signatures[function].open;
        let bindings: Bindings = open.iter().map(|d| &**d).zip(extents.iter().copied()).collect();
        let function = &self.module.functions[function];
        Ok(Arc::new(compile_executable(function, &self.layout, &bindings, &self.options)?))
    }
}

/// If exactly one dimension of `ty` is unknown: its position in `open`, how often it occurs, and
/// the product of the others, if that says anything about it.
fn single_unknown(
    ty: &TensorType,
    open: &[Arc<str>],
    known: &[Option<usize>],
) -> Option<(usize, u32, usize)> {
    let (mut unknown, mut times, mut others) = (None, 0, 1usize);
    for dim in ty.shape.iter() {
        let extent = match dim {
            Dim::Const(extent) => Some(*extent),
            // Only plain names are solved for; an expression is checked once they are known.
            Dim::Expr(_) => return None,
            Dim::Named(name) => {
                let i = open.iter().position(|o| o == name)?;
                if known[i].is_none() {
                    if unknown.is_some_and(|u| u != i) {
                        return None;
                    }
                    unknown = Some(i);
                    times += 1;
                }
                known[i]
            }
        };
        others = others.checked_mul(extent.unwrap_or(1))?;
    }
    Some((unknown?, times, others)).filter(|_| others > 0)
}

/// The `x` with `x^times * others == len`.
fn solve(len: usize, others: usize, times: u32) -> Option<usize> {
    let power = len.is_multiple_of(others).then_some(len / others)?;
    let root = (power as f64).powf(1.0 / f64::from(times)).round() as usize;
    (root.checked_pow(times) == Some(power)).then_some(root)
}

/// Outputs of a run.
#[derive(Clone, Copy)]
pub struct Outputs<'s> {
    function: &'s str,
    ports: &'s [Port],
    buffers: &'s [Elements],
}

impl<'s> Outputs<'s> {
    /// The elements of an output, row-major.
    ///
    /// # Errors
    /// [`SessionError::UnknownOutput`] if there is none of that name and element type.
    pub fn get<T: Element>(&self, name: &str) -> Result<&'s [T], SessionError> {
        let found = self.ports.iter().position(|p| p.name == name);
        found.and_then(|i| self.buffers[i].value().get::<T>()).ok_or_else(|| {
            let (function, output) = (self.function.to_owned(), name.to_owned());
            SessionError::UnknownOutput { function, output, dtype: T::DTYPE }
        })
    }

    /// The first element of an output: its value, if it is a scalar.
    ///
    /// # Errors
    /// [`SessionError::UnknownOutput`] if there is none of that name and element type, or it is
    /// empty.
    pub fn scalar<T: Element>(&self, name: &str) -> Result<T, SessionError> {
        self.get(name)?.first().copied().ok_or_else(|| {
            let (function, output) = (self.function.to_owned(), name.to_owned());
            SessionError::UnknownOutput { function, output, dtype: T::DTYPE }
        })
    }

    /// Outputs with their types, in order of declaration.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'s str, StaticType, Value<'s>)> {
        self.ports
            .iter()
            .zip(self.buffers)
            .map(|(p, b)| (p.name.as_str(), StaticType { dtype: p.dtype, dims: p.dims.clone() }, b.value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Dense;
    use crate::optim::{Sgd, train_step};
    use graphc_ir::{Literal, ModuleBuilder, Shape, evaluate, shape};

    /// Linear regression of one output on three inputs.
    fn regression() -> Module {
        let m = ModuleBuilder::new("regression");
        let dense = Dense::new(&m, "dense", 3, 1);
        m.function("predict", |f| {
            f.output("y", dense.apply(f.input("x", DType::F32, shape!["B", 3])));
        });
        train_step(&m, "train_step", &Sgd::new(0.02).momentum(0.5), |f| {
            let x = f.input("x", DType::F32, shape!["B", 3]);
            let error = dense.apply(x) - f.input("y", DType::F32, shape!["B", 1]);
            (error * error).reduce_sum(&[0, 1])
        });
        m.build().unwrap()
    }

    fn session() -> Session {
        let pool = Arc::new(ThreadPool::new(2).unwrap());
        Session::with(regression(), 3, pool, CompileOptions::default()).unwrap()
    }

    /// Rows and targets of `y = 2 a - b + 0.5 c + 1`.
    fn batch(n: usize) -> (Vec<f32>, Vec<f32>) {
        let x: Vec<f32> = (0..3 * n).map(|i| ((i * 37 % 19) as f32 - 9.0) / 9.0).collect();
        let y = x.chunks(3).map(|r| 2.0 * r[0] - r[1] + 0.5 * r[2] + 1.0).collect();
        (x, y)
    }

    #[test]
    fn trains_a_regression() {
        let mut session = session();
        let mut last = f32::INFINITY;
        for _ in 0..200 {
            for n in [8, 5] {
                let (x, y) = batch(n);
                let inputs = [("y", Value::F32(&y)), ("x", Value::F32(&x))];
                last = session.run("train_step", &inputs).unwrap().scalar("loss").unwrap();
            }
        }
        assert!(last < 1e-8, "{last}");
        let x = [1.0f32, 0.0, 0.0, 0.0, 1.0, 0.0];
        let y: &[f32] = session.run("predict", &[("x", Value::F32(&x))]).unwrap().get("y").unwrap();
        assert!((y[0] - 3.0).abs() < 1e-3 && y[1].abs() < 1e-3, "{y:?}");
        // One executable per batch size, whatever the number of runs.
        assert_eq!(session.compiled(), 3);
    }

    #[test]
    fn agrees_with_the_interpreter() {
        let mut session = session();
        let module = regression();
        let train = module.function("train_step").unwrap().bind(&Bindings::new().with("B", 4)).unwrap();
        let initial = initialize(&module, 3).unwrap();
        let (x, y) = batch(4);
        let inputs = [Literal::new(&[4, 3], x.clone()).unwrap(), Literal::new(&[4, 1], y.clone()).unwrap()];
        let expected = evaluate(&train, &inputs, |id| initial[id.index()].1.clone()).unwrap();
        let inputs = [("x", Value::F32(&x)), ("y", Value::F32(&y))];
        let loss: f32 = session.run("train_step", &inputs).unwrap().scalar("loss").unwrap();
        let close = |a: f32, b: f32| assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} {b}");
        close(loss, expected.outputs[0].as_slice::<f32>().unwrap()[0]);
        for (id, value) in expected.updates {
            let got = session.state().get::<f32>(&module.state[id.index()].name).unwrap();
            got.iter().zip(value.as_slice::<f32>().unwrap()).for_each(|(&a, &b)| close(a, b));
        }
    }

    #[test]
    fn checkpoints_resume_to_the_same_bits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        let (x, y) = batch(6);
        let inputs = [("x", Value::F32(&x)), ("y", Value::F32(&y))];
        let weights = |s: &Session| s.state().get::<f32>("dense/weight").unwrap().to_vec();
        let steps = |s: &mut Session| {
            for _ in 0..5 {
                s.run("train_step", &inputs).unwrap();
            }
        };
        let mut a = session();
        steps(&mut a);
        a.save(&path).unwrap();
        steps(&mut a);
        let mut b = session();
        b.reset(99).unwrap();
        b.load(&path).unwrap();
        steps(&mut b);
        assert_eq!(weights(&a), weights(&b));
        // A learning rate of zero, and no momentum left, changes nothing.
        b.set_learning_rate(0.0).unwrap();
        b.run("train_step", &inputs).unwrap();
        assert_eq!(weights(&a), weights(&b));
    }

    #[test]
    fn mistakes_are_named() {
        let mut session = session();
        let (x, y) = batch(4);
        let (x, y) = (Value::F32(&x), Value::F32(&y));
        let mut check =
            |function: &str, dims: &[(&str, usize)], inputs: &[(&str, Value<'_>)], expected: &str| {
                let error = session.run_with(function, dims, inputs).map(|_| ()).unwrap_err();
                assert_eq!(error.to_string(), expected);
            };
        check("fit", &[], &[], "there is no function `fit`; the module has predict, train_step");
        check("predict", &[], &[], "`predict`: input `x` f32[B, 3] is not given");
        check(
            "predict",
            &[],
            &[("x", x), ("y", y)],
            "`predict` has no use for input `y`: it takes each of x once",
        );
        check(
            "predict",
            &[],
            &[("x", x), ("x", x)],
            "`predict` has no use for input `x`: it takes each of x once",
        );
        check("predict", &[("T", 1)], &[("x", x)], "`predict` has no dimension `T`");
        check(
            "predict",
            &[],
            &[("x", y)],
            "`predict`: input `x` f32[B, 3] cannot have 4 elements, whatever `B` is",
        );
        check(
            "predict",
            &[("B", 5)],
            &[("x", x)],
            "input `x`: expected f32[5, 3] (15 elements), got 12 elements of f32 (in `predict`)",
        );
        let error = session.run("predict", &[("x", x)]).unwrap().get::<i32>("y").unwrap_err();
        assert_eq!(error.to_string(), "`predict` has no output `y` of i32");
    }

    #[test]
    fn dimensions_follow_from_lengths() {
        let check = |inputs: &[(Shape, usize)], dims: &[(&str, usize)], expected: Result<&[usize], &str>| {
            let m = ModuleBuilder::new("m");
            m.function("f", |f| {
                for (i, (shape, _)) in inputs.iter().enumerate() {
                    f.output(&format!("o{i}"), -f.input(&format!("i{i}"), DType::F32, shape));
                }
            });
            let pool = Arc::new(ThreadPool::new(1).unwrap());
            let session = Session::with(m.build().unwrap(), 0, pool, CompileOptions::default()).unwrap();
            let zeros = vec![0.0f32; 1000];
            let values: Vec<_> = inputs.iter().map(|(_, n)| Value::F32(&zeros[..*n])).collect();
            let got = session.infer(0, dims, &values).map(|e| e.to_vec()).map_err(|e| e.to_string());
            assert_eq!(got, expected.map(<[_]>::to_vec).map_err(str::to_owned));
        };
        check(&[(shape!["B", 3], 12)], &[], Ok(&[4]));
        check(&[(shape!["B", 3], 0)], &[], Ok(&[0]));
        // Dimensions are in the order of their names; one input may settle another.
        check(&[(shape!["T", "B"], 35), (shape!["B"], 5)], &[], Ok(&[5, 7]));
        check(&[(shape!["N", "N", 2], 98)], &[], Ok(&[7]));
        let open = "`f`: dimension `A` does not follow from the lengths of the inputs: give it a number";
        check(&[(shape!["A", "B"], 6)], &[], Err(open));
        check(&[(shape!["A", "B"], 6)], &[("B", 3)], Ok(&[2, 3]));
        check(&[(shape!["A", "B"], 0), (shape!["B"], 0)], &[], Err(open));
        check(
            &[(shape!["N", "N"], 8)],
            &[],
            Err("`f`: input `i0` f32[N, N] cannot have 8 elements, whatever `N` is"),
        );
    }
}
