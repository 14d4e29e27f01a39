//! Regions by name from outside: listing, removing, and sweeping what killed creators left.

use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::backing::{self, SHM_DIRECTORY, SHM_PREFIX, TEMPORARY};
use crate::error::{Error, Result};
use crate::layout::{LOCK_BASE, SESSIONS, header};
use crate::lock::LockFile;
use crate::region::described;
use crate::session::read_header;
use crate::types::{Location, RegionRecord};

/// The temporary name of a region in the making.
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Temporary {
    pub(crate) fn unlink(&self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Sets the removed flag, then unlinks.
pub(crate) fn remove(location: &Location) -> Result<()> {
    let _ = sweep_leftovers();
    let (again, force) = match location {
        Location::Shm(name) => (Location::Shm(name.clone()), true),
        Location::File(path) => (Location::File(path.clone()), false),
        Location::Memfd | Location::Fd(_) => {
            return Err(Error::InvalidArgument(
                "an anonymous region has no name to remove; it goes with its last holder".into(),
            ));
        }
    };
    let made = backing::open(again, true)?;
    match read_header(made.as_ref()) {
        Ok(_) => {
            let flags = backing::head(made.fd()?, header::BYTES as usize)?
                .get(header::FLAGS as usize)
                .copied()
                .unwrap_or(0);
            let removed = [flags | header::FLAG_REMOVED as u8];
            rustix::io::pwrite(made.fd()?, &removed, header::FLAGS)
                .map_err(|e| Error::io(format!("removing region {}", described(location)), e))?;
        }
        // Ours by its name, whatever is in it; and a version we do not know is still a region.
        Err(Error::RegionCorrupt { .. }) if force => {}
        Err(Error::VersionMismatch { .. }) => {}
        Err(e) => return Err(e),
    }
    made.unlink()
}

/// The named regions of this machine.
pub(crate) fn list() -> Result<Vec<RegionRecord>> {
    let _ = sweep_leftovers();
    let mut out = Vec::new();
    for (name, path) in objects(SHM_PREFIX)? {
        let Ok(resident) = std::fs::metadata(&path)
            .map(|meta| std::os::unix::fs::MetadataExt::blocks(&meta) * 512)
        else {
            continue;
        };
        let opened = backing::open(Location::Shm(name.clone()), false)
            .and_then(|made| read_header(made.as_ref()).map(|(layout, _)| (made, layout)));
        let (capacity, ephemeral, problem) = match opened {
            Ok((made, layout)) => {
                let head = made
                    .fd()
                    .and_then(|fd| backing::head(fd, header::BYTES as usize))
                    .unwrap_or_default();
                let flags = head.get(header::FLAGS as usize).copied().unwrap_or(0);
                let ephemeral = u64::from(flags) & header::FLAG_EPHEMERAL != 0;
                (Some(layout.capacity), ephemeral, None)
            }
            Err(Error::RegionNotFound { .. }) => continue,
            Err(e) => (None, false, Some(e.to_string())),
        };
        out.push(RegionRecord { name, capacity, resident, ephemeral, problem });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

/// Removes what nobody can use any more: half-made objects of killed creators, and ephemeral
/// regions whose last session was killed.
pub(crate) fn sweep_leftovers() -> Result<()> {
    for (_, path) in objects(TEMPORARY)? {
        // A creator holds its session's lock from before the object has a header.
        remove_abandoned(&path, true);
    }
    for (name, path) in objects(SHM_PREFIX)? {
        let ephemeral = backing::open(Location::Shm(name), false).is_ok_and(|made| {
            read_header(made.as_ref()).is_ok()
                && made
                    .fd()
                    .and_then(|fd| backing::head(fd, header::BYTES as usize))
                    .ok()
                    .and_then(|head| head.get(header::FLAGS as usize).copied())
                    .is_some_and(|flags| u64::from(flags) & header::FLAG_EPHEMERAL != 0)
        });
        if ephemeral {
            remove_abandoned(&path, false);
        }
    }
    Ok(())
}

/// Removes the region at `path` if no session of it lives. A young half-made object may not have
/// its lock yet, and is given a minute.
fn remove_abandoned(path: &Path, half_made: bool) {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let opened = std::fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let Ok(file) = opened else { return };
    let Ok(meta) = file.metadata() else { return };
    let young = meta.modified().is_ok_and(|at| at.elapsed().map_or(true, |age| age.as_secs() < 60));
    if !meta.is_file() || half_made && young {
        return;
    }
    let Ok(lock) = LockFile::reopen(file.as_fd(), true) else { return };
    // Held until the name is gone: who opens it meanwhile waits, and then finds it removed.
    if !lock.try_lock(LOCK_BASE, u64::from(SESSIONS) + 1).unwrap_or(false)
        || !backing::still_names(path, file.as_fd())
    {
        return;
    }
    if !half_made {
        let flags = [(header::FLAG_REMOVED | header::FLAG_EPHEMERAL) as u8];
        if rustix::io::pwrite(&file, &flags, header::FLAGS).is_err() {
            return;
        }
    }
    Temporary(path.to_owned()).unlink();
}

/// The objects in shared memory whose names begin so: the rest of the name, and the path.
fn objects(prefix: &str) -> Result<Vec<(String, PathBuf)>> {
    let entries = std::fs::read_dir(SHM_DIRECTORY)
        .map_err(|e| Error::io(format!("reading {SHM_DIRECTORY}"), e))?;
    Ok(entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_prefix(prefix)?.to_owned(), entry.path()))
        })
        .collect())
}
