//! The copies of a put, gathered first and made together: on all of the engine's threads, past the
//! cache where a buffer is large, each number looked at on its way.
//!
//! A run is a stretch of one buffer: of numbers at most a zone. What is gathered of a run depends
//! on the run alone, and runs are merged in the order they were added in, so that statistics do
//! not depend on the number of threads.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::OnceLock;

use insitu_kernels::copy::{CopyBitsFn, CopyStatsFn, StreamCopyFn, ZoneStats};
use insitu_kernels::copy::{copy_bits, stream_copy};
use insitu_kernels::level::Level;
use insitu_query::{Ended, parallel};

use crate::error::{Error, Result};
use crate::statistics::{ColumnZones, ZONE_ROWS};

/// Bytes of a task, at least: what a thread takes at a time.
const TASK: usize = 512 << 10;
/// Estimated nanoseconds that a byte takes.
const NS_PER_BYTE: f64 = 0.1;

/// A validity bitmap, and the bit in it that stands for a run's first row.
#[derive(Clone, Copy)]
pub(crate) struct Bits {
    /// The bitmap; null: all rows are valid.
    pub bitmap: *const u8,
    /// The first row's bit.
    pub first: usize,
}

/// What is done with a run's bytes.
#[derive(Clone, Copy)]
pub(crate) enum What {
    /// They are copied.
    Bytes,
    /// They are numbers: null rows become zero, and the statistics are the column's, if it has any.
    Numbers {
        /// The copy of their type.
        copy: CopyStatsFn,
        /// How many they are: at most a zone.
        rows: usize,
        /// Which of them are null.
        valid: Bits,
        /// The column whose statistics they are.
        column: Option<usize>,
    },
    /// They are 32-bit offsets, to which this is added.
    Offsets32(i32),
    /// They are 64-bit offsets, to which this is added.
    Offsets64(i64),
}

struct Run<'s> {
    to: *mut u8,
    from: &'s [u8],
    streaming: bool,
    what: What,
}

/// Copies from memory that lives for `'s`, not yet made.
pub(crate) struct Copies<'s> {
    runs: Vec<Run<'s>>,
    bytes: usize,
}

/// What the threads share of the copies.
struct Work<'c, 's> {
    runs: &'c [Run<'s>],
    stream: StreamCopyFn,
    bits: CopyBitsFn,
}

// SAFETY: each run is made by one thread alone; its source is shared and only read, its
// destination is its own by the contract of `Copies::add`, as is that nobody writes the bitmaps.
unsafe impl Sync for Work<'_, '_> {}

impl<'s> Copies<'s> {
    /// None yet.
    pub fn new() -> Copies<'s> {
        Copies { runs: Vec::new(), bytes: 0 }
    }

    /// Adds a run; `streaming` writes it past the cache.
    ///
    /// # Safety
    /// Until the copies are made or dropped, `to` is writable for as many bytes as `from` has, and
    /// nobody else's: no other run's, and nothing that is read. The numbers' rows are as many as
    /// `from` has, and their bitmap, if any, is readable for them and written by nobody.
    pub unsafe fn add(&mut self, to: *mut u8, from: &'s [u8], streaming: bool, what: What) {
        self.bytes = self.bytes.saturating_add(from.len());
        if !matches!(what, What::Bytes) {
            self.runs.push(Run { to, from, streaming, what });
            return;
        }
        let mut to = to;
        for part in from.chunks(TASK) {
            self.runs.push(Run { to, from: part, streaming, what });
            to = to.wrapping_add(part.len());
        }
    }

    /// Makes the copies, and adds what was seen of the numbers to their columns.
    ///
    /// # Errors
    /// `Cancelled` if the interrupt, asked on this thread, said so.
    pub fn make(
        self,
        level: Level,
        interrupt: &dyn Fn() -> bool,
        columns: &mut [ColumnZones],
    ) -> Result<()> {
        let tasks = self.tasks();
        let seen: Vec<OnceLock<Vec<(usize, ZoneStats)>>> =
            tasks.iter().map(|_| OnceLock::new()).collect();
        let work = Work { runs: &self.runs, stream: stream_copy(level), bits: copy_bits(level) };
        let ended = parallel(tasks.len(), self.bytes as f64 * NS_PER_BYTE, interrupt, &|task| {
            let runs = tasks.get(task).and_then(|range| work.runs.get(range.clone()));
            let found = runs.unwrap_or_default().iter().filter_map(|run| work.run(run)).collect();
            if let Some(place) = seen.get(task) {
                let _ = place.set(found);
            }
        });
        ended_well(ended)?;
        for (column, stats) in seen.into_iter().filter_map(OnceLock::into_inner).flatten() {
            if let Some(zones) = columns.get_mut(column) {
                zones.add(&stats);
            }
        }
        Ok(())
    }

    /// The runs, cut into tasks of some size.
    fn tasks(&self) -> Vec<Range<usize>> {
        let mut tasks = Vec::with_capacity(self.bytes / TASK + 1);
        let (mut start, mut bytes) = (0, 0);
        for (index, run) in self.runs.iter().enumerate() {
            bytes += run.from.len();
            if bytes >= TASK || index + 1 == self.runs.len() {
                tasks.push(start..index + 1);
                (start, bytes) = (index + 1, 0);
            }
        }
        tasks
    }
}

