//! Tables on the heap for tests, cut into chunks of any lengths, and results read back as values.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use insitu_kernels::prim::Prim;
use insitu_kernels::view::{ColumnView, Layout};
use insitu_query::{
    ColumnStats, Context, DataType, Error, Expr, Field, Heap, NewColumn, Output, OutputColumn,
    Plan, Prepared, Schema, TableView, Writable,
};

/// One value.
#[derive(Clone, Debug)]
pub enum Val {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
}

impl PartialEq for Val {
    fn eq(&self, other: &Val) -> bool {
        match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Int(a), Val::Int(b)) => a == b,
            (Val::Float(a), Val::Float(b)) => {
                a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
            }
            (Val::Str(a), Val::Str(b)) => a == b,
            _ => false,
        }
    }
}

/// A column of values.
#[derive(Clone, Debug)]
pub struct Col {
    pub name: &'static str,
    pub dtype: DataType,
    pub values: Vec<Val>,
}

pub fn col(name: &'static str, dtype: DataType, values: Vec<Val>) -> Col {
    Col { name, dtype, values }
}

pub fn ints(name: &'static str, dtype: DataType, values: &[Option<i64>]) -> Col {
    let values = values.iter().map(|v| v.map_or(Val::Null, |v| Val::Int(i128::from(v)))).collect();
    col(name, dtype, values)
}

pub fn floats(name: &'static str, values: &[Option<f64>]) -> Col {
    let values = values.iter().map(|v| v.map_or(Val::Null, Val::Float)).collect();
    col(name, DataType::Float64, values)
}

pub fn strs(name: &'static str, dtype: DataType, values: &[Option<&str>]) -> Col {
    let values = values.iter().map(|v| v.map_or(Val::Null, |v| Val::Str(v.into()))).collect();
    col(name, dtype, values)
}

/// A chunk's buffers.
struct Buffers {
    rows: usize,
    values: Vec<u8>,
    validity: Option<Vec<u8>>,
    offsets: Vec<u8>,
    data: Vec<u8>,
    variadic: Vec<(*const u8, usize)>,
    layout: Layout,
}

/// A table that owns its memory.
pub struct Table {
    pub schema: Schema,
    pub rows: usize,
    chunks: Vec<Vec<Buffers>>,
    pub stats: Option<Vec<ColumnStats>>,
}

fn layout(t: &DataType) -> Layout {
    match t {
        DataType::Bool => Layout::Bool,
        DataType::Utf8 => Layout::Utf8,
        DataType::LargeUtf8 => Layout::LargeUtf8,
        DataType::Utf8View => Layout::Utf8View,
        t => t.prim().map_or(Layout::Opaque, Layout::Prim),
    }
}

fn put(out: &mut Vec<u8>, p: Prim, v: &Val) {
    let (i, f) = match v {
        Val::Int(i) => (*i, *i as f64),
        Val::Float(f) => (*f as i128, *f),
        // Garbage under nulls, so that its use shows.
        _ => (77, f64::NAN),
    };
    match p {
        Prim::F32 => out.extend((f as f32).to_le_bytes()),
        Prim::F64 => out.extend(f.to_le_bytes()),
        p => out.extend(&i.to_le_bytes()[..p.width()]),
    }
}

