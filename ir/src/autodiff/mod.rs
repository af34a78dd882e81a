//! Transformations of a function under declaration, graph to graph: what they compute is more nodes
//! of the function, so they apply to each other's results.
//!
//! [`reverse`] and [`forward`] differentiate, [`batch`] maps over a new axis, [`higher`] combines the
//! three. The rules of each operation are in its file, see [`crate::ops::OpDef`].

mod batch;
mod forward;
mod higher;
mod reverse;

pub use batch::{batch, vmap};
pub use forward::jvp;
pub use higher::{hessian, hvp, jacobian};
pub use reverse::{gradient_function, gradients, vjp};

use crate::builder::FunctionBuilder;
use crate::graph::NodeId;

/// Float nodes on a path from `wrt` to `tops`, in creation order.
fn active_nodes(f: &FunctionBuilder, tops: &[NodeId], wrt: &[NodeId]) -> Vec<NodeId> {
    f.with_graph(|g| {
        let mut depends = vec![false; g.len()];
        let mut needed = vec![false; g.len()];
        wrt.iter().for_each(|id| depends[id.index()] = true);
        tops.iter().for_each(|id| needed[id.index()] = true);
        for id in g.ids() {
            let float = g.ty(id).dtype.is_float();
            depends[id.index()] |= float && g.operands(id).iter().any(|o| depends[o.index()]);
        }
        for id in g.ids().rev() {
            if needed[id.index()] && depends[id.index()] {
                g.operands(id).iter().for_each(|o| needed[o.index()] = true);
            }
        }
        let active = |id: &NodeId| depends[id.index()] && needed[id.index()] && g.ty(*id).dtype.is_float();
        g.ids().filter(active).collect()
    })
}
