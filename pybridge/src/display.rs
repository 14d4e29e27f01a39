//! Tables as text and as HTML: the first rows, the types, and a title line.

use std::fmt::Write;

use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, SchemaRef, TimeUnit};

/// How many rows are shown.
pub const SHOWN: usize = 10;
/// No cell is wider than this many characters.
const WIDEST: usize = 32;
/// Text: no line is wider than this; columns that do not fit are left out, and said to be.
const LINE: usize = 118;

/// What is shown of a table.
struct Grid {
    /// Name, type, whether numbers (which align right).
    heads: Vec<(String, String, bool)>,
    /// Rows of cells.
    rows: Vec<Vec<String>>,
}

/// `1 row`, `336,776 rows`.
pub fn rows(count: usize) -> String {
    format!("{} {}", thousands(count), if count == 1 { "row" } else { "rows" })
}

/// `4.0 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// `336,776`.
pub fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An aligned table under a title line.
pub fn text(title: &str, schema: &SchemaRef, batches: &[RecordBatch], total: usize) -> String {
    let grid = grid(schema, batches);
    let mut widths: Vec<usize> = Vec::new();
    for (c, (name, dtype, _)) in grid.heads.iter().enumerate() {
        let cells = grid.rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count());
        let heads = name.chars().count().max(dtype.chars().count());
        widths.push(cells.max().unwrap_or(0).max(heads));
    }
    let mut shown = 0;
    let mut width = 0;
    for w in &widths {
        if shown > 0 && width + w + 2 > LINE {
            break;
        }
        width += w + 2;
        shown += 1;
    }

    let mut out = format!("{title}\n");
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for ((cell, width), head) in cells.zip(&widths).zip(&grid.heads).take(shown) {
            let pad = " ".repeat(width - cell.chars().count().min(*width));
            let (before, after) = if head.2 { (pad.as_str(), "") } else { ("", pad.as_str()) };
            let _ = write!(text, "  {before}{cell}{after}");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    if shown > 0 {
        line(&mut grid.heads.iter().map(|head| head.0.as_str()));
        line(&mut grid.heads.iter().map(|head| head.1.as_str()));
        for row in &grid.rows {
            line(&mut row.iter().map(String::as_str));
        }
    }
    for note in notes(&grid, total, shown) {
        let _ = writeln!(out, "  {note}");
    }
    out.truncate(out.trim_end().len());
    out
}

/// The same as an HTML table; every text in it is escaped.
pub fn html(title: &str, schema: &SchemaRef, batches: &[RecordBatch], total: usize) -> String {
    let grid = grid(schema, batches);
    let mut out = format!("<div><p>{}</p><table><thead><tr>", escape(title));
    for (name, dtype, _) in &grid.heads {
        let _ = write!(out, "<th>{}<br><small>{}</small></th>", escape(name), escape(dtype));
    }
    out.push_str("</tr></thead><tbody>");
    for row in &grid.rows {
        out.push_str("<tr>");
        for (cell, (_, _, number)) in row.iter().zip(&grid.heads) {
            let align = if *number { " style=\"text-align: right\"" } else { "" };
            let _ = write!(out, "<td{align}>{}</td>", escape(cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    for note in notes(&grid, total, grid.heads.len()) {
        let _ = write!(out, "<p>{}</p>", escape(&note));
    }
    out.push_str("</div>");
    out
}

/// One sentence as HTML.
pub fn html_of(text: &str) -> String {
    format!("<div><p>{}</p></div>", escape(text))
}

fn notes(grid: &Grid, total: usize, columns: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if total > grid.rows.len() {
        let more = total - grid.rows.len();
        let rows = if more == 1 { "row" } else { "rows" };
        notes.push(format!("... and {} more {rows}", thousands(more)));
    }
    if let Some(left @ [_, ..]) = grid.heads.get(columns..) {
        let names: Vec<&str> = left.iter().map(|head| head.0.as_str()).collect();
        let list = clip(&names.join(", "), LINE - 30);
        notes.push(format!("... and {} more columns: {list}", left.len()));
    }
    notes
}

fn grid(schema: &SchemaRef, batches: &[RecordBatch]) -> Grid {
    let options = FormatOptions::default().with_null("null").with_display_error(true);
    let heads = schema.fields().iter().map(|field| {
        let dtype = field.data_type();
        (clip(field.name(), WIDEST), clip(&type_name(dtype), WIDEST), dtype.is_numeric())
    });
    let mut grid = Grid { heads: heads.collect(), rows: Vec::new() };
    for batch in batches {
        let left = SHOWN - grid.rows.len();
        let batch = batch.slice(0, batch.num_rows().min(left));
        let formatters: Vec<_> = batch
            .columns()
            .iter()
            .map(|array| ArrayFormatter::try_new(array.as_ref(), &options))
            .collect();
        for row in 0..batch.num_rows() {
            let cells = formatters.iter().map(|formatter| match formatter {
                Ok(formatter) => clip(&formatter.value(row).to_string(), WIDEST),
                Err(_) => "?".to_owned(),
            });
            grid.rows.push(cells.collect());
        }
        if grid.rows.len() == SHOWN {
            break;
        }
    }
    grid
}

/// A type as pyarrow prints it.
fn type_name(dtype: &DataType) -> String {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    };
    match dtype {
        DataType::Boolean => "bool".into(),
        DataType::Float16 => "halffloat".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 => "string".into(),
        DataType::LargeUtf8 => "large_string".into(),
        DataType::Utf8View => "string_view".into(),
        DataType::Timestamp(u, None) => format!("timestamp[{}]", unit(u)),
        DataType::Timestamp(u, Some(tz)) => format!("timestamp[{}, tz={tz}]", unit(u)),
        DataType::Duration(u) => format!("duration[{}]", unit(u)),
        DataType::Time32(u) => format!("time32[{}]", unit(u)),
        DataType::Time64(u) => format!("time64[{}]", unit(u)),
        DataType::Date32 => "date32[day]".into(),
        DataType::Date64 => "date64[ms]".into(),
        DataType::Dictionary(_, values) => format!("dictionary<{}>", type_name(values)),
        DataType::List(item) | DataType::LargeList(item) => {
            format!("list<{}>", type_name(item.data_type()))
        }
        DataType::Struct(fields) => {
            let inner: Vec<String> = fields
                .iter()
                .map(|field| format!("{}: {}", field.name(), type_name(field.data_type())))
                .collect();
            format!("struct<{}>", inner.join(", "))
        }
        other => other.to_string().to_lowercase(),
    }
}

/// One line, no control characters, at most `width` characters.
fn clip(text: &str, width: usize) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == width {
            out.pop();
            out.push('…');
            break;
        }
        if c.is_control() {
            out.push('·');
        } else {
            out.push(c);
        }
    }
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
