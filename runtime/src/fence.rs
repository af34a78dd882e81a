//! Memory against pages that nobody may access, for tests of generated code: what it touches beyond a
//! buffer ends the process with a fault at the very instruction.

use crate::error::RuntimeError;
use crate::memory::{Fence, GRANULE};
use crate::value::{Element, Value, ValueMut, with_type};
use graphc_ir::DType;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

static MODE: AtomicU8 = AtomicU8::new(0);

/// From now on gives each arena, state and table of constants of this process pages of its own, fenced at that end;
/// `None` ends this. What has been made before stays where it is.
pub fn fence_buffers(end: Option<Fence>) {
    MODE.store(end.map_or(0, |end| end as u8), Ordering::Relaxed);
}

/// What [`fence_buffers`] asked for.
pub(crate) fn mode() -> Option<Fence> {
    match MODE.load(Ordering::Relaxed) {
        1 => Some(Fence::Begin),
        2 => Some(Fence::End),
        _ => None,
    }
}

/// Zeroed pages between two guards.
pub(crate) struct Pages {
    base: NonNull<u8>,
    len: usize,
}

impl Pages {
    /// Pages with room for `bytes` bytes, and the address of these: a multiple of `align` (a power of two up to the size of a
    /// page), next to the guard at that end, or nearest to it.
    pub(crate) fn new(bytes: usize, align: usize, end: Fence) -> std::io::Result<(Self, NonNull<u8>)> {
        let too_many = || std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        let inner = bytes.max(1).checked_next_multiple_of(GRANULE).ok_or_else(too_many)?;
        let len = inner.checked_add(2 * GRANULE).ok_or_else(too_many)?;
        // SAFETY: without an address the system chooses one where nothing is.
        let base =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE)? };
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(too_many)?;
        let pages = Self { base, len };
        // SAFETY: `len` counts a granule before and one behind `inner` bytes.
        let first = unsafe { base.add(GRANULE) };
        // SAFETY: the range is within the mapping just made, and nothing refers to it yet.
        unsafe { mprotect(first.as_ptr().cast(), inner, MprotectFlags::READ | MprotectFlags::WRITE)? };
        let at = match end {
            Fence::Begin => 0,
            Fence::End => (inner - bytes) / align * align,
        };
        // SAFETY: `at + bytes <= inner`.
        Ok((pages, unsafe { first.add(at) }))
    }

    /// Forbids access to pages of a mapping whose first byte behind the guard is asked for at `Fence::Begin`.
    pub(crate) fn forbid(&self, range: &Range<usize>) -> std::io::Result<()> {
        assert!(GRANULE + range.end <= self.len, "the pages are of this mapping");
        // SAFETY: the range is within the mapping, by the assertion; who asks for it keeps away from there.
        let first = unsafe { self.base.add(GRANULE + range.start) };
        // SAFETY: as above.
        unsafe { mprotect(first.as_ptr().cast(), range.len(), MprotectFlags::empty())? };
        Ok(())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and goes with it. It cannot fail for a whole mapping.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Inputs and outputs in fenced pages: elements that end exactly where a page begins that nobody may access, or begin where
/// one ends.
pub struct Fenced {
    _pages: Pages,
    ptr: NonNull<u8>,
    dtype: DType,
    len: usize,
}

impl Fenced {
    /// A copy of these elements.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub fn new(value: Value<'_>, end: Fence) -> Result<Self, RuntimeError> {
        let bytes = value.as_bytes();
        let error = |_| RuntimeError::OutOfMemory { bytes: bytes.len(), what: "fenced elements".into() };
        let (pages, ptr) = Pages::new(bytes.len(), value.dtype().size_bytes(), end).map_err(error)?;
        // SAFETY: there is room for so many bytes, in memory that is new.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), ptr.as_ptr(), bytes.len()) };
        Ok(Self { _pages: pages, ptr, dtype: value.dtype(), len: value.len() })
    }

    /// The elements.
    pub fn value(&self) -> Value<'_> {
        let ptr = self.ptr.as_ptr();
        // SAFETY: `new` put `len` elements of this type there, aligned to their size.
        unsafe {
            with_type!(self.dtype, T => T::value(std::slice::from_raw_parts(ptr.cast::<T>(), self.len)))
        }
    }

    /// The elements, to be written.
    pub fn value_mut(&mut self) -> ValueMut<'_> {
        let ptr = self.ptr.as_ptr();
        // SAFETY: as in `value`, and the borrow is exclusive.
        unsafe {
            with_type!(self.dtype, T => T::value_mut(std::slice::from_raw_parts_mut(ptr.cast::<T>(), self.len)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protection of the page that holds an address, such as `rw-p`; `None` if none does.
    fn protection(address: usize) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (begin, end) = range.split_once('-')?;
            let parse = |s| usize::from_str_radix(s, 16).ok();
            (parse(begin)? <= address && address < parse(end)?).then(|| rest[..4].to_owned())
        })
    }

    #[test]
    fn neighbours_cannot_be_accessed() {
        for n in [0usize, 1, 7, 1024, 16 << 10, 100_000] {
            let elements: Vec<f32> = (0..n).map(|i| i as f32).collect();
            for end in [Fence::Begin, Fence::End] {
                let mut fenced = Fenced::new((&elements).into(), end).unwrap();
                assert_eq!(fenced.value(), Value::from(&elements));
                let begin = fenced.ptr.addr().get();
                let outside = if end == Fence::Begin { begin - 1 } else { begin + 4 * n };
                assert_eq!(protection(outside).unwrap(), "---p", "{n} {end:?}");
                if let ValueMut::F32(x) = fenced.value_mut() {
                    x.fill(1.0);
                }
                assert_eq!(fenced.value(), Value::from(&vec![1.0f32; n]));
            }
        }
        assert!(Pages::new(usize::MAX - 5, 64, Fence::End).is_err());
    }
}
