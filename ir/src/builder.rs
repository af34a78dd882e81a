//! Declares modules: [`ModuleBuilder`] collects state and functions, [`FunctionBuilder`] nodes,
//! [`Tensor`] is a node as the user handles it, with operators.
//!
//! Declaring never fails on the spot. A mistake is recorded with the caller's line, the value it
//! would have given is poisoned, operations on poisoned values are skipped, and
//! [`ModuleBuilder::build`] returns every mistake at once.

use crate::error::{BuildError, BuildErrors, NoGradient, TypeError};
use crate::graph::{Graph, Node, NodeId, Origin, SourceLoc};
use crate::init::Initializer;
use crate::literal::Literal;
use crate::module::{Function, Module, Output, StateId, StateVar, Update};
use crate::ops::{Constant, Input, Op, ReadState};
use crate::scalar::Scalar;
use crate::types::{DType, Dim, Shape, TensorType};
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

/// A state variable as declared; read it in a function with [`FunctionBuilder::read`].
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its id in the module.
    pub id: StateId,
    /// Its type.
    pub ty: TensorType,
}

#[derive(Default)]
struct Shared {
    name: Arc<str>,
    state: Vec<StateVar>,
    errors: Vec<BuildError>,
}

/// Declares a module.
pub struct ModuleBuilder {
    shared: Rc<RefCell<Shared>>,
    functions: RefCell<Vec<Function>>,
}

impl ModuleBuilder {
    /// An empty module of that name.
    pub fn new(name: &str) -> Self {
        let shared = Shared { name: name.into(), ..Shared::default() };
        Self { shared: Rc::new(RefCell::new(shared)), functions: RefCell::default() }
    }

    /// Resumes a module, to add state and functions to it.
    pub fn from_module(module: Module) -> Self {
        let shared = Shared { name: module.name, state: module.state, errors: Vec::new() };
        Self { shared: Rc::new(RefCell::new(shared)), functions: RefCell::new(module.functions) }
    }

    /// Declares a trainable parameter. `name` is its path, such as `encoder/0/weight`.
    #[track_caller]
    pub fn param(&self, name: &str, dtype: DType, shape: impl Into<Shape>, init: Initializer) -> Param {
        self.declare(name, TensorType::new(dtype, shape), init, true)
    }

    /// Declares state that training does not differentiate: an optimizer slot, a counter, ...
    #[track_caller]
    pub fn state(&self, name: &str, dtype: DType, shape: impl Into<Shape>, init: Initializer) -> Param {
        self.declare(name, TensorType::new(dtype, shape), init, false)
    }

    #[track_caller]
    fn declare(&self, name: &str, ty: TensorType, init: Initializer, trainable: bool) -> Param {
        declare_state(&self.shared, name, ty, init, trainable)
    }

    /// State variables declared so far.
    pub fn state_vars(&self) -> Vec<StateVar> {
        self.shared.borrow().state.clone()
    }

    /// Parameters declared so far, in order.
    pub fn trainable(&self) -> Vec<Param> {
        trainable(&self.shared)
    }

    /// Declares a function: `body` declares inputs, nodes, outputs and updates.
    #[track_caller]
    pub fn function(&self, name: &str, body: impl FnOnce(&FunctionBuilder)) {
        if self.functions.borrow().iter().any(|f| &*f.name == name) {
            misuse(&self.shared, format!("function `{name}` is declared twice"));
        }
        let f =
            FunctionBuilder::new(self.shared.clone(), Function { name: name.into(), ..Function::default() });
        body(&f);
        self.functions.borrow_mut().push(f.inner.into_inner().function);
    }

    /// Ends the declaration.
    ///
    /// # Errors
    /// Every mistake made on the way, each with the line that made it.
    pub fn build(self) -> Result<Module, BuildErrors> {
        let shared = self.shared.take();
        if !shared.errors.is_empty() {
            return Err(BuildErrors(shared.errors));
        }
        Ok(Module { name: shared.name, state: shared.state, functions: self.functions.into_inner() })
    }
}

