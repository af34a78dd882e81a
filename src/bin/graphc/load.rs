//! Reads modules and picks functions and bindings, for all commands.

use super::Failure;
use graphc::ir::{BuildError, Output, gradient_function, gradient_function_of, verify};
use graphc::{Bindings, Function, Module, ThreadPool};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Number that a named dimension gets if the command line does not say.
const DEFAULT_EXTENT: usize = 32;

/// Larger files are not read: no module comes near, and a device never ends.
const MAX_BYTES: u64 = 256 << 20;

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

pub(super) fn binding(text: &str) -> Result<(String, usize), String> {
    let (name, extent) = text.split_once('=').ok_or("expected DIM=N, such as B=64")?;
    let extent = extent.parse().map_err(|_| format!("`{extent}` is not a number"))?;
    Ok((name.to_owned(), extent))
}

/// Reads a module in the text form: its text and what it says, verified.
pub(super) fn text_and_module(path: &Path) -> Result<(String, Module), Failure> {
    let name = path.display().to_string();
    let mut text = Vec::new();
    let read = File::open(path).and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut text));
    read.map_err(|e| Failure::File(format!("cannot read {name}: {e}")))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Failure::File(format!(
            "{name} is not a module: it is larger than {} MiB",
            MAX_BYTES >> 20
        )));
    }
    let text = String::from_utf8(text).map_err(|e| {
        Failure::File(format!("{name} is not a module: byte {} is not UTF-8", e.utf8_error().valid_up_to()))
    })?;
    let module = Module::parse(&name, &text).map_err(|e| Failure::File(e.to_string()))?;
    verify(&module).map_err(|e| Failure::File(e.to_string()))?;
    Ok((text, module))
}

/// Reads, parses and verifies a module.
pub(super) fn module(path: &Path) -> Result<Module, Failure> {
    text_and_module(path).map(|m| m.1)
}

/// How many numbers are trained.
pub(super) fn parameters(module: &Module) -> usize {
    module.trainable().filter_map(|id| module.state[id.index()].ty.shape.num_elements()).sum()
}

/// The pool of so many threads, or of all of the machine.
pub(super) fn pool(threads: Option<usize>) -> Result<Arc<ThreadPool>, Failure> {
    match threads {
        Some(n) => ThreadPool::new(n).map(Arc::new),
        None => ThreadPool::global(),
    }
    .map_err(Failure::other)
}

/// The module has no function of that name.
pub(super) fn unknown_function(module: &Module, name: &str) -> Failure {
    let known = list(module.functions.iter().map(|f| &*f.name));
    Failure::Usage(format!("there is no function `{name}`; the module has {known}"))
}

/// Names as messages list them.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|n| format!("`{n}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Whether an output is a float scalar: a loss, or what can be averaged.
pub(super) fn is_measure(f: &Function, output: &Output) -> bool {
    let ty = f.graph.ty(output.node);
    ty.rank() == 0 && ty.dtype.is_float()
}

/// The gradient of a function by inputs and state variables of these names; by all trainable parameters if there are
/// none. Errors have no place: it would be one of the tool's source.
pub(super) fn gradient(module: &Module, function: &str, wrt: &[&str]) -> Result<Function, Failure> {
    let gradient = match wrt {
        [] => gradient_function(module, function),
        wrt => gradient_function_of(module, function, wrt),
    };
    gradient.map_err(|errors| {
        let messages = errors.0.into_iter().map(|e| match e {
            BuildError::Type(e) => e.to_string(),
            BuildError::NoGradient { error, .. } => error.to_string(),
            BuildError::Misuse { message, .. } => message,
        });
        Failure::Usage(messages.collect::<Vec<_>>().join("\n"))
    })
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
            return Ok(vec![gradient(module, of, &[])?]);
        }
        Err(unknown_function(module, name))
    }

    /// Numbers for all open dimensions of `f`.
    pub(super) fn bindings(&self, module: &Module, f: &Function) -> Result<Bindings, Failure> {
        let open = module.open_dims(f);
        if let Some((unknown, _)) = self.bind.iter().find(|(n, _)| !self.known_dim(module, n)) {
            return Err(Failure::Usage(format!("no function of the module has a dimension `{unknown}`")));
        }
        let given =
            |name: &str| self.bind.iter().rev().find(|(n, _)| n == name).map_or(DEFAULT_EXTENT, |b| b.1);
        Ok(open.iter().map(|name| (&**name, given(name))).collect())
    }

    /// The only function that is selected: the first of the module unless one is named.
    pub(super) fn first(&self, module: &Module) -> Result<Function, Failure> {
        let first = self.functions(module)?.into_iter().next();
        first.ok_or_else(|| Failure::Usage("the module has no function".to_owned()))
    }

    fn known_dim(&self, module: &Module, name: &str) -> bool {
        module.functions.iter().any(|f| module.open_dims(f).iter().any(|d| &**d == name))
    }
}
