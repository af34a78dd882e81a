//! In which order the steps of a program run.

use crate::fuse::IndexCheck;
use crate::kernel::{BufferId, Kernel};
use crate::program::Step;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::Dfs;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Which kernels and checks must run before which.
pub(crate) struct Dependences {
    graph: DiGraph<Step, ()>,
    writer: FxHashMap<BufferId, NodeIndex>,
    readers: FxHashMap<BufferId, Vec<NodeIndex>>,
    /// Steps that may end the run: nothing is overwritten before them.
    failing: Vec<NodeIndex>,
}

impl Dependences {
    /// Those of kernels and checks whose fault sites are numbered from `first_site` on. `failing` are
    /// kernels that may end the run.
    pub(crate) fn new(
        kernels: &[Kernel],
        checks: &[IndexCheck],
        first_site: usize,
        failing: impl Iterator<Item = usize>,
    ) -> Self {
        let mut graph: DiGraph<Step, ()> = DiGraph::new();
        let mut writer: FxHashMap<BufferId, NodeIndex> = FxHashMap::default();
        let mut readers: FxHashMap<BufferId, Vec<NodeIndex>> = FxHashMap::default();
        let nodes: Vec<NodeIndex> = (0..kernels.len()).map(|k| graph.add_node(Step::Run(k))).collect();
        for (k, &at) in kernels.iter().zip(&nodes) {
            k.writes()
                .into_iter()
                .for_each(|b| assert!(writer.insert(b, at).is_none(), "a buffer has one writer"));
            k.reads().into_iter().for_each(|b| readers.entry(b).or_default().push(at));
        }
        let check = |(i, c): (usize, &IndexCheck)| {
            let site = (first_site + i) as u64;
            let step = Step::Check { buffer: c.buffer, bound: c.bound as i64, site };
            let at = graph.add_node(step);
            readers.entry(c.buffer).or_default().push(at);
            at
        };
        let check_nodes: Vec<NodeIndex> = checks.iter().enumerate().map(check).collect();
        // Edges only decide what is possible; the order of adding them changes nothing.
        for (buffer, readers) in &readers {
            let Some(&w) = writer.get(buffer) else { continue };
            for &r in readers.iter().filter(|&&r| r != w) {
                graph.add_edge(w, r, ());
            }
        }
        // An index is checked before a kernel uses it. A loop may read what it has written itself.
        for (check, &at) in checks.iter().zip(&check_nodes) {
            let own = writer.get(&check.buffer);
            for &r in &readers[&check.buffer] {
                if r != at && Some(&r) != own && !check_nodes.contains(&r) {
                    graph.add_edge(at, r, ());
                }
            }
        }
        let failing = check_nodes.iter().copied().chain(failing.map(|k| nodes[k])).collect();
        Self { graph, writer, readers, failing }
    }

    /// Lets the kernel that writes `buffer` run after all that read one of `old`, which it overwrites, and after all that may
    /// fail. False, and nothing changes, if something of these needs what it writes, or if it may fail itself: then what a branch or
    /// earlier steps of a loop have written would stay.
    pub(crate) fn overwrite(&mut self, buffer: BufferId, old: &[BufferId]) -> bool {
        let Some(&w) = self.writer.get(&buffer).filter(|w| !self.failing.contains(w)) else { return false };
        let readers = old.iter().filter_map(|b| self.readers.get(b)).flatten();
        let before: FxHashSet<NodeIndex> =
            readers.chain(&self.failing).copied().filter(|&step| step != w).collect();
        let mut after = Dfs::new(&self.graph, w);
        while let Some(step) = after.next(&self.graph) {
            if before.contains(&step) {
                return false;
            }
        }
        for step in before.into_iter().filter(|_| !fault!(49)) {
            self.graph.add_edge(step, w, ());
        }
        true
    }

    /// The steps: checks first, then kernels as they were declared, as early as dependences allow.
    pub(crate) fn order(&self) -> Vec<Step> {
        let graph = &self.graph;
        let rank = |n: NodeIndex| match graph[n] {
            Step::Check { site, .. } => (0, site as usize),
            Step::Run(k) => (1, k),
        };
        let mut missing: Vec<usize> =
            graph.node_indices().map(|n| graph.neighbors_directed(n, petgraph::Incoming).count()).collect();
        let mut ready: BinaryHeap<Reverse<((usize, usize), NodeIndex)>> =
            graph.node_indices().filter(|n| missing[n.index()] == 0).map(|n| Reverse((rank(n), n))).collect();
        let mut steps = Vec::with_capacity(graph.node_count());
        while let Some(Reverse((_, n))) = ready.pop() {
            steps.push(graph[n]);
            for m in graph.neighbors(n) {
                missing[m.index()] -= 1;
                if missing[m.index()] == 0 {
                    ready.push(Reverse((rank(m), m)));
                }
            }
        }
        assert_eq!(steps.len(), graph.node_count(), "dependences have no cycle");
        steps
    }
}
