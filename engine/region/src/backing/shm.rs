//! Named POSIX shared memory, through the `shared_memory` crate.
//!
//! The crate creates, sizes and maps the object. Three things it leaves to its user are done
//! here: its name appears before it has content (so it is made under a temporary name and
//! renamed), it removes the object when its creator drops it (so we give up its ownership flag),
//! and it shows no descriptor (so we open our own, and compare what both see).

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use shared_memory::{Shmem, ShmemConf, ShmemError};

use super::{Backing, head, map_failed, map_file, owner_only, random_u64};
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::layout::header;
use crate::mapping::Mapping;
use crate::types::Location;

/// Where Linux keeps POSIX shared memory.
pub(crate) const DIRECTORY: &str = "/dev/shm";
/// What our objects' names begin with.
pub(crate) const PREFIX: &str = "insitu.";
/// What an object's name begins with until it is ready.
pub(crate) const TEMPORARY: &str = ".insitu-tmp.";

/// A named segment of shared memory.
pub(crate) struct ShmBacking {
    name: String,
    /// The object's name in [`DIRECTORY`] while it is being made.
    temporary: Option<String>,
    named: AtomicBool,
    fd: Descriptor,
    writable: bool,
}

/// Refuses names that could not be file names everywhere.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let dots = matches!(name, "." | "..");
    if name.is_empty() || name.len() > 200 || dots || !name.bytes().all(good) {
        return Err(Error::InvalidArgument(format!(
            "a region's name has 1 to 200 letters, digits, '_', '.' or '-', and is not '.' or \
             '..'; {name:?} is none (a file's path is given as path=)"
        )));
    }
    Ok(())
}

/// Refuses what another user has put there. Who can write a region is trusted by all who read it,
/// and may truncate it under them; ours are their owner's alone.
fn owned(fd: BorrowedFd<'_>, name: &str) -> Result<()> {
    let context = || format!("opening region {name:?}");
    let owner = rustix::fs::fstat(fd).map_err(|e| Error::io(context(), e))?.st_uid;
    let me = rustix::process::geteuid();
    if me.is_root() || me.as_raw() == owner {
        return Ok(());
    }
    Err(Error::PermissionDenied {
        what: format!("{}: it belongs to another user (number {owner})", context()),
    })
}

fn path(object: &str) -> PathBuf {
    PathBuf::from(DIRECTORY).join(object)
}

fn from_crate(context: &str, err: &ShmemError) -> Error {
    let code = match err {
        ShmemError::MapCreateFailed(code)
        | ShmemError::MapOpenFailed(code)
        | ShmemError::UnknownOsError(code) => i32::try_from(*code).ok(),
        _ => None,
    };
    match code {
        Some(code) => Error::io(context, std::io::Error::from_raw_os_error(code)),
        None => Error::io(context, std::io::Error::other(err.to_string())),
    }
}

impl ShmBacking {
    pub(crate) fn create(name: &str, span: u64) -> Result<Self> {
        check_name(name)?;
        let object = format!("{TEMPORARY}{:016x}", random_u64()?);
        let context = format!("creating shared memory for region {name:?}");
        let size = usize::try_from(span).map_err(|_| {
            Error::InvalidArgument("the capacity exceeds this machine's address space".into())
        })?;
        let mut segment =
            ShmemConf::new().os_id(format!("/{object}")).size(size).create().map_err(
                |e| match e {
                    ShmemError::MapCreateFailed(code) if code == libc::ENOMEM as u32 => {
                        map_failed(span, std::io::Error::from_raw_os_error(libc::ENOMEM))
                    }
                    e => from_crate(&context, &e),
                },
            )?;
        // A region lives until it is removed, not until its creator goes.
        segment.set_owner(false);
        let made = Self::open_object(name, Some(object.clone()), true);
        let made = made.and_then(|made| owner_only(made.fd()?).map(|()| made));
        if made.is_err() {
            let _ = rustix::fs::unlink(path(&object));
        }
        made
    }

    pub(crate) fn open(name: &str, writable: bool) -> Result<Self> {
        check_name(name)?;
        Self::open_object(name, None, writable)
    }

    /// The object's name now.
    fn object(&self) -> String {
        match &self.temporary {
            Some(temporary) if !self.named.load(Ordering::Acquire) => temporary.clone(),
            _ => format!("{PREFIX}{}", self.name),
        }
    }

