//! What a kernel costs: arithmetic and memory, counted on kernel IR. Nothing here knows a machine.

use super::{BufferId, ExprId, ExprOp, Exprs, Kernel, KernelBody};
use crate::program::Buffer;
use graphc_ir::{Atom, Combine, IndexExpr, ScalarOp};
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// Work of a kernel, or of several together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Floating-point operations as they are executed: a fused multiply-add is two, an elementary function
    /// as many as the instructions that compute it. Comparisons, choices, casts and integers are none.
    pub flops: u64,
    /// Bytes of memory read and written at least: each element that is used once, however often it is.
    pub bytes: u64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

/// The cost of one execution of `kernel`. What runs regions costs nothing itself: their kernels do.
pub fn cost(kernel: &Kernel, buffers: &[Buffer]) -> Cost {
    let space = &kernel.space.extents;
    let mut touched = Touched { buffers, elements: BTreeMap::new() };
    let whole = space.len();
    let outer = match kernel.body {
        KernelBody::Loop { outer, .. } => outer,
        _ => whole,
    };
    let mut flops = of_exprs(&kernel.exprs, &kernel.roots(), space, outer);
    if !kernel.starts_in_place(buffers) {
        touched.loads(&kernel.exprs, &kernel.roots(), space);
        for store in &kernel.stores {
            touched.add(store.buffer, points(&space[..if store.inner { whole } else { outer }]));
        }
    }
    match &kernel.body {
        KernelBody::Loop { reductions, .. } => flops += reductions.len() as u64 * points(space),
        KernelBody::Contraction(parts) => {
            for part in parts {
                let space = &part.space.extents;
                flops += 2 * points(space);
                for factor in [&part.lhs, &part.rhs] {
                    flops += of_exprs(&factor.exprs, &[factor.value], space, space.len());
                    touched.loads(&factor.exprs, &[factor.value], space);
                }
            }
        }
        KernelBody::Scatter(updates) => {
            let (exprs, extents) = (&updates.exprs, &updates.space.extents);
            let combined = if updates.combine == Combine::Assign { 0 } else { points(extents) };
            flops += of_exprs(exprs, &updates.roots(), extents, extents.len()) + combined;
            touched.loads(exprs, &updates.roots(), extents);
            kernel.stores.iter().for_each(|s| touched.add(s.buffer, points(extents) + combined));
        }
        KernelBody::Cumulative { out, .. } => {
            flops += points(space);
            touched.add(*out, u64::MAX);
        }
        KernelBody::ArgReduce { out, .. } | KernelBody::ArgSort { out, .. } => touched.add(*out, u64::MAX),
        KernelBody::SelectAndGather { x, values, out, .. } => {
            [x, values, out].into_iter().for_each(|&b| touched.add(b, u64::MAX));
        }
        KernelBody::SelectAndScatter { x, ct, out, .. } => {
            [x, ct, out].into_iter().for_each(|&b| touched.add(b, u64::MAX));
        }
        KernelBody::Region { .. } => {}
    }
    Cost { flops, bytes: touched.bytes() }
}

fn points(extents: &[i64]) -> u64 {
    extents.iter().map(|&e| e as u64).product()
}

/// Operations of what `roots` need: those of an expression that depends on a variable from `outer` on count
/// at all points, others at those of the outer space.
fn of_exprs(exprs: &Exprs, roots: &[ExprId], space: &[i64], outer: usize) -> u64 {
    let inner =
        exprs.depend(&|e| e.op.index_exprs().iter().any(|x| (outer..space.len()).any(|v| x.uses(v as u32))));
    let needed = exprs.needed(roots);
    let (all, of_outer) = (points(space), points(&space[..outer]));
    exprs
        .iter()
        .filter(|(id, e)| needed[*id as usize] && e.dtype.is_float())
        .map(|(id, e)| {
            let ExprOp::Scalar(op) = e.op else { return 0 };
            of_instruction(op) * if inner[id as usize] { all } else { of_outer }
        })
        .sum()
}

fn of_instruction(op: ScalarOp) -> u64 {
    match op {
        ScalarOp::Fma => 2,
        ScalarOp::Add
        | ScalarOp::Sub
        | ScalarOp::Mul
        | ScalarOp::Div
        | ScalarOp::Rem
        | ScalarOp::Sqrt
        | ScalarOp::Floor
        | ScalarOp::Ceil
        | ScalarOp::Trunc
        | ScalarOp::Round
        | ScalarOp::Min
        | ScalarOp::Max => 1,
        _ => 0,
    }
}

/// Elements of each buffer that are read, and those that are written, at most.
struct Touched<'a> {
    buffers: &'a [Buffer],
    elements: BTreeMap<BufferId, u64>,
}

