//! The vector instructions that generated code uses.

use super::x86;
use std::fmt;
use std::str::FromStr;

/// Vector instructions of the host's CPU. The bits of results are the same with all.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Isa {
    /// 128-bit vectors, by Cranelift; on every machine.
    Portable,
    /// 256-bit vectors: x86-64 with AVX2, FMA and BMI2.
    Avx2,
    /// 512-bit vectors: x86-64 with AVX-512 F, VL, BW and DQ as well.
    Avx512,
}

impl Isa {
    /// Every one, narrowest first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The widest that this machine has.
    pub fn host() -> Self {
        Self::ALL.into_iter().rfind(|i| i.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        // Kernels are called in the C convention of System V systems.
        #[cfg(all(target_arch = "x86_64", unix))]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("bmi2");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            match self {
                Self::Portable => true,
                Self::Avx2 => avx2,
                Self::Avx512 => avx2 && avx512,
            }
        }
        #[cfg(not(all(target_arch = "x86_64", unix)))]
        {
            self == Self::Portable
        }
    }

    /// Name as in options: `sse`, `avx2`, `avx512`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "sse",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The one of that [name](Self::name), whether or not this machine has it.
    ///
    /// # Errors
    /// There is none.
    pub fn by_name(name: &str) -> Result<Self, String> {
        let isa = Self::ALL.into_iter().find(|i| i.name() == name);
        isa.ok_or_else(|| format!("`{name}` is none of sse, avx2 and avx512"))
    }

    /// Vectors of the wide emitter, if it is used.
    pub(super) fn vectors(self) -> Option<x86::Isa> {
        match self {
            Self::Portable => None,
            Self::Avx2 => Some(x86::Isa::Avx2),
            Self::Avx512 => Some(x86::Isa::Avx512),
        }
    }
}

impl Default for Isa {
    fn default() -> Self {
        Self::host()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;

    /// Like [`Self::by_name`], and an error if this machine does not have it.
    fn from_str(name: &str) -> Result<Self, String> {
        let isa = Self::by_name(name)?;
        if isa.is_available() { Ok(isa) } else { Err(format!("this machine has no {name}")) }
    }
}
