//! Vector instructions, chosen when the program runs: a build for any x86-64 uses AVX2 or
//! AVX-512 where the processor has them.

use std::sync::OnceLock;

/// The widest instructions that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// 512-bit registers, 32 of them.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 256-bit registers, 16 of them, with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 128-bit registers, 32 of them; every aarch64 has them.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// What the compiler makes of plain loops.
    #[cfg(not(target_arch = "aarch64"))]
    Portable,
}

/// What this processor has.
pub(crate) fn isa() -> Isa {
    static FOUND: OnceLock<Isa> = OnceLock::new();
    *FOUND.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    use std::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma");
    if avx2 && has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq") {
        Isa::Avx512
    } else if avx2 {
        Isa::Avx2
    } else {
        Isa::Portable
    }
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Isa {
    Isa::Neon
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Isa {
    Isa::Portable
}

/// A function that is compiled once for each instruction set, so that its loops become code
/// with the widest vectors; the call chooses. What it calls must be inlined into it.
macro_rules! vectorised {
    ($(#[$note:meta])* $vis:vis fn $name:ident $(<$type:ident: $bound:path>)?
        ($($arg:ident: $kind:ty),* $(,)?) $(-> $made:ty)? $body:block) => {
        $(#[$note])*
        #[allow(unsafe_code, reason = "calling code for features that were detected")]
        $vis fn $name $(<$type: $bound>)? ($($arg: $kind),*) $(-> $made)? {
            #[inline(always)]
            fn body $(<$type: $bound>)? ($($arg: $kind),*) $(-> $made)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
            fn avx512 $(<$type: $bound>)? ($($arg: $kind),*) $(-> $made)? {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$type: $bound>)? ($($arg: $kind),*) $(-> $made)? {
                body($($arg),*)
            }

            match $crate::kernels::simd::isa() {
                // SAFETY: the processor has these features.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::simd::Isa::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::simd::Isa::Avx2 => unsafe { avx2($($arg),*) },
                #[allow(unreachable_patterns, reason = "not on every processor")]
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use vectorised;
