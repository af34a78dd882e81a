//! From fused kernels to a program: where every buffer lives, in which order kernels run, and what
//! each worker needs.
//!
//! State is updated in place where no kernel reads the old value afterwards; otherwise the new
//! value is copied at the end. Checks of indices come before anything that overwrites state, so a
//! failing step leaves the state as it was.

use crate::error::CompileError;
use crate::fuse::{Fused, FusedBuffer, IndexCheck};
use crate::kernel::structure::{Like, first_alike};
use crate::kernel::{BufferId, Exprs, Kernel, KernelBody, Store};
use crate::lower::{self, Target};
use crate::memory::{self, BufferReq, MemoryPlan, Row};
use crate::order::Dependences;
use crate::program::{Body, Buffer, Control, ControlKind, Place, Program, Scheduled, Step};
use crate::recompute::{Home, Item, Schedule, Written};
use crate::stacked;
use crate::threads::on_all_threads;
use graphc_ir::{DType, Function, IndexCx, IndexExpr, Literal, NodeId, Op, StateId};
use graphc_runtime::abi::Context;
use graphc_runtime::{Fence, SLACK_BYTES, StateLayout};
use half::{bf16, f16};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Zero bytes at the start of the constants: what a load reads whose guard fails, of at most eight
/// 512-bit registers.
pub(crate) const ZEROS: usize = 512;

/// A program with the plan of its memory.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// The program.
    pub program: Program,
    /// What the planner was asked.
    pub requests: Vec<BufferReq>,
    /// What it answered.
    pub plan: MemoryPlan,
    /// The index checks, in the order of their sites.
    pub checks: Vec<IndexCheck>,
    /// Kernels that compute a value again, for the budget.
    pub again: usize,
    /// The buffer of each node that has one, of its logical extents.
    pub buffer_of: FxHashMap<NodeId, BufferId>,
    /// What of the arena nobody may access ([`CompileOptions::fence`](crate::CompileOptions::fence)).
    pub gaps: Vec<Range<usize>>,
}

impl Assembled {
    /// The nodes that a kernel computes, in order: its own and those fused into it. `f` is the function.
    /// Then what it computes them from: nodes with buffers.
    pub fn nodes_of(&self, f: &Function, kernel: usize) -> (Vec<NodeId>, Vec<NodeId>) {
        nodes_of(f, &self.program.kernels[kernel], &self.buffer_of)
    }

    /// After each step, the ranges of the arena that hold no value any more, the scratch memory of `workers`
    /// among them.
    pub(crate) fn freed(&self, workers: usize) -> Vec<Vec<Range<usize>>> {
        let p = &self.program;
        let scratch = p.scratch_offset..p.scratch_offset + p.scratch_stride * workers.max(1);
        let mut freed = memory::freed(&self.plan, &self.requests, &self.gaps, p.steps.len());
        freed.iter_mut().for_each(|ranges| ranges.push(scratch.clone()));
        freed
    }
}

fn nodes_of(
    f: &Function,
    kernel: &Kernel,
    buffer_of: &FxHashMap<NodeId, BufferId>,
) -> (Vec<NodeId>, Vec<NodeId>) {
    let written = kernel.writes();
    let own = |id: NodeId| buffer_of.get(&id).is_none_or(|b| written.contains(b));
    let (mut computed, mut leaves) = (BTreeSet::new(), BTreeSet::new());
    let mut work = kernel.sources.clone();
    while let Some(id) = work.pop() {
        if computed.insert(id) {
            for operand in f.graph.operands(id) {
                if own(operand) {
                    work.push(operand);
                } else {
                    leaves.insert(operand);
                }
            }
        }
    }
    (computed.into_iter().collect(), leaves.into_iter().collect())
}

/// What a program may use.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Largest number of threads.
    pub threads: usize,
    /// Largest arena, in bytes.
    pub budget: Option<u64>,
    /// Whether what a kernel computes is to be found again from its operands ([`crate::guard`]).
    pub guard: bool,
    /// Keeps buffers apart, each next to a page that nobody may access.
    pub fence: Option<Fence>,
}