/// # Errors
/// What a job that did not end well is for its caller.
pub(crate) fn ended_well(ended: Ended) -> Result<()> {
    match ended {
        Ended::Done => Ok(()),
        Ended::Interrupted => Err(Error::Cancelled),
        Ended::Failed => Err(Error::Io {
            context: "working on several threads".into(),
            source: std::io::Error::other("one of them panicked"),
        }),
    }
}

impl Work<'_, '_> {
    fn run(&self, run: &Run<'_>) -> Option<(usize, ZoneStats)> {
        match run.what {
            What::Bytes => {
                // SAFETY: by the contract of `Copies::add`.
                unsafe {
                    if run.streaming {
                        (self.stream)(run.to, run.from.as_ptr(), run.from.len());
                    } else {
                        run.to.copy_from_nonoverlapping(run.from.as_ptr(), run.from.len());
                    }
                }
                None
            }
            What::Numbers { copy, rows, valid, column } => {
                let mut shifted = MaybeUninit::<[u64; ZONE_ROWS / 64]>::uninit();
                let mut validity = valid.bitmap.wrapping_add(valid.first / 8);
                if valid.bitmap.is_null() {
                    validity = std::ptr::null();
                } else if !valid.first.is_multiple_of(8) {
                    let words = shifted.as_mut_ptr().cast::<u8>();
                    // SAFETY: the bitmap covers the rows; the words hold a zone's bits, and a run
                    // is no more than a zone.
                    unsafe { (self.bits)(words, valid.bitmap, valid.first, rows) };
                    validity = words;
                }
                // SAFETY: by the contract of `Copies::add`; the bitmap covers the run.
                let stats = unsafe {
                    copy(run.to, run.from.as_ptr(), validity, rows, run.streaming && rows > 1024)
                };
                column.map(|column| (column, stats))
            }
            What::Offsets32(delta) => {
                let to = run.to.cast::<i32>();
                for (index, value) in run.from.as_chunks::<4>().0.iter().enumerate() {
                    let value = i32::from_le_bytes(*value).wrapping_add(delta);
                    // SAFETY: as many as the source has, by the contract of `Copies::add`.
                    unsafe { to.add(index).write_unaligned(value) };
                }
                None
            }
            What::Offsets64(delta) => {
                let to = run.to.cast::<i64>();
                for (index, value) in run.from.as_chunks::<8>().0.iter().enumerate() {
                    let value = i64::from_le_bytes(*value).wrapping_add(delta);
                    // SAFETY: as above.
                    unsafe { to.add(index).write_unaligned(value) };
                }
                None
            }
        }
    }
}
