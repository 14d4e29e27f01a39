//! Arrow's C structs, in and out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{RecordBatch, RecordBatchIterator, RecordBatchReader};
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{ArrowError, SchemaRef};
use insitu::foreign::ForeignStream;
use insitu::{Error, Result};

use crate::args::{self, Out};

/// A stream of the caller's, of which nothing is left to the caller: it is released when this is
/// dropped.
pub(crate) struct Source(FFI_ArrowArrayStream);

impl Source {
    /// # Errors
    /// `InvalidArgument` for a pointer that is null or not aligned.
    ///
    /// # Safety
    /// The pointer is null, or names a stream of the Arrow C stream interface, which nobody else
    /// uses.
    pub(crate) unsafe fn take(stream: *mut FFI_ArrowArrayStream) -> Result<Source> {
        args::check(stream, "stream")?;
        // SAFETY: not null and aligned; the caller's promise. What is left behind is a released one.
        Ok(Source(unsafe { FFI_ArrowArrayStream::from_raw(stream) }))
    }

    /// The schema, and the batches one by one.
    ///
    /// # Errors
    /// `InvalidData` for a stream that was released or is not one of tables.
    pub(crate) fn open(
        self,
    ) -> Result<(SchemaRef, impl Iterator<Item = Result<RecordBatch, ArrowError>>)> {
        let mut stream = guarded(|| ForeignStream::new(self.0))
            .map_err(|error| Error::InvalidData(format!("the stream is no table: {error}")))?;
        let schema = stream.schema();
        // After an error it is not used again.
        let batches = std::iter::from_fn(move || guarded(|| stream.next().transpose()).transpose());
        Ok((schema, batches))
    }
}

/// What a panic over another library's data is: an error of the data.
fn guarded<T>(work: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let text = "it breaks the rules of the Arrow C data interface";
        Err(ArrowError::CDataInterface(text.to_owned()))
    })
}

/// Hands batches out as a stream.
///
/// # Safety
/// What `out` was made of may be written to.
pub(crate) unsafe fn give(
    out: &Out<FFI_ArrowArrayStream>,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
) {
    let reader = RecordBatchIterator::new(batches.into_iter().map(Ok), schema);
    // SAFETY: the caller's promise.
    unsafe { out.set(FFI_ArrowArrayStream::new(Box::new(reader))) };
}

/// Hands a schema out.
///
/// # Errors
/// `Unsupported` for one that the C data interface cannot say.
///
/// # Safety
/// What `out` was made of may be written to.
pub(crate) unsafe fn give_schema(out: &Out<FFI_ArrowSchema>, schema: &SchemaRef) -> Result<()> {
    let schema = FFI_ArrowSchema::try_from(schema.as_ref())
        .map_err(|error| Error::Unsupported(format!("the schema cannot be handed out: {error}")))?;
    // SAFETY: the caller's promise.
    unsafe { out.set(schema) };
    Ok(())
}