#[track_caller]
fn declare_state(
    shared: &Rc<RefCell<Shared>>,
    name: &str,
    ty: TensorType,
    init: Initializer,
    trainable: bool,
) -> Param {
    let problem = if shared.borrow().state.iter().any(|s| &*s.name == name) {
        Some(format!("state `{name}` is declared twice"))
    } else if ty.size_bytes().is_none() {
        Some(format!("state `{name}` has type {ty}: its extents must be numbers, with at most 2^40 elements"))
    } else {
        None
    };
    if let Some(message) = problem {
        misuse(shared, message);
    }
    let mut s = shared.borrow_mut();
    let id = StateId(s.state.len() as u32);
    s.state.push(StateVar { name: name.into(), ty: ty.clone(), init, trainable });
    Param { id, ty }
}

fn trainable(shared: &Rc<RefCell<Shared>>) -> Vec<Param> {
    let shared = shared.borrow();
    let params = shared.state.iter().enumerate().filter(|(_, s)| s.trainable);
    params.map(|(i, s)| Param { id: StateId(i as u32), ty: s.ty.clone() }).collect()
}

#[track_caller]
fn misuse(shared: &Rc<RefCell<Shared>>, message: String) {
    let loc = SourceLoc::from(Location::caller());
    shared.borrow_mut().errors.push(BuildError::Misuse { message, loc });
}

#[derive(Default)]
struct Inner {
    function: Function,
    scopes: Vec<String>,
    names: HashMap<Arc<str>, NodeId>,
    reads: HashMap<StateId, NodeId>,
    /// Location given to new nodes instead of the caller's, while a gradient rule runs.
    loc: Option<Option<SourceLoc>>,
}

/// Declares one function.
pub struct FunctionBuilder {
    shared: Rc<RefCell<Shared>>,
    inner: RefCell<Inner>,
}

impl FunctionBuilder {
    fn new(shared: Rc<RefCell<Shared>>, function: Function) -> Self {
        Self { shared, inner: RefCell::new(Inner { function, ..Inner::default() }) }
    }

    /// Resumes a function of `module`: `body` may append nodes, outputs and updates. Returns the
    /// function; the module is not changed.
    ///
    /// # Errors
    /// Every mistake that `body` made.
    pub fn extend(
        module: &Module,
        function: &Function,
        body: impl FnOnce(&Self),
    ) -> Result<Function, BuildErrors> {
        let shared = Rc::new(RefCell::new(Shared {
            name: module.name.clone(),
            state: module.state.clone(),
            errors: Vec::new(),
        }));
        let f = Self::new(shared, function.clone());
        {
            let inner = &mut *f.inner.borrow_mut();
            for id in inner.function.graph.ids() {
                if let Some(name) = inner.function.graph.node(id).origin.name.clone() {
                    inner.names.insert(name, id);
                }
                if let Op::ReadState(r) = inner.function.graph.op(id) {
                    inner.reads.insert(r.state, id);
                }
            }
        }
        body(&f);
        let errors = std::mem::take(&mut f.shared.borrow_mut().errors);
        if errors.is_empty() { Ok(f.inner.into_inner().function) } else { Err(BuildErrors(errors)) }
    }

    /// Declares an input. Names of inputs are unique in the function, and no state variable's.
    #[track_caller]
    pub fn input(&self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Tensor<'_> {
        let taken = self.inner.borrow().names.contains_key(name);
        if taken {
            self.misuse(format!("the name `{name}` is taken twice"));
            return self.poison();
        }
        if self.find_param(name).is_some() {
            self.misuse(format!("input `{name}` has the name of a state variable"));
            return self.poison();
        }
        let t = self.push(Input { ty: TensorType::new(dtype, shape) }, &[]);
        if let Some(id) = t.id {
            self.inner.borrow_mut().function.inputs.push(id);
        }
        t.named(name)
    }

