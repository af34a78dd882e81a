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
use crate::ops::{Cast, Constant, Input, Op, ReadState};
use crate::pattern::Combine;
use crate::region::Region;
use crate::scalar::Scalar;
use crate::types::{DType, Dim, Shape, TensorType};
use std::cell::{OnceCell, RefCell};
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
    /// How many builders of functions and regions there were.
    builders: BuilderId,
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
        let shared = Shared { name: module.name, state: module.state, ..Shared::default() };
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
        let function = Function { name: name.into(), ..Function::default() };
        let f = FunctionBuilder::new(self.shared.clone(), function, Kind::Function);
        body(&f);
        self.functions.borrow_mut().push(f.inner.into_inner().function);
    }

    /// Declares the function `name` as a copy of the function `from`, to which `body` may add nodes, outputs, updates
    /// and state. That there is no function `from` is recorded as a mistake at the caller's line.
    #[track_caller]
    pub fn extended(&self, name: &str, from: &str, body: impl FnOnce(&FunctionBuilder)) {
        let known = self.functions.borrow().iter().find(|f| &*f.name == from).cloned();
        let Some(function) = known else {
            misuse(&self.shared, format!("there is no function `{from}` to extend"));
            return;
        };
        if self.functions.borrow().iter().any(|f| &*f.name == name) {
            misuse(&self.shared, format!("function `{name}` is declared twice"));
        }
        let f = FunctionBuilder::resumed(self.shared.clone(), Function { name: name.into(), ..function });
        body(&f);
        self.functions.borrow_mut().push(f.inner.into_inner().function);
    }

    /// Declares a region that functions can call ([`FunctionBuilder::call`]) or use as a body: `body`
    /// declares its inputs, nodes and outputs.
    #[track_caller]
    pub fn region(&self, name: &str, body: impl FnOnce(&FunctionBuilder)) -> Region {
        let function = Function { name: name.into(), ..Function::default() };
        let f = FunctionBuilder::new(self.shared.clone(), function, Kind::Region);
        body(&f);
        Region::new(f.inner.into_inner().function)
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

/// The half float type of the operands, if there is one and every float among them is of it.
fn half_of(types: &[TensorType]) -> Option<DType> {
    let mut floats = types.iter().map(|ty| ty.dtype).filter(|d| d.is_float());
    let first = floats.next().filter(|d| d.is_half())?;
    floats.all(|d| d == first).then_some(first)
}

/// The type with `F32` in place of a half float.
fn widened(ty: &TensorType) -> TensorType {
    if ty.dtype.is_half() { ty.with_dtype(DType::F32) } else { ty.clone() }
}

#[derive(Default)]
struct Inner {
    function: Function,
    scopes: Vec<String>,
    names: HashMap<Arc<str>, NodeId>,
    reads: HashMap<StateId, NodeId>,
    /// Location given to new nodes instead of the caller's, while a gradient rule runs.
    loc: Option<Option<SourceLoc>>,
    /// What a region takes of the functions around it, with the input that stands for it.
    captures: Vec<(Capture, NodeId)>,
    /// Regions declared so far, for their names.
    regions: usize,
    /// A region that has been made: nothing can be added.
    finished: bool,
    /// The closure whose body is running: what is declared goes there.
    running: bool,
    /// Number of closures of this function whose body is running, 0 or 1.
    children_running: usize,
}

/// What a region uses of the functions around it.
#[derive(Clone, PartialEq)]
pub(crate) enum Capture {
    /// A value, of this type, of the function with this builder.
    Value(BuilderId, NodeId, TensorType),
    /// A state variable.
    State(Param),
}

/// Identifies a builder of one module.
pub(crate) type BuilderId = u32;

/// What is declared.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A function of the module.
    Function,
    /// A region that the user declares with its inputs and outputs.
    Region,
    /// A region that an operation declares from a closure, which may use values around it.
    Closure,
}

/// The regions under declaration of a function: a list to which one can be added while others are
/// borrowed.
#[derive(Default)]
struct Children(OnceCell<Box<(FunctionBuilder, Children)>>);

impl Children {
    fn iter(&self) -> impl Iterator<Item = &FunctionBuilder> {
        std::iter::successors(self.0.get(), |node| node.1.0.get()).map(|node| &node.0)
    }

    fn push(&self, child: FunctionBuilder) -> &FunctionBuilder {
        let mut list = self;
        while let Some(node) = list.0.get() {
            list = &node.1;
        }
        &list.0.get_or_init(|| Box::new((child, Self::default()))).0
    }
}

