//! The copy that gathers statistics of a zone, and what it gathers.

use super::{fence, stream};
use crate::level::{Level, leveled};
use crate::prim::{Native, Prim, with_prim};
use crate::reduce::{Running, first_set};
use crate::tile::mem::{load, load_bits};
use crate::tile::select::blend;
use std::mem::MaybeUninit;

/// Statistics of a zone (at most 65,536 rows of a chunk) or of several in a row. Fixed width, so
/// that a region can store it: 64 bytes, little-endian on every supported architecture.
///
/// Values are [`Native::to_bits64`]: signed integers sign-extended, unsigned zero-extended, floats
/// as f64. Hints: a peer may write anything here, so that they choose plans and never license an
/// access.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ZoneStats {
    /// The least value, NaN and nulls left out. Means something if [`ZoneStats::HAS_RANGE`] is set.
    pub min: u64,
    /// The greatest value, likewise.
    pub max: u64,
    /// The first row's value (of a null: 0). For telling whether the next zone continues an order.
    pub first: u64,
    /// The last row's value, likewise.
    pub last: u64,
    /// Rows.
    pub rows: u64,
    /// Null rows; [`ZoneStats::UNKNOWN`] if nothing is known of the rows but how many they are.
    pub null_count: u64,
    /// HAS_RANGE and so on.
    pub flags: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

impl ZoneStats {
    /// There is a value other than NaN and null: `min` and `max` mean something.
    pub const HAS_RANGE: u32 = 1;
    /// There is a NaN.
    pub const HAS_NAN: u32 = 2;
    /// No null, no NaN, and each value is at least the one before it.
    pub const ASCENDING: u32 = 4;
    /// No null, no NaN, and each value is at most the one before it.
    pub const DESCENDING: u32 = 8;
    /// [`ZoneStats::null_count`] when it is not known.
    pub const UNKNOWN: u64 = u64::MAX;

    /// Statistics of no rows.
    pub const EMPTY: ZoneStats = ZoneStats {
        min: 0,
        max: 0,
        first: 0,
        last: 0,
        rows: 0,
        null_count: 0,
        flags: Self::ASCENDING | Self::DESCENDING,
        reserved: [0; 3],
    };

    /// Is the flag set?
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Statistics of both, `next` being the rows right after `self`, of type `p`.
    pub fn merge(&self, next: &ZoneStats, p: Prim) -> ZoneStats {
        let unknown = self.null_count == Self::UNKNOWN || next.null_count == Self::UNKNOWN;
        if next.rows == 0 && !unknown {
            return *self;
        }
        if self.rows == 0 && !unknown {
            return *next;
        }
        let mut flags = (self.flags | next.flags) & (Self::HAS_RANGE | Self::HAS_NAN);
        if unknown {
            // The rows of which nothing is known may have values outside the others' range.
            flags &= !Self::HAS_RANGE;
        }
        let (min, max) = match (self.has(Self::HAS_RANGE), next.has(Self::HAS_RANGE)) {
            _ if unknown => (0, 0),
            (true, false) => (self.min, self.max),
            (false, _) => (next.min, next.max),
            (true, true) => with_prim!(p, T => {
                let less = T::from_bits64(next.min) < T::from_bits64(self.min);
                let more = T::from_bits64(next.max) > T::from_bits64(self.max);
                (if less { next.min } else { self.min }, if more { next.max } else { self.max })
            }),
        };
        let (up, down) = with_prim!(p, T => {
            let (last, first) = (T::from_bits64(self.last), T::from_bits64(next.first));
            (last <= first, last >= first)
        });
        let both = self.flags & next.flags;
        flags |= if up { both & Self::ASCENDING } else { 0 };
        flags |= if down { both & Self::DESCENDING } else { 0 };
        let null_count =
            if unknown { Self::UNKNOWN } else { self.null_count.saturating_add(next.null_count) };
        let rows = self.rows.saturating_add(next.rows);
        let (first, last) = (self.first, next.last);
        ZoneStats { min, max, first, last, rows, null_count, flags, reserved: [0; 3] }
    }
}

