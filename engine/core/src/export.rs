//! Tables as Arrow arrays that point into the read-only mapping.

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::table::Table;

pub(crate) fn batches(_table: &Table) -> Result<Vec<RecordBatch>> {
    Err(Error::Unsupported("being written".into()))
}

pub(crate) fn column(_table: &Table, _index: usize) -> Result<Vec<ArrayRef>> {
    Err(Error::Unsupported("being written".into()))
}