    /// The value of a state variable at the start of the function.
    #[track_caller]
    pub fn read(&self, param: &Param) -> Tensor<'_> {
        let known = self.inner.borrow().reads.get(&param.id).copied();
        if let Some(id) = known {
            return self.tensor(id);
        }
        let declared = self.shared.borrow().state.get(param.id.index()).is_some_and(|s| s.ty == param.ty);
        if !declared {
            self.misuse(format!("state #{} of type {} belongs to another module", param.id.0, param.ty));
            return self.poison();
        }
        let t = self.push(ReadState { state: param.id, ty: param.ty.clone() }, &[]);
        if let Some(id) = t.id {
            self.inner.borrow_mut().reads.insert(param.id, id);
        }
        t
    }

    /// A state variable by name.
    pub fn find_param(&self, name: &str) -> Option<Param> {
        let shared = self.shared.borrow();
        let i = shared.state.iter().position(|s| &*s.name == name)?;
        Some(Param { id: StateId(i as u32), ty: shared.state[i].ty.clone() })
    }

    /// Name of a state variable of this module.
    pub fn param_name(&self, id: StateId) -> Arc<str> {
        self.shared.borrow().state[id.index()].name.clone()
    }

    /// Every trainable parameter declared so far, in order.
    pub fn trainable(&self) -> Vec<Param> {
        trainable(&self.shared)
    }

    /// Declares non-trainable state from inside a function, such as an optimizer's slots.
    #[track_caller]
    pub fn state(&self, name: &str, dtype: DType, shape: impl Into<Shape>, init: Initializer) -> Param {
        declare_state(&self.shared, name, TensorType::new(dtype, shape), init, false)
    }

    /// Declares an output.
    #[track_caller]
    pub fn output(&self, name: &str, value: Tensor<'_>) {
        let Some(node) = self.own(value) else { return };
        if self.inner.borrow().function.outputs.iter().any(|o| &*o.name == name) {
            self.misuse(format!("output `{name}` is declared twice"));
        }
        self.inner.borrow_mut().function.outputs.push(Output { name: name.into(), node });
    }

    /// Declares the next value of a state variable.
    #[track_caller]
    pub fn update(&self, param: &Param, value: Tensor<'_>) {
        let Some(node) = self.own(value) else { return };
        let ty = value.ty();
        if ty != param.ty {
            let name = self.param_name(param.id);
            self.misuse(format!("update of `{name}`: it has type {}, its new value {ty}", param.ty));
        } else if self.inner.borrow().function.updates.iter().any(|u| u.state == param.id) {
            self.misuse(format!("state `{}` is updated twice", self.param_name(param.id)));
        }
        self.inner.borrow_mut().function.updates.push(Update { state: param.id, value: node });
    }

    /// Declares what `body` declares inside the scope `name`.
    pub fn scope<R>(&self, name: &str, body: impl FnOnce() -> R) -> R {
        self.inner.borrow_mut().scopes.push(name.to_owned());
        let r = body();
        self.inner.borrow_mut().scopes.pop();
        r
    }

    /// A constant.
    #[track_caller]
    pub fn constant(&self, value: Literal) -> Tensor<'_> {
        self.push(Constant { value }, &[])
    }

    /// A scalar constant of type `dtype`, converted from `value`.
    #[track_caller]
    pub fn scalar(&self, dtype: DType, value: f64) -> Tensor<'_> {
        self.constant(Literal::scalar(Scalar::from_f64(dtype, value)))
    }

    /// `value` repeated over `shape`: a scalar constant, broadcast.
    #[track_caller]
    pub fn full(&self, dtype: DType, shape: impl Into<Shape>, value: f64) -> Tensor<'_> {
        self.scalar(dtype, value).broadcast_to(shape)
    }

    /// Appends a node, inferring its type; records a type error and gives a poisoned value if the
    /// operation refuses the operands. The general entry: operators and methods of [`Tensor`] call it.
    #[track_caller]
    pub fn push(&self, op: impl Into<Op>, operands: &[Tensor<'_>]) -> Tensor<'_> {
        let op = op.into();
        let caller = SourceLoc::from(Location::caller());
        let Some(ids) = operands.iter().map(|&t| self.own(t)).collect::<Option<Vec<_>>>() else {
            return self.poison();
        };
        let mut inner = self.inner.borrow_mut();
        let types: Vec<TensorType> = ids.iter().map(|&o| inner.function.graph.ty(o).clone()).collect();
        let loc = inner.loc.clone().unwrap_or(Some(caller));
        match op.infer(&types) {
            Ok(ty) => {
                let scope = (!inner.scopes.is_empty()).then(|| inner.scopes.join("/").into());
                let node = Node { op, ty, origin: Origin { name: None, scope, loc } };
                let id = inner.function.graph.push(node, &ids);
                Tensor { f: self, id: Some(id) }
            }
            Err(e) => {
                drop(inner);
                self.shared.borrow_mut().errors.push(e.at(loc).into());
                self.poison()
            }
        }
    }

    /// A handle on a node of this function.
    pub fn tensor(&self, id: NodeId) -> Tensor<'_> {
        Tensor { f: self, id: Some(id) }
    }

    /// Runs `body` with new nodes placed at `origin`'s location and scope instead of the caller's:
    /// for transformations, whose nodes belong to the user's line they derive from.
    pub fn at<R>(&self, origin: &Origin, body: impl FnOnce() -> R) -> R {
        let (loc, scopes) = {
            let inner = &mut *self.inner.borrow_mut();
            let scopes = origin.scope.iter().map(|s| s.to_string()).collect();
            (inner.loc.replace(origin.loc.clone()), std::mem::replace(&mut inner.scopes, scopes))
        };
        let r = body();
        let inner = &mut *self.inner.borrow_mut();
        inner.loc = loc;
        inner.scopes = scopes;
        r
    }

    /// Reads the graph as declared so far.
    pub fn with_graph<R>(&self, read: impl FnOnce(&Graph) -> R) -> R {
        read(&self.inner.borrow().function.graph)
    }

    /// A value that stands for a mistake already recorded.
    pub fn poison(&self) -> Tensor<'_> {
        Tensor { f: self, id: None }
    }

    /// Records a mistake at the caller's line.
    #[track_caller]
    pub fn misuse(&self, message: String) {
        misuse(&self.shared, message);
    }

    /// Records a missing gradient rule at the caller's line.
    #[track_caller]
    pub fn no_gradient(&self, error: NoGradient) {
        let loc = SourceLoc::from(Location::caller());
        self.shared.borrow_mut().errors.push(BuildError::NoGradient { error, loc });
    }

    /// Records a type error at the caller's line.
    #[track_caller]
    pub fn type_error(&self, error: TypeError) {
        let loc = SourceLoc::from(Location::caller());
        self.shared.borrow_mut().errors.push(error.at(Some(loc)).into());
    }

    /// The id of a value of this function; a value of another function is a recorded mistake.
    #[track_caller]
    fn own(&self, t: Tensor<'_>) -> Option<NodeId> {
        if !std::ptr::eq(self, t.f) {
            self.misuse("a value of another function is used here".to_owned());
            return None;
        }
        t.id
    }
}

