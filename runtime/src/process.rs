//! Which process threads were started in: a process that is forked has their memory, and not them.

/// A process, seen from itself or from one that was forked from it.
pub(crate) struct Process {
    id: u32,
    mark: Option<Mark>,
}

impl Process {
    /// The process that calls.
    pub(crate) fn current() -> Self {
        Self { id: std::process::id(), mark: Mark::set() }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Whether this is it: one load, where the system has marks that a fork loses, else a system call.
    pub(crate) fn is_current(&self) -> bool {
        self.mark.as_ref().map_or_else(|| std::process::id() == self.id, Mark::is_set)
    }
}

#[cfg(all(target_os = "linux", not(miri), not(loom)))]
use linux::Mark;

#[cfg(all(target_os = "linux", not(miri), not(loom)))]
mod linux {
    use crate::fence::Pages;
    use crate::memory::{Fence, GRANULE};
    use rustix::mm::{Advice, madvise};
    use std::ptr::NonNull;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A flag that is false in processes forked after it was set.
    pub(super) struct Mark {
        _pages: Pages,
        flag: NonNull<AtomicBool>,
    }

    // SAFETY: it only ever reads an atomic in pages of its own.
    unsafe impl Send for Mark {}
    // SAFETY: as above.
    unsafe impl Sync for Mark {}

    impl Mark {
        /// `None` where the system has no such pages (Linux before 4.14) or no memory.
        pub(super) fn set() -> Option<Self> {
            let (pages, ptr) = Pages::new(GRANULE, GRANULE, Fence::Begin).ok()?;
            // SAFETY: these pages are new and `pages`' own. The advice does not change them in this process.
            unsafe { madvise(ptr.as_ptr().cast(), GRANULE, Advice::LinuxWipeOnFork) }.ok()?;
            let mark = Self { _pages: pages, flag: ptr.cast() };
            mark.flag().store(true, Ordering::Relaxed);
            Some(mark)
        }

        pub(super) fn is_set(&self) -> bool {
            self.flag().load(Ordering::Relaxed)
        }

        fn flag(&self) -> &AtomicBool {
            // SAFETY: the pages live with `self`; their bytes are those of a bool that is false, in a process
            // forked from this one as well, until `set` makes it true.
            unsafe { self.flag.as_ref() }
        }
    }
}

/// There is none: the number of the process is compared.
#[cfg(not(all(target_os = "linux", not(miri), not(loom))))]
enum Mark {}

#[cfg(not(all(target_os = "linux", not(miri), not(loom))))]
impl Mark {
    fn set() -> Option<Self> {
        None
    }

    fn is_set(&self) -> bool {
        match *self {}
    }
}
