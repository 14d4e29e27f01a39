//! How a call is made: its options, and the values of parameters.

use std::ffi::c_char;
use std::time::Duration;

use insitu::{Error, Progress, Result, Scalar, TimeUnit};

use crate::args::{self, Versioned};
use crate::handles::{self, Held, InsituTask};

/// Flag: what has the name already is replaced.
pub const INSITU_FLAG_REPLACE: u32 = 1;
/// Flag: integer arithmetic that leaves its type is `INSITU_OVERFLOW`; else it wraps.
pub const INSITU_FLAG_CHECKED: u32 = 2;
/// Flag of an update: over the old values, or not at all.
pub const INSITU_FLAG_IN_PLACE: u32 = 4;
/// Flag of an update: beside the old values in any case, so that it can be cancelled to the end.
pub const INSITU_FLAG_ATOMIC: u32 = 8;
/// Flag of opening a region: for reading only. Queries need memory of the region, and are refused.
pub const INSITU_FLAG_READ_ONLY: u32 = 16;
/// Flag of creating a region: one that exists already is opened.
pub const INSITU_FLAG_OPEN_EXISTING: u32 = 32;
/// Flag of creating a region: it goes with the last process that has it open.
pub const INSITU_FLAG_EPHEMERAL: u32 = 64;
/// Flag of a lease: nobody else reads or changes the table.
pub const INSITU_FLAG_EXCLUSIVE: u32 = 128;

/// The size of `InsituOptions` in the interface's first version, the least that is taken.
pub const INSITU_OPTIONS_1_SIZE: usize = 48;

/// A type of values.
pub type InsituType = u32;

/// Null, of no type.
pub const INSITU_TYPE_NULL: u32 = 0;
/// Booleans. In arrays, bytes: 0 is false.
pub const INSITU_TYPE_BOOL: u32 = 1;
/// `int8_t`.
pub const INSITU_TYPE_INT8: u32 = 2;
/// `int16_t`.
pub const INSITU_TYPE_INT16: u32 = 3;
/// `int32_t`.
pub const INSITU_TYPE_INT32: u32 = 4;
/// `int64_t`.
pub const INSITU_TYPE_INT64: u32 = 5;
/// `uint8_t`.
pub const INSITU_TYPE_UINT8: u32 = 6;
/// `uint16_t`.
pub const INSITU_TYPE_UINT16: u32 = 7;
/// `uint32_t`.
pub const INSITU_TYPE_UINT32: u32 = 8;
/// `uint64_t`.
pub const INSITU_TYPE_UINT64: u32 = 9;
/// `float`.
pub const INSITU_TYPE_FLOAT32: u32 = 10;
/// `double`.
pub const INSITU_TYPE_FLOAT64: u32 = 11;
/// A text in UTF-8.
pub const INSITU_TYPE_STRING: u32 = 12;
/// Days since 1970-01-01.
pub const INSITU_TYPE_DATE: u32 = 13;
/// A point in time: units since 1970-01-01.
pub const INSITU_TYPE_TIMESTAMP: u32 = 14;
/// A span of time, in units.
pub const INSITU_TYPE_DURATION: u32 = 15;

/// A number. Which of these it is, the type beside it says.
#[repr(C)]
#[derive(Clone, Copy)]
pub union InsituNumber {
    /// Of integers with a sign; of booleans, 0 or 1; of dates, days; of times, units.
    pub i64: i64,
    /// Of integers without one.
    pub u64: u64,
    /// Of floats.
    pub f64: f64,
}

/// One value. Numbers are wide here whatever they are beside: in a query they take the type of the
/// column that they meet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InsituScalar {
    /// What it is: null, a boolean, a number, a string, a date, a timestamp or a duration.
    pub r#type: InsituType,
    /// Of timestamps and durations, how many units make a second: 1, 1000, 1000000 or 1000000000.
    pub per_second: u32,
    /// The number: `i64` of integers with a sign, `u64` of those without, `f64` of floats.
    pub number: InsituNumber,
    /// Of strings, the text, ending with a zero byte; of timestamps, their time zone, NULL for local
    /// time; of others nothing, and NULL.
    pub text: *const c_char,
}

