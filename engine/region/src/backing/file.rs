//! A file, mapped through memmap2.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};

use super::{Backing, map_file, owner_only, random_u64, rename_new};
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::types::Location;

/// File systems whose locks or mappings do not reach other machines' processes, or lie.
/// The numbers are those of `statfs(2)`.
const REFUSED: [(u32, &str); 6] = [
    (0x6969, "NFS"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9P"),
    (0x5346_414F, "AFS"),
];

/// A region in a file.
pub(crate) struct FileBacking {
    path: PathBuf,
    /// The name it has while it is being made.
    temporary: Option<PathBuf>,
    named: AtomicBool,
    fd: Descriptor,
    writable: bool,
}

/// The directory a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The error of a path whose directory is not there, if that is what the system said.
pub(crate) fn homeless(path: &Path, said: rustix::io::Errno) -> Option<Error> {
    let directory = parent(path).display();
    let what = match said {
        rustix::io::Errno::NOENT => {
            format!("the directory {directory} does not exist; make it first")
        }
        rustix::io::Errno::NOTDIR => format!("{directory} is no directory"),
        _ => return None,
    };
    Some(Error::io(format!("creating {}: {what}", path.display()), said))
}

impl FileBacking {
    pub(crate) fn create(path: &Path, span: u64) -> Result<Self> {
        let Some(name) = path.file_name() else {
            return Err(Error::InvalidArgument(format!("{} names no file", path.display())));
        };
        let temporary = format!(".{}.insitu-tmp.{:016x}", name.display(), random_u64()?);
        let present = parent(path).join(temporary);
        let context = || format!("creating {}", path.display());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&present, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| homeless(path, e).unwrap_or_else(|| Error::io(context(), e)))?;
        let sized = owner_only(&fd).and_then(|()| {
            refuse_remote(fd.as_fd(), path)?;
            rustix::fs::ftruncate(&fd, span).map_err(|e| Error::io(context(), e))?;
            Descriptor::new(fd).map_err(|e| Error::io(context(), e))
        });
        match sized {
            Ok(fd) => Ok(Self {
                path: path.into(),
                temporary: Some(present),
                named: AtomicBool::new(false),
                fd,
                writable: true,
            }),
            Err(e) => {
                let _ = rustix::fs::unlink(&present);
                Err(e)
            }
        }
    }

    /// The name it has now.
    fn present(&self) -> &Path {
        match &self.temporary {
            Some(temporary) if !self.named.load(Ordering::Acquire) => temporary,
            _ => &self.path,
        }
    }

    pub(crate) fn open(path: &Path, writable: bool) -> Result<Self> {
        let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| match e {
            rustix::io::Errno::NOENT => Error::RegionNotFound { region: Error::path(path) },
            rustix::io::Errno::ISDIR => super::directory(&Error::path(path)),
            e => Error::io(format!("opening {}", path.display()), e),
        })?;
        super::regular(fd.as_fd(), &path.display().to_string())?;
        refuse_remote(fd.as_fd(), path)?;
        let fd =
            Descriptor::new(fd).map_err(|e| Error::io(format!("opening {}", path.display()), e))?;
        let named = AtomicBool::new(true);
        Ok(Self { path: path.into(), temporary: None, named, fd, writable })
    }

    fn sync_directory(&self) -> Result<()> {
        let directory = parent(&self.path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(directory, flags, Mode::empty())
            .and_then(rustix::fs::fsync)
            .map_err(|e| Error::io(format!("syncing {}", directory.display()), e))
    }
}

fn refuse_remote(fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let stat =
        rustix::fs::fstatfs(fd).map_err(|e| Error::io(format!("opening {}", path.display()), e))?;
    match REFUSED.iter().find(|(magic, _)| *magic == stat.f_type as u32) {
        Some((_, name)) => Err(Error::Unsupported(format!(
            "{} lies on {name}, whose locks cannot be relied on; use a local file system",
            path.display()
        ))),
        None => Ok(()),
    }
}

impl Backing for FileBacking {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn fd(&self) -> Result<BorrowedFd<'_>> {
        super::at_path(&self.fd, self.present(), self.writable, &self.describe())
    }

    fn map(&self, span: u64, writable: bool) -> Result<Mapping> {
        map_file(self.fd()?, span, writable)
    }

    fn publish(&self) -> Result<bool> {
        rustix::fs::fsync(self.fd()?)
            .map_err(|e| Error::io(format!("syncing {}", self.path.display()), e))?;
        let named = rename_new(self.present(), &self.path)?;
        if named {
            self.named.store(true, Ordering::Release);
            self.sync_directory()?;
        }
        Ok(named)
    }

    fn unlink(&self) -> Result<()> {
        if !super::still_names(self.present(), self.fd()?) {
            return Ok(());
        }
        match rustix::fs::unlink(self.present()) {
            Ok(()) => self.sync_directory(),
            Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::io(format!("removing {}", self.path.display()), e)),
        }
    }

    fn collapses(&self) -> bool {
        false
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn location(&self) -> Result<Location> {
        Ok(Location::File(self.path.clone()))
    }

    fn temporary(&self) -> Option<PathBuf> {
        Some(self.present().to_owned())
    }
}