/// Assembles the program of `f`, a function whose dimensions are all numbers.
///
/// # Errors
/// If it does not fit in memory.
///
/// `bodies` are the regions of its nodes, assembled. Fault sites are numbered from `first_site` on. Of
/// a region, `path` comes before the names of its kernels; it is empty for a function of the module.
pub(crate) fn assemble(
    f: &Function,
    fused: Fused,
    bodies: FxHashMap<NodeId, Vec<(Function, Assembled)>>,
    (path, first_site): (&str, usize),
    layout: &StateLayout,
    target: &Target,
    limits: Limits,
) -> Result<Assembled, CompileError> {
    let workers = limits.threads.max(1);
    let mut a = Assembler::new(f, fused, layout, (path, first_site), &limits);
    a.constants();
    a.regions(bodies, workers);
    a.outputs();
    let late = a.updates();
    let order = a.order(late);
    let mut planned = a.plan(order, target);
    if let Some(budget) = limits.budget
        && planned.arena_bytes(workers) > budget
    {
        planned = a.fit(planned, target, workers, budget)?;
    }
    let name = path.strip_suffix('.').unwrap_or(&f.name).to_owned();
    // Scratch offsets are 32-bit in vector IR.
    if planned.scratch_stride > u32::MAX as usize {
        let what = format!("the scratch memory of function `{}`", f.name);
        return Err(CompileError::TooLarge { bytes: planned.scratch_stride as u64, what });
    }
    let bytes = planned.arena_bytes(workers);
    if bytes > MAX_ARENA_BYTES {
        let what = format!("the arena of function `{}`", f.name);
        return Err(CompileError::TooLarge { bytes, what });
    }
    let Planned { order, requests, plan, gaps, alike, scheduled, scratch_stride, again } = planned;
    let program = Program {
        name,
        buffers: a.buffers,
        kernels: a.kernels,
        alike,
        scheduled,
        controls: a.controls,
        steps: order,
        constants: a.constants,
        planned_bytes: plan.bytes,
        scratch_offset: plan.bytes.next_multiple_of(64),
        scratch_stride,
    };
    Ok(Assembled { program, requests, plan, checks: a.checks, again, buffer_of: a.buffer_of, gaps })
}

/// An order of steps with its memory and the kernels' schedules.
struct Planned {
    order: Vec<Step>,
    requests: Vec<BufferReq>,
    plan: MemoryPlan,
    /// What of the arena nobody may access.
    gaps: Vec<Range<usize>>,
    alike: Vec<usize>,
    scheduled: Vec<Scheduled>,
    scratch_stride: usize,
    again: usize,
}

impl Planned {
    fn arena_bytes(&self, workers: usize) -> u64 {
        self.plan.bytes.next_multiple_of(64) as u64 + (self.scratch_stride * workers) as u64
    }
}

/// Whether running the regions can fail.
fn can_fail(control: &Control) -> bool {
    matches!(control.kind, ControlKind::While { .. })
        || control.bodies.iter().any(|b| b.assembled.program.can_fail())
}

fn control_kind(op: &Op) -> ControlKind {
    match op {
        Op::Scan(s) => ControlKind::Scan {
            length: s.length.as_const().expect("every dimension is bound before assembly"),
            carries: s.carries,
            sequences: s.sequences,
            reverse: s.reverse,
            stacked: stacked::sources(s),
        },
        Op::While(w) => ControlKind::While { carries: w.carries },
        Op::Cond(_) => ControlKind::Cond,
        Op::Call(_) => ControlKind::Call,
        op => unreachable!("`{}` has no regions", op.name()),
    }
}

/// Largest arena: 2^46 bytes, far beyond any machine, so that offsets never overflow. What the
/// machine at hand lacks, the allocation of the arena says.
const MAX_ARENA_BYTES: u64 = 1 << 46;

struct Assembler<'a> {
    f: &'a Function,
    layout: &'a StateLayout,
    buffers: Vec<Buffer>,
    buffer_of: FxHashMap<NodeId, BufferId>,
    kernels: Vec<Kernel>,
    checks: Vec<IndexCheck>,
    path: &'a str,
    first_site: usize,
    constants: Vec<u8>,
    controls: BTreeMap<usize, Control>,
    guard: bool,
    fence: Option<Fence>,
    /// What nobody may access of the buffers in which regions work, if there is a fence.
    gaps_in: FxHashMap<BufferId, Vec<Range<usize>>>,
}

