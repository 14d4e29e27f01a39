//! Where a region's bytes come from: named shared memory, a file, or anonymous memory.
//!
//! One trait, three backings. What is particular to Linux stays behind it.

mod file;
mod memfd;
mod shm;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

pub(crate) use file::FileBacking;
pub(crate) use memfd::MemfdBacking;
pub(crate) use shm::{DIRECTORY as SHM_DIRECTORY, PREFIX as SHM_PREFIX, ShmBacking, TEMPORARY};

use rustix::fs::{Mode, OFlags};

use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::types::Location;

/// One open region file, whatever holds it.
pub(crate) trait Backing: Send + Sync {
    /// How a person would name it.
    fn describe(&self) -> String;
    /// The description that is mapped, or, if others have closed its descriptor, a new one of the
    /// same file; never locked.
    ///
    /// # Errors
    /// `Stale` if the descriptor is gone and no name leads to the file.
    fn fd(&self) -> Result<BorrowedFd<'_>>;
    /// Maps all of it, aligned; `writable` only if the description is.
    fn map(&self, span: u64, writable: bool) -> Result<Mapping>;
    /// Gives a created region its name. `false`: the name is taken.
    fn publish(&self) -> Result<bool>;
    /// The name it has until it is published, if it has one.
    fn temporary(&self) -> Option<PathBuf>;
    /// Removes the name; open users carry on.
    fn unlink(&self) -> Result<()>;
    /// Whether pages can be had in large ones, by `MADV_COLLAPSE`.
    fn collapses(&self) -> bool;
    /// Whether it outlives the system's being started anew.
    fn is_durable(&self) -> bool {
        false
    }
    /// The descriptor to hand on, for regions that have no name.
    fn handed_on(&self) -> Option<RawFd> {
        None
    }
    /// A location that names the same place.
    fn location(&self) -> Result<Location>;
}

/// Creates an unnamed (or temporarily named) file of `span` bytes at a location.
pub(crate) fn create(location: &Location, span: u64) -> Result<Box<dyn Backing>> {
    Ok(match location {
        Location::Shm(name) => Box::new(ShmBacking::create(name, span)?),
        Location::File(path) => Box::new(FileBacking::create(path, span)?),
        Location::Memfd => Box::new(MemfdBacking::create(span)?),
        Location::Fd(_) => {
            return Err(Error::InvalidArgument(
                "a region cannot be created in a given descriptor; open it, or use Memfd".into(),
            ));
        }
    })
}

/// Opens the file at a location.
pub(crate) fn open(location: Location, writable: bool) -> Result<Box<dyn Backing>> {
    Ok(match location {
        Location::Shm(name) => Box::new(ShmBacking::open(&name, writable)?),
        Location::File(path) => Box::new(FileBacking::open(&path, writable)?),
        Location::Memfd => {
            return Err(Error::InvalidArgument(
                "an anonymous region is opened by its descriptor: use Location::Fd".into(),
            ));
        }
        Location::Fd(fd) => Box::new(MemfdBacking::open(fd)?),
    })
}

/// How many bytes a location could hold at most.
pub(crate) fn room(location: &Location) -> Result<u64> {
    match location {
        Location::Shm(_) => directory_room(Path::new(SHM_DIRECTORY), true),
        Location::File(path) => directory_room(file::parent(path), false).map_err(|e| match e {
            Error::Io { ref source, .. } => source
                .raw_os_error()
                .and_then(|said| file::homeless(path, rustix::io::Errno::from_raw_os_error(said)))
                .unwrap_or(e),
            e => e,
        }),
        Location::Memfd | Location::Fd(_) => Ok(memfd::memory()),
    }
}

/// The size of the file behind a descriptor in bytes.
pub(crate) fn file_bytes(fd: BorrowedFd<'_>) -> Result<u64> {
    let stat = rustix::fs::fstat(fd).map_err(|e| Error::io("reading a region's size", e))?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// A descriptor, or, if others have closed it, the file at `path` opened again, which must be the
/// same.
fn at_path<'a>(
    descriptor: &'a Descriptor,
    path: &Path,
    writable: bool,
    name: &str,
) -> Result<BorrowedFd<'a>> {
    if let Some(fd) = descriptor.get() {
        return Ok(fd);
    }
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    rustix::fs::open(path, access | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        .ok()
        .and_then(|fd| crate::descriptor::distinct(fd).ok())
        .and_then(|again| descriptor.mend(again))
        .ok_or_else(|| descriptor_gone(name))
}

