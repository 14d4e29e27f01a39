//! The functions as a caller in C has them: what they give, and what they say of bad arguments.

mod formulas;
mod hostile;
mod plans;
mod tables;
mod threads;

use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow_array::ffi_stream::{ArrowArrayStreamReader, FFI_ArrowArrayStream};
use arrow_array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, RecordBatchIterator, StringArray,
};
use insitu::ErrorCode;

use crate::*;

/// A status, and the message that came with it.
#[derive(Debug, PartialEq)]
struct Answer {
    status: InsituStatus,
    message: String,
}

impl Answer {
    #[track_caller]
    fn is_ok(&self) {
        assert_eq!(self.status, 0, "{}", self.message);
    }

    #[track_caller]
    fn is(&self, code: ErrorCode, part: &str) {
        assert_eq!(self.status, code.number() as i32, "{}", self.message);
        assert!(self.message.contains(part), "{:?} is not in: {}", part, self.message);
    }
}

/// Calls a function with an error struct of its own.
fn ask(call: impl FnOnce(*mut InsituError) -> InsituStatus) -> Answer {
    let mut error = InsituError::NONE;
    let status = call(&raw mut error);
    let message = match error.message.is_null() {
        true => String::new(),
        // SAFETY: filled by the call.
        false => unsafe { CStr::from_ptr(error.message) }.to_str().unwrap().to_owned(),
    };
    assert_eq!(status, error.code);
    assert_eq!(status == 0, message.is_empty());
    // SAFETY: filled with zeros or by the call.
    unsafe { insitu_error_release(&raw mut error) };
    Answer { status, message }
}

fn text(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// An anonymous region, released with this.
struct Scene {
    region: InsituRegion,
}

impl Scene {
    fn new() -> Scene {
        let mut region = InsituRegion { id: 0 };
        ask(|error| {
            // SAFETY: as described.
            unsafe { insitu_region_create(ptr::null(), 64 << 20, 0, 0, &raw mut region, error) }
        })
        .is_ok();
        Scene { region }
    }

    /// Puts a table `name` of `n` rows: `a` counts from 0, `b` is half of it, `s` is "even" or null.
    fn put(&self, name: &str, n: i64) -> InsituTable {
        let mut table = InsituTable { id: 0 };
        let (name, mut stream) = (text(name), stream(vec![numbers(0, n)]));
        ask(|error| {
            // SAFETY: as described.
            unsafe {
                insitu_table_put(
                    self.region,
                    name.as_ptr(),
                    &raw mut stream,
                    ptr::null(),
                    &raw mut table,
                    error,
                )
            }
        })
        .is_ok();
        assert!(stream.release.is_none());
        table
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // SAFETY: as described.
        ask(|error| unsafe { insitu_region_release(self.region, error) }).is_ok();
    }
}

fn numbers(from: i64, to: i64) -> RecordBatch {
    let a = Int64Array::from_iter_values(from..to);
    let b = Float64Array::from_iter_values((from..to).map(|i| i as f64 / 2.0));
    let s: StringArray = (from..to).map(|i| (i % 2 == 0).then_some("even")).collect();
    let columns: [(&str, ArrayRef); 3] =
        [("a", Arc::new(a)), ("b", Arc::new(b)), ("s", Arc::new(s))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn stream(batches: Vec<RecordBatch>) -> FFI_ArrowArrayStream {
    let schema = batches[0].schema();
    let reader = RecordBatchIterator::new(batches.into_iter().map(Ok), schema);
    FFI_ArrowArrayStream::new(Box::new(reader))
}

/// All batches of a stream that a function filled.
fn batches(mut stream: FFI_ArrowArrayStream) -> Vec<RecordBatch> {
    // SAFETY: filled by a function, and not used otherwise.
    let reader = unsafe { ArrowArrayStreamReader::from_raw(&raw mut stream) }.unwrap();
    reader.map(Result::unwrap).collect()
}

fn export(table: InsituTable) -> Vec<RecordBatch> {
    let mut stream = FFI_ArrowArrayStream::empty();
    // SAFETY: as described.
    ask(|error| unsafe { insitu_table_export(table, ptr::null(), &raw mut stream, error) }).is_ok();
    batches(stream)
}

fn plan(select: &str, filter: Option<&str>) -> InsituPlan {
    let mut plan = InsituPlan { id: 0 };
    let (select, filter) = (text(select), filter.map(text));
    let filter = filter.as_ref().map_or(ptr::null(), |filter| filter.as_ptr());
    // SAFETY: as described.
    ask(|error| unsafe { insitu_plan_parse(select.as_ptr(), filter, &raw mut plan, error) })
        .is_ok();
    plan
}

fn options() -> InsituOptions {
    InsituOptions {
        size: size_of::<InsituOptions>(),
        flags: 0,
        reserved: 0,
        timeout_ms: 0,
        task: InsituTask { id: 0 },
        params: ptr::null(),
        n_params: 0,
    }
}

fn release(table: InsituTable) {
    // SAFETY: as described.
    ask(|error| unsafe { insitu_table_release(table, error) }).is_ok();
}

/// A name for a region that nobody else has.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("capi-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Not to be changed: programs were built with these.
#[test]
fn structs_are_laid_out_as_programs_were_built_with_them() {
    assert_eq!(size_of::<InsituError>(), 32);
    assert_eq!(size_of::<InsituTable>(), 8);
    assert_eq!(size_of::<InsituScalar>(), 24);
    assert_eq!(size_of::<InsituParam>(), 32);
    assert_eq!(size_of::<InsituArray>(), 24);
    assert_eq!(size_of::<InsituOptions>(), INSITU_OPTIONS_1_SIZE);
    assert_eq!(size_of::<InsituStats>(), INSITU_STATS_1_SIZE);
    assert_eq!(std::mem::offset_of!(InsituError, release), 16);
    assert_eq!(std::mem::offset_of!(InsituScalar, text), 16);
    assert_eq!(std::mem::offset_of!(InsituOptions, task), 24);
    assert_eq!(std::mem::offset_of!(InsituArray, data), 16);
}