/// Declares one function, or a region.
pub struct FunctionBuilder {
    shared: Rc<RefCell<Shared>>,
    inner: RefCell<Inner>,
    kind: Kind,
    id: BuilderId,
    /// Builders around this one, whose values a closure may use; outermost first.
    around: Vec<BuilderId>,
    children: Children,
}

impl FunctionBuilder {
    fn new(shared: Rc<RefCell<Shared>>, function: Function, kind: Kind) -> Self {
        let id = {
            let builders = &mut shared.borrow_mut().builders;
            *builders += 1;
            *builders
        };
        let inner = RefCell::new(Inner { function, ..Inner::default() });
        Self { shared, inner, kind, id, around: Vec::new(), children: Children::default() }
    }

    /// A builder for a region of this function, named after it and `role`. It lives as long as this
    /// builder, so that the values of both can be used together: those of this function become inputs of
    /// the region, see [`Self::captures`].
    pub(crate) fn closure(&self, role: &str) -> &Self {
        let name = {
            let inner = &mut *self.inner.borrow_mut();
            inner.regions += 1;
            format!("{}.{role}{}", inner.function.name, inner.regions)
        };
        let function = Function { name: name.into(), ..Function::default() };
        let mut child = Self::new(self.shared.clone(), function, Kind::Closure);
        child.around = [self.around.clone(), vec![self.id]].concat();
        {
            let (inner, mine) = (child.inner.get_mut(), self.inner.borrow());
            inner.scopes = mine.scopes.clone();
            inner.loc = mine.loc.clone();
        }
        self.children.push(child)
    }

    /// Runs `body`, which declares what is in `closure`, a region of this function. What it does with the
    /// values and builders around the region becomes part of the region too.
    pub(crate) fn inside<R>(&self, closure: &Self, body: impl FnOnce() -> R) -> R {
        let mark = |running: bool| {
            closure.inner.borrow_mut().running = running;
            let outer = &mut *self.inner.borrow_mut();
            outer.children_running = usize::from(running);
        };
        mark(true);
        let r = body();
        mark(false);
        r
    }

    /// The region whose body is running, or this function itself.
    pub(crate) fn innermost(&self) -> &Self {
        let mut at = self;
        while at.inner.borrow().children_running > 0 {
            match at.children.iter().find(|c| c.inner.borrow().running) {
                Some(child) => at = child,
                None => break,
            }
        }
        at
    }

