//! Ctrl-C.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by Ctrl-C once a run can be interrupted. One for the process, as its signals are.
static INTERRUPTED: OnceLock<&'static AtomicBool> = OnceLock::new();

/// Begins to watch for Ctrl-C. A second one, which finds the first not yet taken, ends the process.
pub(super) fn flag() -> &'static AtomicBool {
    INTERRUPTED.get_or_init(|| {
        let flag: &'static AtomicBool = Box::leak(Box::default());
        let handler = move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        };
        // Someone else's handler stays: then there is nothing to watch.
        let _ = ctrlc::set_handler(handler);
        flag
    })
}

/// Whether there was one, which is taken by this.
pub(super) fn is_set(flag: &AtomicBool) -> bool {
    flag.swap(false, Ordering::SeqCst)
}