impl Touched<'_> {
    fn add(&mut self, buffer: BufferId, elements: u64) {
        let all: u64 = self.buffers[buffer as usize].dims.iter().map(|&d| d as u64).product();
        let sum = self.elements.entry(buffer).or_default();
        *sum = sum.saturating_add(elements.min(all)).min(all);
    }

    /// The elements that loads reach: as many as there are points of the variables in their indices.
    fn loads(&mut self, exprs: &Exprs, roots: &[ExprId], space: &[i64]) {
        let mut read: BTreeMap<BufferId, u64> = BTreeMap::new();
        for (buffer, index, _) in exprs.loads(roots) {
            let dynamic = index.iter().any(has_dynamic);
            let used = |v: usize| dynamic || index.iter().any(|x| x.uses(v as u32));
            let reached: u64 = (0..space.len()).filter(|&v| used(v)).map(|v| space[v] as u64).product();
            let most = read.entry(buffer).or_default();
            *most = (*most).max(reached);
        }
        read.into_iter().for_each(|(buffer, elements)| self.add(buffer, elements));
    }

    fn bytes(&self) -> u64 {
        let size = |b: BufferId| self.buffers[b as usize].dtype.size_bytes() as u64;
        self.elements.iter().map(|(&b, &n)| n * size(b)).sum()
    }
}

fn has_dynamic(x: &IndexExpr) -> bool {
    x.terms().iter().any(|(atom, _)| match atom {
        Atom::Dynamic(_) => true,
        Atom::Div(e, _) | Atom::Mod(e, _) => has_dynamic(e),
        Atom::Var(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use crate::{CompileOptions, compile_stages};
    use graphc_ir::{Bindings, Combine, DType, FunctionBuilder, Initializer, ModuleBuilder};

    /// Names and costs of the kernels of a function.
    fn costs(declare: impl FnOnce(&FunctionBuilder)) -> Vec<(String, u64, u64)> {
        let m = ModuleBuilder::new("m");
        m.function("f", declare);
        let options = CompileOptions { max_threads: 1, ..CompileOptions::default() };
        let (executable, _) = compile_stages(&m.build().unwrap(), "f", &Bindings::new(), &options).unwrap();
        let of = |s: &graphc_runtime::StepInfo| (s.name.clone(), s.flops, s.bytes);
        executable.steps().iter().map(of).collect()
    }

    #[test]
    fn a_product_with_its_epilogue_is_counted_by_hand() {
        let costs = costs(|f| {
            let (x, w) = (f.input("x", DType::F32, [8, 32]), f.input("w", DType::F32, [32, 16]));
            let b = f.input("b", DType::F32, [16]);
            f.output("y", (x.dot(w) + b).relu());
        });
        // A multiply-add for each product; an addition and a maximum for each element of the result.
        let (flops, elements) = (2 * 8 * 32 * 16 + 2 * 8 * 16, 8 * 32 + 32 * 16 + 16 + 8 * 16);
        assert_eq!(costs.iter().map(|c| (c.1, c.2)).collect::<Vec<_>>(), [(flops, 4 * elements)]);
    }

    #[test]
    fn slices_rows_and_loops_count_what_they_touch() {
        let slice = costs(|f| {
            let x = f.input("x", DType::F32, [100, 10]);
            f.output("y", x.slice(&[0..30, 0..10], &[1, 1]) * 2.0);
        });
        assert_eq!((slice[0].1, slice[0].2), (300, 4 * 600));
        let rows = costs(|f| {
            let x = f.input("x", DType::F64, [20, 30]);
            f.output("y", x.reduce_sum(&[1]));
        });
        assert_eq!((rows[0].1, rows[0].2), (600, 8 * 620));
        // Of a table that is changed in place, the rows that are.
        let table = |f: &FunctionBuilder| {
            let table = f.state("table", DType::F32, [1000, 8], Initializer::ZEROS);
            let (rows, new) = (f.input("rows", DType::I32, [3]), f.input("new", DType::F32, [3, 8]));
            f.update(&table, f.read(&table).scatter(Combine::Assign, &[rows], new, &[0], &[]));
        };
        let changed = costs(table);
        let scatter = changed.iter().find(|s| s.0.contains("scatter")).unwrap();
        assert_eq!((scatter.1, scatter.2), (0, 4 * (3 + 2 * 3 * 8)), "{changed:?}");
        let scan = costs(|f| {
            let x = f.input("x", DType::F32, [7, 5]);
            let zero = f.full(DType::F32, [5], 0.0);
            let sum = f.scan(&[zero], &[x], |_, c, x| (vec![c[0] * 0.5 + x[0]], vec![]));
            f.output("y", sum.carries[0]);
        });
        // The kernels of the body come before the one that runs it.
        let body = scan.iter().find(|s| s.0.contains('.')).unwrap();
        assert_eq!((body.1, body.2), (10, 4 * 15), "{scan:?}");
        assert!(scan.iter().any(|s| s.0.contains("scan") && !s.0.contains('.') && (s.1, s.2) == (0, 0)));
    }
}
