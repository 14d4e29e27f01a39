//! Takes Arrow data into a region.

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use insitu_region::Extent;

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::region::Shared;

pub(crate) struct Ingested {
    pub extents: Vec<Extent>,
    pub layout: Layout,
}

pub(crate) fn ingest(
    _shared: &Shared,
    _schema: &SchemaRef,
    _batches: impl IntoIterator<Item = Result<RecordBatch, ArrowError>>,
    _interrupt: &dyn Fn() -> bool,
) -> Result<Ingested> {
    Err(Error::Unsupported("being written".into()))
}