/// `(dst, src, validity, rows, streaming) -> statistics`: copies `rows` values and gathers their
/// statistics in the same pass. Null rows are written as zero, so that no stale byte leaks. With
/// `dst` null nothing is copied, only looked at (a builder's seal). `streaming` writes past the
/// cache and ends with a store fence; only worth it into 64-byte aligned memory, larger than the
/// cache share.
///
/// # Safety (of the call)
/// `src` is readable for `rows` values, `dst` null or writable for as many, `validity` null or
/// readable for `ceil(rows / 8)` bytes; `dst` overlaps neither.
pub type CopyStatsFn = unsafe fn(
    dst: *mut u8,
    src: *const u8,
    validity: *const u8,
    rows: usize,
    streaming: bool,
) -> ZoneStats;

/// The copy with statistics of a type.
pub fn copy_with_stats(p: Prim, level: Level) -> CopyStatsFn {
    with_prim!(p, T => copy_stats_of::<T>(level))
}

leveled! {
    fn copy_stats_of<T: Native>(
        dst: *mut u8, src: *const u8, validity: *const u8, rows: usize, streaming: bool,
    ) -> ZoneStats = copy_stats_body
}

#[inline(always)]
unsafe fn copy_stats_body<T: Native, const L: u8>(
    dst: *mut u8,
    src: *const u8,
    validity: *const u8,
    rows: usize,
    streaming: bool,
) -> ZoneStats {
    if rows == 0 {
        return ZoneStats::EMPTY;
    }
    let step = STEP / size_of::<T>();
    let mut seen = Seen::<T>::new();
    let mut nulls = 0u64;
    let (mut first, mut last) = (0, 0);
    // A step is at most 2048 values. Filled before they are read, as far as they are read.
    let mut zeroed = MaybeUninit::<[T; 2048]>::uninit();
    let mut filled = MaybeUninit::<[T; 2048]>::uninit();
    let blend = blend::<T>(Level::of(L));
    let mut done = 0;
    // Rows up to here were copied already.
    let mut copied = 0;
    while done < rows {
        if done >= copied && !dst.is_null() {
            let n = (rows - done).min(SPAN / size_of::<T>());
            // SAFETY: rows done to done + n are within source, destination and validity (`done` is
            // a multiple of 64).
            unsafe {
                if validity.is_null() || ones(validity.add(done / 8), n) == n {
                    let at = done * size_of::<T>();
                    copy::<L>(dst.add(at), src.add(at), n * size_of::<T>(), streaming);
                    copied = done + n;
                }
            }
        }
        let n = (rows - done).min(step);
        // SAFETY: rows done to done + n are within source, destination and validity (`done` is a
        // multiple of 64); a step is at most 2048 values.
        unsafe {
            let from = src.add(done * size_of::<T>());
            // What is copied, and what is looked at.
            let (mut clean, mut view) = (from, Some(from));
            let mut before = (done > 0).then_some(last).map(T::from_bits64);
            let whole = validity.is_null() || done < copied;
            let valid = if whole { n } else { ones(validity.add(done / 8), n) };
            if valid < n {
                nulls += (n - valid) as u64;
                let bits = validity.add(done / 8);
                seen.ordered = (false, false);
                before = None;
                let zero = [T::ZERO; 64];
                blend(zeroed.as_mut_ptr().cast(), from, zero.as_ptr().cast(), 0, bits, n);
                clean = zeroed.as_ptr().cast();
                view = first_set(bits, n).map(|at| {
                    // Null rows repeat a valid one, which changes neither range nor NaN flag.
                    let valid = [load::<T>(from, at); 64];
                    blend(filled.as_mut_ptr().cast(), from, valid.as_ptr().cast(), 0, bits, n);
                    filled.as_ptr().cast()
                });
            }
            if let Some(view) = view {
                seen.look(view, n, before);
            }
            if done == 0 {
                first = load::<T>(clean, 0).to_bits64();
            }
            last = load::<T>(clean, n - 1).to_bits64();
            if done >= copied && !dst.is_null() {
                let to = dst.add(done * size_of::<T>());
                copy::<L>(to, clean, n * size_of::<T>(), streaming);
            }
        }
        done += n;
    }
    if streaming {
        fence();
    }
    let (range, nan) = (seen.running.finish(), seen.running.nan());
    let mut flags = 0;
    flags |= if range.some { ZoneStats::HAS_RANGE } else { 0 };
    flags |= if nan { ZoneStats::HAS_NAN } else { 0 };
    flags |= if seen.ordered.0 && !nan { ZoneStats::ASCENDING } else { 0 };
    flags |= if seen.ordered.1 && !nan { ZoneStats::DESCENDING } else { 0 };
    let (min, max) = if range.some { (range.min, range.max) } else { (0, 0) };
    let rows = rows as u64;
    ZoneStats { min, max, first, last, rows, null_count: nulls, flags, reserved: [0; 3] }
}

