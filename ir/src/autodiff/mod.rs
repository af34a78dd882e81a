//! Transformations of a function under declaration, graph to graph: what they compute is more nodes
//! of the function, so they apply to each other's results.
//!
//! [`reverse`] and [`forward`] differentiate, [`batch`] maps over a new axis, [`higher`] combines the
//! three. The rules of each operation are in its file, see [`crate::ops::OpDef`].

mod batch;
mod forward;
mod higher;
mod regions;
mod reverse;
mod scan;

pub use batch::{batch, vmap};
pub use forward::jvp;
pub use higher::{hessian, hvp, jacobian};
pub(crate) use regions::{
    backward_region, batch_scan, batch_while, batched_gradient, batched_region, float_cotangents,
    forward_region, forward_scan, forward_while, spread,
};
pub use reverse::{gradient_function, gradient_function_of, gradients, vjp};
pub(crate) use scan::scan_vjp;

use crate::builder::FunctionBuilder;
use crate::graph::NodeId;

/// Float nodes on a path from `wrt` to `tops`, in creation order.
fn active_nodes(f: &FunctionBuilder, tops: &[NodeId], wrt: &[NodeId]) -> Vec<NodeId> {
    f.with_graph(|g| {
        let mut depends = vec![false; g.len()];
        let mut needed = vec![false; g.len()];
        wrt.iter().for_each(|id| depends[id.index()] = true);
        tops.iter().for_each(|id| needed[id.index()] = true);
        // A further result may be a float where the first, the type of the node, is not.
        let float = |id: NodeId| g.ty(id).dtype.is_float() || !g.op(id).regions().is_empty();
        for id in g.ids() {
            let float = float(id);
            depends[id.index()] |= float && g.operands(id).iter().any(|o| depends[o.index()]);
        }
        for id in g.ids().rev() {
            if needed[id.index()] && depends[id.index()] {
                g.operands(id).iter().for_each(|o| needed[o.index()] = true);
            }
        }
        let active = |id: &NodeId| depends[id.index()] && needed[id.index()] && float(*id);
        g.ids().filter(active).collect()
    })
}