fn buffers(dtype: &DataType, values: &[Val], bitmap: bool) -> Buffers {
    let mut b = Buffers {
        rows: values.len(),
        values: Vec::new(),
        validity: None,
        offsets: Vec::new(),
        data: Vec::new(),
        variadic: Vec::new(),
        layout: layout(dtype),
    };
    if bitmap || values.contains(&Val::Null) {
        let mut bits = vec![0u8; values.len().div_ceil(8)];
        for (i, v) in values.iter().enumerate() {
            bits[i / 8] |= u8::from(*v != Val::Null) << (i % 8);
        }
        b.validity = Some(bits);
    }
    let text = |v: &Val| match v {
        Val::Str(s) => s.clone(),
        _ => String::new(),
    };
    match b.layout {
        Layout::Prim(p) => values.iter().for_each(|v| put(&mut b.values, p, v)),
        Layout::Bool => {
            b.values = vec![0u8; values.len().div_ceil(8)];
            for (i, v) in values.iter().enumerate() {
                b.values[i / 8] |= u8::from(matches!(v, Val::Bool(true))) << (i % 8);
            }
        }
        Layout::Utf8 | Layout::LargeUtf8 => {
            let offset = |n: usize, offsets: &mut Vec<u8>| match b.layout {
                Layout::Utf8 => offsets.extend((n as i32).to_le_bytes()),
                _ => offsets.extend((n as i64).to_le_bytes()),
            };
            offset(0, &mut b.offsets);
            for v in values {
                b.values.extend(text(v).bytes());
                offset(b.values.len(), &mut b.offsets);
            }
        }
        Layout::Utf8View => {
            for v in values {
                let s = text(v);
                b.values.extend((s.len() as u32).to_le_bytes());
                if s.len() <= 12 {
                    let mut inline = [0u8; 12];
                    inline[..s.len()].copy_from_slice(s.as_bytes());
                    b.values.extend(inline);
                } else {
                    b.values.extend(&s.as_bytes()[..4]);
                    b.values.extend(0u32.to_le_bytes());
                    b.values.extend((b.data.len() as u32).to_le_bytes());
                    b.data.extend(s.as_bytes());
                }
            }
            b.variadic = vec![(b.data.as_ptr(), b.data.len())];
        }
        Layout::Opaque => {}
    }
    // Room for whole words at the end.
    b.values.reserve(64);
    b.validity.iter_mut().for_each(|v| v.reserve(64));
    b
}

impl Table {
    /// The columns, cut into chunks of these lengths (the rest makes one more).
    pub fn new(columns: &[Col], chunks: &[usize]) -> Table {
        Table::made(columns, chunks, false)
    }

    /// The same, with a bitmap in every chunk of a column that has nulls in any.
    pub fn with_bitmaps(columns: &[Col], chunks: &[usize]) -> Table {
        Table::made(columns, chunks, true)
    }

    fn made(columns: &[Col], chunks: &[usize], bitmaps: bool) -> Table {
        let rows = columns.first().map_or(0, |c| c.values.len());
        let fields: Vec<Field> =
            columns.iter().map(|c| Field::new(c.name, c.dtype.clone(), true)).collect();
        let mut bounds = vec![0];
        for n in chunks {
            bounds.push((bounds.last().unwrap() + n).min(rows));
        }
        if *bounds.last().unwrap() < rows {
            bounds.push(rows);
        }
        let chunks = bounds
            .windows(2)
            .map(|w| {
                let bitmap = |c: &Col| bitmaps && c.values.contains(&Val::Null);
                let part = |c: &Col| buffers(&c.dtype, &c.values[w[0]..w[1]], bitmap(c));
                columns.iter().map(part).collect()
            })
            .collect();
        Table { schema: Schema::new(fields), rows, chunks, stats: None }
    }

    /// Where the columns can be written, chunk by chunk.
    pub fn places(&mut self, columns: &[usize]) -> Vec<Vec<Writable>> {
        let null = std::ptr::null_mut();
        let place = |b: &mut Buffers| Writable {
            values: b.values.as_mut_ptr(),
            validity: b.validity.as_mut().map_or(null, |v| v.as_mut_ptr()),
        };
        let chunk = |c: &mut Vec<Buffers>| columns.iter().map(|i| place(&mut c[*i])).collect();
        self.chunks.iter_mut().map(chunk).collect()
    }

