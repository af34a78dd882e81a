//! Memory for the arena, the state and the constants: aligned, zeroed, with slack after the end.
//! Allocation failure is an error here, never an abort.

use crate::error::RuntimeError;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;

/// Alignment of every buffer, in bytes: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// Alignment of large buffers, in bytes: the size of a huge page on x86-64 and most of aarch64, so
/// that the system can back such buffers with huge pages.
pub const HUGE_ALIGNMENT: usize = 2 << 20;

/// Buffers of at least so many bytes consist of huge pages, where the system has them: addresses are
/// translated without misses, and neighbours in the buffer do not collide in caches that see physical
/// addresses.
const HUGE_LEAST: usize = 512 << 10;

/// Bytes after the end of every buffer that may be read and written: one full vector, so that a
/// kernel may load past the last element.
pub const SLACK_BYTES: usize = 64;

/// A multiple of the sizes of pages that machines have, and the size of pages between buffers that nobody may access.
pub const GRANULE: usize = 64 << 10;

/// Which end of a buffer touches a page that nobody may access. The other end is within one page and an
/// alignment of another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Fence {
    /// What lies before the buffer.
    Begin = 1,
    /// What lies behind it.
    End = 2,
}

/// Alignment asked of the allocator. Small on purpose: allocators get zeroed memory of such
/// alignment fresh from the system, where pages cost nothing until they are touched, but clear
/// memory of larger alignment by hand.
const BASE_ALIGNMENT: usize = 16;

/// A fixed number of bytes at an address that is a multiple of [`ALIGNMENT`] ([`HUGE_ALIGNMENT`]
/// for large ones), zero at first, followed by [`SLACK_BYTES`] more.
pub struct AlignedBuffer {
    ptr: NonNull<u8>,
    len: usize,
    memory: Memory,
}

/// Whose memory it is.
enum Memory {
    /// The allocator gave `base`; the buffer begins at the first suitably aligned address in it.
    Heap { base: NonNull<u8>, layout: Layout },
    /// Pages between guards.
    #[cfg(all(target_os = "linux", not(miri)))]
    Fenced {
        _pages: crate::fence::Pages,
        /// Those in which nobody may read or write.
        forbidden: Vec<Range<usize>>,
    },
}

// SAFETY: the buffer owns its memory; it holds plain bytes and no thread-bound state.
unsafe impl Send for AlignedBuffer {}
// SAFETY: through a shared reference the bytes can only be read.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// `len` zero bytes. `what` names their purpose in the error.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`] when the system refuses, or `len` cannot be addressed.
    pub fn zeroed(len: usize, what: &str) -> Result<Self, RuntimeError> {
        let error = || RuntimeError::OutOfMemory { bytes: len, what: what.into() };
        #[cfg(all(target_os = "linux", not(miri)))]
        if let Some(end) = crate::fence::mode() {
            let total = len.checked_add(SLACK_BYTES).ok_or_else(error)?;
            let (pages, ptr) = crate::fence::Pages::new(total, ALIGNMENT, end).map_err(|_| error())?;
            return Ok(Self { ptr, len, memory: Memory::Fenced { _pages: pages, forbidden: Vec::new() } });
        }
        let huge = len >= HUGE_LEAST;
        let align = if huge { HUGE_ALIGNMENT } else { ALIGNMENT };
        let whole = if huge { len.checked_next_multiple_of(HUGE_ALIGNMENT) } else { Some(len) };
        let total = whole.and_then(|n| n.checked_add(SLACK_BYTES + align)).ok_or_else(error)?;
        let layout = Layout::from_size_align(total, BASE_ALIGNMENT).map_err(|_| error())?;
        // SAFETY: the layout has a size of at least SLACK_BYTES.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(error)?;
        let skip = base.as_ptr().align_offset(align);
        assert!(skip <= align, "alignment of bytes is always possible");
        // SAFETY: skip <= align, and the allocation has align + SLACK_BYTES bytes beyond len.
        let ptr = unsafe { base.add(skip) };
        if huge {
            ask_for_huge_pages(ptr, whole.expect("it was added to"));
        }
        Ok(Self { ptr, len, memory: Memory::Heap { base, layout } })
    }

    /// Like [`AlignedBuffer::zeroed`], with pages inside that nobody may access: ranges in order, of multiples of
    /// [`GRANULE`](crate::GRANULE). Where the system has no such pages they may be accessed.
    ///
    /// # Errors
    /// As [`AlignedBuffer::zeroed`].
    pub(crate) fn with_gaps(
        len: usize,
        forbidden: &[Range<usize>],
        what: &str,
    ) -> Result<Self, RuntimeError> {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            use crate::fence::Pages;
            let error = |_| RuntimeError::OutOfMemory { bytes: len, what: what.into() };
            let (pages, ptr) = Pages::new(len + SLACK_BYTES, ALIGNMENT, Fence::Begin).map_err(error)?;
            forbidden.iter().try_for_each(|range| pages.forbid(range)).map_err(error)?;
            let memory = Memory::Fenced { _pages: pages, forbidden: forbidden.to_vec() };
            Ok(Self { ptr, len, memory })
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        {
            let _ = forbidden;
            Self::zeroed(len, what)
        }
    }

    /// Sets every byte that may be accessed.
    pub(crate) fn fill(&mut self, byte: u8) {
        let forbidden: &[Range<usize>] = match &self.memory {
            #[cfg(all(target_os = "linux", not(miri)))]
            Memory::Fenced { forbidden, .. } => forbidden,
            Memory::Heap { .. } => &[],
        };
        let begins = std::iter::once(0).chain(forbidden.iter().map(|r| r.end));
        let ends = forbidden.iter().map(|r| r.start).chain([self.len]);
        for (begin, end) in begins.zip(ends) {
            // SAFETY: the bytes between two forbidden ranges belong to the buffer, which is borrowed exclusively.
            unsafe { self.ptr.add(begin).write_bytes(byte, end - begin) };
        }
    }

    /// A copy of `bytes`.
    ///
    /// # Errors
    /// As [`AlignedBuffer::zeroed`].
    pub fn from_bytes(bytes: &[u8], what: &str) -> Result<Self, RuntimeError> {
        let mut buffer = Self::zeroed(bytes.len(), what)?;
        buffer.as_mut_slice().copy_from_slice(bytes);
        Ok(buffer)
    }

    /// Number of bytes, without slack.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of the first byte. Reading is allowed for `len` + [`SLACK_BYTES`] bytes.
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr.as_ptr()
    }

    /// Address of the first byte. Reading and writing is allowed for `len` + [`SLACK_BYTES`] bytes.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` initialized bytes from `ptr` belong to the buffer, borrowed with it.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

