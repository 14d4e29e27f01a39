//! Arrow data of other libraries, as the C data interface hands it over: arrays of structs, one or a
//! stream of them, as record batches.
//!
//! arrow-rs holds producers to the letter of the interface. By it a column of type null has no
//! buffers; but older consumers wanted to be given an absent one, and some producers (Polars among
//! them) give it to everybody. Their arrays are shown to arrow-rs with none. And arrow-rs slices a
//! struct in a slice of structs twice, and panics: slices are taken here, of arrays, once.

use std::ffi::CStr;
use std::sync::Arc;

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{
    Array, RecordBatch, RecordBatchOptions, RecordBatchReader, StructArray, make_array,
};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};

use crate::ipc_schema::MAX_DEPTH;

/// Record batches from a C stream of another library.
pub struct ForeignStream {
    stream: FFI_ArrowArrayStream,
    schema: SchemaRef,
}

impl ForeignStream {
    /// Asks a stream for its schema.
    ///
    /// # Errors
    /// What the producer says is wrong, and `CDataInterface` for a stream that was released, or
    /// whose items are no structs.
    pub fn new(mut stream: FFI_ArrowArrayStream) -> Result<ForeignStream, ArrowError> {
        let (Some(_), Some(get_schema)) = (stream.release, stream.get_schema) else {
            return Err(broken("the stream was released"));
        };
        let mut schema = FFI_ArrowSchema::empty();
        // SAFETY: the stream is not released, and `schema` is empty, to be filled.
        let code = unsafe { get_schema(&raw mut stream, &raw mut schema) };
        if code != 0 {
            return Err(refused(&mut stream, code));
        }
        check_depth(&schema)?;
        let schema = Arc::new(Schema::try_from(&schema)?);
        Ok(ForeignStream { stream, schema })
    }
}

/// Refuses types that nest deeper than a table's may, before anything that follows them down takes
/// its stack for each level.
fn check_depth(schema: &FFI_ArrowSchema) -> Result<(), ArrowError> {
    // The schema itself is the struct of the columns.
    let mut todo = vec![(schema, 0)];
    while let Some((schema, depth)) = todo.pop() {
        if depth > MAX_DEPTH + 1 {
            return Err(broken(&format!("a column's type nests deeper than {MAX_DEPTH} levels")));
        }
        todo.extend(schema.children().chain(schema.dictionary()).map(|below| (below, depth + 1)));
    }
    Ok(())
}

impl Iterator for ForeignStream {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(get_next) = self.stream.get_next else {
            return Some(Err(broken("the stream was released")));
        };
        let mut array = FFI_ArrowArray::empty();
        // SAFETY: the stream lives and is not released, and `array` is empty, to be filled.
        let code = unsafe { get_next(&raw mut self.stream, &raw mut array) };
        if code != 0 {
            return Some(Err(refused(&mut self.stream, code)));
        }
        if array.is_released() {
            return None;
        }
        // SAFETY: a stream's arrays are of its schema; more cannot be known.
        Some(unsafe { record_batch(array, &self.schema) })
    }
}

impl RecordBatchReader for ForeignStream {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// An array of structs of another library as a record batch.
///
/// # Safety
/// The array is one of the C data interface, and of that schema.
///
/// # Errors
/// `CDataInterface` for an array that breaks the interface's rules in a way that shows.
pub unsafe fn record_batch(
    array: FFI_ArrowArray,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let dtype = DataType::Struct(schema.fields().clone());
    let array = match has_nulls_type(&dtype) {
        // SAFETY: the caller's promise.
        true => unsafe { without_absent_buffers(array, &dtype) }?,
        false => array,
    };
    // SAFETY: the caller's promise; a null array is none the less one for having no buffers.
    let data = unsafe { from_ffi_and_data_type(array, dtype) }?;
    let rows = RecordBatchOptions::new().with_row_count(Some(data.len()));
    let structs = StructArray::from(settled(data)?);
    if structs.null_count() > 0 {
        return Err(broken("whole rows are null, which a table has not"));
    }
    RecordBatch::try_new_with_options(schema.clone(), structs.into_parts().1, &rows)
}

/// The same values, in which no struct begins within its children.
fn settled(data: ArrayData) -> Result<ArrayData, ArrowError> {
    if data.child_data().is_empty() {
        return Ok(data);
    }
    let children = data.child_data().iter().cloned().map(settled);
    let children = children.collect::<Result<Vec<_>, _>>()?;
    if !matches!(data.data_type(), DataType::Struct(_)) {
        // SAFETY: the children have the same types, lengths and values as before.
        return Ok(unsafe { data.into_builder().child_data(children).build_unchecked() });
    }
    let (start, len) = (data.offset(), data.len());
    let mut columns = Vec::with_capacity(children.len());
    for child in children {
        if start.checked_add(len).is_none_or(|end| end > child.len()) {
            return Err(broken("a child of a struct is shorter than the struct"));
        }
        columns.push(make_array(child).slice(start, len).to_data());
    }
    let whole = ArrayData::builder(data.data_type().clone()).len(len).child_data(columns);
    // SAFETY: what was imported, with its own types, nulls and values: of each child the rows that
    // the struct has of it, which were counted.
    Ok(unsafe { whole.nulls(data.nulls().cloned()).build_unchecked() })
}

/// Whether a type is null, or has such a part.
fn has_nulls_type(dtype: &DataType) -> bool {
    *dtype == DataType::Null || parts(dtype).into_iter().any(has_nulls_type)
}

/// The types of an array's children, or, of a dictionary, of its values.
fn parts(dtype: &DataType) -> Vec<&DataType> {
    match dtype {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => vec![field.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type()).collect(),
        DataType::RunEndEncoded(ends, values) => vec![ends.data_type(), values.data_type()],
        DataType::Dictionary(_, values) => vec![values.as_ref()],
        _ => Vec::new(),
    }
}

/// What keeps a copy of an array's description: the array, and the copies of its parts'.
struct Shown {
    /// Released with this; the parts are its.
    _array: FFI_ArrowArray,
    /// Owned, and never released themselves.
    nodes: Vec<*mut FFI_ArrowArray>,
    lists: Vec<*mut [*mut FFI_ArrowArray]>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        for node in self.nodes.drain(..) {
            // SAFETY: made by `Box::into_raw` in `copy`, and freed here only. It has no release
            // callback, so that dropping it frees its own memory alone.
            drop(unsafe { Box::from_raw(node) });
        }
        for list in self.lists.drain(..) {
            // SAFETY: as above.
            drop(unsafe { Box::from_raw(list) });
        }
    }
}