/// The value of a parameter: of what a plan's text calls `$name`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InsituParam {
    /// Its name, without the dollar.
    pub name: *const c_char,
    /// Its value.
    pub value: InsituScalar,
}

/// How a call is made. Fill it with zeros, set `size` to `sizeof(InsituOptions)`, then what is
/// wanted; where a function takes options, NULL will do for all zeros. What a function does not say
/// that it heeds must be zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InsituOptions {
    /// `sizeof(InsituOptions)`.
    pub size: usize,
    /// Those of the `INSITU_FLAG_` constants that are wanted, added up.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// How long to wait, in milliseconds, where something has to be waited for; 0 for what is usual
    /// there, less than 0 for not at all.
    pub timeout_ms: i64,
    /// What watches and can cancel the call.
    pub task: InsituTask,
    /// Values of the plan's parameters.
    pub params: *const InsituParam,
    /// How many there are.
    pub n_params: usize,
}

// SAFETY: of numbers and raw pointers only.
unsafe impl Versioned for InsituOptions {
    const FIRST: usize = INSITU_OPTIONS_1_SIZE;
    const NAME: &'static str = "InsituOptions";
}

/// Options that were read.
#[derive(Default)]
pub(crate) struct Options<'a> {
    flags: u32,
    timeout_ms: i64,
    task: Option<Held<InsituTask>>,
    /// By name.
    pub(crate) params: Vec<(&'a str, Scalar)>,
}

/// What a function heeds beside its flags.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Heeds {
    /// Nothing.
    Nothing,
    /// The time to wait.
    Timeout,
    /// The values of parameters.
    Params,
}

impl<'a> Options<'a> {
    /// # Errors
    /// `InvalidArgument` for what the function does not heed, and for what no option may be.
    ///
    /// # Safety
    /// The pointer is null, or names options as they are described, which stay so for `'a`.
    pub(crate) unsafe fn read(
        options: *const InsituOptions,
        flags: u32,
        heeds: Heeds,
    ) -> Result<Options<'a>> {
        if options.is_null() {
            return Ok(Options::default());
        }
        // SAFETY: the caller's promise.
        let given = unsafe { args::versioned(options) }?;
        check_flags(given.flags, flags)?;
        let wrong = |what: &str| Err(Error::InvalidArgument(format!("this call {what}")));
        if given.reserved != 0 {
            return wrong("was given options whose reserved field is not 0");
        }
        if given.timeout_ms != 0 && heeds != Heeds::Timeout {
            return wrong("waits for nothing: timeout_ms must be 0");
        }
        if given.n_params != 0 && heeds != Heeds::Params {
            return wrong("takes no parameters: n_params must be 0");
        }
        // SAFETY: the caller's promise.
        let all = unsafe { args::structs(given.params, given.n_params, "params") }?;
        let mut params = Vec::with_capacity(all.len());
        for param in all {
            // SAFETY: as above.
            params.push(unsafe { read_param(param) }?);
        }
        let options = Options {
            flags: given.flags,
            timeout_ms: given.timeout_ms,
            params,
            task: handles::get_if(given.task)?,
        };
        // Work that is soon done does not ask.
        if options.is_cancelled() { Err(Error::Cancelled) } else { Ok(options) }
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// How long to wait; none for what is usual.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        match u64::try_from(self.timeout_ms) {
            Ok(0) => None,
            Ok(millis) => Some(Duration::from_millis(millis)),
            Err(_) => Some(Duration::ZERO),
        }
    }

    /// Whether the call was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.task.as_ref().is_some_and(|task| task.is_cancelled())
    }

    pub(crate) fn progress(&self) -> Option<&Progress> {
        self.task.as_ref().map(|task| task.progress())
    }
}

