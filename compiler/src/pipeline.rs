//! The order of the passes over graphs, readable from top to bottom. Nothing else is here: how
//! passes are run is in `pass.rs`, what they do in `passes/`.

use crate::error::CompileError;
use crate::pass::{OptLevel, Pass, PassOptions, PassRecord, run_passes};
use crate::passes::{Canonicalize, ConstFold, Cse, Dce, Simplify};
use graphc_ir::Function;

/// The passes of a level, in order.
pub fn passes_of(level: OptLevel) -> Vec<&'static dyn Pass> {
    let mut passes: Vec<&'static dyn Pass> = Vec::new();
    if level == OptLevel::O0 {
        return passes;
    }
    // First, so that no later pass spends time on what nothing needs: differentiation leaves many
    // such nodes.
    passes.push(&Dce);
    // Constants go to the right and repeated ones become broadcasts: the other passes look for
    // them only there.
    passes.push(&Canonicalize);
    passes.push(&ConstFold);
    passes.push(&Simplify);
    // After the rewrites, which bring different spellings of one value to the same form.
    passes.push(&Cse);
    if level >= OptLevel::O2 {
        // Sharing gives nodes equal operands and rewrites give constant ones: a second round finds
        // what the first one made possible. A third has never been seen to find anything.
        passes.push(&ConstFold);
        passes.push(&Canonicalize);
        passes.push(&Simplify);
        passes.push(&Cse);
    }
    // Last: rewriting and sharing leave nodes without users.
    passes.push(&Dce);
    passes
}

/// Runs the passes of the level that the options name over a function whose dimensions are all
/// numbers.
///
/// # Errors
/// See [`run_passes`].
pub fn optimize(
    function: &Function,
    options: &PassOptions,
) -> Result<(Function, Vec<PassRecord>), CompileError> {
    run_passes(function, &passes_of(options.level), options)
}