/// The same array, in which columns of type null have no buffers. The producer's description stays
/// as it is: what frees it may go by what it says.
///
/// # Safety
/// The array is one of the C data interface, and of that type.
unsafe fn without_absent_buffers(
    array: FFI_ArrowArray,
    dtype: &DataType,
) -> Result<FFI_ArrowArray, ArrowError> {
    let mut parts = Shown { _array: FFI_ArrowArray::empty(), nodes: Vec::new(), lists: Vec::new() };
    // SAFETY: the caller's promise.
    let mut copy = unsafe { describe(&array, dtype, &mut parts) }?;
    parts._array = array;
    copy.private_data = Box::into_raw(Box::new(parts)).cast();
    copy.release = Some(release);
    Ok(copy)
}

/// A copy of an array's description, without a way to release it.
///
/// # Safety
/// The array is one of the C data interface, and of that type. The copy is used only while the array
/// and `kept` live.
unsafe fn describe(
    array: &FFI_ArrowArray,
    dtype: &DataType,
    kept: &mut Shown,
) -> Result<FFI_ArrowArray, ArrowError> {
    let kinds = parts(dtype);
    let mut copy = FFI_ArrowArray::empty();
    copy.length = array.length;
    copy.null_count = array.null_count;
    copy.offset = array.offset;
    if *dtype != DataType::Null {
        copy.n_buffers = array.n_buffers;
        copy.buffers = array.buffers;
    }
    if let (DataType::Dictionary(..), [values]) = (dtype, kinds.as_slice()) {
        let dictionary = array.dictionary().ok_or_else(|| broken("a dictionary has no values"))?;
        // SAFETY: the caller's promise holds for the parts as well.
        let values = unsafe { describe(dictionary, values, kept) }?;
        copy.dictionary = keep(values, kept);
        return Ok(copy);
    }
    if usize::try_from(array.n_children) != Ok(kinds.len())
        || array.children.is_null() && !kinds.is_empty()
    {
        return Err(broken("an array has not as many children as its type says"));
    }
    let mut children = Vec::with_capacity(kinds.len());
    for (index, kind) in kinds.iter().enumerate() {
        // SAFETY: as many pointers as there are children are there to be read, and what they point
        // to lives as long as the array.
        let child = unsafe { array.children.add(index).read_unaligned().as_ref() };
        let child = child.ok_or_else(|| broken("a child of an array is missing"))?;
        // SAFETY: the caller's promise holds for the parts as well.
        let child = unsafe { describe(child, kind, kept) }?;
        children.push(keep(child, kept));
    }
    if !children.is_empty() {
        copy.n_children = array.n_children;
        let list = Box::into_raw(children.into_boxed_slice());
        kept.lists.push(list);
        copy.children = list.cast();
    }
    Ok(copy)
}

fn keep(node: FFI_ArrowArray, kept: &mut Shown) -> *mut FFI_ArrowArray {
    let node = Box::into_raw(Box::new(node));
    kept.nodes.push(node);
    node
}

/// Releases what [`without_absent_buffers`] made.
///
/// # Safety
/// As the interface says: of an array that was not released yet.
unsafe extern "C" fn release(array: *mut FFI_ArrowArray) {
    // SAFETY: the caller's promise.
    let Some(array) = (unsafe { array.as_mut() }) else { return };
    array.release = None;
    // SAFETY: made by `Box::into_raw` there, and freed here only: an array is released once.
    drop(unsafe { Box::from_raw(array.private_data.cast::<Shown>()) });
    array.private_data = std::ptr::null_mut();
}

/// What a producer says about its failure.
fn refused(stream: &mut FFI_ArrowArrayStream, code: i32) -> ArrowError {
    let text = stream.get_last_error.and_then(|get_last_error| {
        // SAFETY: the stream lives and is not released, and its last call has failed. The text is
        // good until the next call, and copied.
        unsafe {
            let text = get_last_error(&raw mut *stream);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    });
    let number = || format!("the producer of the stream failed with error {code}");
    ArrowError::CDataInterface(text.filter(|text| !text.is_empty()).unwrap_or_else(number))
}

fn broken(what: &str) -> ArrowError {
    ArrowError::CDataInterface(what.to_owned())
}

#[cfg(test)]
mod tests;
