//! The transcendental functions alone, at every instruction level that this processor has, beside
//! the standard library's (the system's libm): 10,000 values, which stay in the cache.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use insitu_kernels::tile::{Math, Math2, math, math2};
use insitu_kernels::{Level, Prim, TileFn};

const ROWS: usize = 10_000;
/// Rows of a tile of 8-byte values, as programs have it.
const TILE: usize = 256;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Runs the kernel over all rows, tile by tile.
fn run<T>(kernel: TileFn, out: &mut [T], x: &[T], y: &[T]) {
    for ((out, x), y) in out.chunks_mut(TILE).zip(x.chunks(TILE)).zip(y.chunks(TILE)) {
        let operands = [x.as_ptr().cast(), y.as_ptr().cast(), std::ptr::null(), std::ptr::null()];
        // SAFETY: operands and destination have as many values as the tile has rows, at most TILE.
        unsafe { kernel(out.as_mut_ptr().cast(), &operands, out.len()) };
    }
}

/// Values in the middle of the function's domain.
fn values(op: Math) -> Vec<f64> {
    let (low, high) = match op {
        Math::Log | Math::Log2 | Math::Log10 => (0.001, 1000.0),
        Math::Log1p => (-0.9, 100.0),
        Math::Acosh => (1.0, 1000.0),
        Math::Atanh | Math::Asin | Math::Acos => (-1.0, 1.0),
        _ => (-20.0, 20.0),
    };
    (0..ROWS).map(|row| low + (high - low) * (row * 7919 % ROWS) as f64 / ROWS as f64).collect()
}

/// The standard library's function.
fn of_std(op: Math) -> fn(f64) -> f64 {
    match op {
        Math::Exp => f64::exp,
        Math::Exp2 => f64::exp2,
        Math::Expm1 => f64::exp_m1,
        Math::Log => f64::ln,
        Math::Log2 => f64::log2,
        Math::Log10 => f64::log10,
        Math::Log1p => f64::ln_1p,
        Math::Sinh => f64::sinh,
        Math::Cosh => f64::cosh,
        Math::Tanh => f64::tanh,
        Math::Asinh => f64::asinh,
        Math::Acosh => f64::acosh,
        Math::Atanh => f64::atanh,
        Math::Sin => f64::sin,
        Math::Cos => f64::cos,
        Math::Tan => f64::tan,
        Math::Asin => f64::asin,
        Math::Acos => f64::acos,
        Math::Atan => f64::atan,
        Math::Cbrt => f64::cbrt,
        Math::Degrees => f64::to_degrees,
        Math::Radians => f64::to_radians,
    }
}

fn main() -> Outcome {
    let mut c = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .sample_size(20)
        .configure_from_args();
    for op in Math::ALL {
        let x = values(*op);
        let narrow: Vec<f32> = x.iter().map(|x| *x as f32).collect();
        let (mut out, mut narrow_out) = (vec![0f64; ROWS], vec![0f32; ROWS]);
        let mut group = c.benchmark_group(format!("{op:?}, 10000 values"));
        group.throughput(Throughput::Elements(ROWS as u64));
        let std = of_std(*op);
        group.bench_function("f64 std", |bench| {
            bench.iter(|| out.iter_mut().zip(&x).for_each(|(out, x)| *out = std(*x)));
        });
        for level in Level::available() {
            let kernel = math(*op, Prim::F64, level).ok_or("no such kernel")?;
            group.bench_function(BenchmarkId::new("f64", format!("{level:?}")), |bench| {
                bench.iter(|| run(kernel, &mut out, &x, &x));
            });
            let kernel = math(*op, Prim::F32, level).ok_or("no such kernel")?;
            group.bench_function(BenchmarkId::new("f32", format!("{level:?}")), |bench| {
                bench.iter(|| run(kernel, &mut narrow_out, &narrow, &narrow));
            });
        }
        group.finish();
    }

    let x: Vec<f64> = (0..ROWS).map(|row| 0.01 + (row * 7919 % ROWS) as f64 / 100.0).collect();
    let y: Vec<f64> = (0..ROWS).map(|row| (row * 6007 % ROWS) as f64 / 500.0 - 10.0).collect();
    let narrow = [&x, &y].map(|v| v.iter().map(|v| *v as f32).collect::<Vec<_>>());
    let (mut out, mut narrow_out) = (vec![0f64; ROWS], vec![0f32; ROWS]);
    for (op, std) in [
        (Math2::Pow, f64::powf as fn(f64, f64) -> f64),
        (Math2::Atan2, f64::atan2),
        (Math2::Hypot, f64::hypot),
    ] {
        let mut group = c.benchmark_group(format!("{op:?}, 10000 values"));
        group.throughput(Throughput::Elements(ROWS as u64));
        group.bench_function("f64 std", |bench| {
            bench.iter(|| {
                out.iter_mut().zip(x.iter().zip(&y)).for_each(|(o, (x, y))| *o = std(*x, *y));
            });
        });
        for level in Level::available() {
            let kernel = math2(op, Prim::F64, level).ok_or("no such kernel")?;
            group.bench_function(BenchmarkId::new("f64", format!("{level:?}")), |bench| {
                bench.iter(|| run(kernel, &mut out, &x, &y));
            });
            let kernel = math2(op, Prim::F32, level).ok_or("no such kernel")?;
            group.bench_function(BenchmarkId::new("f32", format!("{level:?}")), |bench| {
                bench.iter(|| run(kernel, &mut narrow_out, &narrow[0], &narrow[1]));
            });
        }
        group.finish();
    }
    c.final_summary();
    Ok(())
}
