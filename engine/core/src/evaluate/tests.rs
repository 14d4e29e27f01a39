use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::*;

/// Pages of which the last is inaccessible: whoever goes beyond what ends there dies.
struct Fenced {
    base: *mut u8,
    bytes: usize,
}

const PAGE: usize = 1 << 16;

impl Fenced {
    fn new(room: usize) -> Fenced {
        let bytes = room.next_multiple_of(PAGE) + 2 * PAGE;
        // SAFETY: new pages; of them the first and the last are closed.
        let base = unsafe {
            let flags = ProtFlags::READ | ProtFlags::WRITE;
            let base = mmap_anonymous(std::ptr::null_mut(), bytes, flags, MapFlags::PRIVATE);
            let base = base.unwrap().cast::<u8>();
            mprotect(base.cast(), PAGE, MprotectFlags::empty()).unwrap();
            mprotect(base.add(bytes - PAGE).cast(), PAGE, MprotectFlags::empty()).unwrap();
            base
        };
        Fenced { base, bytes }
    }

    /// An array that ends where the closed page begins.
    fn at_the_end<T: Copy>(&self, values: &[T]) -> *mut u8 {
        let size = std::mem::size_of_val(values);
        // SAFETY: within the open pages.
        unsafe {
            let at = self.base.add(self.bytes - PAGE - size);
            at.copy_from_nonoverlapping(values.as_ptr().cast(), size);
            at
        }
    }

    /// An array that begins where the closed page ends.
    fn at_the_start<T: Copy>(&self, values: &[T]) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            let at = self.base.add(PAGE);
            at.copy_from_nonoverlapping(values.as_ptr().cast(), std::mem::size_of_val(values));
            at
        }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: mapped above, and nobody has it any more.
        unsafe { munmap(self.base.cast(), self.bytes).unwrap() };
    }
}

fn operand(dtype: DataType) -> Operand {
    Operand { dtype, boolean: false, scalar: false }
}

fn read<T: Copy>(at: *const u8, rows: usize) -> Vec<T> {
    // SAFETY: the tests give arrays of so many rows.
    unsafe { std::slice::from_raw_parts(at.cast::<T>(), rows).to_vec() }
}