/// A second operand: a tensor, or a number that becomes a scalar constant of the first one's type.
pub trait Operand<'f>: Copy {
    /// The operand as a tensor, for an operation with `first`.
    fn like(self, first: Tensor<'f>) -> Tensor<'f>;
}

impl<'f> Operand<'f> for Tensor<'f> {
    fn like(self, _: Tensor<'f>) -> Tensor<'f> {
        self
    }
}

impl<'f> Operand<'f> for f64 {
    #[track_caller]
    fn like(self, first: Tensor<'f>) -> Tensor<'f> {
        first.builder().scalar(first.dtype(), self)
    }
}

/// A value of a function under declaration. Operators `+ - * / %` and unary `-` take tensors of one
/// type, or a tensor and an `f64`, which becomes a constant of the tensor's type; there is no
/// implicit broadcast between tensors of rank above 0 (see [`Tensor::broadcast_to`]): a scalar
/// tensor and a tensor broadcast, and so do shapes that agree from the right (as in NumPy).
#[derive(Clone, Copy)]
pub struct Tensor<'f> {
    f: &'f FunctionBuilder,
    id: Option<NodeId>,
}

impl<'f> Tensor<'f> {
    /// The function it belongs to.
    pub fn builder(self) -> &'f FunctionBuilder {
        self.f
    }

    /// Its node; `None` if it stands for a recorded mistake.
    pub fn id(self) -> Option<NodeId> {
        self.id
    }

    /// True if it stands for a recorded mistake.
    pub fn is_poison(self) -> bool {
        self.id.is_none()
    }

    /// Its type (`f32[]` if it stands for a recorded mistake).
    pub fn ty(self) -> TensorType {
        match self.id {
            Some(id) => self.f.inner.borrow().function.graph.ty(id).clone(),
            None => TensorType::scalar(DType::F32),
        }
    }

    /// Its element type.
    pub fn dtype(self) -> DType {
        self.ty().dtype
    }

    /// Its shape.
    pub fn shape(self) -> Shape {
        self.ty().shape
    }

    /// Its rank.
    pub fn rank(self) -> usize {
        self.ty().rank()
    }

    /// Extent of an axis; records a mistake (and gives 1) if there is no such axis.
    #[track_caller]
    pub fn dim(self, axis: usize) -> Dim {
        let ty = self.ty();
        if let Some(d) = ty.shape.get(axis) {
            return d.clone();
        }
        if !self.is_poison() {
            self.f.misuse(format!("axis {axis} of a tensor of type {ty}"));
        }
        Dim::Const(1)
    }

    /// Gives the node a name for dumps; made unique in the function by a suffix.
    pub fn named(self, name: &str) -> Self {
        if let Some(id) = self.id {
            let inner = &mut *self.f.inner.borrow_mut();
            let mut unique: Arc<str> = name.into();
            let mut n = 1;
            while inner.names.get(&unique).is_some_and(|&other| other != id) {
                unique = format!("{name}.{n}").into();
                n += 1;
            }
            inner.names.insert(unique.clone(), id);
            inner.function.graph.origin_mut(id).name = Some(unique);
        }
        self
    }

    /// A tensor of this type whose elements are all `value`.
    #[track_caller]
    pub fn full_like(self, value: f64) -> Self {
        self.f.full(self.dtype(), self.shape(), value)
    }

    /// `self` broadcast to `shape` as in NumPy: axes are matched from the right, an extent of 1
    /// repeats. Nothing is added if the shape is already `shape`.
    #[track_caller]
    pub fn broadcast_to(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let ty = self.ty();
        if self.is_poison() || ty.shape == shape {
            return self;
        }
        let Some(lead) = shape.rank().checked_sub(ty.rank()) else {
            self.f.type_error(TypeError::new(
                "broadcast",
                &[ty],
                format!("cannot broadcast to the lower rank of {shape}"),
            ));
            return self.f.poison();
        };
        // An extent of 1 that meets another extent is dropped first: `broadcast` only adds axes.
        let kept: Vec<usize> = (0..ty.rank())
            .filter(|&i| ty.shape[i] == shape[lead + i] || ty.shape[i] != Dim::Const(1))
            .collect();
        let squeezed = if kept.len() == ty.rank() {
            self
        } else {
            self.reshape(kept.iter().map(|&i| ty.shape[i].clone()).collect::<Shape>())
        };
        squeezed.broadcast(shape, &kept.iter().map(|i| lead + i).collect::<Vec<_>>())
    }

    /// Brings two tensors to their common shape (NumPy's rule).
    #[track_caller]
    pub fn broadcast_with(self, other: Self) -> (Self, Self) {
        if self.is_poison() || other.is_poison() {
            return (self.f.poison(), self.f.poison());
        }
        let (a, b) = (self.shape(), other.shape());
        if a == b {
            return (self, other);
        }
        let rank = a.rank().max(b.rank());
        let at =
            |s: &Shape, i: usize| (i + s.rank()).checked_sub(rank).map_or(Dim::Const(1), |j| s[j].clone());
        let common: Shape = (0..rank)
            .map(|i| match (at(&a, i), at(&b, i)) {
                (Dim::Const(1), d) => d,
                (d, _) => d,
            })
            .collect();
        (self.broadcast_to(&common), other.broadcast_to(&common))
    }
}

