//! The committed header is what cbindgen makes of the sources today.

use std::collections::HashSet;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use insitu::ErrorCode;

const HEADER: &str = "../../include/insitu.h";

/// The sources, in the order in which their functions are best read.
const SOURCES: [&str; 9] =
    ["library", "status", "handles", "options", "region", "table", "plan", "task", "lease"];

/// Headings, and the function that each stands before.
const SECTIONS: [(&str, &str); 8] = [
    ("The library", "insitu_abi_version"),
    ("Errors", "insitu_error_release"),
    ("Regions", "insitu_region_create"),
    ("Tables", "insitu_table_put"),
    ("Plans, queries and updates", "insitu_plan_parse"),
    ("Tasks: progress and cancellation", "insitu_task_create"),
    ("Leases", "insitu_table_lease"),
    ("Formulas over arrays anywhere, without a region", "insitu_formula_parse"),
];

#[test]
fn the_header_is_current() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = header(root)?;
    let file = root.join(HEADER);
    if std::env::var_os("INSITU_REGENERATE").is_some() {
        fs::write(&file, &fresh)?;
        return Ok(());
    }
    let committed = fs::read_to_string(&file)?;
    assert!(
        committed == fresh,
        "include/insitu.h is not what engine/capi/src gives; run: \
         INSITU_REGENERATE=1 cargo test -p insitu-capi --test header"
    );
    Ok(())
}

/// A macro would stand for a constant of the same name, in silence.
#[test]
fn no_two_constants_have_one_name() -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(HEADER))?;
    let mut seen = HashSet::new();
    for line in text.lines() {
        let macros = line.strip_prefix("#define ").and_then(|rest| rest.split_whitespace().next());
        let constants =
            line.trim().strip_prefix("INSITU_").and_then(|rest| rest.split(" =").next());
        let name = match (macros, constants) {
            (Some(name), _) => name.to_owned(),
            (None, Some(rest)) => format!("INSITU_{rest}"),
            (None, None) => continue,
        };
        assert!(seen.insert(name), "{line}");
    }
    assert!(seen.contains("INSITU_READ_ONLY") && seen.contains("INSITU_FLAG_READ_ONLY"));
    Ok(())
}

fn header(root: &Path) -> Result<String, Box<dyn Error>> {
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml"))?;
    let includes = config.after_includes.take().ok_or("cbindgen.toml has no after_includes")?;
    let includes = includes.replace("@VERSION@", &versions()).replace("@STATUS@", &statuses());
    config.after_includes = Some(includes);
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES.iter().chain(&["formula"]) {
        builder = builder.with_src(root.join("src").join(source).with_extension("rs"));
    }
    let mut written = Vec::new();
    builder.generate()?.write(&mut written);
    let mut text = tidied(&String::from_utf8(written)?);
    for (title, function) in SECTIONS {
        let at = ["InsituStatus", "uint32_t", "void"]
            .iter()
            .find_map(|gives| text.find(&format!("\n{gives} {function}(")))
            .and_then(|at| text.get(..at)?.rfind("/**"))
            .ok_or(function)?;
        text.insert_str(at, &format!("/* ---- {title} ---- */\n\n"));
    }
    Ok(text)
}

/// The text as a person would write it: short comments in one line, types by their short names, and
/// without what callers in Rust are told of safety, which stands at the top for all functions.
fn tidied(text: &str) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut in_safety = false;
    for line in text.lines() {
        let is_end = line.trim() == "*/";
        if line == " * # Safety" {
            in_safety = true;
            // The empty line before it.
            kept.pop_if(|last| last == " *");
        }
        in_safety &= !is_end;
        if in_safety || line.is_empty() && kept.last().is_none_or(String::is_empty) {
            continue;
        }
        if is_end
            && let [.., first, only] = kept.as_slice()
            && first.trim() == "/**"
            && let Some(only) = only.trim().strip_prefix("* ")
        {
            let short = format!("{} {only} */", first.trim_end());
            kept.truncate(kept.len() - 2);
            kept.push(short);
        } else if line.starts_with("typedef ") || line.contains("(*release)") {
            kept.push(line.to_owned());
        } else {
            kept.push(line.replace("struct Insitu", "Insitu").replace("union Insitu", "Insitu"));
        }
    }
    kept.join("\n") + "\n"
}

fn versions() -> String {
    let parts = [
        ("MAJOR", env!("CARGO_PKG_VERSION_MAJOR")),
        ("MINOR", env!("CARGO_PKG_VERSION_MINOR")),
        ("PATCH", env!("CARGO_PKG_VERSION_PATCH")),
    ];
    let mut text = "/* The version of the library that this header came with. */\n".to_owned();
    for (part, number) in parts {
        let _ = writeln!(text, "#define INSITU_VERSION_{part} {number}");
    }
    text.trim_end().to_owned()
}

/// The one table of errors, in C.
fn statuses() -> String {
    let mut text = "/* How a call ended. New numbers may be added. */\nenum {\n".to_owned();
    let mut add = |name: &str, number: i64, sentence: &str| {
        let _ = writeln!(text, "    /* {sentence} */\n    INSITU_{name} = {number},");
    };
    add("OK", 0, "All is well.");
    for code in ErrorCode::ALL {
        add(&shouted(code.name()), code.number().into(), code.sentence());
    }
    add("INTERNAL", -1, "A defect of the library, which it has caught: please report it.");
    text + "};"
}

/// `RegionFull` as `REGION_FULL`.
fn shouted(name: &str) -> String {
    let mut text = String::new();
    for (i, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && i > 0 {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}
