//! Tests of the machine code that loops became: those that claim to be vectorised are disassembled
//! (by `objdump`, of GNU binutils) and must have a packed body. v4's are read where they cannot run.

use std::process::Command;

use crate::level::{Level, with_all_levels};
use crate::prim::Prim;
use crate::tile::{Arith, Chain, Math, Math2, TileFn, arith, chain3, math, math2};

/// The instructions of a function of this program, each with its operands.
fn listing(program: &str, base: usize, f: TileFn) -> Vec<String> {
    let start = f as usize - base;
    let out = Command::new("objdump")
        .args(["--disassemble", "--no-show-raw-insn"])
        .arg(format!("--start-address={start:#x}"))
        .arg(format!("--stop-address={:#x}", start + 0x4000))
        .arg(program)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    // The second label is that of the next function.
    let is_label = |line: &&str| line.ends_with(">:");
    let own = text.lines().skip_while(|l| !is_label(l)).skip(1).take_while(|l| !is_label(l));
    own.filter_map(|l| l.split_once(":\t")).map(|(_, code)| code.trim().to_owned()).collect()
}

/// This program's file and where it is loaded. `None`: nothing here tells (or disassembles).
fn program() -> Option<(String, usize)> {
    Command::new("objdump").arg("--version").output().ok()?;
    let file = std::env::current_exe().ok()?.to_str()?.to_owned();
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let first = maps.lines().find(|l| l.ends_with(&file) && l.contains(" 00000000 "))?;
    let base = usize::from_str_radix(first.split('-').next()?, 16).ok()?;
    Some((file, base))
}

#[test]
fn loops_that_claim_it_are_vectorised() {
    // Where the standard library checks every pointer, no loop is vectorised.
    if !cfg!(target_arch = "x86_64") || cfg!(debug_assertions) {
        return;
    }
    let Some((file, base)) = program() else {
        println!("no objdump: machine code is not looked at");
        return;
    };
    for (level, register, lanes) in [(Level::V3, "%ymm", 4), (Level::V4, "%zmm", 8)] {
        let mut kernels: Vec<(String, TileFn)> = Vec::new();
        with_all_levels(|| {
            for p in [Prim::F64, Prim::F32] {
                for op in Math::ALL {
                    kernels.extend(math(*op, p, level).map(|f| (format!("{op:?} {p:?}"), f)));
                }
                for op in Math2::ALL {
                    kernels.extend(math2(*op, p, level).map(|f| (format!("{op:?} {p:?}"), f)));
                }
                for op in [Arith::Add, Arith::Mul, Arith::Div] {
                    kernels.extend(arith(op, p, level).map(|f| (format!("{op:?} {p:?}"), f)));
                }
                let chain = chain3(Chain::Mul, Chain::Add, Chain::RSub, p, level);
                kernels.extend(chain.map(|f| (format!("chain {p:?}"), f)));
            }
        });
        for (name, f) in kernels {
            let code = listing(&file, base, f);
            assert!(code.len() > 10, "{name} {level:?}: no code was found");
            let mnemonic = |line: &String| line.split_whitespace().next().map(str::to_owned);
            let packed = code
                .iter()
                .filter(|l| l.contains(register))
                .filter_map(mnemonic)
                .filter(|m| m.starts_with('v') && (m.ends_with("pd") || m.ends_with("ps")))
                .filter(|m| ["add", "sub", "mul", "div"].iter().any(|op| m.contains(op)))
                .count();
            assert!(packed > 0, "{name} {level:?} has no arithmetic on {lanes} lanes:\n{code:#?}");
            // Rare arguments alone may be done by a function that is called.
            let is_call = |l: &&String| l.starts_with("call") && !l.contains("huge");
            let calls = code.iter().filter(is_call).count();
            assert!(calls == 0, "{name} {level:?} calls {calls} times:\n{code:#?}");
        }
    }
}
