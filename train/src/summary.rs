//! What a model consists of and costs, before it is trained.

use crate::session::{Session, SessionError};
use graphc_ir::cost::flops_by_scope;
use graphc_ir::{Bindings, StateVar};
use std::collections::BTreeMap;
use std::fmt;

/// Layers with their parameters and work, and what a function needs; printed, a table.
///
/// ```
/// # use graphc_ir::{DType, ModuleBuilder, composite::mse, shape};
/// # use graphc_train::{nn::Dense, optim::{Sgd, train_step}, session::Session, summary::Summary};
/// # let m = ModuleBuilder::new("m");
/// # let dense = Dense::new(&m, "dense", 3, 2);
/// # train_step(&m, "train_step", &Sgd::new(0.1), |f| {
/// #     mse(dense.apply(f.input("x", DType::F32, shape!["B", 3])), f.input("y", DType::F32, shape!["B", 2]))
/// # });
/// let mut session = Session::new(m.build()?, 1)?;
/// let summary = Summary::of(&mut session, "train_step", &[("B", 32)])?;
/// assert_eq!(summary.parameters(), 8);
/// println!("{summary}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    function: String,
    dims: Vec<(String, usize)>,
    layers: Vec<LayerCost>,
    /// Floating-point operations outside of layers, such as those of the loss and the optimizer.
    pub other_flops: u64,
    /// Bytes of everything that the function computes on the way, as planned.
    pub arena_bytes: usize,
    /// Bytes of the state: parameters, optimizer, averages.
    pub state_bytes: usize,
}

/// What one layer has and does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerCost {
    /// Path of the layer.
    pub name: String,
    /// Its variables with their types.
    pub variables: Vec<String>,
    /// Number of elements that are trained.
    pub trainable: usize,
    /// Number of elements that are not.
    pub other: usize,
    /// Floating-point operations of one run of the function, see [`graphc_ir::cost::flops`].
    pub flops: u64,
}

impl Summary {
    /// Of a function of the session's module, for these dimensions. Compiles it.
    ///
    /// # Errors
    /// As [`Session::executable`].
    pub fn of(session: &mut Session, function: &str, dims: &[(&str, usize)]) -> Result<Self, SessionError> {
        let executable = session.executable(function, dims)?;
        let module = session.module();
        let bindings: Bindings = dims.iter().copied().collect();
        let bound = module.function(function).map(|f| f.bind(&bindings));
        let mut scopes = match bound {
            Some(Ok(bound)) => flops_by_scope(&bound),
            // What cannot be bound was refused by the compiler.
            _ => BTreeMap::new(),
        };
        let mut layers: Vec<LayerCost> = Vec::new();
        // Optimizer slots are named after parameters, as if these were layers.
        let is_slot = |v: &StateVar| {
            let owner = v.name.rsplit_once('/').map_or("", |(owner, _)| owner);
            owner == "optimizer" || owner == "random" || module.state.iter().any(|s| &*s.name == owner)
        };
        for variable in module.state.iter().filter(|v| !is_slot(v)) {
            let (layer, own) = variable.name.rsplit_once('/').unwrap_or(("", &variable.name));
            let at = layers.iter().position(|l| l.name == layer).unwrap_or_else(|| {
                let name = layer.to_owned();
                layers.push(LayerCost { name, variables: Vec::new(), trainable: 0, other: 0, flops: 0 });
                layers.len() - 1
            });
            let n = variable.ty.shape.num_elements().unwrap_or(0);
            layers[at].variables.push(format!("{own} {}", variable.ty));
            *(if variable.trainable { &mut layers[at].trainable } else { &mut layers[at].other }) += n;
        }
        for layer in &mut layers {
            layer.flops = scopes.remove(&layer.name).unwrap_or(0);
        }
        Ok(Self {
            function: function.to_owned(),
            dims: dims.iter().map(|&(n, e)| (n.to_owned(), e)).collect(),
            layers,
            other_flops: scopes.values().sum(),
            arena_bytes: executable.arena_bytes(),
            state_bytes: executable.state_layout().bytes(),
        })
    }

    /// The layers, in the order of their declaration.
    pub fn layers(&self) -> &[LayerCost] {
        &self.layers
    }

