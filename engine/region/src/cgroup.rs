//! How much memory this process's control group still allows.
//!
//! At a group's limit the kernel answers `MADV_POPULATE_WRITE` and plain stores with SIGKILL, so
//! whoever populates page by page asks here first.

use std::path::PathBuf;

/// Bytes the memory control groups of this process still allow, counting what the kernel can
/// drop (inactive page cache) as free. `u64::MAX` without a limit or where it cannot be read.
pub(crate) fn room() -> u64 {
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
            if let (Some(limit), Some(current)) =
                (number(&group.join(files[0])), number(&group.join(files[1])))
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
