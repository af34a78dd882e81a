//! Batched values that are much larger than what they are computed from and what comes of them.

mod axes;

use super::{push_input, push_results, region_function};
use crate::error::CompileError;
use crate::pass::{Pass, PassCx, Rebuilder, append};
use axes::Axes;
use graphc_ir::ops::{OpDef, Reshape, Scan, Transpose};
use graphc_ir::{Dim, Function, Graph, Node, NodeId, Op, Origin, Region, Shape, TensorType};
use petgraph::unionfind::UnionFind;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};

/// Computes what is wide between products one element of the batch at a time, in a loop, and computes it again
/// wherever it is needed again, so that memory holds it for one element instead of for all.
///
/// Attention is the case: scores and probabilities, `[batch, heads, queries, keys]`, come from factors of
/// `[batch, heads, steps, features]` and end in such values, forward and backward. The backward part gets a
/// loop of its own that begins with the products of the forward part, as in Dao et al. 2022, FlashAttention;
/// other than there a step holds whole rows, so each element is computed as it was, bit for bit.
///
/// Loops begin at a batched product of at least [`PassCx::wide`] elements and twice the size of its factors. What
/// follows is computed inside as long as it runs along the batch. What is at most half as large *leaves* if
/// it is a product, or used outside; if anything else is used outside, it is computed there. What only moves and combines
/// elements of what one loop stacks (sums of what several blocks give to one factor, blocks side by side) is computed in that loop
/// too, if no more is stacked then. So are slices, where as much is sliced as there is.
pub struct BatchLoop;

impl Pass for BatchLoop {
    fn name(&self) -> &'static str {
        "batch_loop"
    }

    fn run(&self, function: &Function, cx: &PassCx) -> Result<Function, CompileError> {
        let mut roles = Roles::of(function, cx.wide);
        let mut groups = groups_of(function, &roles);
        if groups.is_empty() {
            return Ok(function.clone());
        }
        if roles.gather(function, &groups) {
            groups = groups_of(function, &roles);
        }
        let group_of = groups.iter().enumerate().flat_map(|(i, g)| g.leaving.iter().map(move |&id| (id, i)));
        let group_of: FxHashMap<NodeId, usize> = group_of.collect();
        let mut rebuilder = Rebuilder::new(function);
        // A loop needs what any of its nodes needs, so it may come before nodes that were declared earlier.
        let mut open: Vec<NodeId> = Vec::new();
        for id in function.graph.ids().filter(|&id| roles.role(id) != Role::Inside) {
            open.push(id);
            while let Some(&id) = open.last() {
                if rebuilder.contains(id) {
                    open.pop();
                    continue;
                }
                let group = group_of.get(&id).map(|&g| &groups[g]);
                let needs: Vec<NodeId> = match group {
                    Some(group) => group.inputs.iter().map(|i| i.0).collect(),
                    None => function.graph.operands(id).to_vec(),
                };
                let before = open.len();
                open.extend(needs.into_iter().filter(|&n| !rebuilder.contains(n)));
                if open.len() > before {
                    continue;
                }
                match group {
                    Some(group) => group.build(function, &roles, &mut rebuilder)?,
                    None => {
                        rebuilder.keep(id);
                    }
                }
            }
        }
        groups.iter().for_each(|_| cx.fire("batch_loop"));
        Ok(rebuilder.finish())
    }
}

/// Where a node is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// Before, after or between the loops.
    Outside,
    /// In each loop that needs it.
    Inside,
    /// In one loop, which stacks it for what is outside; where a loop needs it too, inside again.
    Leaving,
}

/// What a node is, unless [`Role::Outside`].
#[derive(Clone, Debug)]
struct Place {
    role: Role,
    /// The axes along which a loop runs through the value.
    axes: Axes,
    /// Elements of the product that it comes from.
    wide: usize,
}

/// What the pass knows of each node.
struct Roles {
    places: Vec<Place>,
    /// Whether it costs next to nothing to compute it again: constants, positions, values repeated along axes, and
    /// elementwise functions of such.
    cheap: Vec<bool>,
}

