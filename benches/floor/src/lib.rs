//! The memory-bandwidth floor: loops that do next to no arithmetic, over the same bytes as the job
//! they are compared with, on the same number of threads, in the same process and run.
//!
//! A C interface, because `benches/versus` loads it with ctypes. Knows nothing of insitu, on purpose.
//! A job that writes has several shapes (plain stores, streaming stores, in place), and its floor is
//! the fastest of them. Work is handed out in pieces by a shared cursor, so that one disturbed thread
//! does not lengthen the run.

mod loops;

use loops::Shape;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::thread;

/// Bytes of one buffer in one piece of work: small enough to balance, large enough to stream.
const PIECE: usize = 256 * 1024;

/// Most buffers of one read sweep.
const BUFFERS: usize = 8;

/// One job. Addresses are plain numbers, so that threads can share them.
#[derive(Clone, Copy)]
enum Job {
    Read { streams: u32, buffers: [(usize, usize); BUFFERS] },
    Write { shape: Shape, out: usize, a: usize, b: usize, bytes: usize },
}

impl Job {
    /// Does piece number `piece`; `None` when there is none of that number.
    ///
    /// # Safety
    ///
    /// The job's buffers are as [`floor_read`] and [`floor_write`] demand, and no other thread does
    /// the same piece.
    unsafe fn piece(&self, mut piece: usize) -> Option<u64> {
        match *self {
            Job::Read { streams, buffers } => {
                for (address, bytes) in buffers {
                    let pieces = bytes.div_ceil(PIECE);
                    if piece < pieces {
                        let from = piece * PIECE;
                        // SAFETY: `from < bytes`, and the caller promised `bytes` readable bytes.
                        return Some(unsafe {
                            loops::read(
                                streams,
                                address.wrapping_add(from),
                                PIECE.min(bytes - from),
                            )
                        });
                    }
                    piece -= pieces;
                }
                None
            }
            Job::Write { shape, out, a, b, bytes } => {
                let from = piece.checked_mul(PIECE).filter(|from| *from < bytes)?;
                let at = |base: usize| base.wrapping_add(from);
                // SAFETY: `from < bytes`, the caller promised `bytes` bytes in each buffer, and that
                // no other thread writes this piece.
                unsafe { loops::write(shape, at(out), at(a), at(b), PIECE.min(bytes - from)) };
                Some(0)
            }
        }
    }
}

/// Threads that wait for a job. They sleep at the barriers: spinning would steal a core from the peers.
struct Pool {
    threads: usize,
    start: Barrier,
    done: Barrier,
    job: Mutex<Option<Job>>,
    next: AtomicUsize,
    sum: AtomicU64,
}

static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Pool {
    fn work(&self) {
        let Some(job) = self.job.lock().ok().and_then(|job| *job) else { return };
        let mut sum = 0u64;
        // SAFETY: `floor_read` and `floor_write` pass on what their callers promised, and each piece
        // number is drawn once.
        while let Some(part) = unsafe { job.piece(self.next.fetch_add(1, Ordering::Relaxed)) } {
            sum = sum.wrapping_add(part);
        }
        self.sum.fetch_add(sum, Ordering::Relaxed);
    }

    fn run(&self, job: Job) -> u64 {
        let Ok(_guard) = ONE_AT_A_TIME.lock() else { return 0 };
        if let Ok(mut slot) = self.job.lock() {
            *slot = Some(job);
        }
        self.next.store(0, Ordering::Relaxed);
        self.sum.store(0, Ordering::Relaxed);
        self.start.wait();
        self.work();
        self.done.wait();
        self.sum.load(Ordering::Relaxed)
    }
}

/// Starts `threads - 1` helpers, once per process, and returns how many threads work: what the first
/// call asked for, or 0 if the system refused a thread (then nothing may be run).
#[unsafe(no_mangle)]
pub extern "C" fn floor_threads(threads: usize) -> usize {
    let threads = threads.max(1);
    let pool = POOL.get_or_init(|| {
        Arc::new(Pool {
            threads,
            start: Barrier::new(threads),
            done: Barrier::new(threads),
            job: Mutex::new(None),
            next: AtomicUsize::new(0),
            sum: AtomicU64::new(0),
        })
    });
    static STARTED: OnceLock<usize> = OnceLock::new();
    *STARTED.get_or_init(|| {
        for _ in 1..pool.threads {
            let pool = Arc::clone(pool);
            let helper = thread::Builder::new().spawn(move || {
                loop {
                    pool.start.wait();
                    pool.work();
                    pool.done.wait();
                }
            });
            if helper.is_err() {
                return 0;
            }
        }
        pool.threads
    })
}

/// Reads `count` (at most 8) buffers one after the other, every byte once, and returns a checksum, so
/// that no read can be left out. Each piece is read as 1, 2 or 4 `streams` side by side.
///
/// # Safety
///
/// After [`floor_threads`] returned non-zero. `addresses` and `bytes` hold `count` numbers; each address
/// is aligned to 8, with that many readable bytes (a multiple of 8).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn floor_read(
    streams: u32,
    addresses: *const usize,
    bytes: *const usize,
    count: usize,
) -> u64 {
    let Some(pool) = POOL.get() else { return 0 };
    let mut buffers = [(0, 0); BUFFERS];
    for (i, buffer) in buffers.iter_mut().enumerate().take(count) {
        // SAFETY: the caller promised `count` numbers in both, and `i < count`.
        *buffer = unsafe { (*addresses.add(i), *bytes.add(i)) };
    }
    pool.run(Job::Read { streams, buffers })
}

/// One pass that writes `bytes` bytes. Shapes: 0 `out = a + s*b`, 1 the same with streaming stores,
/// 2 `out = out + s*a` in place, 3 copies `a` with `memcpy`, 4 with streaming stores.
/// Returns 0, or 1 for a shape there is not.
///
/// # Safety
///
/// After [`floor_threads`] returned non-zero. The buffers that the shape uses are aligned to 64 and
/// hold `bytes` (a multiple of 64) bytes; `out` is writable and overlaps no other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn floor_write(
    shape: u32,
    out: usize,
    a: usize,
    b: usize,
    bytes: usize,
) -> u32 {
    let (Some(pool), Some(shape)) = (POOL.get(), Shape::from_number(shape)) else { return 1 };
    pool.run(Job::Write { shape, out, a, b, bytes });
    0
}

/// Bits of the registers that the loops use: 512, 256 or 128; elsewhere than on x86-64, 0.
#[unsafe(no_mangle)]
pub extern "C" fn floor_level() -> u32 {
    loops::level()
}
