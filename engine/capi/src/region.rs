//! Regions: making, opening and removing them, what they hold and who holds it.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{
    ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use insitu::{CreateOptions, Error, IfExists, Location, Region, Result};

use crate::args::{self, Out, Versioned};
use crate::arrow;
use crate::handles::{self, InsituRegion};
use crate::options::{
    Heeds, INSITU_FLAG_EPHEMERAL, INSITU_FLAG_OPEN_EXISTING, INSITU_FLAG_READ_ONLY,
    INSITU_FLAG_REPLACE, InsituOptions, Options, check_flags,
};
use crate::status::{InsituError, InsituStatus, enter};

/// The size of `InsituStats` in the interface's first version, the least that is taken.
pub const INSITU_STATS_1_SIZE: usize = 128;

/// What a region holds, and what this process did with it. Set `size` to `sizeof(InsituStats)`
/// before the call. Sizes are in bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InsituStats {
    /// `sizeof(InsituStats)`.
    pub size: usize,
    /// The most bytes the region may hold.
    pub capacity: u64,
    /// What tables and results take of it, in granules of 64 KiB.
    pub used: u64,
    /// `capacity` less `used`.
    pub free: u64,
    /// What the system has set aside: used, or warm for the next use.
    pub reserved: u64,
    /// Tables that can be opened by name.
    pub tables: u64,
    /// The most tables the region has room for.
    pub max_tables: u64,
    /// Replaced or deleted tables that handles still keep.
    pub retired: u64,
    /// Tables whose updater died while it changed them in place.
    pub poisoned: u64,
    /// Results on their way to other processes.
    pub tickets: u64,
    /// Processes that have the region open, this one included.
    pub sessions: u64,
    /// How often a dead process's work was taken over.
    pub recoveries: u64,
    /// Copies that this process made and a user might not expect.
    pub copies: u64,
    /// The bytes of those copies.
    pub copied_bytes: u64,
    /// Updates of this process that worked in place.
    pub updates_in_place: u64,
    /// Updates of this process that wrote beside the old values and swapped.
    pub updates_swapped: u64,
}

// SAFETY: of numbers only.
unsafe impl Versioned for InsituStats {
    const FIRST: usize = INSITU_STATS_1_SIZE;
    const NAME: &'static str = "InsituStats";
}

/// Where a region lives: a path if there is a slash in it, else a name.
///
/// # Safety
/// The pointer is null, or names bytes that end with a zero.
unsafe fn location(location: *const c_char) -> Result<Location> {
    args::check(location, "location")?;
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(location) }.to_bytes();
    if bytes.contains(&b'/') {
        return Ok(Location::File(OsStr::from_bytes(bytes).into()));
    }
    // SAFETY: the caller's promise.
    unsafe { args::text(location, "location") }.map(|name| Location::Shm(name.to_owned()))
}

/// Makes a region.
///
/// `location` is a name in shared memory, of letters, digits and `_.-`; or a file's path, which has
/// a slash in it (`./market`); or NULL for memory without a name, which is passed on by its
/// descriptor. `capacity` is the most bytes it may hold, 0 for half of what there is; none of them
/// are taken before they are used. `max_tables` is the most tables, 0 for one per 64 KiB. `flags`
/// may have `INSITU_FLAG_REPLACE`, `INSITU_FLAG_OPEN_EXISTING` (of a region that exists, capacity
/// and limits are its own) and `INSITU_FLAG_EPHEMERAL`.
///
/// A named region stays when its last user ends, until somebody removes it.
///
/// Errors: `INSITU_REGION_EXISTS`; `INSITU_INVALID_ARGUMENT` for a bad name or capacity;
/// `INSITU_REGION_FULL`, `INSITU_PERMISSION_DENIED`, `INSITU_IO`.
///
/// # Safety
/// `location`, `region` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_region_create(
    location: *const c_char,
    capacity: u64,
    max_tables: u32,
    flags: u32,
    region: *mut InsituRegion,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(region, "region")?;
        check_flags(
            flags,
            INSITU_FLAG_REPLACE | INSITU_FLAG_OPEN_EXISTING | INSITU_FLAG_EPHEMERAL,
        )?;
        let if_exists = match flags & (INSITU_FLAG_REPLACE | INSITU_FLAG_OPEN_EXISTING) {
            0 => IfExists::Error,
            INSITU_FLAG_REPLACE => IfExists::Replace,
            INSITU_FLAG_OPEN_EXISTING => IfExists::Open,
            _ => {
                let what = "INSITU_FLAG_REPLACE or INSITU_FLAG_OPEN_EXISTING: a region that exists \
                            is replaced or opened";
                return Err(Error::InvalidArgument(what.into()));
            }
        };
        let place = match location.is_null() {
            true => Location::Memfd,
            // SAFETY: the caller's promise.
            false => unsafe { self::location(location) }?,
        };
        let options = CreateOptions {
            capacity: (capacity > 0).then_some(capacity),
            max_tables: (max_tables > 0).then_some(max_tables),
            if_exists,
            ephemeral: flags & INSITU_FLAG_EPHEMERAL != 0,
        };
        let made = Region::create(place, options)?;
        // SAFETY: the caller's promise.
        unsafe { out.set(handles::give(made)?) };
        Ok(())
    })
}