impl Roles {
    fn of(f: &Function, wide: usize) -> Self {
        let outside = Place { role: Role::Outside, axes: Axes::new(), wide: 0 };
        let mut roles = Self { places: vec![outside; f.graph.len()], cheap: Vec::new() };
        let begin = beginnings(f, wide);
        if begin.is_empty() {
            return roles;
        }
        for id in f.graph.ids() {
            if let Some(found) = roles.follow(f, id, &begin) {
                roles.places[id.index()] = found;
            }
            let mut operands = f.graph.operands(id).into_iter();
            let cheap = match f.graph.op(id) {
                Op::Constant(c) => c.value.splat_value().is_some(),
                Op::Iota(_) | Op::Broadcast(_) => true,
                _ => operands.all(|o| roles.cheap[o.index()]) && axes::is_elementwise(f, id),
            };
            roles.cheap.push(cheap);
        }
        roles.settle(f);
        roles
    }

    fn role(&self, id: NodeId) -> Role {
        self.places[id.index()].role
    }

    fn axes(&self, id: NodeId) -> &Axes {
        &self.places[id.index()].axes
    }

    /// What a node is if all that uses it may be inside.
    fn follow(&self, f: &Function, id: NodeId, begin: &FxHashSet<NodeId>) -> Option<Place> {
        let operands = f.graph.operands(id);
        let inside = |o: &NodeId| self.role(*o) == Role::Inside;
        let Some(first) = operands.iter().position(inside) else {
            let Op::DotGeneral(d) = f.graph.op(id) else { return None };
            let axes = (0..d.lhs_batch.len()).collect();
            return begin.contains(&id).then(|| Place { role: Role::Inside, axes, wide: elements(f, id) });
        };
        let found = axes::of_result(f, id, first, self.axes(operands[first]))?;
        let along = axes::of_operands(f, id, &found)?;
        let agree = operands.iter().zip(&along).all(|(o, axes)| !inside(o) || self.axes(*o) == axes);
        let wide = operands.iter().map(|&o| self.places[o.index()].wide).max().unwrap_or(0);
        let leaves = matches!(f.graph.op(id), Op::DotGeneral(_)) && 2 * elements(f, id) <= wide;
        let role = if leaves { Role::Leaving } else { Role::Inside };
        agree.then_some(Place { role, axes: found, wide })
    }

    /// Takes back what does not hold, users first: what is used outside leaves if it is small, and else is outside.
    fn settle(&mut self, f: &Function) {
        let mut used_outside = vec![false; f.graph.len()];
        f.results().for_each(|id| used_outside[id.index()] = true);
        for id in f.graph.ids().rev() {
            if self.role(id) == Role::Inside {
                let unused = f.graph.users(id).next().is_none();
                if unused || used_outside[id.index()] {
                    let place = &mut self.places[id.index()];
                    let outside = unused || 2 * elements(f, id) > place.wide;
                    place.role = if outside { Role::Outside } else { Role::Leaving };
                }
            }
            if self.role(id) == Role::Outside {
                f.graph.operands(id).into_iter().for_each(|o| used_outside[o.index()] = true);
            }
        }
        // A loop in which nothing is wide saves nothing.
        for id in f.graph.ids() {
            let mut operands = f.graph.operands(id).into_iter();
            let wide = 2 * elements(f, id) > self.places[id.index()].wide;
            if self.role(id) != Role::Outside && !wide && operands.all(|o| self.role(o) == Role::Outside) {
                self.places[id.index()].role = Role::Outside;
            }
        }
    }

