//! Instruction levels: which of a kernel's compiled versions runs.
//!
//! Each loop is an `#[inline(always)]` body; `leveled!` instantiates it once for the build's
//! baseline and, on x86-64, once each for x86-64-v3 and x86-64-v4. A program looks the version up
//! once; nothing is detected per call.

use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction level. Ordered: a CPU that has one has those below it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// What the build targets: SSE2 on x86-64, NEON on AArch64.
    Baseline,
    /// x86-64-v3: AVX2, BMI1, BMI2, FMA (which exact kernels never use).
    V3,
    /// x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
    V4,
}

/// [`Level::Baseline`] as a const parameter of loop bodies.
pub(crate) const BASELINE: u8 = 0;
/// [`Level::V3`] as a const parameter of loop bodies.
pub(crate) const V3: u8 = 1;
/// [`Level::V4`] as a const parameter of loop bodies.
pub(crate) const V4: u8 = 2;
const UNKNOWN: u8 = u8::MAX;

impl Level {
    /// The highest level this CPU has (and its operating system saves the registers of). Detected
    /// once per process.
    pub fn detected() -> Level {
        static DETECTED: AtomicU8 = AtomicU8::new(UNKNOWN);
        once(&DETECTED, detect)
    }

    /// The level to use: the detected one, or a lower one that the environment variable
    /// `INSITU_LEVEL` (`baseline`, `v3`, `v4`) asks for. Other values of it are ignored. Read once
    /// per process.
    pub fn best() -> Level {
        static BEST: AtomicU8 = AtomicU8::new(UNKNOWN);
        once(&BEST, || {
            let detected = Level::detected();
            let asked = std::env::var("INSITU_LEVEL").ok().and_then(|v| match v.as_str() {
                "baseline" => Some(Level::Baseline),
                "v3" => Some(Level::V3),
                "v4" => Some(Level::V4),
                _ => None,
            });
            asked.map_or(detected, |a| a.min(detected))
        })
    }

    /// The level of a loop body's const parameter.
    #[inline(always)]
    pub(crate) const fn of(level: u8) -> Level {
        match level {
            V4 => Level::V4,
            V3 => Level::V3,
            _ => Level::Baseline,
        }
    }

    /// The highest level that a lookup answers with: what the CPU has, but in [`with_all_levels`].
    pub(crate) fn highest() -> Level {
        #[cfg(test)]
        if ALL_LEVELS.get() {
            return Level::V4;
        }
        Level::detected()
    }

    /// All levels this CPU can run, lowest first. Not limited by `INSITU_LEVEL`.
    pub fn available() -> Vec<Level> {
        [Level::Baseline, Level::V3, Level::V4]
            .into_iter()
            .filter(|l| *l <= Level::detected())
            .collect()
    }
}

#[cfg(test)]
thread_local! {
    static ALL_LEVELS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Lookups by this thread inside `look` answer with functions that this CPU may lack the
/// instructions of: to be read, not run.
#[cfg(test)]
pub(crate) fn with_all_levels(look: impl FnOnce()) {
    ALL_LEVELS.set(true);
    look();
    ALL_LEVELS.set(false);
}

/// What is known, or found out now; by several threads at once if need be. No `OnceLock`: a fork
/// could copy it while another thread is inside.
fn once(known: &AtomicU8, find: impl FnOnce() -> Level) -> Level {
    match known.load(Ordering::Relaxed) {
        UNKNOWN => {
            let found = find();
            known.store(found as u8, Ordering::Relaxed);
            found
        }
        level => Level::of(level),
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let v3 = is_x86_feature_detected!("avx")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt");
    let v4 = v3
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    if v4 {
        Level::V4
    } else if v3 {
        Level::V3
    } else {
        Level::Baseline
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Baseline
}

/// Declares a lookup `fn name<G..>(Level) -> unsafe fn(args) -> ret` for the `#[inline(always)]`
/// body `unsafe fn body<G.., const L: u8>(args) -> ret`, compiled once per level. A level the CPU
/// lacks is lowered to what it has, so that the pointer is always one that can run.
macro_rules! leveled {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$($g:ident : $b:path),*>
     ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        $vis fn $name<$($g: $b),*>(level: $crate::level::Level) -> unsafe fn($($ty),*) $(-> $ret)? {
            unsafe fn baseline<$($g: $b),*>($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller keeps the contract of the body, which is passed on as it is.
                unsafe { $body::<$($g,)* { $crate::level::BASELINE }>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx,avx2,bmi1,bmi2,f16c,fma,lzcnt,popcnt")]
            unsafe fn v3<$($g: $b),*>($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: as above; the lookup returns this function only where the CPU has v3.
                unsafe { $body::<$($g,)* { $crate::level::V3 }>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx,avx2,bmi1,bmi2,f16c,fma,lzcnt,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
            unsafe fn v4<$($g: $b),*>($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: as above; the lookup returns this function only where the CPU has v4.
                unsafe { $body::<$($g,)* { $crate::level::V4 }>($($arg),*) }
            }
            match level.min($crate::level::Level::highest()) {
                #[cfg(target_arch = "x86_64")]
                $crate::level::Level::V4 => v4::<$($g),*>,
                #[cfg(target_arch = "x86_64")]
                $crate::level::Level::V3 => v3::<$($g),*>,
                _ => baseline::<$($g),*>,
            }
        }
    };
}
pub(crate) use leveled;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_is_available() {
        assert!(Level::available().contains(&Level::best()));
        assert_eq!(Level::available()[0], Level::Baseline);
    }
}