/// Opens a region that exists, by the name or path it was made with. `flags` may have
/// `INSITU_FLAG_READ_ONLY`. A region that a process opens several times is one to it, and closed
/// when the last handle on it and on its tables is released.
///
/// Errors: `INSITU_REGION_NOT_FOUND`, `INSITU_REGION_CORRUPT`, `INSITU_VERSION_MISMATCH`,
/// `INSITU_SESSION_LIMIT`, `INSITU_PERMISSION_DENIED`.
///
/// # Safety
/// `location`, `region` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_region_open(
    location: *const c_char,
    flags: u32,
    region: *mut InsituRegion,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(region, "region")?;
        check_flags(flags, INSITU_FLAG_READ_ONLY)?;
        // SAFETY: the caller's promise.
        let place = unsafe { self::location(location) }?;
        let opened = Region::open(place, flags & INSITU_FLAG_READ_ONLY != 0)?;
        // SAFETY: the caller's promise.
        unsafe { out.set(handles::give(opened)?) };
        Ok(())
    })
}

/// Opens a region without a name by its descriptor, which was inherited or received. The descriptor
/// stays the caller's, and may be closed after the call. Flags and errors as of
/// `insitu_region_open`.
///
/// # Safety
/// `region` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_region_open_fd(
    fd: c_int,
    flags: u32,
    region: *mut InsituRegion,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(region, "region")?;
        check_flags(flags, INSITU_FLAG_READ_ONLY)?;
        let opened =
            Region::open(Location::Fd(duplicate(fd)?), flags & INSITU_FLAG_READ_ONLY != 0)?;
        // SAFETY: the caller's promise.
        unsafe { out.set(handles::give(opened)?) };
        Ok(())
    })
}

fn duplicate(fd: c_int) -> Result<OwnedFd> {
    if fd < 0 {
        return Err(Error::InvalidArgument(format!("{fd} is no descriptor")));
    }
    // SAFETY: not -1; used for one call, which says so if it is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fd.try_clone_to_owned().map_err(|source| Error::Io {
        context: "duplicating the descriptor of a region".into(),
        source,
    })
}

/// The descriptor of a region without a name, to be inherited or sent. It stays the region's, and is
/// open as long as that. `INSITU_UNSUPPORTED` for a region that has a name or a path: open it by
/// that.
///
/// # Safety
/// `fd` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_region_fd(
    region: InsituRegion,
    fd: *mut c_int,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(fd, "fd")?;
        let number = handles::get(region)?.fd().ok_or_else(|| {
            Error::Unsupported("the region has a name or a path; open it by that".into())
        })?;
        // SAFETY: the caller's promise.
        unsafe { out.set(number) };
        Ok(())
    })
}

/// Removes the name or the file of a region. Who has it open carries on.
///
/// Errors: `INSITU_REGION_NOT_FOUND`, `INSITU_PERMISSION_DENIED`.
///
/// # Safety
/// `location` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_region_remove(
    location: *const c_char,
    error: *mut InsituError,
) -> InsituStatus {
    // SAFETY: the caller's promise.
    enter(error, || Region::remove(&unsafe { self::location(location) }?))
}

/// The names of the region's tables, sorted: a stream with a column `name` of strings.
///
/// # Safety
/// `names` and `error` as in all functions; what `names` held is overwritten.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_region_tables(
    region: InsituRegion,
    names: *mut FFI_ArrowArrayStream,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(names, "names")?;
        let names = handles::get(region)?.names()?;
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
        // SAFETY: the caller's promise.
        unsafe { give_columns(&out, vec![("name", names, false)]) }
    })
}