    pub fn view(&self) -> TableView<'_> {
        let chunks = self
            .chunks
            .iter()
            .map(|c| {
                c.iter()
                    .map(|b| {
                        // SAFETY: the buffers hold the rows and live as long as the table.
                        unsafe {
                            let mut v = ColumnView::new(
                                b.layout,
                                b.rows,
                                b.values.as_ptr(),
                                b.values.len(),
                            );
                            if let Some(bits) = &b.validity {
                                v = v.with_validity(bits.as_ptr(), None);
                            }
                            if !b.offsets.is_empty() {
                                v = v.with_offsets(b.offsets.as_ptr());
                            }
                            v.with_variadic(&b.variadic)
                        }
                    })
                    .collect()
            })
            .collect();
        TableView {
            schema: &self.schema,
            rows: self.rows,
            chunks,
            stats: self.stats.clone(),
            zones: None,
        }
    }
}

/// A result, read back.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub names: Vec<String>,
    pub dtypes: Vec<DataType>,
    pub columns: Vec<Vec<Val>>,
}

impl Answer {
    pub fn column(&self, name: &str) -> &[Val] {
        let i = self.names.iter().position(|n| n == name).expect("column");
        &self.columns[i]
    }
}

fn bit(p: *const u8, i: usize) -> bool {
    // SAFETY: callers ask for rows of the column.
    unsafe { p.add(i / 8).read() >> (i % 8) & 1 == 1 }
}

fn read(dtype: &DataType, rows: usize, c: &NewColumn) -> Vec<Val> {
    let at = |s: Option<insitu_query::Span>| s.map(|s| s.ptr.as_ptr().cast_const());
    for s in [c.validity, c.values, c.offsets].into_iter().flatten() {
        assert_eq!(s.ptr.as_ptr() as usize % 64, 0);
        for i in s.len..s.len.next_multiple_of(64) {
            // SAFETY: buffers are padded to 64 bytes.
            assert_eq!(unsafe { s.ptr.as_ptr().add(i).read() }, 0, "tail of a {dtype} column");
        }
    }
    let mut nulls = 0;
    let out = (0..rows)
        .map(|i| {
            let Some(values) = at(c.values) else {
                nulls += 1;
                return Val::Null;
            };
            if at(c.validity).is_some_and(|v| !bit(v, i)) {
                nulls += 1;
                return Val::Null;
            }
            // SAFETY: the column has `rows` rows.
            unsafe {
                match layout(dtype) {
                    Layout::Bool => Val::Bool(bit(values, i)),
                    Layout::Prim(p) => match p {
                        Prim::I8 => Val::Int(i128::from(values.cast::<i8>().add(i).read())),
                        Prim::I16 => Val::Int(i128::from(values.cast::<i16>().add(i).read())),
                        Prim::I32 => Val::Int(i128::from(values.cast::<i32>().add(i).read())),
                        Prim::I64 => Val::Int(i128::from(values.cast::<i64>().add(i).read())),
                        Prim::U8 => Val::Int(i128::from(values.add(i).read())),
                        Prim::U16 => Val::Int(i128::from(values.cast::<u16>().add(i).read())),
                        Prim::U32 => Val::Int(i128::from(values.cast::<u32>().add(i).read())),
                        Prim::U64 => Val::Int(i128::from(values.cast::<u64>().add(i).read())),
                        Prim::F32 => Val::Float(f64::from(values.cast::<f32>().add(i).read())),
                        Prim::F64 => Val::Float(values.cast::<f64>().add(i).read()),
                    },
                    Layout::Utf8 | Layout::LargeUtf8 => {
                        let o = at(c.offsets).expect("offsets");
                        let (a, b) = if layout(dtype) == Layout::Utf8 {
                            let o = o.cast::<i32>();
                            (o.add(i).read() as usize, o.add(i + 1).read() as usize)
                        } else {
                            let o = o.cast::<i64>();
                            (o.add(i).read() as usize, o.add(i + 1).read() as usize)
                        };
                        let bytes = std::slice::from_raw_parts(values.add(a), b - a);
                        Val::Str(String::from_utf8(bytes.to_vec()).unwrap())
                    }
                    Layout::Utf8View => {
                        let v = values.add(16 * i);
                        let len = v.cast::<u32>().read() as usize;
                        let p = if len <= 12 {
                            v.add(4)
                        } else {
                            let buffer = v.add(8).cast::<u32>().read() as usize;
                            let offset = v.add(12).cast::<u32>().read() as usize;
                            c.variadic[buffer].ptr.as_ptr().add(offset)
                        };
                        Val::Str(
                            String::from_utf8(std::slice::from_raw_parts(p, len).to_vec()).unwrap(),
                        )
                    }
                    Layout::Opaque => panic!("opaque"),
                }
            }
        })
        .collect();
    assert_eq!(nulls, c.null_count, "null count of a {dtype} column");
    assert_eq!(c.validity.is_some(), nulls > 0 && c.values.is_some());
    out
}

