//! How much memory this process's control group still allows.
//!
//! At a group's limit the kernel answers `MADV_POPULATE_WRITE` and plain stores with SIGKILL, so
//! whoever makes memory present asks here first. Each process leaves some room for what cannot ask:
//! its heap, its stacks, the kernel's own tables. Where the limit is near it is read each time, and
//! each process takes its share only, since others may be about to take theirs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// What each process leaves, besides what it is about to take.
const LEAVE: u64 = 1 << 20;
/// The same, when it is about the region's own tables: without them nothing can be freed.
const LEAVE_FOR_METADATA: u64 = 256 << 10;
/// With so much room per process the limit is far.
const FAR: u64 = 64 << 20;
/// What may be taken without another look while the limit is far, and for how long. Nobody can use
/// up [`FAR`] in that time.
const GRANT: u64 = 16 << 20;
const GRANT_NS: u64 = 2_000_000;
/// How long it is believed that there is no limit at all.
const UNLIMITED_NS: u64 = 100_000_000;

/// What is left of the last grant, and until when it holds.
static LEFT: AtomicU64 = AtomicU64::new(0);
static UNTIL: AtomicU64 = AtomicU64::new(0);

/// Whether `bytes` more may be made present while `peers` processes, or threads, do the same.
pub(crate) fn allows(bytes: u64, peers: u64) -> bool {
    granted(bytes) || ask(bytes, peers.max(1), LEAVE)
}

/// The same for the region's own tables.
pub(crate) fn allows_metadata(bytes: u64, peers: u64) -> bool {
    granted(bytes) || ask(bytes, peers.max(1), LEAVE_FOR_METADATA)
}

fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let ns = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
    u64::try_from(ns).unwrap_or(u64::MAX)
}

fn granted(bytes: u64) -> bool {
    now() < UNTIL.load(Ordering::Acquire)
        && LEFT
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_ok()
}

fn ask(bytes: u64, peers: u64, leave: u64) -> bool {
    let room = room();
    if room == u64::MAX {
        LEFT.store(u64::MAX / 2, Ordering::Relaxed);
        UNTIL.store(now().saturating_add(UNLIMITED_NS), Ordering::Release);
        return true;
    }
    let room = room.saturating_sub(leave.saturating_mul(peers));
    if room >= FAR.saturating_mul(peers) && bytes <= GRANT {
        LEFT.store(GRANT - bytes, Ordering::Relaxed);
        UNTIL.store(now().saturating_add(GRANT_NS), Ordering::Release);
        return true;
    }
    UNTIL.store(0, Ordering::Release);
    room / peers >= bytes
}

/// Bytes the memory control groups of this process still allow, counting what the kernel can
/// drop (inactive page cache) as free. `u64::MAX` without a limit or where it cannot be read.
fn room() -> u64 {
    let Ok(groups) = std::fs::read_to_string("/proc/self/cgroup") else { return u64::MAX };
    let mut room = u64::MAX;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (root, files) = if controllers.is_empty() {
            ("/sys/fs/cgroup", ["memory.max", "memory.current"])
        } else if controllers.split(',').any(|c| c == "memory") {
            ("/sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.usage_in_bytes"])
        } else {
            continue;
        };
        let mut group = PathBuf::from(root);
        group.push(path.trim_start_matches('/'));
        // A limit on any ancestor binds as well.
        while group.starts_with(root) {
            // Version 1 says a very large number where there is none.
            let limit = number(&group.join(files[0])).filter(|limit| *limit < 1 << 60);
            if let Some(limit) = limit
                && let Some(current) = number(&group.join(files[1]))
            {
                let reclaimable = inactive_cache(&group.join("memory.stat"));
                room = room.min(limit.saturating_sub(current.saturating_sub(reclaimable)));
            }
            if !group.pop() {
                break;
            }
        }
    }
    room
}

fn number(path: &std::path::Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn inactive_cache(path: &std::path::Path) -> u64 {
    let Ok(stat) = std::fs::read_to_string(path) else { return 0 };
    stat.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == "inactive_file" || *key == "total_inactive_file")
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}
