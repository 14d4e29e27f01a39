//! The checked-in Rust code is what prost makes of the `.proto` files today.

use std::error::Error;
use std::fs;
use std::path::Path;

const FILES: [&str; 2] = ["insitu/v1/catalog.proto", "insitu/v1/plan.proto"];
const OUTPUT: &str = "insitu.v1.rs";

#[test]
fn generated_code_is_current() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(FILES, [root.join("proto")])?;
    let temp = tempfile::tempdir()?;
    prost_build::Config::new().out_dir(temp.path()).compile_fds(descriptors)?;
    let fresh = fs::read_to_string(temp.path().join(OUTPUT))?;

    let checked_in = root.join("src/generated").join(OUTPUT);
    if std::env::var_os("INSITU_REGENERATE").is_some() {
        fs::write(&checked_in, &fresh)?;
        return Ok(());
    }
    let current = fs::read_to_string(&checked_in)?;
    assert!(
        current == fresh,
        "src/generated/{OUTPUT} is not what proto/insitu/v1/*.proto gives; run: \
         INSITU_REGENERATE=1 cargo test -p insitu-schemas"
    );
    Ok(())
}

/// Generated Rust is complete only if the comments came along.
#[test]
fn documentation_is_carried_over() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = fs::read_to_string(root.join("src/generated").join(OUTPUT))?;
    assert!(code.contains("/// Rows over all chunks."));
    assert!(code.contains("/// A function of its arguments."));
    Ok(())
}
