//! Anonymous memory behind a descriptor, mapped through memmap2 and sealed against resizing.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, SealFlags};

use super::{Backing, descriptor_gone, map_file, owner_only};
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::types::Location;

/// A region without a name.
pub(crate) struct MemfdBacking {
    fd: Descriptor,
}

/// This machine's memory in bytes.
pub(crate) fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit).max(1))
}

impl MemfdBacking {
    pub(crate) fn create(span: u64) -> Result<Self> {
        let io = |e| Error::io("creating anonymous shared memory", e);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("insitu", flags).map_err(io)?;
        // The default mode would let any process of the machine open it through /proc.
        owner_only(&fd)?;
        rustix::fs::ftruncate(&fd, span).map_err(io)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals).map_err(io)?;
        Self::over(fd)
    }

    fn over(fd: OwnedFd) -> Result<Self> {
        let fd = Descriptor::new(fd).map_err(|e| Error::io("opening anonymous memory", e))?;
        Ok(Self { fd })
    }

    pub(crate) fn open(fd: OwnedFd) -> Result<Self> {
        // Without the seal a peer could truncate it under us.
        match rustix::fs::fcntl_get_seals(&fd) {
            Ok(seals) if seals.contains(SealFlags::SHRINK) => Self::over(fd),
            _ => Err(Error::corrupt("the descriptor is not that of an anonymous region", 0)),
        }
    }
}

impl Backing for MemfdBacking {
    fn describe(&self) -> String {
        format!("fd {}", self.fd.number())
    }

    fn fd(&self) -> Result<BorrowedFd<'_>> {
        self.fd.get().ok_or_else(|| descriptor_gone(&self.describe()))
    }

    fn map(&self, span: u64, writable: bool) -> Result<Mapping> {
        map_file(self.fd()?, span, writable)
    }

    fn publish(&self) -> Result<bool> {
        Ok(true)
    }

    fn unlink(&self) -> Result<()> {
        Ok(())
    }

    fn collapses(&self) -> bool {
        true
    }

    fn handed_on(&self) -> Option<RawFd> {
        Some(self.fd.number())
    }

    fn location(&self) -> Result<Location> {
        let fd = self
            .fd()?
            .try_clone_to_owned()
            .map_err(|e| Error::io("duplicating a region's descriptor", e))?;
        Ok(Location::Fd(fd))
    }

    fn temporary(&self) -> Option<PathBuf> {
        None
    }
}