/// Lets the system back `len` bytes from `ptr` with huge pages, where it does so on request only.
#[cfg(all(target_os = "linux", not(miri)))]
fn ask_for_huge_pages(ptr: NonNull<u8>, len: usize) {
    use rustix::mm::{Advice, madvise};
    // SAFETY: the caller owns these bytes; the advice changes neither them nor who may access them.
    // It is a wish: systems without huge pages refuse, and nothing is lost.
    let _ = unsafe { madvise(ptr.as_ptr().cast(), len, Advice::LinuxHugepage) };
}

/// Elsewhere the system decides by itself.
#[cfg(not(all(target_os = "linux", not(miri))))]
fn ask_for_huge_pages(_: NonNull<u8>, _: usize) {}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        match self.memory {
            // SAFETY: `base` came from `alloc_zeroed` with this layout and is freed once.
            Memory::Heap { base, layout } => unsafe { dealloc(base.as_ptr(), layout) },
            #[cfg(all(target_os = "linux", not(miri)))]
            Memory::Fenced { .. } => {}
        }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("ptr", &self.ptr).field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_and_have_slack() {
        for len in [0, 1, 63, 64, 65, 4096, HUGE_LEAST - 1, HUGE_LEAST, HUGE_ALIGNMENT] {
            let mut buffer = AlignedBuffer::zeroed(len, "test").unwrap();
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.is_empty(), len == 0);
            let align = if len < HUGE_LEAST { ALIGNMENT } else { HUGE_ALIGNMENT };
            assert_eq!(buffer.as_ptr().addr() % align, 0);
            if len <= 4096 {
                assert!(buffer.as_slice().iter().all(|&b| b == 0));
            }
            let p = buffer.as_mut_ptr();
            // SAFETY: slack may be read and written.
            unsafe {
                assert_eq!(p.add(len + SLACK_BYTES - 1).read(), 0);
                p.add(len + SLACK_BYTES - 1).write(7);
            }
        }
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn nobody_may_access_gaps() {
        let gap = GRANULE..2 * GRANULE;
        let mut buffer = AlignedBuffer::with_gaps(3 * GRANULE, &[gap], "test").unwrap();
        buffer.fill(7);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let access = |at: usize| {
            let address = buffer.as_ptr().addr() + at;
            let holds = |line: &&str| {
                let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
                let [from, to] = [from, to].map(|a| usize::from_str_radix(a, 16).unwrap());
                (from..to).contains(&address)
            };
            maps.lines().find(holds).unwrap().split(' ').nth(1).unwrap()
        };
        let places = [0, GRANULE - 1, GRANULE, 2 * GRANULE - 1, 2 * GRANULE, 3 * GRANULE + SLACK_BYTES - 1];
        assert_eq!(places.map(access), ["rw-p", "rw-p", "---p", "---p", "rw-p", "rw-p"]);
    }

    #[test]
    fn from_bytes_copies() {
        assert_eq!(AlignedBuffer::from_bytes(&[1, 2, 3], "test").unwrap().as_slice(), [1, 2, 3]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri's allocator does not refuse")]
    fn too_large_is_an_error() {
        for bytes in [usize::MAX, isize::MAX as usize, isize::MAX as usize / 2] {
            let error = AlignedBuffer::zeroed(bytes, "the arena").unwrap_err();
            assert_eq!(error.to_string(), format!("out of memory: the arena needs {bytes} bytes"));
        }
    }
}
