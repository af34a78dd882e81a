//! What a step changes of a parameter.

use graphc_ir::{Combine, DType, Graph, NodeId, Op, Param, Shape, Tensor, shape};

/// Rows of a table of which a batch of unknown size is taken to reach few.
const MANY_ROWS: usize = 1 << 14;

/// What a step changes of a parameter: all of it, or the rows that its gradient reaches.
///
/// The gradient of a table from which few rows are taken, such as an embedding's, is zero but for sums of what comes for each of these
/// rows. An optimizer that leaves an element alone whose gradient is zero may compute with these rows only, and with one number
/// for each row of the table. A row that is taken several times stands there several times, each time
/// with its whole gradient, and gets the same bits each time: those that it would get in a pass over the table. So does the
/// rest of the table, if the learning rate is finite and positive.
pub(super) struct Touched<'f> {
    gradient: Tensor<'f>,
    /// `i64[n]`, numbers of the rows; `None`: all.
    rows: Option<Tensor<'f>>,
}

impl<'f> Touched<'f> {
    /// All of the parameter whose gradient is `gradient`.
    pub(super) fn all(gradient: Tensor<'f>) -> Self {
        Self { gradient, rows: None }
    }

    /// The rows that the gradient reaches, if it can be seen that they are few.
    #[track_caller]
    pub(super) fn rows(gradient: Tensor<'f>) -> Self {
        Self::few_rows(gradient).unwrap_or(Self::all(gradient))
    }

    #[track_caller]
    fn few_rows(gradient: Tensor<'f>) -> Option<Self> {
        let (f, id) = (gradient.builder(), gradient.id()?);
        let [_, indices, updates] = f.with_graph(|g| sum_of_rows(g, id))?;
        let (indices, updates) = (f.tensor(indices), f.tensor(updates));
        let n = indices.shape().volume()?;
        let length = gradient.dim(0);
        let few = match (n.as_const(), length.as_const()) {
            (Some(n), Some(length)) => n <= length / 2,
            (None, Some(length)) => length >= MANY_ROWS,
            _ => false,
        };
        if !few {
            return None;
        }
        let indices = indices.reshape(shape![n.clone()]).cast(DType::I64);
        let row = gradient.shape();
        let updates = updates.reshape(std::iter::once(&n).chain(&row[1..]).cloned().collect::<Shape>());
        // Each row adds up at one of its places: the last.
        let none = f.full(DType::I64, shape![length], 0.0);
        let last = none.scatter(Combine::Assign, &[indices], f.iota(DType::I64, shape![n], 0), &[0], &[]);
        let place = last.take(indices, 0);
        let sums = updates.full_like(0.0).scatter(Combine::Add, &[place], updates, &[0], &[]);
        Some(Self { gradient: sums.take(place, 0), rows: Some(indices) })
    }

    /// The gradient of what is touched.
    pub(super) fn gradient(&self) -> Tensor<'f> {
        self.gradient
    }

    /// What is touched of the parameter, or of state of its shape.
    #[track_caller]
    pub(super) fn read(&self, param: &Param) -> Tensor<'f> {
        let value = self.gradient.builder().read(param);
        self.rows.map_or(value, |rows| value.take(rows, 0))
    }

    /// Declares that a step replaces it by `value`.
    #[track_caller]
    pub(super) fn update(&self, param: &Param, value: Tensor<'f>) {
        let f = self.gradient.builder();
        let new = match self.rows {
            Some(rows) => f.read(param).scatter(Combine::Assign, &[rows], value, &[0], &[]),
            None => value,
        };
        f.update(param, new);
    }
}

/// The operands of a scatter that adds whole rows to zeros.
fn sum_of_rows(g: &Graph, id: NodeId) -> Option<[NodeId; 3]> {
    let Op::Scatter(scatter) = g.op(id) else { return None };
    let operands = <[NodeId; 3]>::try_from(g.operands(id).as_slice()).ok()?;
    let rows = scatter.combine == Combine::Add && scatter.axes == [0] && scatter.batch.is_empty();
    (rows && is_zero(g, operands[0])).then_some(operands)
}

