//! Gives the shared library the name that programs look for it by: with the number of its interface,
//! so that a program never runs with another than it was built for.

/// The line of `src/library.rs` that has the number.
const BEFORE: &str = "pub const INSITU_ABI_VERSION: u32 = ";

fn main() -> Result<(), std::io::Error> {
    let source = "src/library.rs";
    println!("cargo:rerun-if-changed={source}");
    let text = std::fs::read_to_string(source)?;
    let line = text.lines().find_map(|line| line.strip_prefix(BEFORE)?.strip_suffix(';'));
    let number = line.ok_or_else(|| std::io::Error::other(format!("{source} has no number")))?;
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libinsitu.so.{number}");
    }
    Ok(())
}