    /// Number of elements that are trained.
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|l| l.trainable).sum()
    }

    /// Floating-point operations of one run of the function.
    pub fn flops(&self) -> u64 {
        self.layers.iter().map(|l| l.flops).sum::<u64>() + self.other_flops
    }

    /// What this one saves against `whole`, in words.
    pub fn saved(&self, whole: &Self) -> String {
        let of = |now: u64, before: u64| {
            let share = 100.0 * (1.0 - now as f64 / before.max(1) as f64);
            format!("{} instead of {} ({share:.0} % less)", quantity(now), quantity(before))
        };
        format!(
            "FLOPs {}, bytes on the way {}, bytes of state {}",
            of(self.flops(), whole.flops()),
            of(self.arena_bytes as u64, whole.arena_bytes as u64),
            of(self.state_bytes as u64, whole.state_bytes as u64)
        )
    }
}

/// With a prefix of the SI.
fn quantity(n: u64) -> String {
    let scales = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match scales.into_iter().find(|&(scale, _)| n as f64 >= scale) {
        Some((scale, prefix)) => format!("{:.2} {prefix}", n as f64 / scale),
        None => n.to_string(),
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.layers.iter().map(|l| l.name.len()).max().unwrap_or(0).max("layer".len());
        writeln!(f, "{:width$} {:>12} {:>10} {:>10}  variables", "layer", "parameters", "other", "FLOPs")?;
        for l in &self.layers {
            let (name, variables) = (&l.name, l.variables.join(", "));
            writeln!(
                f,
                "{name:width$} {:>12} {:>10} {:>10}  {variables}",
                l.trainable,
                l.other,
                quantity(l.flops)
            )?;
        }
        let dims: Vec<String> = self.dims.iter().map(|(n, e)| format!("{n} = {e}")).collect();
        write!(
            f,
            "{} with {}: {} parameters, {}FLOP ({} outside of layers), {}B on the way, {}B of state",
            self.function,
            dims.join(", "),
            self.parameters(),
            quantity(self.flops()),
            quantity(self.other_flops),
            quantity(self.arena_bytes as u64),
            quantity(self.state_bytes as u64)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Activation, Dense, Layer, Sequential};
    use crate::optim::{Adam, Groups, Optimizer, train_step};
    use graphc_ir::composite::mse;
    use graphc_ir::{DType, ModuleBuilder, shape};

    fn summary(optimizer: impl Optimizer) -> Summary {
        let m = ModuleBuilder::new("m");
        let net = Sequential::new()
            .then(Dense::new(&m, "encoder/0", 16, 32))
            .then(Activation::Tanh)
            .then(Dense::new(&m, "head", 32, 2));
        train_step(&m, "train_step", &optimizer, |f| {
            let y = net.train(f.input("x", DType::F32, shape!["B", 16]));
            mse(y, f.input("y", DType::F32, shape!["B", 2]))
        });
        Summary::of(&mut Session::new(m.build().unwrap(), 1).unwrap(), "train_step", &[("B", 8)]).unwrap()
    }

    #[test]
    fn counts_layers_and_what_freezing_saves() {
        let whole = summary(Adam::new(1e-3));
        assert_eq!(whole.parameters(), 16 * 32 + 32 + 32 * 2 + 2);
        let layers: Vec<_> = whole.layers().iter().map(|l| (l.name.as_str(), l.trainable)).collect();
        assert_eq!(layers, [("encoder/0", 544), ("head", 66)]);
        // Forward and the gradient of the weight; the bias and its gradient.
        let products = 2 * 2 * 8 * 16 * 32;
        assert_eq!(whole.layers()[0].flops, products + 2 * 8 * 32);
        let text = whole.to_string();
        assert!(text.contains("head                66          0"), "{text}");
        assert!(text.contains("train_step with B = 8: 610 parameters"), "{text}");

        let frozen = summary(Groups::new(Adam::new(1e-3)).freeze("encoder/*"));
        assert_eq!(frozen.layers()[0].flops, products / 2 + 8 * 32);
        assert!(frozen.flops() < whole.flops() && frozen.state_bytes < whole.state_bytes / 2);
        assert!(frozen.saved(&whole).starts_with("FLOPs "), "{}", frozen.saved(&whole));
    }
}