    /// Takes into the loops what only moves and combines elements of what they stack. Whether there is such.
    fn gather(&mut self, f: &Function, groups: &[Group]) -> bool {
        let products = |id: &&NodeId| matches!(f.graph.op(**id), Op::DotGeneral(_));
        let stacked = groups
            .iter()
            .enumerate()
            .flat_map(|(i, g)| g.leaving.iter().filter(products).map(move |&id| (id, i)));
        let mut loop_of: FxHashMap<NodeId, usize> = stacked.collect();
        let mut together: UnionFind<usize> = UnionFind::new(f.graph.len());
        let mut gathered: FxHashSet<NodeId> = FxHashSet::default();
        for id in f.graph.ids() {
            if let Some((group, axes)) = self.follows_loop(f, id, &loop_of) {
                let operands = f.graph.operands(id).into_iter().filter(|o| loop_of.contains_key(o));
                operands.for_each(|o| {
                    together.union(id.index(), o.index());
                });
                loop_of.insert(id, group);
                gathered.insert(id);
                self.places[id.index()].axes = axes;
            }
        }
        let results: FxHashSet<NodeId> = f.results().collect();
        let used_elsewhere = |id: NodeId| {
            results.contains(&id) || f.graph.users(id).any(|(user, _)| !gathered.contains(&user))
        };
        // Elements that each set of values stacks now, and that it would stack.
        let mut elements_of: FxHashMap<usize, (usize, usize)> = FxHashMap::default();
        for &id in loop_of.keys() {
            let (now, then) = elements_of.entry(together.find(id.index())).or_default();
            match (gathered.contains(&id), used_elsewhere(id)) {
                (true, true) => *then += elements(f, id),
                (true, false) => {}
                // What is used elsewhere would have to be stacked as well, and computed once.
                (false, true) => *then = usize::MAX / 2,
                (false, false) => *now += elements(f, id),
            }
        }
        let pays = |id: NodeId| {
            let (now, then) = elements_of[&together.find(id.index())];
            now > 0 && then <= now
        };
        let mut found = false;
        for &id in loop_of.keys().filter(|&&id| pays(id)) {
            found = true;
            self.places[id.index()].role = if used_elsewhere(id) { Role::Leaving } else { Role::Inside };
        }
        found
    }

    /// The loop that stacks all that a node is made of, and the axes of the node that it runs along.
    fn follows_loop(
        &self,
        f: &Function,
        id: NodeId,
        loop_of: &FxHashMap<NodeId, usize>,
    ) -> Option<(usize, Axes)> {
        let combines = || axes::moves(f.graph.op(id)) || axes::is_elementwise(f, id);
        if self.role(id) != Role::Outside || !combines() {
            return None;
        }
        let operands = f.graph.operands(id);
        let first = operands.iter().position(|o| loop_of.contains_key(o))?;
        let group = loop_of[&operands[first]];
        let found = axes::of_result(f, id, first, self.axes(operands[first]))?;
        let along = axes::of_operands(f, id, &found)?;
        let fits = |(&o, axes): (&NodeId, &Axes)| match loop_of.get(&o) {
            Some(&other) => other == group && self.axes(o) == axes,
            None => self.cheap[o.index()] && axes::of_operands(f, o, axes).is_some(),
        };
        operands.iter().zip(&along).all(fits).then_some((group, found))
    }

    /// Whether each loop that needs a node computes it. A product that leaves is computed once.
    fn again(&self, f: &Function, id: NodeId) -> bool {
        match self.role(id) {
            Role::Outside => false,
            Role::Inside => true,
            Role::Leaving => !matches!(f.graph.op(id), Op::DotGeneral(_)),
        }
    }

    /// Whether a loop that needs a node along these axes computes it itself.
    fn computed_inside(&self, f: &Function, (id, along): &Local) -> bool {
        let cheap = self.cheap[id.index()] || self.role(*id) == Role::Outside && is_part_of_all(f, *id);
        let cheap = cheap && axes::of_operands(f, *id, along).is_some();
        cheap || self.again(f, *id) && self.axes(*id) == along
    }
}

fn elements(f: &Function, id: NodeId) -> usize {
    f.graph.ty(id).shape.num_elements().unwrap_or(0)
}

