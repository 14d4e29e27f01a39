//! The plain records of the public interface: where a region lives, how it is made, what it reports.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Where a region lives.
#[derive(Debug)]
pub enum Location {
    /// Named POSIX shared memory, `/dev/shm/insitu.<name>`.
    Shm(String),
    /// A file.
    File(PathBuf),
    /// Anonymous memory behind a descriptor; to create one.
    Memfd,
    /// An inherited or received descriptor of anonymous memory; to open one.
    Fd(OwnedFd),
}

/// What to do when the name is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfExists {
    /// Fail with [`crate::Error::RegionExists`].
    #[default]
    Error,
    /// Open the existing region; capacity and limits are the existing one's.
    Open,
    /// Remove the existing region and create a new one; its open users carry on with the old.
    Replace,
}

/// How a region is created.
#[derive(Clone, Copy, Debug, Default)]
pub struct CreateOptions {
    /// The most bytes of tables the region may hold; `None`: half of what the backing can hold.
    pub capacity: Option<u64>,
    /// The most tables; `None`: one per 64 KiB of capacity, from 1,024 to a million.
    pub max_tables: Option<u32>,
    /// What to do when the name is taken.
    pub if_exists: IfExists,
    /// Whether the region goes with its last session.
    pub ephemeral: bool,
}

/// One region of this machine, as [`crate::Region::list`] reports it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegionRecord {
    /// The name, without the `insitu.` prefix.
    pub name: String,
    /// The capacity in bytes; `None` when the header cannot be read.
    pub capacity: Option<u64>,
    /// The bytes the operating system has given it.
    pub resident: u64,
    /// Whether it goes with its last session.
    pub ephemeral: bool,
    /// Why it cannot be used, if it cannot.
    pub problem: Option<String>,
}

/// What a region holds. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The most bytes the region may hold.
    pub capacity: u64,
    /// The extents of tables, manifests and unpublished memory, in granules of 64 KiB.
    pub used: u64,
    /// `capacity` less `used`.
    pub free: u64,
    /// What the operating system has set aside for extents: used, or warm for the next use.
    pub reserved: u64,
    /// Tables that can be looked up.
    pub tables: u64,
    /// Replaced or deleted tables that handles still keep.
    pub retired: u64,
    /// Tables whose updater died while it changed them in place.
    pub poisoned: u64,
    /// Results on their way to other processes.
    pub tickets: u64,
    /// Living sessions (this process's included) as far as the session table says.
    pub sessions: u64,
    /// Extents that belong to this session and are not part of a table.
    pub extents: u64,
    /// The largest number of tables the region has room for.
    pub max_tables: u64,
    /// How often a dead process's work was taken over since this region was created.
    pub recoveries: u64,
}

/// What [`crate::Region::flush`] made durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flushed {
    /// How many tables are durable now.
    pub tables: u64,
    /// How many bytes of them were not durable before.
    pub bytes: u64,
    /// Poisoned tables: of these, what an earlier flush made durable stays so.
    pub left_out: Vec<String>,
}

/// What [`crate::Region::verify`] found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One sentence per problem; empty when all is well.
    pub problems: Vec<String>,
    /// How many tables were checked.
    pub tables: u64,
    /// How many extents were checked.
    pub extents: u64,
    /// One sentence per table whose writer died, or gave up, over changing it in place. The region
    /// is none the worse for it.
    pub poisoned: Vec<String>,
}

impl Report {
    /// Whether nothing wrong was found.
    pub fn ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// What holds on to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoldKind {
    /// A pin: the memory stays.
    Pin,
    /// A lease: the content stays.
    Lease,
    /// An update that is being made ready; readers go on reading the old content.
    Update,
    /// An exclusive lease: nobody else reads or writes.
    Exclusive,
    /// A result on its way to another process.
    Ticket,
    /// A process that opened the region read-only: it reads any table, unseen.
    Reader,
    /// A table that is being built; the name is not its yet.
    Build,
}

impl HoldKind {
    /// What records and messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Lease => "lease",
            Self::Update => "update",
            Self::Exclusive => "exclusive",
            Self::Ticket => "ticket",
            Self::Reader => "reader",
            Self::Build => "build",
        }
    }
}

/// Who stands in the way of a lease, as [`crate::Error::LeaseHeld`] names them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process; 0 if the system does not say (of read-only openers it does not).
    pub pid: u32,
    /// Since when, in milliseconds since the Unix epoch, as far as it was recorded.
    pub since: Option<u64>,
    /// What for, as far as it was recorded: its first 48 bytes.
    pub what: String,
    /// How.
    pub kind: HoldKind,
    /// How near it is to who asks.
    pub nearness: Nearness,
}