fn is_zero(g: &Graph, id: NodeId) -> bool {
    match g.op(id) {
        Op::Broadcast(_) => is_zero(g, g.operands(id)[0]),
        // -0 is another number.
        Op::Constant(c) => c.value.splat_value().is_some_and(|v| v.to_f64().to_bits() == 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Adagrad, Optimizer, Sgd, StepOptions, train_step_with};
    use super::MANY_ROWS;
    use crate::nn::{Embedding, Layer};
    use crate::session::Session;
    use graphc_ir::{DType, Dim, Initializer, Module, ModuleBuilder, Param, Tensor, shape};
    use graphc_runtime::Value;

    /// Hides from the optimizer how gradients come about.
    struct Dense<O>(O);

    impl<O: Optimizer> Optimizer for Dense<O> {
        fn learning_rate(&self) -> f64 {
            self.0.learning_rate()
        }

        fn apply<'f>(&self, lr: Tensor<'f>, params: &[Param], grads: &[Tensor<'f>]) {
            let grads: Vec<Tensor<'f>> = grads.iter().map(|&g| g * 1.0).collect();
            self.0.apply(lr, params, &grads);
        }
    }

    const LENGTH: usize = 40;

    /// A step on a table of [`LENGTH`] rows of two elements, of which `n` times 3 are taken.
    fn module(n: impl Into<Dim>, length: usize, optimizer: &dyn Optimizer) -> Module {
        module_with(n, length, optimizer, StepOptions::default())
    }

    fn module_with(
        n: impl Into<Dim>,
        length: usize,
        optimizer: &dyn Optimizer,
        options: StepOptions,
    ) -> Module {
        let m = ModuleBuilder::new("m");
        let table = Embedding::with_init(&m, "table", length, 2, Initializer::Normal { mean: 0.0, std: 1.0 });
        let n = n.into();
        train_step_with(&m, "step", optimizer, options, |f| {
            let rows = table.apply(f.input("ids", DType::I32, shape![n.clone(), 3]));
            let wanted = f.input("wanted", DType::F32, shape![n, 3, 2]);
            (rows - wanted).square().reduce_sum(&[0, 1, 2])
        });
        m.build().unwrap()
    }

    /// Whether the only elementwise arithmetic is that of the rows.
    fn by_rows(m: &Module) -> bool {
        let graph = &m.functions[0].graph;
        let subtractions = graph.ids().filter(|&id| graph.op(id).name() == "sub");
        subtractions.into_iter().all(|id| graph.ty(id).shape.first() != Some(&Dim::Const(LENGTH)))
    }

    const WANTED: [f32; 12] =
        [0.3, -0.0, f32::NAN, 1.5, 0.6, -2.0, f32::INFINITY, 0.9, 1e-40, -0.3, 0.0, 1.2];

    /// The state after two steps, compiled.
    fn state_after_two_steps(m: Module, wanted: [f32; 12]) -> Vec<Vec<u32>> {
        let names: Vec<_> =
            m.state.iter().map(|s| s.name.clone()).filter(|n| n.starts_with("table")).collect();
        let mut session = Session::new(m, 1).unwrap();
        // 7 and 31 are taken several times.
        for ids in [[7, 31, 7, 0, 39, 7], [31, 31, 2, 7, 38, 31]] {
            session.run("step", &[("ids", Value::I32(&ids)), ("wanted", Value::F32(&wanted))]).unwrap();
        }
        let bits = |x: &f32| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
        names.iter().map(|n| session.state().get::<f32>(n).unwrap().iter().map(bits).collect()).collect()
    }

    #[test]
    fn rows_get_the_bits_that_a_pass_over_the_table_gives() {
        let same = |rows: &dyn Optimizer, dense: &dyn Optimizer| {
            let (rows, dense) = (module(2, LENGTH, rows), module(2, LENGTH, dense));
            assert!(by_rows(&rows) && !by_rows(&dense));
            assert_eq!(state_after_two_steps(rows, WANTED), state_after_two_steps(dense, WANTED));
        };
        same(&Sgd::new(0.1), &Dense(Sgd::new(0.1)));
        same(&Adagrad::new(0.1).lr_decay(0.5), &Dense(Adagrad::new(0.1).lr_decay(0.5)));
    }

    #[test]
    fn a_guarded_step_changes_all_of_its_rows_or_none() {
        let guard = StepOptions { guard: true, ..StepOptions::default() };
        let guarded =
            |wanted| state_after_two_steps(module_with(2, LENGTH, &Adagrad::new(0.1), guard), wanted);
        let finite = WANTED.map(|w| if w.is_finite() { w } else { 7.0 });
        let plain = |wanted| state_after_two_steps(module(2, LENGTH, &Adagrad::new(0.1)), wanted);
        assert_eq!(guarded(finite), plain(finite));
        let untouched = guarded(WANTED);
        assert_eq!(untouched[1], [0; 2 * LENGTH]);
        assert_ne!(untouched[0], plain(finite)[0]);
        // The choice is between rows.
        let m = module_with(2, LENGTH, &Sgd::new(0.1), guard);
        let graph = &m.functions[0].graph;
        let choices = graph.ids().filter(|&id| graph.op(id).name() == "select");
        assert!(choices.into_iter().all(|id| graph.ty(id).shape.first() != Some(&Dim::Const(LENGTH))));
    }

    #[test]
    fn all_rows_change_where_they_must_or_are_not_few() {
        assert!(by_rows(&module(6, LENGTH, &Sgd::new(0.1))));
        assert!(!by_rows(&module(7, LENGTH, &Sgd::new(0.1))));
        assert!(!by_rows(&module("B", LENGTH, &Sgd::new(0.1))));
        // A name that is no identifier has no products.
        assert!(!by_rows(&module("two words", LENGTH, &Sgd::new(0.1))));
        assert!(!by_rows(&module(2, LENGTH, &Sgd::new(0.1).momentum(0.9))));
        assert!(!by_rows(&module(2, LENGTH, &Sgd::new(0.1).weight_decay(0.1))));
        assert!(!by_rows(&module(2, LENGTH, &Adagrad::new(0.1).weight_decay(0.1))));
        assert!(!by_rows(&module(2, LENGTH, &Adagrad::new(0.1).eps(1e-50))));
    }

    #[test]
    fn a_step_has_no_other_table_in_memory() {
        let bytes = |optimizer: &dyn Optimizer| {
            let mut session = Session::new(module("B", MANY_ROWS, optimizer), 1).unwrap();
            session.executable("step", &[("B", 2)]).unwrap().arena_bytes()
        };
        let (table, numbers) = (MANY_ROWS * 2 * 4, MANY_ROWS * 8);
        for (rows, dense) in [
            (bytes(&Sgd::new(0.1)), bytes(&Dense(Sgd::new(0.1)))),
            (bytes(&Adagrad::new(0.1)), bytes(&Dense(Adagrad::new(0.1)))),
        ] {
            // One number for each row says where it adds up.
            assert!(rows < numbers + 4096 && dense >= table, "{rows} {dense}");
        }
    }
}