/// Whether a node is a slice of a value of which there are slices enough to cover it.
fn is_part_of_all(f: &Function, id: NodeId) -> bool {
    let is_slice = |id: NodeId| matches!(f.graph.op(id), Op::Slice(_));
    let whole = |of: NodeId| {
        let slices = f.graph.users(of).map(|u| u.0).filter(|&user| is_slice(user));
        slices.map(|user| elements(f, user)).sum::<usize>() >= elements(f, of)
    };
    is_slice(id) && whole(f.graph.operands(id)[0])
}

/// The products at which loops begin, as the documentation of [`BatchLoop`] says. Products of slices of the same factors, such as blocks
/// of queries with the keys that they see, are pieces of one product and count together.
fn beginnings(f: &Function, wide: usize) -> FxHashSet<NodeId> {
    let is_batched = |&id: &NodeId| matches!(f.graph.op(id), Op::DotGeneral(d) if !d.lhs_batch.is_empty());
    let products: Vec<NodeId> = f.graph.ids().filter(is_batched).collect();
    let whole = |mut id: NodeId| {
        while let Op::Slice(_) | Op::Transpose(_) = f.graph.op(id) {
            id = f.graph.operands(id)[0];
        }
        id
    };
    let factors = |id: NodeId| -> Vec<NodeId> { f.graph.operands(id).into_iter().map(whole).collect() };
    let mut together: FxHashMap<Vec<NodeId>, usize> = FxHashMap::default();
    for &id in &products {
        *together.entry(factors(id)).or_default() += elements(f, id);
    }
    let begins = |id: &NodeId| {
        let operands: usize = f.graph.operands(*id).iter().map(|&o| elements(f, o)).sum();
        together[&factors(*id)] >= wide.max(1) && elements(f, *id) >= operands.saturating_mul(2)
    };
    products.into_iter().filter(begins).collect()
}

/// A value inside of a loop, with the axes that the loop runs along.
type Local = (NodeId, Axes);

/// One loop.
#[derive(Default)]
struct Group {
    /// What it stacks.
    leaving: BTreeSet<NodeId>,
    /// What it computes; a node may be there along several axes. In the order of the graph.
    inside: BTreeSet<Local>,
    /// What it computes that from.
    inputs: BTreeSet<Local>,
    /// Extents of the axes that the loop runs along.
    extents: Vec<Dim>,
    /// How many loops come before it, one after the other.
    depth: usize,
}

/// The loops: values that leave are computed in one if they need a value of the inside in common, and neither needs the other.
fn groups_of(f: &Function, roles: &Roles) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut depths: Vec<usize> = Vec::with_capacity(f.graph.len());
    for id in f.graph.ids() {
        let outside = roles.role(id) == Role::Outside;
        let after = |o: NodeId| {
            let waits = roles.role(o) == Role::Leaving && (outside || !roles.again(f, o));
            depths[o.index()] + usize::from(waits)
        };
        let depth = f.graph.operands(id).into_iter().map(after).max().unwrap_or(0);
        depths.push(depth);
        if roles.role(id) != Role::Leaving {
            continue;
        }
        let mut one = Group::of(f, roles, id, depth);
        let joins = |g: &Group| {
            g.depth == depth && g.extents == one.extents && g.inside.iter().any(|l| one.inside.contains(l))
        };
        match groups.iter_mut().rev().find(|g| joins(g)) {
            Some(group) => {
                group.leaving.append(&mut one.leaving);
                group.inside.append(&mut one.inside);
                group.inputs.append(&mut one.inputs);
            }
            None => groups.push(one),
        }
    }
    groups
}

impl Group {
    /// The loop of one value.
    fn of(f: &Function, roles: &Roles, id: NodeId, depth: usize) -> Self {
        let axes = roles.axes(id).clone();
        let extents = axes.iter().map(|&a| f.graph.ty(id).shape[a].clone()).collect();
        let mut group = Self { leaving: BTreeSet::from([id]), extents, depth, ..Self::default() };
        let mut open: Vec<Local> = vec![(id, axes)];
        while let Some(local) = open.pop() {
            if !group.inside.insert(local.clone()) {
                continue;
            }
            let (id, along) = local;
            let operands = axes::of_operands(f, id, &along).expect("it runs along these axes");
            for local in f.graph.operands(id).into_iter().zip(operands) {
                if roles.computed_inside(f, &local) {
                    open.push(local);
                } else {
                    group.inputs.insert(local);
                }
            }
        }
        group
    }

