//! What a plan will do, or did, for people: its stages, and the tile program of each.

use std::fmt::Write as _;

use crate::compile::stage::{Input, Kind, Stage, What};
use crate::dtype::DataType;
use crate::exec::done::Done;
use crate::exec::run::Compiled;
use crate::plan::Plan;
use crate::prepared::static_compiled;
use crate::schema::Schema;
use crate::table::ColumnStats;

/// Describes a plan over a source whose columns have nulls where schema and statistics allow them.
/// Types are those of parameters without values.
pub(crate) fn explain(
    plan: &Plan,
    source: &Schema,
    stats: Option<&[ColumnStats]>,
    rows: usize,
) -> String {
    match static_compiled(plan, source, stats, rows) {
        Ok(compiled) => describe(&compiled, &[]),
        Err(e) => format!("cannot be compiled: {e}\n"),
    }
}

/// Describes stages, and what each did, where it is known.
pub(crate) fn describe(compiled: &[Compiled], done: &[Done]) -> String {
    let mut out = String::new();
    for (i, c) in compiled.iter().enumerate() {
        let s = &c.stage;
        let from = match s.input {
            Input::Source => "table".to_owned(),
            Input::Stage(i) => format!("stage {i}"),
        };
        let sink = match &s.kind {
            Kind::Map if s.has_filter() => "count, then write the kept rows".to_owned(),
            Kind::Map => "write columns".to_owned(),
            Kind::Scan { .. } => {
                let texts: Vec<&str> = s
                    .outputs
                    .iter()
                    .filter_map(|o| match &o.what {
                        What::Scan(scanned) => Some(&*scanned.text),
                        _ => None,
                    })
                    .collect();
                format!("total the morsels, then write running values: {}", texts.join(", "))
            }
            Kind::Reduce { aggs } => {
                let texts: Vec<&str> = aggs.iter().map(|a| a.text.as_str()).collect();
                format!("reduce to one row: {}", texts.join(", "))
            }
            Kind::Group { keys, aggs } => {
                let keys: Vec<&str> = keys.iter().map(|k| &*k.name).collect();
                let texts: Vec<&str> = aggs.iter().map(|a| a.text.as_str()).collect();
                format!("group by {}: {}", keys.join(", "), texts.join(", "))
            }
            Kind::Sort { keys, descending, .. } => {
                let keys: Vec<String> = keys
                    .iter()
                    .zip(descending)
                    .map(|(k, d)| format!("column {k}{}", if *d { " descending" } else { "" }))
                    .collect();
                format!("sort by {}, gather", keys.join(", "))
            }
        };
        let _ = writeln!(out, "stage {i}: {from} -> {sink}");
        if let Some(g) = s.given {
            let _ = writeln!(out, "  with the values of stage {g}");
        }
        for (offset, len) in &s.slices {
            let _ = writeln!(out, "  slice from {offset}, {len:?} rows");
        }
        for (o, needed) in s.outputs.iter().zip(&s.needed) {
            let how = match &o.what {
                _ if !needed => "not needed",
                What::Input(_) if s.shares() => "shared",
                What::Input(_) => "moved",
                What::Computed | What::Set(_) => "computed",
                What::Scan(_) => "running value",
                What::Shifted(_) => "shifted",
                What::Key(_) => "key",
                What::Agg(_) => "aggregate",
                What::Null => "null",
            };
            if !o.name.starts_with('\u{0}') {
                let _ = writeln!(out, "  column {:?}: {} ({how})", &*o.name, o.dtype);
            }
        }
        let _ = writeln!(out, "  {}", bytes_a_row(s));
        if !s.passes.is_empty() {
            let passes: Vec<String> = s.passes.iter().map(|p| percent(*p)).collect();
            let _ = writeln!(out, "  predicates pass about {} of the rows", passes.join(", "));
        }
        if let Some(d) = done.get(i) {
            if d.skipped > 0 {
                let _ = writeln!(out, "  skipped by statistics: {} rows", d.skipped);
            }
            let _ = writeln!(
                out,
                "  ran: {} rows in, {} out, {:.3} ms, {:.1} GB/s ({} bytes read, {} written)",
                d.rows_in,
                d.rows_out,
                d.time.as_secs_f64() * 1e3,
                d.gigabytes_per_second(),
                d.bytes_read,
                d.bytes_written
            );
        }
        if !c.main.instrs.is_empty() {
            out.push_str(&c.main.describe());
        }
        if let Some(w) = &c.write
            && !w.instrs.is_empty()
        {
            out.push_str(&w.describe());
        }
    }
    out
}

/// Bytes that a row takes of the columns that a stage reads, and of those that it writes.
fn bytes_a_row(stage: &Stage) -> String {
    let (mut read, mut texts_read) = (0.0, false);
    for c in stage.columns_read() {
        let Some(f) = stage.schema.fields().get(c) else { continue };
        read += width(&f.dtype);
        texts_read |= f.dtype.is_string();
        read += if stage.graph.has_validity(c as u32) { 0.125 } else { 0.0 };
    }
    let (mut written, mut texts_written) = (0.0, false);
    for (o, needed) in stage.outputs.iter().zip(&stage.needed) {
        if !needed || matches!(o.what, What::Input(_)) && stage.shares() {
            continue;
        }
        written += width(&o.dtype) + if o.nullable { 0.125 } else { 0.0 };
        texts_written |= o.dtype.is_string();
    }
    let text = |bytes: f64, texts: bool| {
        let beside = if texts { " and texts" } else { "" };
        format!("{bytes} bytes{beside}")
    };
    format!(
        "reads {} a row, writes {} a row of the result",
        text(read, texts_read),
        text(written, texts_written)
    )
}

/// Bytes of a value, but the texts themselves.
fn width(dtype: &DataType) -> f64 {
    match dtype {
        DataType::Bool => 0.125,
        DataType::Utf8 => 4.0,
        DataType::LargeUtf8 => 8.0,
        DataType::Utf8View => 16.0,
        d => d.prim().map_or(0.0, |p| p.width() as f64),
    }
}

/// A share with two digits.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 10.0 || percent == 0.0 {
        format!("{percent:.0} %")
    } else {
        format!("{percent:.1} %")
    }
}
