//! Bringing batches into the schema of a table that they are to become part of: columns are found by
//! name, strings and binary values may come in any of Arrow's three layouts, and a column that is
//! all null in any type. Everything else must be of the very type: a value is never changed here.

use arrow_array::{Array, RecordBatch, make_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_data::ArrayData;
use arrow_schema::{DataType, FieldRef, Schema};

use crate::error::{Error, Result};

/// How the columns of a source become those of a table.
pub(crate) struct Conform {
    /// Per column of the table: its field, and the source's column.
    columns: Vec<(FieldRef, usize)>,
}

impl Conform {
    /// For arrays that are to become one column.
    pub fn column(field: &FieldRef) -> Conform {
        Conform { columns: vec![(field.clone(), 0)] }
    }

    /// For batches of schema `source` that are to become rows of `table`.
    ///
    /// # Errors
    /// `SchemaMismatch` for columns that are missing, too many, or of a type that does not fit.
    pub fn table(table: &Schema, source: &Schema) -> Result<Conform> {
        let mut columns = Vec::with_capacity(table.fields().len());
        for (index, field) in table.fields().iter().enumerate() {
            // The same place first: names need not tell columns apart.
            let same =
                |at: usize| source.fields().get(at).is_some_and(|f| f.name() == field.name());
            let found = if same(index) {
                Some(index)
            } else {
                (0..source.fields().len()).find(|at| same(*at))
            };
            let Some(at) = found else {
                return Err(Error::SchemaMismatch(format!(
                    "the data has no column {:?}; the table's columns are {}",
                    field.name(),
                    names(table)
                )));
            };
            if let Some(found) = source.fields().get(at)
                && !fits(found.data_type(), field.data_type())
            {
                return Err(Error::SchemaMismatch(format!(
                    "column {:?} is of type {} in the data and {} in the table; cast it first",
                    field.name(),
                    found.data_type(),
                    field.data_type()
                )));
            }
            columns.push((field.clone(), at));
        }
        if let Some(extra) = source
            .fields()
            .iter()
            .enumerate()
            .find(|(at, _)| !columns.iter().any(|(_, used)| used == at))
        {
            return Err(Error::SchemaMismatch(format!(
                "the data has a column {:?}, the table has only {}",
                extra.1.name(),
                names(table)
            )));
        }
        Ok(Conform { columns })
    }

    /// A batch's columns as the table's.
    ///
    /// # Errors
    /// `SchemaMismatch` for a batch of another schema than was said, `InvalidData`.
    pub fn batch(&self, batch: &RecordBatch) -> Result<Vec<ArrayData>> {
        let mut out = Vec::with_capacity(self.columns.len());
        for (index, (field, at)) in self.columns.iter().enumerate() {
            let column = batch.columns().get(*at).ok_or_else(|| {
                Error::SchemaMismatch(format!(
                    "a batch has {} columns, its schema has more",
                    batch.num_columns()
                ))
            })?;
            if !fits(column.data_type(), field.data_type()) {
                return Err(Error::SchemaMismatch(format!(
                    "a batch has column {:?} of type {}, the table of type {}",
                    field.name(),
                    column.data_type(),
                    field.data_type()
                )));
            }
            out.push(self.data(index, column.to_data())?);
        }
        Ok(out)
    }

    /// An array as the table's column of that position.
    ///
    /// # Errors
    /// `TypeMismatch` for a type that does not fit, `InvalidData` for what is no such array.
    pub fn data(&self, index: usize, data: ArrayData) -> Result<ArrayData> {
        let Some((field, _)) = self.columns.get(index) else {
            return Err(Error::InvalidArgument(format!("there is no column {index}")));
        };
        if data.data_type().equals_datatype(field.data_type()) {
            return Ok(data);
        }
        let name = field.name();
        if !fits(data.data_type(), field.data_type()) {
            return Err(Error::TypeMismatch(format!(
                "column {name:?} is of type {}, and was given values of type {}; cast them first",
                field.data_type(),
                data.data_type()
            )));
        }
        let invalid = |e| Error::InvalidData(format!("column {name:?}: {e}"));
        // Arrow's own code believes an array; ours has not looked at it yet.
        data.validate_full().map_err(invalid)?;
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let cast = cast_with_options(&make_array(data), field.data_type(), &options);
        cast.map(|array| array.to_data()).map_err(invalid)
    }
}

fn names(schema: &Schema) -> String {
    let names: Vec<String> = schema.fields().iter().map(|f| format!("{:?}", f.name())).collect();
    names.join(", ")
}

/// Whether values of one type are values of another, in another layout at most.
fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Null, Utf8, Utf8View};
    let text = |dtype: &DataType| matches!(dtype, Utf8 | LargeUtf8 | Utf8View);
    let bytes = |dtype: &DataType| matches!(dtype, Binary | LargeBinary | BinaryView);
    from.equals_datatype(to)
        || *from == Null
        || (text(from) && text(to))
        || (bytes(from) && bytes(to))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, NullArray, StringArray, StringViewArray};
    use arrow_schema::Field;

    use super::*;

    fn schema(fields: &[(&str, DataType)]) -> Schema {
        let field = |(name, dtype): &(&str, DataType)| Field::new(*name, dtype.clone(), true);
        Schema::new(fields.iter().map(field).collect::<Vec<_>>())
    }

    #[test]
    fn columns_are_found_by_name_and_strings_in_any_layout() {
        let table =
            schema(&[("a", DataType::Int64), ("s", DataType::Utf8), ("n", DataType::Int64)]);
        let source =
            schema(&[("n", DataType::Null), ("s", DataType::Utf8View), ("a", DataType::Int64)]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(NullArray::new(2)),
            Arc::new(StringViewArray::from(vec![Some("a string of some length"), None])),
            Arc::new(Int64Array::from(vec![1, 2])),
        ];
        let batch = RecordBatch::try_new(Arc::new(source.clone()), columns).unwrap();
        let made = Conform::table(&table, &source).unwrap().batch(&batch).unwrap();
        assert_eq!(make_array(made[0].clone()).as_ref(), &Int64Array::from(vec![1, 2]));
        let strings = StringArray::from(vec![Some("a string of some length"), None]);
        assert_eq!(make_array(made[1].clone()).as_ref(), &strings);
        assert_eq!(made[2].null_count(), 2);
    }

    #[test]
    fn other_columns_and_other_types_are_refused() {
        let table = schema(&[("a", DataType::Int64)]);
        for source in [
            schema(&[("b", DataType::Int64)]),
            schema(&[("a", DataType::Int32)]),
            schema(&[("a", DataType::Int64), ("b", DataType::Int64)]),
            schema(&[]),
        ] {
            let refused = Conform::table(&table, &source);
            assert!(matches!(refused, Err(Error::SchemaMismatch(_))), "{source:?}");
        }
    }
}
