//! The floating-point environment of a run: IEEE-754 defaults, whatever the calling thread has set.
//!
//! Results must not depend on who calls: a library loaded earlier may have turned on
//! flush-to-zero, and threads inherit the setting of the thread that started them.

use std::marker::PhantomData;

/// While it lives, this thread rounds to nearest even, keeps subnormals and traps nothing. The
/// previous setting comes back when it is dropped.
///
/// x86-64 (MXCSR) and aarch64 (FPCR); on other targets it does nothing.
#[derive(Debug)]
#[must_use = "the environment lasts as long as the guard"]
pub struct FpEnv {
    saved: imp::Register,
    /// The register belongs to a thread, so the guard stays on it.
    not_send: PhantomData<*const ()>,
}

impl FpEnv {
    /// Sets the default environment on this thread.
    #[inline]
    pub fn enter() -> Self {
        let saved = imp::read();
        imp::write(imp::DEFAULT);
        Self { saved, not_send: PhantomData }
    }
}

impl Drop for FpEnv {
    #[inline]
    fn drop(&mut self) {
        imp::write(self.saved);
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod imp {
    use std::arch::asm;

    /// MXCSR.
    pub(super) type Register = u32;
    /// All six exceptions masked (bits 7 to 12), rounding 00 = nearest, FTZ and DAZ off.
    pub(super) const DEFAULT: Register = 0x1F80;

    #[inline]
    pub(super) fn read() -> Register {
        let mut value = 0;
        // SAFETY: stores 4 bytes to `value`.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }

    #[inline]
    pub(super) fn write(value: Register) {
        // SAFETY: loads 4 bytes from `value`, which is the default, or what `read` returned, hence
        // has no reserved bit set. Exceptions masked by the default stay masked; what the thread had
        // before it asked for itself.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod imp {
    use std::arch::asm;

    /// FPCR.
    pub(super) type Register = u64;
    /// Round to nearest even, no flush to zero, no default NaN, no traps.
    pub(super) const DEFAULT: Register = 0;

    #[inline]
    pub(super) fn read() -> Register {
        let value;
        // SAFETY: reads a register that user code may read.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nostack, preserves_flags)) };
        value
    }

    #[inline]
    pub(super) fn write(value: Register) {
        // SAFETY: writes a register that user code may write, with the default or what `read` gave.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nostack, preserves_flags)) };
    }
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod imp {
    /// Nothing to save.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Register;
    pub(super) const DEFAULT: Register = Register;

    pub(super) fn read() -> Register {
        Register
    }

    pub(super) fn write(_: Register) {}
}

#[cfg(all(test, not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[cfg(target_arch = "x86_64")]
    const FLUSH: imp::Register = imp::DEFAULT | 1 << 15 | 1 << 6;
    #[cfg(target_arch = "aarch64")]
    const FLUSH: imp::Register = 1 << 24;

    /// Half the smallest normal number, computed at run time: 0 when subnormals are flushed.
    #[inline(never)]
    fn half_of_smallest() -> f32 {
        black_box(f32::MIN_POSITIVE) * black_box(0.5)
    }

    #[test]
    fn subnormals_are_kept_inside_and_the_callers_setting_returns() {
        let before = imp::read();
        imp::write(FLUSH);
        let outside = half_of_smallest();
        let guard = FpEnv::enter();
        let inside = half_of_smallest();
        drop(guard);
        let after = (imp::read(), half_of_smallest());
        imp::write(before);
        assert_eq!(outside, 0.0);
        assert_eq!(inside, f32::MIN_POSITIVE / 2.0);
        assert_eq!(after.1, 0.0);
        // Only the sticky exception flags may differ.
        assert_eq!(after.0 & !0x3F, FLUSH & !0x3F);
    }

    #[test]
    fn pieces_run_in_the_default_environment() {
        let before = imp::read();
        imp::write(FLUSH);
        // The worker inherits the setting of the thread that starts it.
        let pool = crate::ThreadPool::new(2).unwrap();
        let kept = std::sync::atomic::AtomicUsize::new(0);
        pool.run(2, |_, _, _| {
            let n = usize::from(half_of_smallest() != 0.0);
            kept.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
        });
        let after = half_of_smallest();
        imp::write(before);
        assert_eq!(kept.into_inner(), 2);
        assert_eq!(after, 0.0);
    }
}