#[test]
fn nothing_beyond_the_arrays_is_touched() {
    let formulas = [
        "a*b + 2*c",
        "a + i",
        "where(f > a, i, c)",
        "(a > b) & ~(i == 3)",
        "sin(a)*exp(f) + log(b)",
        "i // 3 + i % u",
        "f*f - f",
        "sqrt(a)",
        "u + u",
        "u > 3",
        "i**2",
        "i",
        "-u",
        "a % b",
        "a**b",
        "maximum(a, b)",
    ];
    for rows in [1, 2, 7, 63, 64, 65, 255, 256, 257, 1000, 4099, 70_001] {
        let a: Vec<f64> = (0..rows).map(|i| i as f64 * 0.5 + 0.25).collect();
        let f: Vec<f32> = (0..rows).map(|i| (i % 17) as f32).collect();
        let i: Vec<i32> = (0..rows).map(|i| i as i32 - 20).collect();
        let u: Vec<u8> = (0..rows).map(|i| i as u8).collect();
        let fences: Vec<Fenced> = (0..7).map(|_| Fenced::new(rows * 8)).collect();
        for text in formulas {
            let formula = Formula::parse(text, false).unwrap();
            for start in [false, true] {
                let mut operands = Vec::new();
                let mut arguments = Vec::new();
                for (name, fence) in formula.names().iter().zip(&fences) {
                    macro_rules! place {
                        ($values:expr) => {
                            if start {
                                fence.at_the_start($values)
                            } else {
                                fence.at_the_end($values)
                            }
                        };
                    }
                    let (dtype, at) = match &**name {
                        "f" => (DataType::Float32, place!(&f)),
                        "i" => (DataType::Int32, place!(&i)),
                        "u" => (DataType::UInt8, place!(&u)),
                        _ => (DataType::Float64, place!(&a)),
                    };
                    operands.push(operand(dtype));
                    arguments.push(Argument::Array(at));
                }
                let program = formula.program(&operands).unwrap();
                let out = vec![0u8; rows * width(program.kind())];
                let fence = &fences[6];
                let out = if start { fence.at_the_start(&out) } else { fence.at_the_end(&out) };
                // SAFETY: arrays of that many rows.
                unsafe { program.run(&arguments, rows, out, &|| false) }.unwrap();
                match text {
                    "a*b + 2*c" => {
                        let expected: Vec<f64> = a.iter().map(|a| a * a + 2.0 * a).collect();
                        assert_eq!(read::<f64>(out, rows), expected);
                    }
                    "u + u" => {
                        let expected: Vec<i32> = u.iter().map(|u| i32::from(*u) * 2).collect();
                        assert_eq!(read::<i32>(out, rows), expected);
                    }
                    "u > 3" => {
                        let expected: Vec<u8> = u.iter().map(|u| u8::from(*u > 3)).collect();
                        assert_eq!(read::<u8>(out, rows), expected);
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn the_result_may_lie_over_an_operand() {
    for rows in [5, 1000, 200_000, 3_000_000] {
        let first: Vec<f64> = (0..rows + 8).map(|i| i as f64 + 0.5).collect();
        let formula = Formula::parse("a*a + b", false).unwrap();
        let program = formula.program(&vec![operand(DataType::Float64); 2]).unwrap();
        let expected = |a: usize, b: usize| -> Vec<f64> {
            (0..rows).map(|i| first[a + i] * first[a + i] + first[b + i]).collect()
        };
        for (a, b, out) in [(0, 0, 0), (8, 8, 8), (8, 0, 4), (0, 8, 8), (0, 8, 1), (3, 3, 2)] {
            let mut values = first.clone();
            let base = values.as_mut_ptr();
            // SAFETY: all within the vector, which has 8 values more than rows.
            unsafe {
                let array = |at: usize| Argument::Array(base.add(at).cast_const().cast());
                let out = base.add(out).cast();
                program.run(&[array(a), array(b)], rows, out, &|| false).unwrap();
            }
            assert_eq!(values[out..out + rows], expected(a, b), "{rows}: {a} {b} {out}");
        }
        let copy = Formula::parse("a", false).unwrap();
        let copy = copy.program(&[operand(DataType::Float64)]).unwrap();
        let mut values = first.clone();
        let base = values.as_mut_ptr();
        // SAFETY: as above.
        unsafe {
            let a = Argument::Array(base.cast_const().cast());
            copy.run(&[a], rows, base.add(3).cast(), &|| false).unwrap();
        }
        assert_eq!(values[3..3 + rows], first[..rows]);
    }
}

#[test]
fn reductions_say_what_does_not_fit() {
    let values = [i32::MAX, 1, -1];
    let run = |text: &str, rows: usize| {
        let formula = Formula::parse(text, false).unwrap();
        let program = formula.program(&[operand(DataType::Int32)]).unwrap();
        let array = Argument::Array(values.as_ptr().cast());
        // SAFETY: at most three rows are asked for.
        unsafe { program.reduce(&[array], rows, &|| false) }
    };
    assert_eq!(run("sum(a)", 3).unwrap(), Some(Scalar::Int(i64::from(i32::MAX))));
    assert!(matches!(run("sum(a)", 2), Err(Error::Overflow(_))));
    assert_eq!(run("max(a)", 3).unwrap(), Some(Scalar::Int(i64::from(i32::MAX))));
    assert_eq!(run("sum(a)", 0).unwrap(), Some(Scalar::Int(0)));
    assert_eq!(run("prod(a)", 0).unwrap(), Some(Scalar::Int(1)));
    assert_eq!(run("min(a)", 0).unwrap(), None);
}

#[test]
fn values_change_without_another_program() {
    let formula = Formula::parse("a*k + b", false).unwrap();
    let scalar = |dtype| Operand { scalar: true, ..operand(dtype) };
    let operands = [scalar(DataType::Float64), scalar(DataType::Int64), scalar(DataType::Float64)];
    let program = formula.program(&operands).unwrap();
    assert!(Arc::ptr_eq(&program, &formula.program(&operands).unwrap()));
    for k in [0.5, -3.0] {
        let arguments = [Scalar::Float(4.0), Scalar::Int(7), Scalar::Float(k)].map(Argument::Value);
        let mut out = [0f64];
        // SAFETY: one row.
        unsafe { program.run(&arguments, 1, out.as_mut_ptr().cast(), &|| false) }.unwrap();
        assert_eq!(out, [4.0 * k + 7.0]);
    }
    // Other operands than it was compiled for are refused.
    let mut out = [0f64; 2];
    // SAFETY: nothing is read.
    unsafe {
        let arguments = [Argument::Value(Scalar::Float(4.0))];
        assert!(program.run(&arguments, 1, out.as_mut_ptr().cast(), &|| false).is_err());
    }
}