impl<'a> Assembler<'a> {
    fn new(
        f: &'a Function,
        fused: Fused,
        layout: &'a StateLayout,
        at: (&'a str, usize),
        limits: &Limits,
    ) -> Self {
        let place = |b: &FusedBuffer| match f.graph.op(b.node) {
            Op::Input(_) => Place::Input(
                f.inputs.iter().position(|&i| i == b.node).expect("verified: every input is listed"),
            ),
            Op::ReadState(r) => Place::State(layout.entries()[r.state.index()].offset),
            // Overwritten below, all of them.
            _ => Place::Arena(0),
        };
        let mut buffers: Vec<Buffer> = fused
            .buffers
            .iter()
            .map(|b| Buffer {
                dtype: b.ty.dtype,
                dims: b.ty.dims.clone(),
                strides: b.strides.clone(),
                place: place(b),
                node: b.node,
            })
            .collect();
        for (i, &port) in fused.ports.iter().enumerate() {
            buffers[port as usize].place = Place::Input(f.inputs.len() + i);
        }
        let Fused { buffer_of, kernels, checks, .. } = fused;
        let (constants, controls) = (vec![0; ZEROS], BTreeMap::new());
        let (path, first_site) = at;
        let &Limits { guard, fence, .. } = limits;
        Self {
            f,
            layout,
            buffers,
            buffer_of,
            kernels,
            checks,
            path,
            first_site,
            constants,
            controls,
            guard,
            fence,
            gaps_in: FxHashMap::default(),
        }
    }

    /// Gives each kernel with regions their programs and memory for them.
    fn regions(&mut self, mut bodies: FxHashMap<NodeId, Vec<(Function, Assembled)>>, workers: usize) {
        for k in 0..self.kernels.len() {
            let KernelBody::Region { .. } = self.kernels[k].body else { continue };
            let node = self.kernels[k].sources[0];
            let kind = control_kind(self.f.graph.op(node));
            let bodies = bodies.remove(&node).expect("regions are assembled first");
            if matches!(kind, ControlKind::Scan { length: 0, .. }) {
                self.scan_of_no_steps(k);
                continue;
            }
            let mut control = Control { kind, bodies: Vec::new(), slots: Vec::new(), workspace: 0 };
            let mut workspace = Row::new(self.fence);
            for (function, assembled) in bodies {
                let program = &assembled.program;
                self.constants.resize(self.constants.len().next_multiple_of(64), 0);
                let constants = self.constants.len();
                self.constants.extend(&program.constants);
                let arena = program.scratch_offset + program.scratch_stride * workers + SLACK_BYTES;
                control.bodies.push(Body {
                    constants,
                    context: workspace.reserve(size_of::<Context>(), &[]),
                    inputs: workspace.reserve(8 * function.inputs.len().max(program.inputs()), &[]),
                    outputs: workspace.reserve(8 * function.outputs.len(), &[]),
                    arena: workspace.reserve(arena, &assembled.gaps),
                    function,
                    assembled,
                });
            }
            if let ControlKind::Scan { carries, .. } | ControlKind::While { carries } = control.kind {
                let last = control.bodies.last().expect("a loop has a body");
                for output in &last.function.outputs[..carries] {
                    let bytes = last.function.graph.ty(output.node).size_bytes().expect("it is static");
                    control.slots.extend([workspace.reserve(bytes, &[]), workspace.reserve(bytes, &[])]);
                }
            }
            if let ControlKind::While { .. } = control.kind {
                control.slots.push(workspace.reserve(1, &[]));
            }
            let (bytes, gaps) = workspace.finish();
            control.workspace = bytes;
            let (dims, strides) = (vec![bytes / 8], vec![1]);
            self.buffers.push(Buffer { dtype: DType::I64, dims, strides, place: Place::Arena(0), node });
            let own = self.buffers.len() as BufferId - 1;
            self.gaps_in.insert(own, gaps);
            if let KernelBody::Region { workspace, .. } = &mut self.kernels[k].body {
                *workspace = Some(own);
            }
            self.controls.insert(k, control);
        }
    }

    /// Replaces a kernel by copies of the initial carries to the results.
    fn scan_of_no_steps(&mut self, k: usize) {
        let KernelBody::Region { operands, results, .. } = self.kernels[k].body.clone() else { return };
        let Op::Scan(scan) = self.f.graph.op(self.kernels[k].sources[0]) else { return };
        let mut copies =
            operands.iter().zip(&results).take(scan.carries).map(|(&from, &to)| self.copy_between(from, to));
        // The stacked values have no elements, and a kernel for them does nothing.
        let first = copies.next().unwrap_or_else(|| self.copy_between(results[0], results[0]));
        let rest: Vec<Kernel> = copies.collect();
        self.kernels[k] = first;
        self.kernels.extend(rest);
    }

    fn constants(&mut self) {
        for i in 0..self.buffers.len() {
            if let Op::Constant(c) = self.f.graph.op(self.buffers[i].node) {
                self.constants.resize(self.constants.len().next_multiple_of(64), 0);
                self.buffers[i].place = Place::Constant(self.constants.len());
                self.constants.extend(bytes_of(&c.value));
            }
        }
    }

    fn is_leaf(&self, node: NodeId) -> bool {
        matches!(self.f.graph.op(node), Op::Input(_) | Op::ReadState(_) | Op::Constant(_))
    }

    /// Gives each output its place: the buffer itself, or a copy if the value has a place already.
    fn outputs(&mut self) {
        let mut placed: FxHashSet<BufferId> = FxHashSet::default();
        for (i, output) in self.f.outputs.iter().enumerate() {
            let buffer = self.buffer_of[&output.node];
            if self.is_leaf(output.node) || !placed.insert(buffer) {
                self.copy(buffer, Place::Output(i));
            } else {
                self.buffers[buffer as usize].place = Place::Output(i);
            }
        }
    }

    /// Gives each new state value its place. Returns copies that run after all else.
    fn updates(&mut self) -> Vec<Late> {
        let mut placed: FxHashSet<BufferId> =
            self.f.outputs.iter().map(|o| self.buffer_of[&o.node]).collect();
        let mut late = Vec::new();
        for u in &self.f.updates {
            let place = Place::State(self.layout.entries()[u.state.index()].offset);
            let buffer = self.buffer_of[&u.value];
            if let Op::ReadState(r) = self.f.graph.op(u.value) {
                if r.state != u.state {
                    // The old value of another variable, which may itself be overwritten.
                    let saved = self.copy(buffer, Place::Arena(0));
                    late.push(Late { kernel: self.copy_kernel(saved, place) });
                }
            } else if self.is_leaf(u.value) || !placed.insert(buffer) {
                late.push(Late { kernel: self.copy_kernel(buffer, place) });
            } else {
                // In place if the order allows it, see `order`.
                self.buffers[buffer as usize].place = place;
            }
        }
        late
    }

    /// Adds a kernel that copies a buffer to a new one, which it returns.
    fn copy(&mut self, from: BufferId, place: Place) -> BufferId {
        let kernel = self.copy_kernel(from, place);
        let to = kernel.stores[0].buffer;
        self.kernels.push(kernel);
        to
    }

    fn copy_kernel(&mut self, from: BufferId, place: Place) -> Kernel {
        let to = self.buffers.len() as BufferId;
        let source = self.buffers[from as usize].clone();
        self.buffers.push(Buffer { place, ..source });
        self.copy_between(from, to)
    }

    /// A kernel that copies a buffer to another of the same type.
    fn copy_between(&self, from: BufferId, to: BufferId) -> Kernel {
        let source = &self.buffers[from as usize];
        let mut space = IndexCx::default();
        let vars: Vec<IndexExpr> = source.dims.iter().map(|&d| space.var(d)).collect();
        let mut exprs = Exprs::default();
        let value = exprs.load(from, vars.clone(), Vec::new(), source.dtype);
        let (node, outer) = (source.node, vars.len());
        Kernel {
            name: format!("{}copy_b{to}", self.path),
            space,
            exprs,
            body: KernelBody::Loop { outer, reductions: Vec::new() },
            stores: vec![Store { buffer: to, index: vars, value, inner: false }],
            sources: vec![node],
        }
    }

    /// The order of execution. New state values whose kernel cannot run after all readers of the
    /// old one are moved to the arena and copied at the end.
    fn order(&mut self, mut late: Vec<Late>) -> Vec<Step> {
        let candidates: Vec<(StateId, BufferId)> = self
            .f
            .updates
            .iter()
            .map(|u| (u.state, self.buffer_of[&u.value]))
            .filter(|(_, b)| {
                matches!(self.buffers[*b as usize].place, Place::State(_))
                    && !self.is_leaf(self.buffers[*b as usize].node)
            })
            .collect();
        let old = self.old_buffers();
        let old = |s: StateId| old.get(&s).map_or([].as_slice(), Vec::as_slice);
        let writers = self.kernels.iter().flat_map(|k| k.writes().into_iter().map(move |b| (b, k)));
        let writers: FxHashMap<BufferId, &Kernel> = writers.collect();
        let in_kernel = |&(s, b): &(StateId, BufferId)| {
            writers.get(&b).is_some_and(|kernel| in_place_in_kernel(kernel, old(s), b))
        };
        let good: Vec<(StateId, BufferId)> = candidates.iter().copied().filter(in_kernel).collect();
        let failing = self.controls.iter().filter(|(_, c)| can_fail(c)).map(|(&k, _)| k);
        let mut dependences = Dependences::new(&self.kernels, &self.checks, self.first_site, failing);
        let in_place: FxHashSet<(StateId, BufferId)> =
            good.into_iter().filter(|&(s, b)| dependences.overwrite(b, old(s))).collect();
        for &(_, buffer) in candidates.iter().filter(|c| !in_place.contains(c)) {
            let place = self.buffers[buffer as usize].place;
            self.buffers[buffer as usize].place = Place::Arena(0);
            late.push(Late { kernel: self.copy_kernel(buffer, place) });
        }
        let mut steps = dependences.order();
        for l in late {
            steps.push(Step::Run(self.kernels.len()));
            self.kernels.push(l.kernel);
        }
        steps
    }

    /// Buffers that stand for the value of each state variable before the step.
    fn old_buffers(&self) -> FxHashMap<StateId, Vec<BufferId>> {
        let mut old: FxHashMap<StateId, Vec<BufferId>> = FxHashMap::default();
        for (buffer, b) in (0..).zip(&self.buffers) {
            let Op::ReadState(r) = self.f.graph.op(b.node) else { continue };
            if b.place == Place::State(self.layout.entries()[r.state.index()].offset) {
                old.entry(r.state).or_default().push(buffer);
            }
        }
        old
    }

    /// Plans the arena and schedules the kernels.
    fn plan(&mut self, order: Vec<Step>, target: &Target) -> Planned {
        let (requests, owners) = self.requests(&order);
        let (plan, gaps) = match self.fence {
            None => (memory::plan(&requests), Vec::new()),
            Some(end) => {
                let inner = |&b: &usize| self.gaps_in.get(&(b as BufferId)).map_or(&[][..], Vec::as_slice);
                memory::plan_apart(&requests, &owners.iter().map(inner).collect::<Vec<_>>(), end)
            }
        };
        for (request, &buffer) in owners.iter().enumerate() {
            self.buffers[buffer].place = Place::Arena(plan.offsets[request]);
        }
        let alike = first_alike(&self.kernels, &self.buffers);
        let scheduled = self.scheduled(&alike, target);
        let scratch = scheduled.iter().map(|s| s.scratch).max().unwrap_or(0);
        let scratch_stride = scratch.next_multiple_of(64) + 64;
        let alike = alike.iter().map(|like| like.first).collect();
        Planned { order, requests, plan, gaps, alike, scheduled, scratch_stride, again: 0 }
    }

    /// The schedules of all kernels, of which `alike` says which are alike: of these the first is scheduled.
    fn scheduled(&self, alike: &[Like], target: &Target) -> Vec<Scheduled> {
        let schedule = |k: usize| lower::schedule(&self.kernels[k], &self.buffers, target);
        let own: Vec<usize> = (0..alike.len()).filter(|&k| alike[k].first == k).collect();
        let order: Vec<usize> = (0..own.len()).collect();
        let mut firsts = on_all_threads(&order, |i| schedule(own[i])).into_iter();
        let mut scheduled: Vec<Scheduled> = Vec::with_capacity(alike.len());
        for (k, like) in alike.iter().enumerate() {
            scheduled.push(if like.first == k {
                firsts.next().flatten().unwrap_or_else(|| schedule(k))
            } else {
                let other = scheduled[like.first].with_buffers(&self.kernels[k].name, &like.buffers);
                debug_assert_eq!(other, schedule(k));
                other
            });
        }
        scheduled
    }

    /// Changes the order, and computes values again, until the arena has at most `budget` bytes.
    fn fit(
        &mut self,
        mut planned: Planned,
        target: &Target,
        workers: usize,
        budget: u64,
    ) -> Result<Planned, CompileError> {
        let mut schedule = self.schedule(&planned.order);
        let (kernels, buffers) = (self.kernels.clone(), self.buffers.clone());
        let mut peak = schedule.peak();
        loop {
            // Scratch memory and gaps between buffers are known only afterwards, so the search aims again.
            let over = (planned.arena_bytes(workers) - budget) as usize;
            let aim = peak.saturating_sub(over.max(peak / 64));
            peak = schedule.fit(aim);
            (self.kernels, self.buffers) = (kernels.clone(), buffers.clone());
            let order = self.carry_out(&schedule);
            planned = self.plan(order, target);
            planned.again = schedule.items.iter().filter(|i| i.again).count();
            let least = planned.arena_bytes(workers);
            if least <= budget {
                self.drop_unused_kernels(&mut planned);
                return Ok(planned);
            }
            if peak > aim || aim == 0 {
                return Err(CompileError::Budget { function: self.f.name.clone(), budget, least });
            }
        }
    }

    /// The order as the search for a smaller one sees it.
    fn schedule(&self, order: &[Step]) -> Schedule {
        let written: FxHashSet<BufferId> = self.kernels.iter().flat_map(Kernel::writes).collect();
        let home = |(i, b): (usize, &Buffer)| match b.place {
            Place::Arena(_) => Home::Arena,
            // It lies where the next variable begins, and does not change with it.
            Place::State(_) if b.bytes() == 0 => Home::Kept,
            Place::State(at) if written.contains(&(i as BufferId)) => Home::NewState(at),
            Place::State(at) => Home::OldState(at),
            Place::Constant(_) | Place::Input(_) | Place::Output(_) => Home::Kept,
        };
        let item = |step: &Step| {
            let (reads, writes, reuse, fails) = match step {
                Step::Check { buffer, .. } => (vec![*buffer], Vec::new(), Vec::new(), true),
                Step::Run(k) => {
                    let kernel = &self.kernels[*k];
                    let of = |&b: &BufferId| self.written(kernel, b);
                    let reuse = kernel.stores.iter().flat_map(|s| {
                        let size = |b: BufferId| self.buffers[b as usize].dtype.size_bytes();
                        let same = move |from: &BufferId| size(*from) == size(s.buffer);
                        self.overwritable(kernel, s).into_iter().filter(same).map(|from| (s.buffer, from))
                    });
                    let fails = self.controls.get(k).is_some_and(can_fail);
                    let writes = kernel.writes();
                    // What it reads back of its own results is there.
                    let reads = kernel.reads().into_iter().filter(|b| !writes.contains(b)).collect();
                    (reads, writes.iter().map(of).collect(), reuse.collect(), fails)
                }
            };
            Item { step: *step, reads, writes, reuse, fails, renames: Vec::new(), again: false }
        };
        let bytes = |b: &Buffer| b.bytes().next_multiple_of(memory::ALIGNMENT);
        Schedule {
            items: order.iter().map(item).collect(),
            bytes: self.buffers.iter().map(bytes).collect(),
            homes: self.buffers.iter().enumerate().map(home).collect(),
            copies: Vec::new(),
            reordered: false,
            stride: 0,
        }
    }

    /// What one of the results of a kernel takes.
    fn written(&self, kernel: &Kernel, buffer: BufferId) -> Written {
        if let KernelBody::Region { .. } = kernel.body {
            return Written { buffer, reads: kernel.reads(), cost: None };
        }
        let only = kernel.only(&[buffer]);
        let reads = only.reads().into_iter().filter(|&b| b != buffer).collect();
        Written { buffer, reads, cost: Some(only.work()) }
    }

    /// Adds the kernels and buffers that a schedule asks for. Returns its steps.
    fn carry_out(&mut self, schedule: &Schedule) -> Vec<Step> {
        for &source in &schedule.copies {
            self.buffers.push(self.buffers[source as usize].clone());
        }
        let kernels = self.kernels.clone();
        let mut steps = Vec::with_capacity(schedule.items.len());
        for item in &schedule.items {
            let Step::Run(k) = item.step else {
                steps.push(item.step);
                continue;
            };
            let mut kernel = kernels[k].clone();
            item.renames.iter().for_each(|&(from, to)| kernel.rename(from, to));
            let kept: Vec<BufferId> = item.writes.iter().map(|w| w.buffer).collect();
            kernel = kernel.only(&kept);
            if item.again {
                kernel.name.push_str(&format!("_again{}", self.kernels.len()));
                steps.push(Step::Run(self.kernels.len()));
                self.kernels.push(kernel);
            } else {
                self.kernels[k] = kernel;
                steps.push(item.step);
            }
        }
        steps
    }

    /// Takes away the kernels that no step runs.
    fn drop_unused_kernels(&mut self, planned: &mut Planned) {
        let mut number = vec![None; self.kernels.len()];
        let mut runs: Vec<&mut usize> = Vec::new();
        for step in &mut planned.order {
            if let Step::Run(k) = step {
                runs.push(k);
            }
        }
        runs.iter().for_each(|k| number[**k] = Some(0));
        number.iter_mut().flatten().enumerate().for_each(|(new, n)| *n = new);
        runs.into_iter().for_each(|k| *k = number[*k].expect("it is run"));
        retain(&mut self.kernels, &number);
        retain(&mut planned.scheduled, &number);
        retain(&mut planned.alike, &number);
        let controls = std::mem::take(&mut self.controls).into_iter();
        self.controls = controls.filter_map(|(k, c)| Some((number[k]?, c))).collect();
    }

    /// What needs memory of the arena and when, and the buffer of each request.
    fn requests(&self, order: &[Step]) -> (Vec<BufferReq>, Vec<usize>) {
        let mut first = vec![usize::MAX; self.buffers.len()];
        let mut last = vec![0usize; self.buffers.len()];
        for (at, step) in order.iter().enumerate() {
            match step {
                Step::Run(k) => {
                    let k = &self.kernels[*k];
                    k.writes().iter().for_each(|&b| first[b as usize] = first[b as usize].min(at));
                    let mut used = [k.reads(), k.writes()].concat();
                    if self.guard {
                        // Not only what it reads, such as a packed copy.
                        let leaves = nodes_of(self.f, k, &self.buffer_of).1;
                        used.extend(leaves.iter().map(|leaf| self.buffer_of[leaf]));
                    }
                    used.iter().for_each(|&b| last[b as usize] = last[b as usize].max(at));
                }
                Step::Check { buffer, .. } => last[*buffer as usize] = last[*buffer as usize].max(at),
            }
        }
        let in_arena = |b: usize| matches!(self.buffers[b].place, Place::Arena(_)) && first[b] != usize::MAX;
        let owners: Vec<usize> = (0..self.buffers.len()).filter(|&b| in_arena(b)).collect();
        let number: FxHashMap<usize, usize> = owners.iter().enumerate().map(|(i, &b)| (b, i)).collect();
        let mut requests: Vec<BufferReq> = owners
            .iter()
            .map(|&b| BufferReq {
                bytes: self.buffers[b].bytes(),
                first: first[b],
                last: last[b],
                may_reuse: Vec::new(),
                label: self.f.label(self.buffers[b].node),
            })
            .collect();
        for step in order {
            let Step::Run(k) = step else { continue };
            let kernel = &self.kernels[*k];
            for s in kernel.stores.iter().filter(|_| !self.guard && self.fence.is_none()) {
                let Some(&to) = number.get(&(s.buffer as usize)) else { continue };
                let size = self.buffers[s.buffer as usize].dtype.size_bytes();
                for from in self.overwritable(kernel, s) {
                    let Some(&from_request) = number.get(&(from as usize)) else { continue };
                    let dies = last[from as usize] == first[s.buffer as usize] || fault!(14);
                    if dies && self.buffers[from as usize].dtype.size_bytes() == size {
                        requests[to].may_reuse.push(from_request);
                    }
                }
            }
        }
        (requests, owners)
    }

    /// Buffers that a kernel reads only where `store` writes, before it does.
    fn overwritable(&self, kernel: &Kernel, store: &Store) -> Vec<BufferId> {
        if !matches!(kernel.body, KernelBody::Loop { .. } | KernelBody::Scatter(_)) {
            return Vec::new();
        }
        let mut candidates = kernel.reads();
        candidates.retain(|&b| {
            let (from, to) = (&self.buffers[b as usize], &self.buffers[store.buffer as usize]);
            let alike = from.dims == to.dims && from.strides == to.strides;
            let before = || read_before(kernel, store, b) || fault!(20);
            let again = || read_by_updates(kernel, b) && !fault!(22);
            alike && before() && !again()
        });
        candidates
    }
}

/// Whether the kernel that computes the new value of a state variable, in `buffer`, reads the old one only where it
/// overwrites it.
fn in_place_in_kernel(kernel: &Kernel, old: &[BufferId], buffer: BufferId) -> bool {
    if !kernel.reads().iter().any(|b| old.contains(b)) || fault!(21) {
        return true;
    }
    let Some(store) = kernel.stores.iter().find(|s| s.buffer == buffer) else { return false };
    if let KernelBody::Contraction(parts) = &kernel.body {
        let factors = parts.iter().flat_map(|p| [&p.lhs, &p.rhs]);
        if factors.into_iter().any(|f| f.exprs.loads(&[f.value]).iter().any(|l| old.contains(&l.0))) {
            return false;
        }
    }
    old.iter().all(|&b| read_before(kernel, store, b) && !read_by_updates(kernel, b))
}

/// Whether a kernel's expressions read `buffer` only where `store` writes, before it does. Within a
/// point of the inner space values come before stores, and an outer point's stores after its inner
/// loops; but after an inner store a later stage would read again.
fn read_before(kernel: &Kernel, store: &Store, buffer: BufferId) -> bool {
    let loads = kernel.exprs.loads(&kernel.roots());
    let mut own = loads.iter().filter(|l| l.0 == buffer);
    own.all(|(_, index, guards)| {
        *index == store.index && guards.is_empty() && kernel.stores_once(store.buffer)
    }) && (!store.inner || in_last_stage(kernel, store))
}

/// Whether a scatter reads `buffer` after its store.
fn read_by_updates(kernel: &Kernel, buffer: BufferId) -> bool {
    matches!(&kernel.body, KernelBody::Scatter(updates) if updates.reads().any(|b| b == buffer))
}

fn in_last_stage(kernel: &Kernel, store: &Store) -> bool {
    let stages = kernel.stages();
    if fault!(26) {
        return true;
    }
    let inner = kernel.stores.iter().filter(|s| s.inner).map(|s| kernel.stage(s.value, &stages));
    inner.chain(stages.iter().copied()).max() == Some(kernel.stage(store.value, &stages))
}

/// Keeps what has a number.
fn retain<T>(all: &mut Vec<T>, numbers: &[Option<usize>]) {
    let mut numbers = numbers.iter();
    all.retain(|_| numbers.next().is_some_and(Option::is_some));
}

/// A copy into state at the end of a step.
struct Late {
    kernel: Kernel,
}

/// The elements of a literal in memory order, native byte order.
fn bytes_of(l: &Literal) -> Vec<u8> {
    fn all<T: Copy, const N: usize>(v: &[T], f: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        v.iter().flat_map(|&x| f(x)).collect()
    }
    match l.dtype() {
        DType::F32 => all(l.as_slice::<f32>().unwrap_or_default(), f32::to_ne_bytes),
        DType::F64 => all(l.as_slice::<f64>().unwrap_or_default(), f64::to_ne_bytes),
        DType::I32 => all(l.as_slice::<i32>().unwrap_or_default(), i32::to_ne_bytes),
        DType::I64 => all(l.as_slice::<i64>().unwrap_or_default(), i64::to_ne_bytes),
        DType::Bool => all(l.as_slice::<bool>().unwrap_or_default(), |b| [u8::from(b)]),
        DType::U8 => all(l.as_slice::<u8>().unwrap_or_default(), |b| [b]),
        DType::BF16 => all(l.as_slice::<bf16>().unwrap_or_default(), bf16::to_ne_bytes),
        DType::F16 => all(l.as_slice::<f16>().unwrap_or_default(), f16::to_ne_bytes),
    }
}
