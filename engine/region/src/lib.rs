//! The memory of insitu: regions that several processes share.
#![allow(missing_docs, unused)]
mod error;
mod types;
pub use error::{Error, FullCause, Result};
pub use types::*;
use std::os::fd::RawFd;

fn later<T>() -> Result<T> { Err(Error::Unsupported("being written".into())) }
#[derive(Clone)] pub struct Region(std::sync::Arc<()>);
pub struct Extent(());
#[derive(Clone)] pub struct Pin(std::sync::Arc<()>);
#[derive(Clone)] pub struct Lease(std::sync::Arc<()>);
pub enum Part<'a> { Owned(&'a Extent), Of(&'a Pin) }

impl Region {
    pub fn create(location: Location, options: CreateOptions) -> Result<Region> { later() }
    pub fn open(location: Location, read_only: bool) -> Result<Region> { later() }
    pub fn remove(location: &Location) -> Result<()> { later() }
    pub fn list() -> Result<Vec<RegionRecord>> { later() }
    pub fn location(&self) -> String { String::new() }
    pub fn id(&self) -> u128 { 0 }
    pub fn capacity(&self) -> u64 { 0 }
    pub fn raw_fd(&self) -> Option<RawFd> { None }
    pub fn is_read_only(&self) -> bool { false }
    pub fn is_closed(&self) -> bool { false }
    pub fn close(&self) {}
    pub fn allocate(&self, bytes: u64) -> Result<Extent> { later() }
    pub fn publish(&self, name: &str, parts: &[Part<'_>], manifest: &[u8], replace: bool) -> Result<Pin> { later() }
    pub fn lookup(&self, name: &str) -> Result<Pin> { later() }
    pub fn names(&self) -> Result<Vec<String>> { later() }
    pub fn contains(&self, name: &str) -> Result<bool> { later() }
    pub fn delete(&self, name: &str) -> Result<()> { later() }
    pub fn gc(&self) -> Result<u64> { later() }
    pub fn trim(&self) -> Result<u64> { later() }
    pub fn stats(&self) -> Result<Stats> { later() }
    pub fn verify(&self) -> Report { Report::default() }
    pub fn leases(&self) -> Result<Vec<LeaseRecord>> { later() }
    pub fn slice(&self, offset: u64, len: u64) -> Result<*const u8> { later() }
    pub fn slice_mut(&self, offset: u64, len: u64) -> Result<*mut u8> { later() }
}
impl Extent {
    pub fn offset(&self) -> u64 { 0 }
    /// bytes, a multiple of 64, at least what was asked
    pub fn len(&self) -> u64 { 0 }
    pub fn is_empty(&self) -> bool { false }
    pub fn as_mut_ptr(&self) -> *mut u8 { std::ptr::null_mut() }
    pub fn as_ptr(&self) -> *const u8 { std::ptr::null() }
    pub fn region(&self) -> Region { Region(Default::default()) }
}
impl Pin {
    pub fn name(&self) -> &str { "" }
    pub fn sequence(&self) -> u64 { 0 }
    pub fn content_version(&self) -> u64 { 0 }
    pub fn manifest(&self) -> Result<Vec<u8>> { later() }
    /// (offset, len) of the table's extents
    pub fn extents(&self) -> Result<Vec<(u64, u64)>> { later() }
    pub fn is_current(&self) -> bool { false }
    pub fn lease(&self) -> Result<Lease> { later() }
    /// a lease that records what for, shown by leases()
    pub fn lease_for(&self, what: &str) -> Result<Lease> { later() }
    pub fn region(&self) -> Region { Region(Default::default()) }
}
impl Lease { pub fn pin(&self) -> &Pin { loop {} } }