/// Whether who stands in the way is who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Nearness {
    /// Another process.
    #[default]
    Other,
    /// The asking process, on another thread or by what it keeps.
    Process,
    /// The asking thread: to wait would be in vain.
    Thread,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let does = match self.kind {
            HoldKind::Pin => "keeps it",
            HoldKind::Lease => "reads it",
            HoldKind::Update => "is updating it",
            HoldKind::Exclusive => "has it exclusively",
            HoldKind::Ticket => "has sent it",
            HoldKind::Reader => return f.write_str("a process has the region open read-only"),
            HoldKind::Build => "is building it",
        };
        match self.nearness {
            Nearness::Other => write!(f, "process {} {does}", self.pid)?,
            Nearness::Process => write!(f, "this process ({}) {does}", self.pid)?,
            Nearness::Thread => write!(f, "this thread {does}")?,
        }
        f.write_str(&age_and_purpose(self.since, &self.what))
    }
}

/// `, for 3.2 s (jobs/load.py:7 view)`, as far as it is known.
pub(crate) fn age_and_purpose(since: Option<u64>, what: &str) -> String {
    let age = since.map_or(String::new(), |since| {
        let age = now_millis().saturating_sub(since);
        format!(", for {}.{} s", age / 1000, age % 1000 / 100)
    });
    if what.is_empty() { age } else { format!("{age} ({what})") }
}

/// ` (begun 3.2 s ago: jobs/load.py:7 update)`, as far as it is known.
pub(crate) fn begun_and_purpose(since: Option<u64>, what: &str) -> String {
    let age = since.map(|since| {
        let age = now_millis().saturating_sub(since);
        format!("begun {}.{} s ago", age / 1000, age % 1000 / 100)
    });
    match (age, what) {
        (None, "") => String::new(),
        (Some(age), "") => format!(" ({age})"),
        (None, what) => format!(" ({what})"),
        (Some(age), what) => format!(" ({age}: {what})"),
    }
}

/// `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut scale, mut unit) = (1_u64, "B");
    for next in UNITS {
        if bytes / scale < 1024 {
            break;
        }
        (scale, unit) = (scale << 10, next);
    }
    let tenths = bytes % scale * 10 / scale;
    match scale {
        1 => format!("{bytes} B"),
        _ => format!("{}.{tenths} {unit}", bytes / scale),
    }
}

/// Now, in milliseconds since the Unix epoch, as of the last tick of the kernel (some
/// milliseconds): every pin and lease is noted with it, and the exact clock costs five times as
/// much.
pub(crate) fn now_millis() -> u64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000).saturating_add(nanos.unwrap_or(0) / 1_000_000)
}

/// How long to wait, and who may stop it.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// How long at most.
    pub timeout: Duration,
    /// Asked now and then, on the waiting thread; true stops the wait with
    /// [`crate::Error::Cancelled`].
    pub interrupt: &'a dyn Fn() -> bool,
    /// What for, as [`crate::Region::leases`] shows it: its first 48 bytes.
    pub what: &'a str,
}

impl std::fmt::Debug for Patience<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patience")
            .field("timeout", &self.timeout)
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

impl<'a> Patience<'a> {
    /// That of a reader who meets a running update: ten seconds, not to be stopped.
    pub fn reader(what: &'a str) -> Self {
        Self { timeout: Duration::from_secs(10), interrupt: &|| false, what }
    }
}

/// What finds a result without a name in another process, once: see [`crate::Pin::issue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Pass {
    /// Where it is.
    pub slot: u32,
    /// What tells it from all that were or will be there.
    pub sequence: u64,
    /// Which of its passes this is, from 0.
    pub number: u32,
}

impl Pass {
    /// As it was when it was sent.
    pub fn new(slot: u32, sequence: u64, number: u32) -> Self {
        Self { slot, sequence, number }
    }
}

/// One session's hold on one table, as [`crate::Region::leases`] reports it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeaseRecord {
    /// The holding process.
    pub pid: u32,
    /// The table's name.
    pub table: String,
    /// The table's sequence.
    pub sequence: u64,
    /// Whether the table is still the one of its name.
    pub current: bool,
    /// How it holds it.
    pub kind: HoldKind,
    /// When it was taken, in milliseconds since the Unix epoch, as far as it was recorded.
    pub since: Option<u64>,
    /// What it is for, as far as it was recorded.
    pub what: String,
    /// The bytes of the table's memory, shared or not; of a table that is being built, what it has
    /// taken so far.
    pub bytes: u64,
}

impl std::fmt::Display for LeaseRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let does = match self.kind {
            HoldKind::Pin => "keeps",
            HoldKind::Lease => "reads",
            HoldKind::Update => "is updating",
            HoldKind::Exclusive => "has exclusively",
            HoldKind::Ticket => "has sent",
            HoldKind::Reader => "may read",
            HoldKind::Build => "is building",
        };
        write!(f, "process {} {does} ", self.pid)?;
        match self.table.as_str() {
            "" => f.write_str("a result")?,
            name if self.current || self.kind == HoldKind::Build => write!(f, "{name:?}")?,
            name => write!(f, "what was {name:?}")?,
        }
        write!(f, ", {}{}", size(self.bytes), age_and_purpose(self.since, &self.what))
    }
}