pub fn run_with(
    plan: &Plan,
    table: &Table,
    columns: &[Col],
    checked: bool,
) -> Result<Answer, Error> {
    let heap = Heap::new();
    let prepared = Prepared::compile(plan, &table.schema)?;
    let mut cx = Context::new(&heap);
    cx.checked = checked;
    let out = prepared.run(&table.view(), &cx)?;
    let fields = out.schema.fields();
    assert_eq!(fields.len(), out.columns.len());
    for (a, b) in fields.iter().zip(prepared.schema().fields()) {
        assert_eq!((&a.name, &a.dtype), (&b.name, &b.dtype));
    }
    Ok(answer(&out, columns))
}

/// A result, read back; `columns` are the source's.
pub fn answer(out: &Output, columns: &[Col]) -> Answer {
    let fields = out.schema.fields();
    Answer {
        names: fields.iter().map(|f| f.name.to_string()).collect(),
        dtypes: fields.iter().map(|f| f.dtype.clone()).collect(),
        columns: out
            .columns
            .iter()
            .zip(fields)
            .map(|(c, f)| match c {
                OutputColumn::Shared { source } => {
                    assert_eq!(out.rows, columns[*source].values.len());
                    columns[*source].values.clone()
                }
                OutputColumn::New(c) => read(&f.dtype, out.rows, c),
            })
            .collect(),
    }
}

/// Runs a plan on columns in several chunkings, which must all agree.
pub fn run(plan: &Plan, columns: &[Col]) -> Result<Answer, Error> {
    let rows = columns.first().map_or(0, |c| c.values.len());
    let whole = run_with(plan, &Table::new(columns, &[]), columns, false);
    for chunks in [vec![rows / 2], vec![1, 0, 63, 2, rows / 3, 7]] {
        let parts = run_with(plan, &Table::new(columns, &chunks), columns, false);
        match (&whole, &parts) {
            (Ok(a), Ok(b)) => assert_eq!(a, b, "chunks {chunks:?}"),
            (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string()),
            (a, b) => panic!("{a:?} and {b:?}"),
        }
    }
    whole
}

pub fn c(name: &str) -> Expr {
    Expr::column(name)
}

pub fn filter(input: Plan, predicates: Vec<Expr>) -> Plan {
    Plan::Filter { input: Arc::new(input), predicates }
}

pub fn select(input: Plan, exprs: Vec<Expr>) -> Plan {
    Plan::Select { input: Arc::new(input), exprs }
}

pub fn with_columns(input: Plan, exprs: Vec<Expr>) -> Plan {
    Plan::WithColumns { input: Arc::new(input), exprs }
}

pub fn aggregate(input: Plan, keys: Vec<Expr>, aggs: Vec<Expr>) -> Plan {
    Plan::Aggregate { input: Arc::new(input), keys, aggs }
}

pub fn sort(input: Plan, keys: Vec<Expr>, descending: Vec<bool>) -> Plan {
    Plan::Sort { input: Arc::new(input), keys, descending, nulls_last: true }
}

pub fn slice(input: Plan, offset: i64, len: Option<u64>) -> Plan {
    Plan::Slice { input: Arc::new(input), offset, len }
}
