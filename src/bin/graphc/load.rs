//! Reads modules and picks functions and bindings, for all commands.

use super::Failure;
use graphc::ir::{gradient_function, verify};
use graphc::{Bindings, Function, Module};
use std::path::{Path, PathBuf};

/// Number that a named dimension gets if the command line does not say.
const DEFAULT_EXTENT: usize = 32;

/// Arguments that select functions of a module.
#[derive(clap::Args)]
pub(super) struct Selection {
    /// A module in the text form
    pub(super) file: PathBuf,
    /// A function; `NAME.grad` is the gradient of the first output of NAME
    #[arg(long = "fn", value_name = "NAME")]
    pub(super) function: Option<String>,
    /// A number for a named dimension (32 unless given)
    #[arg(long = "bind", value_name = "DIM=N", value_parser = binding)]
    pub(super) bind: Vec<(String, usize)>,
}

fn binding(text: &str) -> Result<(String, usize), String> {
    let (name, extent) = text.split_once('=').ok_or("expected DIM=N, such as B=64")?;
    let extent = extent.parse().map_err(|_| format!("`{extent}` is not a number"))?;
    Ok((name.to_owned(), extent))
}

/// Reads, parses and verifies a module.
pub(super) fn module(path: &Path) -> Result<Module, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read(path).map_err(|e| Failure::File(format!("cannot read {name}: {e}")))?;
    let text = String::from_utf8(text).map_err(|e| {
        Failure::File(format!("{name} is not a module: byte {} is not UTF-8", e.utf8_error().valid_up_to()))
    })?;
    let module = Module::parse(&name, &text).map_err(|e| Failure::File(e.to_string()))?;
    verify(&module).map_err(|e| Failure::File(e.to_string()))?;
    Ok(module)
}

impl Selection {
    /// The selected function, or all of the module.
    pub(super) fn functions(&self, module: &Module) -> Result<Vec<Function>, Failure> {
        let Some(name) = &self.function else { return Ok(module.functions.clone()) };
        if let Some(f) = module.function(name) {
            return Ok(vec![f.clone()]);
        }
        if let Some(of) = name.strip_suffix(".grad")
            && module.function(of).is_some()
        {
            return Ok(vec![gradient_function(module, of).map_err(Failure::other)?]);
        }
        let known: Vec<String> = module.functions.iter().map(|f| format!("`{}`", f.name)).collect();
        Err(Failure::Other(format!("there is no function `{name}`; the module has {}", known.join(", "))))
    }

    /// Numbers for all open dimensions of `f`.
    pub(super) fn bindings(&self, module: &Module, f: &Function) -> Result<Bindings, Failure> {
        let open = module.open_dims(f);
        if let Some((unknown, _)) = self.bind.iter().find(|(n, _)| !self.known_dim(module, n)) {
            return Err(Failure::Other(format!("no function of the module has a dimension `{unknown}`")));
        }
        let given =
            |name: &str| self.bind.iter().rev().find(|(n, _)| n == name).map_or(DEFAULT_EXTENT, |b| b.1);
        Ok(open.iter().map(|name| (&**name, given(name))).collect())
    }

    fn known_dim(&self, module: &Module, name: &str) -> bool {
        module.functions.iter().any(|f| module.open_dims(f).iter().any(|d| &**d == name))
    }
}