/// Bytes that are looked at in one go, several times if their order is in question.
const STEP: usize = 2048;

/// Bytes that are copied before they are looked at, a multiple of a step. The look goes over them
/// several times, and not in their order, which keeps the processor's own prefetching from running
/// ahead; a copy has it do so (one thread of a Zen 3, 400 MB of float64: looked at first 50 ms,
/// copied first by 2 KiB 40, by 8 KiB 36; the bare copy 30).
const SPAN: usize = 8192;

/// # Safety
/// As for [`stream`].
#[inline(always)]
unsafe fn copy<const L: u8>(dst: *mut u8, src: *const u8, bytes: usize, streaming: bool) {
    // SAFETY: passed on.
    unsafe {
        if streaming {
            stream::<L>(dst, src, bytes);
        } else {
            // In small pieces: from 4 KiB on C libraries use string instructions, which take 15 times
            // as long on a Zen 3 where the destination lies a little past the source, modulo 4 KiB.
            for at in (0..bytes).step_by(STEP) {
                dst.add(at).copy_from_nonoverlapping(src.add(at), STEP.min(bytes - at));
            }
        }
    }
}

/// What has been seen of a zone.
struct Seen<T> {
    running: Running<T>,
    /// Still ascending, still descending.
    ordered: (bool, bool),
}

impl<T: Native> Seen<T> {
    #[inline(always)]
    fn new() -> Self {
        Seen { running: Running::new(), ordered: (true, true) }
    }

    /// Looks at `rows` (at most a step of) values; `before` is the value before them.
    ///
    /// # Safety
    /// `p` is readable for `rows` values.
    #[inline(always)]
    unsafe fn look(&mut self, p: *const u8, rows: usize, before: Option<T>) {
        // SAFETY: passed on.
        unsafe { self.running.add(p, rows) };
        if self.ordered == (false, false) {
            return;
        }
        let (mut down, mut up) = (false, false);
        if let Some(before) = before {
            // SAFETY: there is at least one row.
            let x = unsafe { load::<T>(p, 0) };
            (down, up) = (x < before, x > before);
        }
        for i in 1..rows {
            // SAFETY: i < rows.
            let (a, b) = unsafe { (load::<T>(p, i - 1), load::<T>(p, i)) };
            down |= b < a;
            up |= b > a;
        }
        self.ordered.0 &= !down;
        self.ordered.1 &= !up;
    }
}

/// Set bits among the first `rows`.
///
/// # Safety
/// `bits` is readable for `rows` bits.
#[inline(always)]
unsafe fn ones(bits: *const u8, rows: usize) -> usize {
    let mut n = 0;
    for w in 0..rows.div_ceil(64) {
        // SAFETY: 64 * w < rows.
        n += unsafe { load_bits(bits, w, rows) }.count_ones() as usize;
    }
    n
}