    /// Appends the loop and what stands for the values that leave it.
    fn build(&self, f: &Function, roles: &Roles, rebuilder: &mut Rebuilder<'_>) -> Result<(), CompileError> {
        let first = *self.leaving.first().expect("a loop stacks something");
        let origin = f.graph.node(first).origin.clone();
        let mut body = Body::default();
        let (sequences, constants): (Vec<&Local>, Vec<&Local>) =
            self.inputs.iter().partition(|local| !local.1.is_empty());
        let mut operands: Vec<NodeId> = Vec::new();
        for (id, axes) in sequences.iter().chain(&constants) {
            body.input(f, *id, axes);
            operands.push(match axes.is_empty() {
                true => rebuilder.get(*id),
                false => self.sequence(rebuilder, *id, axes, &origin)?,
            });
        }
        for (id, axes) in &self.inside {
            body.node(f, *id, axes)?;
        }
        let outputs = self.leaving.iter().map(|&id| body.map[&(id, roles.axes(id).clone())]).collect();
        let function = region_function("batch".into(), body.graph, body.inputs, outputs);
        let scan = Scan {
            body: Region::new(function),
            length: self.length(),
            carries: 0,
            sequences: sequences.len(),
            reverse: false,
            recompute: false,
        };
        let types: Vec<TensorType> = operands.iter().map(|&o| rebuilder.graph().ty(o).clone()).collect();
        let types = scan.results(&types)?;
        let node = rebuilder.push(scan, &operands, &origin)?;
        let results = push_results(rebuilder, node, &types, &origin)?;
        for (&id, result) in self.leaving.iter().zip(results) {
            let value = self.stacked(f, rebuilder, id, roles.axes(id), result)?;
            rebuilder.replace(id, value);
        }
        Ok(())
    }

    /// Number of steps.
    fn length(&self) -> Dim {
        let extents = self.extents.iter().map(|d| d.as_const().expect("extents are numbers"));
        Dim::Const(extents.product())
    }

    /// A value with its elements one after the other: the loop's axes first, as one.
    fn sequence(
        &self,
        rebuilder: &mut Rebuilder<'_>,
        id: NodeId,
        axes: &Axes,
        origin: &Origin,
    ) -> Result<NodeId, CompileError> {
        let value = rebuilder.get(id);
        let shape = rebuilder.graph().ty(value).shape.clone();
        let front = transposed(rebuilder, value, axes::in_front(shape.rank(), axes), origin)?;
        let dims = std::iter::once(self.length()).chain(axes::shape_without(&shape, axes)).collect();
        reshaped(rebuilder, front, dims, origin)
    }

    /// What stands for a value that the loop stacks as `result`: the opposite of [`Self::sequence`].
    fn stacked(
        &self,
        f: &Function,
        rebuilder: &mut Rebuilder<'_>,
        id: NodeId,
        axes: &Axes,
        result: NodeId,
    ) -> Result<NodeId, CompileError> {
        let Node { ty, origin, .. } = f.graph.node(id);
        let dims = self.extents.iter().cloned().chain(axes::shape_without(&ty.shape, axes)).collect();
        let front = reshaped(rebuilder, result, dims, origin)?;
        let order = axes::in_front(ty.rank(), axes);
        let place = |a: usize| order.iter().position(|&o| o == a).expect("each axis is there once");
        transposed(rebuilder, front, (0..ty.rank()).map(place).collect(), origin)
    }
}

/// The value with its axes in this order.
fn transposed(
    rebuilder: &mut Rebuilder<'_>,
    value: NodeId,
    permutation: Vec<usize>,
    origin: &Origin,
) -> Result<NodeId, CompileError> {
    if permutation.is_sorted() {
        return Ok(value);
    }
    rebuilder.push(Transpose { permutation }, &[value], origin)
}