/// Numbers about the region and this process's use of it.
///
/// # Safety
/// `stats` names a struct whose `size` is set; `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_region_stats(
    region: InsituRegion,
    stats: *mut InsituStats,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        args::check(stats, InsituStats::NAME)?;
        let now = handles::get(region)?.stats()?;
        let value = InsituStats {
            size: 0,
            capacity: now.capacity,
            used: now.used,
            free: now.free,
            reserved: now.reserved,
            tables: now.tables,
            max_tables: now.max_tables,
            retired: now.retired,
            poisoned: now.poisoned,
            tickets: now.tickets,
            sessions: now.sessions,
            recoveries: now.recoveries,
            copies: now.copies,
            copied_bytes: now.copied_bytes,
            updates_in_place: now.updates_in_place,
            updates_swapped: now.updates_swapped,
        };
        // SAFETY: the caller's promise.
        unsafe { args::fill(stats, value) }
    })
}

/// Who holds which table, in all processes: a stream with the columns `pid`, `table`, `current`
/// (whether the table still has its name), `kind` (`pin`, `lease`, `update`, `exclusive`, ...),
/// `since` (milliseconds since 1970, null if it is not known), `what` (what for) and `bytes`.
///
/// # Safety
/// `leases` and `error` as in all functions; what `leases` held is overwritten.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_region_leases(
    region: InsituRegion,
    leases: *mut FFI_ArrowArrayStream,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::new(leases, "leases")?;
        let held = handles::get(region)?.leases()?;
        let texts = |of: fn(&insitu::LeaseRecord) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(held.iter().map(of)))
        };
        let pids = held.iter().map(|record| record.pid);
        let pids: ArrayRef = Arc::new(UInt32Array::from_iter_values(pids));
        let current = held.iter().map(|record| record.current).collect::<Vec<_>>();
        let since = held.iter().map(|record| record.since);
        let bytes = held.iter().map(|record| record.bytes);
        let columns = vec![
            ("pid", pids, false),
            ("table", texts(|record| &record.table), false),
            ("current", Arc::new(BooleanArray::from(current)) as ArrayRef, false),
            ("kind", texts(|record| record.kind.name()), false),
            ("since", Arc::new(since.collect::<UInt64Array>()), true),
            ("what", texts(|record| &record.what), false),
            ("bytes", Arc::new(UInt64Array::from_iter_values(bytes)), false),
        ];
        // SAFETY: the caller's promise.
        unsafe { give_columns(&out, columns) }
    })
}

/// Takes back what dead processes left, and gives memory that is free but warm to the system. The
/// bytes that became free and those that were given are added up in `bytes`, which may be NULL.
///
/// # Safety
/// `bytes` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_region_trim(
    region: InsituRegion,
    bytes: *mut u64,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        let out = Out::maybe(bytes, "bytes")?;
        let region = handles::get(region)?;
        let freed = region.gc()?.saturating_add(region.trim()?);
        if let Some(out) = out {
            // SAFETY: the caller's promise.
            unsafe { out.set(freed) };
        }
        Ok(())
    })
}

/// Makes a file durable: after a loss of power it opens as the last flush that returned left it, or a
/// later one. Does nothing for regions that are no files. Heeds the options' task.
///
/// Errors: `INSITU_IO`, `INSITU_LEASE_HELD` while a table is updated in place for long,
/// `INSITU_CANCELLED`.
///
/// # Safety
/// `options` and `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_region_flush(
    region: InsituRegion,
    options: *const InsituOptions,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || {
        // SAFETY: the caller's promise.
        let options = unsafe { Options::read(options, 0, Heeds::Nothing) }?;
        handles::get(region)?.flush(Some(&|| options.is_cancelled()))?;
        Ok(())
    })
}

/// Releases a handle of a region. The process has the region open until its last handle, the last
/// handle of a table of it and the last stream that shows its memory are released.
///
/// # Safety
/// `error` as in all functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn insitu_region_release(
    region: InsituRegion,
    error: *mut InsituError,
) -> InsituStatus {
    enter(error, || handles::release(region))
}

/// Hands columns out as a stream of one batch.
///
/// # Safety
/// What `out` was made of may be written to.
unsafe fn give_columns(
    out: &Out<FFI_ArrowArrayStream>,
    columns: Vec<(&str, ArrayRef, bool)>,
) -> Result<()> {
    let rows = columns.first().map(|(_, array, _)| array.len());
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array, nullable)| {
            let dtype: &DataType = array.data_type();
            Field::new(*name, dtype.clone(), *nullable)
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.into_iter().map(|(_, array, _)| array).collect();
    let options = RecordBatchOptions::new().with_row_count(rows);
    let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options)
        .map_err(|error| Error::InvalidData(error.to_string()))?;
    // SAFETY: the caller's promise.
    unsafe { arrow::give(out, schema, vec![batch]) };
    Ok(())
}