/// What is said when a region's descriptor was closed and nothing leads back to its file.
fn descriptor_gone(name: &str) -> Error {
    Error::Stale(format!(
        "the descriptor of region {name} was closed by another part of the program, and no name \
         leads to its memory any more; what was read or viewed stays readable, but nothing can be \
         changed: keep the descriptor out of closerange() and the like, or open the region again"
    ))
}

/// Refuses what is not a regular file.
fn regular(fd: BorrowedFd<'_>, name: &str) -> Result<()> {
    let stat = rustix::fs::fstat(fd).map_err(|e| Error::io(format!("opening {name}"), e))?;
    match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::RegularFile => Ok(()),
        rustix::fs::FileType::Directory => Err(directory(name)),
        _ => Err(Error::corrupt(format!("{name} is no regular file"), 0)),
    }
}

/// What is said where a directory lies at a region's path.
fn directory(name: &str) -> Error {
    Error::corrupt(format!("{name} is a directory"), 0)
}

/// Whether a path names the open file still: it may have been given to a successor.
pub(crate) fn still_names(path: &Path, fd: BorrowedFd<'_>) -> bool {
    match (rustix::fs::lstat(path), rustix::fs::fstat(fd)) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
        _ => false,
    }
}

/// Reads the beginning of a file without mapping it, so that a truncated one cannot fault.
pub(crate) fn head(fd: BorrowedFd<'_>, bytes: usize) -> Result<Vec<u8>> {
    let mut out = vec![0; bytes];
    let mut done = 0;
    while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(fd, rest, done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::io("reading a region's header", e)),
        }
    }
    out.truncate(done);
    Ok(out)
}

/// What `statvfs` says a directory's file system holds: in all, or what is available.
fn directory_room(path: &Path, total: bool) -> Result<u64> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|e| Error::io(format!("asking how much {} holds", path.display()), e))?;
    let blocks = if total { stat.f_blocks } else { stat.f_bavail };
    Ok(blocks.saturating_mul(stat.f_frsize))
}

/// Maps a descriptor through memmap2 and aliases the mapping at an aligned address.
fn map_file(fd: BorrowedFd<'_>, span: u64, writable: bool) -> Result<Mapping> {
    let failed = |e| map_failed(span, e);
    let bytes = usize::try_from(span)
        .map_err(|_| failed(std::io::Error::from(std::io::ErrorKind::OutOfMemory)))?;
    if writable {
        let map = memmap2::MmapOptions::new().len(bytes).map_raw(fd.as_raw_fd()).map_err(failed)?;
        // SAFETY: `map` is a live shared mapping of `bytes` bytes for the length of the call.
        unsafe { Mapping::alias(map.as_mut_ptr(), bytes) }.map_err(failed)
    } else {
        // From a read-only description, so that no mprotect can make it writable again.
        let read_only = crate::descriptor::reopen(fd, false).map_err(failed)?;
        let map =
            memmap2::MmapOptions::new().len(bytes).map_raw_read_only(&read_only).map_err(failed)?;
        // SAFETY: as above.
        unsafe { Mapping::alias(map.as_mut_ptr(), bytes) }.map_err(failed)
    }
}

fn map_failed(span: u64, source: std::io::Error) -> Error {
    Error::io(
        format!(
            "mapping a region's address span of {span} bytes (it is four times the capacity, is \
             mapped twice, and counts twice against a limit of address space, `ulimit -v`: raise \
             the limit, or create the region with less capacity)"
        ),
        source,
    )
}

/// Renames without replacing. `false`: the new name is taken.
fn rename_new(from: &Path, to: &Path) -> Result<bool> {
    use rustix::fs::{CWD, RenameFlags};
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        // Some file systems cannot rename that way; a hard link refuses a taken name as well.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            match rustix::fs::link(from, to) {
                Ok(()) => {
                    rustix::fs::unlink(from).map_err(|e| Error::io("naming a region", e))?;
                    Ok(true)
                }
                Err(rustix::io::Errno::EXIST) => Ok(false),
                Err(e) => Err(Error::io("naming a region", e)),
            }
        }
        Err(e) => Err(Error::io("naming a region", e)),
    }
}

/// Eight random bytes for temporary names and identities.
pub(crate) fn random_u64() -> Result<u64> {
    let mut bytes = [0_u8; 8];
    let mut file =
        std::fs::File::open("/dev/urandom").map_err(|e| Error::io("drawing a random number", e))?;
    std::io::Read::read_exact(&mut file, &mut bytes)
        .map_err(|e| Error::io("drawing a random number", e))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Sets mode 0600 whatever the umask said.
fn owner_only(fd: impl AsFd) -> Result<()> {
    rustix::fs::fchmod(fd, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .map_err(|e| Error::io("restricting a region to its owner", e))
}