    fn open_object(name: &str, temporary: Option<String>, writable: bool) -> Result<Self> {
        let object = temporary.clone().unwrap_or_else(|| format!("{PREFIX}{name}"));
        let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        // Anybody may put a pipe there; opening one must not wait for its other end.
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        match rustix::fs::open(path(&object), flags, Mode::empty()) {
            Ok(fd) => {
                super::regular(fd.as_fd(), name)?;
                owned(fd.as_fd(), name)?;
                let fd = Descriptor::new(fd)
                    .map_err(|e| Error::io(format!("opening region {name:?}"), e))?;
                let named = AtomicBool::new(temporary.is_none());
                Ok(Self { name: name.into(), temporary, named, fd, writable })
            }
            Err(rustix::io::Errno::NOENT) => Err(Error::RegionNotFound { region: name.into() }),
            Err(e) => Err(Error::io(format!("opening region {name:?}"), e)),
        }
    }

    /// The crate's mapping of the object, known to be of the file that `fd` has open: the name
    /// may have been given to another region between the two opens.
    fn segment(&self, span: u64) -> Result<Shmem> {
        let context = format!("mapping region {:?}", self.name);
        let mut segment =
            ShmemConf::new().os_id(format!("/{}", self.object())).open().map_err(|e| match e {
                ShmemError::MapOpenFailed(code) if code == libc::ENOENT as u32 => {
                    Error::RegionNotFound { region: self.name.clone() }
                }
                // It maps the span twice for a moment; say what that means.
                ShmemError::MapCreateFailed(code) => {
                    map_failed(span, std::io::Error::from_raw_os_error(code as i32))
                }
                e => from_crate(&context, &e),
            })?;
        segment.set_owner(false);
        Ok(segment)
    }

    fn same(&self, segment: &Shmem, span: u64) -> Result<bool> {
        if (segment.len() as u64) < span {
            return Ok(false);
        }
        // While a region is being made it has no header: reading its page would reserve it, and
        // kill us where there is no room. Its temporary name is random, so that nobody else can
        // have made another under it.
        if self.temporary.is_some() && !self.named.load(Ordering::Acquire) {
            return Ok(true);
        }
        let mine = head(self.fd()?, header::CAPACITY as usize)?;
        let id = header::ID as usize;
        let mut theirs = [0_u8; 16];
        for (i, byte) in theirs.iter_mut().enumerate() {
            // SAFETY: `id + 16 <= span <= segment.len()`; the page is read through the crate's
            // own mapping, which lives as long as `segment`.
            *byte = unsafe { std::ptr::read_volatile(segment.as_ptr().add(id + i)) };
        }
        Ok(mine.get(id..id + 16) == Some(&theirs[..]))
    }
}

impl Backing for ShmBacking {
    fn describe(&self) -> String {
        format!("{:?}", self.name)
    }

    fn fd(&self) -> Result<BorrowedFd<'_>> {
        super::at_path(&self.fd, &path(&self.object()), self.writable, &self.describe())
    }

    fn map(&self, span: u64, writable: bool) -> Result<Mapping> {
        if !writable {
            return map_file(self.fd()?, span, false);
        }
        let segment = self.segment(span)?;
        if !self.same(&segment, span)? {
            return Err(Error::Stale(format!(
                "region {:?} was replaced while it was being opened; open it again",
                self.name
            )));
        }
        // SAFETY: the crate's mapping is shared, spans at least `span` bytes (checked by
        // `same`) and lives until the end of this call.
        unsafe { Mapping::alias(segment.as_ptr(), span as usize) }.map_err(|e| map_failed(span, e))
    }

    fn publish(&self) -> Result<bool> {
        let object = format!("{PREFIX}{}", self.name);
        let named = super::rename_new(&path(&self.object()), &path(&object))?;
        if named {
            self.named.store(true, Ordering::Release);
        }
        Ok(named)
    }

    fn unlink(&self) -> Result<()> {
        let path = path(&self.object());
        if !super::still_names(&path, self.fd()?) {
            return Ok(());
        }
        match rustix::fs::unlink(path) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::io(format!("removing region {:?}", self.name), e)),
        }
    }

    fn collapses(&self) -> bool {
        true
    }

    fn location(&self) -> Result<Location> {
        Ok(Location::Shm(self.name.clone()))
    }

    fn temporary(&self) -> Option<PathBuf> {
        Some(path(&self.object()))
    }
}