/// The value with these extents.
fn reshaped(
    rebuilder: &mut Rebuilder<'_>,
    value: NodeId,
    dims: Vec<Dim>,
    origin: &Origin,
) -> Result<NodeId, CompileError> {
    let shape = Shape::from(dims);
    if rebuilder.graph().ty(value).shape == shape {
        return Ok(value);
    }
    rebuilder.push(Reshape { shape }, &[value], origin)
}

/// A loop's body as it grows.
#[derive(Default)]
struct Body {
    graph: Graph,
    inputs: Vec<NodeId>,
    map: BTreeMap<Local, NodeId>,
}

impl Body {
    fn input(&mut self, f: &Function, id: NodeId, axes: &Axes) {
        let Node { ty, origin, .. } = f.graph.node(id);
        let ty = ty.with_shape(axes::shape_without(&ty.shape, axes));
        let origin = Origin { name: Some(format!("in{}", self.inputs.len()).into()), ..origin.clone() };
        let node = push_input(&mut self.graph, ty, origin);
        self.inputs.push(node);
        self.map.insert((id, axes.clone()), node);
    }

    /// One step's part of a node, whose operands are there.
    fn node(&mut self, f: &Function, id: NodeId, axes: &Axes) -> Result<(), CompileError> {
        let along = axes::of_operands(f, id, axes).expect("it runs along these axes");
        let op = axes::in_step(f, id, axes, &along);
        let locals = f.graph.operands(id).into_iter().zip(along);
        let operands: Vec<NodeId> = locals.map(|local| self.map[&local]).collect();
        let node = append(&mut self.graph, op, &operands, &f.graph.node(id).origin)?;
        self.map.insert((id, axes.clone()), node);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::Dce;
    use crate::passes::testing::{assert_same_results, function, print};
    use crate::{PassOptions, optimize, run_passes};
    use expect_test::expect;
    use graphc_ir::{DType, FunctionBuilder, Tensor, gradients};

    /// Attention of `[batch, steps, heads, features]`.
    fn attention<'f>(f: &'f FunctionBuilder, [q, k, v]: [Tensor<'f>; 3]) -> (Tensor<'f>, Tensor<'f>) {
        let scores = q.dot_general(k, (&[0, 2], &[0, 2]), (&[3], &[3]));
        let dims = scores.shape().as_static().unwrap();
        let steps = [dims[2], dims[3]];
        let [row, column] = [0, 1].map(|axis| f.iota(DType::I64, steps.as_slice(), axis));
        let seen = column.le(row).broadcast(dims.as_slice(), &[2, 3]);
        let least = f.full(DType::F32, dims.as_slice(), -1e30);
        let scores = seen.select(scores * 0.5, least);
        let p = scores.softmax(3);
        (p, p.dot_general(v, (&[0, 1], &[0, 2]), (&[3], &[1])).transpose(&[0, 2, 1, 3]))
    }

    fn inputs(f: &FunctionBuilder) -> [Tensor<'_>; 3] {
        ["q", "k", "v"].map(|name| f.input(name, DType::F32, [2, 9, 3, 2]))
    }

    fn options() -> PassOptions {
        PassOptions { verify: true, wide: 1, ..PassOptions::default() }
    }

    /// Numbers of sequences, constants and stacked values of each loop.
    fn loops(f: &Function) -> Vec<[usize; 3]> {
        let scan = |id: NodeId| match f.graph.op(id) {
            Op::Scan(s) => Some([s.sequences, s.constants(), s.stacked()]),
            _ => None,
        };
        f.graph.ids().filter_map(scan).collect()
    }

    /// The largest value outside of loops.
    fn largest(f: &Function) -> usize {
        f.graph.ids().map(|id| elements(f, id)).max().unwrap_or(0)
    }

    #[test]
    fn attention_becomes_a_loop_over_heads() {
        let f = function(|f| f.output("y", attention(f, inputs(f)).1));
        let (after, _) = optimize(&f, &options()).unwrap();
        assert_eq!(loops(&after), [[3, 1, 1]]);
        let body = after.graph.ids().find_map(|id| match after.graph.op(id) {
            Op::Scan(s) => Some(print(s.body.function())),
            _ => None,
        });
        expect![[r#"
            %0 = input : f32[9, 2]
            %1 = input : f32[9, 2]
            %2 = input : f32[9, 2]
            %3 = input : bool[9, 9]
            %4 = dot_general %0 %1 {lhs_batch = [], rhs_batch = [], lhs_contract = [1], rhs_contract = [1]} : f32[9, 9]
            %5 = broadcast %3 {shape = [9, 9], axes = [0, 1]} : bool[9, 9]
            %6 = constant {-1e30} : f32[]
            %7 = broadcast %6 {shape = [9, 9], axes = []} : f32[9, 9]
            %8 = constant {0.5} : f32[]
            %9 = broadcast %8 {shape = [9, 9], axes = []} : f32[9, 9]
            %10 = mul %4 %9 : f32[9, 9]
            %11 = select %5 %10 %7 : f32[9, 9]
            %12 = reduce_max %11 {axes = [1]} : f32[9]
            %13 = stop_gradient %12 : f32[9]
            %14 = broadcast %13 {shape = [9, 9], axes = [0]} : f32[9, 9]
            %15 = sub %11 %14 : f32[9, 9]
            %16 = exp %15 : f32[9, 9]
            %17 = reduce_sum %16 {axes = [1]} : f32[9]
            %18 = broadcast %17 {shape = [9, 9], axes = [0]} : f32[9, 9]
            %19 = div %16 %18 : f32[9, 9]
            %20 = dot_general %19 %2 {lhs_batch = [], rhs_batch = [], lhs_contract = [1], rhs_contract = [0]} : f32[9, 2]
            return out0 %20
        "#]].assert_eq(&body.unwrap());
        assert_same_results(&f, &after, 16);
    }

    #[test]
    fn the_backward_part_computes_probabilities_again() {
        let f = function(|f| {
            let qkv = inputs(f);
            let y = attention(f, qkv).1;
            f.output("y", y);
            let loss = (y * y).reduce_sum(&[0, 1, 2, 3]);
            for (name, d) in ["dq", "dk", "dv"].into_iter().zip(gradients(loss, &qkv)) {
                f.output(name, d);
            }
        });
        let (after, _) = optimize(&f, &options()).unwrap();
        assert_eq!(loops(&after), [[3, 1, 1], [4, 1, 3]]);
        // No value has the size of the scores, 2 * 3 * 9 * 9.
        assert_eq!((largest(&f), largest(&after)), (486, 108));
        assert_same_results(&f, &after, 16);
    }

    #[test]
    fn what_blocks_give_is_added_up_inside() {
        // Causal attention in three blocks of queries, each to the keys before its end.
        let f = function(|f| {
            let [q, k, v] = ["q", "k", "v"].map(|name| f.input(name, DType::F32, [2, 3, 30, 2]));
            let block = |i: usize| {
                let q = q.slice_axis(2, 10 * i, 10 * i + 10);
                let [k, v] = [k, v].map(|x| x.slice_axis(2, 0, 10 * i + 10));
                let p = (q.dot_general(k, (&[0, 1], &[0, 1]), (&[3], &[3])) * 0.5).softmax(3);
                p.dot_general(v, (&[0, 1], &[0, 1]), (&[3], &[2]))
            };
            let y = f.concatenate(&[0, 1, 2].map(block), 2);
            f.output("y", y);
            let loss = (y * f.input("w", DType::F32, [2, 3, 30, 2])).reduce_sum(&[0, 1, 2, 3]);
            for (name, d) in ["dq", "dk", "dv"].into_iter().zip(gradients(loss, &[q, k, v])) {
                f.output(name, d);
            }
        });
        let (after, _) = optimize(&f, &options()).unwrap();
        // All of q, k, v and w; the blocks side by side, and the gradients, of which two are sums.
        assert_eq!(loops(&after), [[4, 0, 4]]);
        assert_same_results(&f, &after, 16);
        // The three products of queries and keys have 3,600 elements together.
        for (wide, n) in [(3600, 1), (3601, 0)] {
            let (after, _) = optimize(&f, &PassOptions { wide, ..options() }).unwrap();
            assert_eq!(loops(&after).len(), n);
        }
        // Nothing is gained where a block's result is needed for itself.
        let f = function(|f| {
            let [q, k, v] = inputs(f);
            let y = attention(f, [q, k, v]).1;
            f.output("y", y);
            f.output("twice", f.concatenate(&[y, y], 1));
        });
        let (after, _) = optimize(&f, &options()).unwrap();
        assert_eq!(loops(&after), [[3, 1, 1]]);
        assert_same_results(&f, &after, 16);
    }

    #[test]
    fn layers_have_loops_of_their_own() {
        let f = function(|f| {
            let [q, k, v] = inputs(f);
            let y = attention(f, [q, k, v]).1;
            let z = attention(f, [y, y + k, y]).1;
            f.output("z", z);
            f.output("dq", gradients((z * z).reduce_sum(&[0, 1, 2, 3]), &[q])[0]);
        });
        let (after, _) = optimize(&f, &options()).unwrap();
        assert_eq!(loops(&after).len(), 4);
        assert_eq!(largest(&after), 108);
        assert_same_results(&f, &after, 16);
    }

    #[test]
    fn what_is_used_outside_is_computed_outside() {
        let f = function(|f| {
            let (p, y) = attention(f, inputs(f));
            f.output("p", p);
            f.output("y", y);
        });
        let (after, _) = optimize(&f, &options()).unwrap();
        assert!(loops(&after).is_empty());
        // Sums of rows leave the loop; they are computed inside as well.
        let f = function(|f| {
            let [q, k, v] = inputs(f);
            let scores = q.dot_general(k, (&[0, 2], &[0, 2]), (&[3], &[3]));
            let sums = scores.reduce_sum(&[3]);
            let p = scores / sums.broadcast([2, 3, 9, 9], &[0, 1, 2]);
            f.output("sums", sums);
            f.output("y", p.dot_general(v, (&[0, 1], &[0, 2]), (&[3], &[1])));
        });
        let (after, _) = optimize(&f, &options()).unwrap();
        assert_eq!(loops(&after), [[3, 0, 2]]);
        assert_same_results(&f, &after, 16);
    }

    #[test]
    fn a_mask_that_is_given_is_the_same_in_all_steps() {
        let f = function(|f| {
            let [q, k, v] = inputs(f);
            let mask = f.input("mask", DType::F32, [9, 9]);
            let scores = q.dot_general(k, (&[0, 2], &[0, 2]), (&[3], &[3]));
            let scores = scores + mask.broadcast([2, 3, 9, 9], &[2, 3]);
            f.output("y", scores.tanh().dot_general(v, (&[0, 1], &[0, 2]), (&[3], &[1])));
        });
        let (after, _) = optimize(&f, &options()).unwrap();
        assert_eq!(loops(&after), [[3, 1, 1]]);
        assert_same_results(&f, &after, 16);
    }

    #[test]
    fn what_is_not_wide_stays() {
        let f = function(|f| f.output("y", attention(f, inputs(f)).1));
        let options = PassOptions { wide: 487, ..options() };
        let (after, _) = run_passes(&f, &[&BatchLoop, &Dce], &options).unwrap();
        assert!(loops(&after).is_empty());
        // Nor is there a loop where the product has but the size of its factors.
        let f = function(|f| {
            let [q, k, v] = ["q", "k", "v"].map(|name| f.input(name, DType::F32, [4, 5, 9]));
            let scores = q.dot_general(k, (&[0], &[0]), (&[2], &[2]));
            f.output("y", scores.exp().dot_general(v, (&[0], &[0]), (&[2], &[1])));
        });
        assert!(loops(&optimize(&f, &super::tests::options()).unwrap().0).is_empty());
    }
}