impl std::fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.id {
            Some(id) => write!(f, "%{}: {}", id.index(), self.ty()),
            None => f.write_str("poison"),
        }
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $op:ident),*) => {$(
        impl<'f> std::ops::$trait for Tensor<'f> {
            type Output = Tensor<'f>;
            #[track_caller]
            fn $method(self, rhs: Self) -> Self {
                let (a, b) = self.broadcast_with(rhs);
                a.f.push(crate::ops::$op {}, &[a, b])
            }
        }
        impl<'f> std::ops::$trait<f64> for Tensor<'f> {
            type Output = Tensor<'f>;
            #[track_caller]
            fn $method(self, rhs: f64) -> Self {
                std::ops::$trait::$method(self, self.f.scalar(self.dtype(), rhs))
            }
        }
        impl<'f> std::ops::$trait<Tensor<'f>> for f64 {
            type Output = Tensor<'f>;
            #[track_caller]
            fn $method(self, rhs: Tensor<'f>) -> Tensor<'f> {
                std::ops::$trait::$method(rhs.f.scalar(rhs.dtype(), self), rhs)
            }
        }
    )*};
}
operators!(Add add Add, Sub sub Sub, Mul mul Mul, Div div Div, Rem rem Rem);

impl<'f> std::ops::Neg for Tensor<'f> {
    type Output = Tensor<'f>;
    #[track_caller]
    fn neg(self) -> Self {
        self.f.push(crate::ops::Neg {}, &[self])
    }
}