    /// Adds an input to a closure, with a name of its own.
    pub(crate) fn argument(&self, name: &str, ty: TensorType) -> Tensor<'_> {
        let t = self.append(Input { ty }.into(), &[]);
        if let Some(id) = t.id {
            self.inner.borrow_mut().function.inputs.push(id);
        }
        t.named(name)
    }

    /// What a closure has used of the functions around it, as values of `self`, the function that
    /// declares it, in the order of the inputs that stand for them.
    pub(crate) fn captures<'f>(&'f self, closure: &Self) -> Vec<Tensor<'f>> {
        let captures = closure.inner.borrow().captures.clone();
        let value = |(capture, _): (Capture, NodeId)| match capture {
            Capture::Value(builder, id, _) if builder == self.id => self.tensor(id),
            Capture::State(param) => self.read(&param),
            outer => self.capture(outer),
        };
        captures.into_iter().map(value).collect()
    }

    /// A value of a closure or around it as one of the closure's own; `None` for a mistake.
    #[track_caller]
    pub(crate) fn adopt<'f>(&'f self, t: Tensor<'_>) -> Option<Tensor<'f>> {
        self.own(t).map(|id| self.tensor(id))
    }

    /// Captures what another closure captures.
    pub(crate) fn share_captures(&self, other: &Self) {
        let captures = other.inner.borrow().captures.clone();
        captures.into_iter().for_each(|(capture, _)| {
            self.capture(capture);
        });
    }

    /// Puts the inputs that stand for captured values, which follow the first `own` ones, into the
    /// order that they have in another closure, which captures the same.
    pub(crate) fn order_captures(&self, other: &Self, own: usize) {
        let order: Vec<Capture> = other.inner.borrow().captures.iter().map(|(c, _)| c.clone()).collect();
        let inner = &mut *self.inner.borrow_mut();
        inner.captures.sort_by_key(|(c, _)| order.iter().position(|o| o == c));
        inner.function.inputs.truncate(own);
        inner.function.inputs.extend(inner.captures.iter().map(|(_, id)| *id));
    }

    /// The input of a closure that stands for a value around it.
    fn capture(&self, capture: Capture) -> Tensor<'_> {
        let known = self.inner.borrow().captures.iter().find(|(c, _)| *c == capture).map(|(_, id)| *id);
        if let Some(id) = known {
            return self.tensor(id);
        }
        let ty = match &capture {
            Capture::Value(_, _, ty) => ty.clone(),
            Capture::State(param) => param.ty.clone(),
        };
        let input = self.argument("outer", ty);
        if let Some(id) = input.id {
            self.inner.borrow_mut().captures.push((capture, id));
        }
        input
    }

    /// Makes these values of a closure its outputs and gives the region, with its inputs in their order,
    /// what it captures last; `None` if a mistake has been recorded.
    #[track_caller]
    pub(crate) fn finish(&self, outputs: &[Tensor<'_>]) -> Option<Region> {
        for (i, &t) in outputs.iter().enumerate() {
            let node = self.own(t)?;
            let name = format!("out{i}").into();
            self.inner.borrow_mut().function.outputs.push(Output { name, node });
        }
        let inner = &mut *self.inner.borrow_mut();
        inner.finished = true;
        Some(Region::new(inner.function.clone()))
    }

    /// A function of which some is declared.
    fn resumed(shared: Rc<RefCell<Shared>>, function: Function) -> Self {
        let f = Self::new(shared, function, Kind::Function);
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
        f
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
            ..Shared::default()
        }));
        let f = Self::resumed(shared, function.clone());
        body(&f);
        let errors = std::mem::take(&mut f.shared.borrow_mut().errors);
        if errors.is_empty() { Ok(f.inner.into_inner().function) } else { Err(BuildErrors(errors)) }
    }

    /// The first output of the function, if it has one.
    pub fn first_output(&self) -> Option<Tensor<'_>> {
        let node = self.inner.borrow().function.outputs.first().map(|o| o.node);
        node.map(|id| self.tensor(id))
    }

    /// Declares an input. Names of inputs are unique in the function, and no state variable's.
    #[track_caller]
    pub fn input(&self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Tensor<'_> {
        if self.kind == Kind::Closure {
            self.misuse(format!("input `{name}` is declared inside a region: use the value around it"));
            return self.poison();
        }
        let taken = self.inner.borrow().names.contains_key(name);
        if taken {
            self.misuse(format!("the name `{name}` is taken twice"));
            return self.poison();
        }
        if self.find_param(name).is_some() {
            self.misuse(format!("input `{name}` has the name of a state variable"));
            return self.poison();
        }
        let t = self.append(Input { ty: TensorType::new(dtype, shape) }.into(), &[]);
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
        match self.kind {
            Kind::Function => {}
            Kind::Closure => return self.capture(Capture::State(param.clone())),
            Kind::Region => {
                let name = self.param_name(param.id);
                self.misuse(format!("a region cannot read state: pass `{name}` to it as an input"));
                return self.poison();
            }
        }
        let t = self.append(ReadState { state: param.id, ty: param.ty.clone() }.into(), &[]);
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
        if self.kind == Kind::Closure {
            self.misuse(format!("output `{name}` is declared inside a region: return the value from it"));
            return;
        }
        let Some(node) = self.own(value) else { return };
        if self.inner.borrow().function.outputs.iter().any(|o| &*o.name == name) {
            self.misuse(format!("output `{name}` is declared twice"));
        }
        self.inner.borrow_mut().function.outputs.push(Output { name: name.into(), node });
    }

    /// Declares the next value of a state variable.
    #[track_caller]
    pub fn update(&self, param: &Param, value: Tensor<'_>) {
        if self.kind != Kind::Function {
            let name = self.param_name(param.id);
            self.misuse(format!("update of `{name}` inside a region: give the new value as a result"));
            return;
        }
        let Some(node) = self.own(value) else { return };
        let ty = value.ty();
        if ty != param.ty {
            let name = self.param_name(param.id);
            self.misuse(format!("update of `{name}`: it has type {}, its new value {ty}", param.ty));
        } else if self.updated(param).is_some() {
            self.misuse(format!("state `{}` is updated twice", self.param_name(param.id)));
        }
        self.inner.borrow_mut().function.updates.push(Update { state: param.id, value: node });
    }

    /// The value that this state variable has after the function, if an update of it is declared already.
    pub fn updated(&self, param: &Param) -> Option<Tensor<'_>> {
        let found =
            self.inner.borrow().function.updates.iter().find(|u| u.state == param.id).map(|u| u.value);
        found.map(|value| self.tensor(value))
    }

    /// Declares what `body` declares, with its updates on the condition that it returns, `bool[]`: where that is false, what
    /// `body` updates keeps its value, bit for bit.
    ///
    /// ```
    /// # use graphc_ir::{DType, Initializer, ModuleBuilder};
    /// let m = ModuleBuilder::new("m");
    /// let total = m.state("total", DType::F32, [], Initializer::ZEROS);
    /// m.function("add", |f| {
    ///     let x = f.input("x", DType::F32, []);
    ///     f.update_if(|| {
    ///         f.update(&total, f.read(&total) + x);
    ///         x.is_finite()
    ///     });
    /// });
    /// # m.build().unwrap();
    /// ```
    #[track_caller]
    pub fn update_if<'f>(&'f self, body: impl FnOnce() -> Tensor<'f>) {
        let before = self.inner.borrow().function.updates.len();
        let condition = body();
        let added: Vec<Update> = self.inner.borrow().function.updates[before..].to_vec();
        if condition.is_poison() {
            return;
        }
        if condition.ty() != TensorType::new(DType::Bool, []) {
            self.misuse(format!("update_if: the condition is {}, must be bool[]", condition.ty()));
            return;
        }
        for (i, update) in added.into_iter().enumerate() {
            let guarded = self.guarded(condition, update.state, self.tensor(update.value));
            if let Some(value) = self.own(guarded) {
                self.inner.borrow_mut().function.updates[before + i].value = value;
            }
        }
    }

    /// `new` where the condition holds, else what the variable is. Where `new` puts values at some places of the variable, the choice is
    /// between these and what is there, so nothing else is read or written.
    #[track_caller]
    fn guarded<'f>(&'f self, condition: Tensor<'f>, variable: StateId, new: Tensor<'f>) -> Tensor<'f> {
        let old = self.read(&Param { id: variable, ty: new.ty() });
        let choose =
            |new: Tensor<'f>, old: Tensor<'f>| condition.broadcast(new.shape(), &[]).select(new, old);
        let is_old = |g: &Graph, id| matches!(g.op(id), Op::ReadState(r) if r.state == variable);
        let places = self.with_graph(|g| match new.id().map(|id| (g.op(id), g.operands(id))) {
            Some((Op::Scatter(s), o)) if s.combine == Combine::Assign && is_old(g, o[0]) => {
                Some((s.clone(), o))
            }
            _ => None,
        });
        let Some((s, operands)) = places else { return choose(new, old) };
        let operands: Vec<Tensor<'f>> = operands.into_iter().map(|id| self.tensor(id)).collect();
        let [_, indices @ .., updates] = operands.as_slice() else { return choose(new, old) };
        let kept = old.gather(indices, &s.axes, &s.batch);
        old.scatter(s.combine, indices, choose(*updates, kept), &s.axes, &s.batch)
    }

    /// Declares what `body` declares inside the scope `name`.
    pub fn scope<R>(&self, name: &str, body: impl FnOnce() -> R) -> R {
        let place = self.innermost();
        place.inner.borrow_mut().scopes.push(name.to_owned());
        let r = body();
        place.inner.borrow_mut().scopes.pop();
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
    pub fn push<'f>(&'f self, op: impl Into<Op>, operands: &[Tensor<'f>]) -> Tensor<'f> {
        self.innermost().append(op.into(), operands)
    }

    /// [`Self::push`] to this very function.
    #[track_caller]
    fn append<'f>(&'f self, op: Op, operands: &[Tensor<'f>]) -> Tensor<'f> {
        if self.inner.borrow().finished {
            self.misuse("a value of another function is used here".to_owned());
            return self.poison();
        }
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
                if let Some(half) = half_of(&types)
                    && op.infer(&types.iter().map(widened).collect::<Vec<_>>()).is_ok()
                {
                    return self.in_f32(half, op, operands);
                }
                self.shared.borrow_mut().errors.push(e.at(loc).into());
                self.poison()
            }
        }
    }

    /// An operation that does not take the half floats among its operands: done in `F32`, and a float
    /// result rounded.
    #[track_caller]
    fn in_f32<'f>(&'f self, half: DType, op: Op, operands: &[Tensor<'f>]) -> Tensor<'f> {
        let wide = |x: &Tensor<'f>| {
            if x.dtype() == half { self.append(Cast { dtype: DType::F32 }.into(), &[*x]) } else { *x }
        };
        let wide: Vec<Tensor<'f>> = operands.iter().map(wide).collect();
        let result = self.append(op, &wide);
        if result.dtype() == DType::F32 {
            self.append(Cast { dtype: half }.into(), &[result])
        } else {
            result
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
        if std::ptr::eq(self, t.f) {
            return t.id;
        }
        if self.kind == Kind::Closure && self.around.contains(&t.f.id) {
            return self.capture(Capture::Value(t.f.id, t.id?, t.ty())).id;
        }
        self.misuse("a value of another function is used here".to_owned());
        None
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