/// # Errors
/// `InvalidArgument` for flags that the function does not heed.
pub(crate) fn check_flags(given: u32, heeded: u32) -> Result<()> {
    match given & !heeded {
        0 => Ok(()),
        others => Err(Error::InvalidArgument(format!(
            "the flags {others} (of {given}) mean nothing to this call"
        ))),
    }
}

/// # Safety
/// The texts are as they are described, for `'a`.
unsafe fn read_param<'a>(param: &InsituParam) -> Result<(&'a str, Scalar)> {
    // SAFETY: the caller's promise.
    let name = unsafe { args::text(param.name, "the name of a parameter") }?;
    let name = name.strip_prefix('$').unwrap_or(name);
    // SAFETY: as above.
    let value = unsafe { read_scalar(&param.value, name) }?;
    Ok((name, value))
}

/// # Safety
/// The texts are as they are described.
unsafe fn read_scalar(value: &InsituScalar, name: &str) -> Result<Scalar> {
    // What is not of the type need not be there.
    // SAFETY: the type says that a number is there; any 64 bits are one, of either kind.
    let signed = || unsafe { value.number.i64 };
    // SAFETY: as above.
    let unsigned = || unsafe { value.number.u64 };
    // SAFETY: as above.
    let float = || unsafe { value.number.f64 };
    let unit = || match value.per_second {
        1 => Ok(TimeUnit::Second),
        1_000 => Ok(TimeUnit::Millisecond),
        1_000_000 => Ok(TimeUnit::Microsecond),
        1_000_000_000 => Ok(TimeUnit::Nanosecond),
        other => Err(Error::InvalidArgument(format!(
            "the parameter {name:?} has {other} units to a second; there are 1, 1000, 1000000 or \
             1000000000"
        ))),
    };
    Ok(match value.r#type {
        INSITU_TYPE_NULL => Scalar::Null,
        INSITU_TYPE_BOOL => Scalar::Bool(signed() != 0),
        INSITU_TYPE_INT8..=INSITU_TYPE_INT64 => Scalar::Int(signed()),
        INSITU_TYPE_UINT8..=INSITU_TYPE_UINT64 => Scalar::from(unsigned()),
        INSITU_TYPE_FLOAT32 | INSITU_TYPE_FLOAT64 => Scalar::Float(float()),
        INSITU_TYPE_STRING => {
            // SAFETY: the caller's promise.
            let text = unsafe { args::text(value.text, "the text of a parameter") }?;
            Scalar::from(text)
        }
        INSITU_TYPE_DATE => Scalar::Date32(i32::try_from(signed()).map_err(|_| {
            Error::InvalidArgument(format!("the parameter {name:?} is no date: {} days", signed()))
        })?),
        INSITU_TYPE_TIMESTAMP => {
            // SAFETY: the caller's promise.
            let zone = unsafe { args::text_if(value.text, "the time zone of a parameter") }?;
            Scalar::Timestamp { value: signed(), unit: unit()?, tz: zone.map(Into::into) }
        }
        INSITU_TYPE_DURATION => Scalar::Duration { value: signed(), unit: unit()? },
        other => {
            return Err(Error::InvalidArgument(format!(
                "the parameter {name:?} is of type {other}, which is none"
            )));
        }
    })
}

impl InsituScalar {
    /// A number, a boolean or null, as a caller sees it. None for other values.
    pub(crate) fn of(value: &Scalar) -> Option<InsituScalar> {
        let (r#type, number) = match *value {
            Scalar::Null => (INSITU_TYPE_NULL, InsituNumber { u64: 0 }),
            Scalar::Bool(v) => (INSITU_TYPE_BOOL, InsituNumber { i64: v.into() }),
            Scalar::Int(v) => (INSITU_TYPE_INT64, InsituNumber { i64: v }),
            Scalar::UInt(v) => (INSITU_TYPE_UINT64, InsituNumber { u64: v }),
            Scalar::Float(v) => (INSITU_TYPE_FLOAT64, InsituNumber { f64: v }),
            _ => return None,
        };
        Some(InsituScalar { r#type, per_second: 0, number, text: std::ptr::null() })
    }
}
