//! The shared library as a program in C has it: compiled with the system's compiler against the
//! committed header, linked by its installed name, and run. Without a compiler there is nothing to
//! test: then the test says so, or fails if `INSITU_FORBID_SKIPS` is set.

use std::error::Error;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The compiler, if there is one.
fn compiler() -> Option<String> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let works = Command::new(&compiler).arg("--version").output();
    if works.is_ok_and(|output| output.status.success()) {
        return Some(compiler);
    }
    skip("there is no C compiler; install one, or name it in CC");
    None
}

fn skip(why: &str) {
    assert!(std::env::var_os("INSITU_FORBID_SKIPS").is_none(), "not to be skipped: {why}");
    eprintln!("skipped: {why}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The shared library that cargo built with this test.
fn library() -> Result<PathBuf, Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let file = own.parent().ok_or("no folder")?.join("libinsitu_capi.so");
    assert!(file.exists(), "cargo has not built {}", file.display());
    Ok(file)
}

/// A folder with the library under the names that it is installed by.
fn installed() -> Result<tempfile::TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for name in ["libinsitu.so", "libinsitu.so.1"] {
        symlink(library()?, folder.path().join(name))?;
    }
    Ok(folder)
}

fn compile(
    compiler: &str,
    source: &Path,
    more: &[&str],
    folder: &Path,
) -> Result<PathBuf, Box<dyn Error>> {
    let program = folder.join("program");
    let output = Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"])
        .args(more)
        .arg("-I")
        .arg(root().join("include"))
        .arg(source)
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(folder)
        .arg("-linsitu")
        .arg(format!("-Wl,-rpath,{}", folder.display()))
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(program)
}

#[test]
fn a_program_in_c_puts_a_table_and_computes_on_it() -> Result<(), Box<dyn Error>> {
    let Some(compiler) = compiler() else { return Ok(()) };
    let folder = installed()?;
    let source = root().join("examples/market.c");
    let program = compile(&compiler, &source, &["-std=c11"], folder.path())?;
    let name = format!("capi-program-{}", std::process::id());
    let mut child = Command::new(program)
        .arg(&name)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or("no input")?.write_all(b"\n")?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let prices: Vec<f64> = (0..100_000).map(|i| 100.0 + f64::from(i % 7)).collect();
    let sizes: Vec<i32> = (0..100_000).map(|i| i % 1000).collect();
    let sum = |twice: bool| -> f64 {
        let prices = prices.iter().zip(&sizes);
        prices.map(|(p, s)| if twice && *s < 500 { 2.0 * p } else { *p }).sum()
    };
    let mut expected = vec!["rows 100000".to_owned()];
    for least in [0, 300, 600, 900] {
        let chosen = prices.iter().zip(&sizes).filter(|(_, s)| **s >= least);
        let turnover: f64 = chosen.map(|(p, s)| p * f64::from(*s)).sum();
        expected.push(format!("turnover of sizes from {least}: {turnover:.1}"));
    }
    expected.push(format!("sum of prices {:.1}", sum(false)));
    expected.push(format!("sum of prices {:.1}", sum(true)));
    expected.push("no table named \"trade\"; did you mean \"trades\"?".to_owned());
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    assert!(!Path::new("/dev/shm").join(format!("insitu.{name}")).exists());
    Ok(())
}

#[test]
fn the_header_stands_by_itself_in_c_and_in_cpp_and_twice() -> Result<(), Box<dyn Error>> {
    let Some(compiler) = compiler() else { return Ok(()) };
    let folder = installed()?;
    let text = "#include \"insitu.h\"\n#include \"insitu.h\"\n\
                int main(void) { return insitu_abi_version() == INSITU_ABI_VERSION ? 0 : 1; }\n";
    for (file, standards) in
        [("alone.c", &["-std=c99", "-std=c11"][..]), ("alone.cc", &["-std=c++11"])]
    {
        let source = folder.path().join(file);
        std::fs::write(&source, text)?;
        for standard in standards {
            let is_cpp = file.ends_with(".cc");
            let front = ["-fsyntax-only", standard, "-x", "c++", "-"];
            let can = Command::new(&compiler).args(front).stdin(Stdio::null()).output();
            if is_cpp && !can.is_ok_and(|output| output.status.success()) {
                // A compiler of C is asked for, no more.
                eprintln!("skipped: {compiler} compiles no C++");
                continue;
            }
            let program = compile(&compiler, &source, &[standard], folder.path())?;
            assert!(Command::new(program).status()?.success(), "{standard}");
        }
    }
    Ok(())
}

#[test]
fn the_library_exports_its_own_names_only() -> Result<(), Box<dyn Error>> {
    let output = Command::new("nm").args(["--dynamic", "--defined-only"]).arg(library()?).output();
    let Ok(output) = output else {
        skip("there is no nm");
        return Ok(());
    };
    let text = String::from_utf8(output.stdout)?;
    let header = std::fs::read_to_string(root().join("include/insitu.h"))?;
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert!(names.len() > 40, "{text}");
    for name in names {
        assert!(name.starts_with("insitu_"), "{name} is exported");
        assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
    }
    let dynamic = Command::new("readelf").arg("--dynamic").arg(library()?).output();
    let Ok(dynamic) = dynamic else {
        skip("there is no readelf");
        return Ok(());
    };
    let text = String::from_utf8_lossy(&dynamic.stdout).into_owned();
    assert!(text.contains("[libinsitu.so.1]"), "{text}");
    Ok(())
}
