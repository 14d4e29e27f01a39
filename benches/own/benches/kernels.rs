//! The loops alone, without plans, threads or regions: polynomial chains, comparison, sum, and the
//! copy that gathers statistics, at every instruction level that this processor has. Operands are
//! in the L1 cache where the engine has them there.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use insitu_kernels::copy::copy_with_stats;
use insitu_kernels::reduce::{MomentsF64, SumF64};
use insitu_kernels::tile::{Arith, Chain, Compare, arith, chain3, compare};
use insitu_kernels::{Level, Prim, TileFn};

/// Rows of a tile of 8-byte values, as programs have it.
const TILE: usize = 256;
/// Rows of a zone: what one thread takes at a time.
const ZONE: usize = 65_536;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Values on a multiple of 64 bytes, as every buffer of the engine.
struct Column {
    values: Vec<f64>,
    start: usize,
}

impl Column {
    fn new(rows: usize, value: impl Fn(usize) -> f64) -> Column {
        let mut values = vec![0.0; rows + 8];
        let start = values.as_ptr().align_offset(64).min(8);
        for (row, slot) in values[start..start + rows].iter_mut().enumerate() {
            *slot = value(row);
        }
        Column { values, start }
    }

    fn get(&self) -> *const u8 {
        self.values[self.start..].as_ptr().cast()
    }

    fn get_mut(&mut self) -> *mut u8 {
        self.values[self.start..].as_mut_ptr().cast()
    }
}

/// 0.25*x*x*x + 0.75*x*y - 1.5*y + 2 on one tile, as nine instructions and as three.
fn polynomial(c: &mut Criterion) -> Outcome {
    let mut group = c.benchmark_group("polynomial, 256 rows f64");
    group.throughput(Throughput::Elements(TILE as u64));
    let (x, y) =
        (Column::new(TILE, |row| row as f64), Column::new(TILE, |row| 1.0 / (row + 1) as f64));
    let [quarter, three_quarters, one_and_half, two] =
        [0.25, 0.75, 1.5, 2.0].map(|v| Column::new(TILE, |_| v));
    let [mut a, mut b, mut out] = [0.0; 3].map(|v| Column::new(TILE, |_| v));
    let (x, y) = (x.get(), y.get());
    let (quarter, three_quarters) = (quarter.get(), three_quarters.get());
    let (one_and_half, two) = (one_and_half.get(), two.get());
    let (a, b, out) = (a.get_mut(), b.get_mut(), out.get_mut());
    let none = std::ptr::null();
    for level in Level::available() {
        let single = |op| arith(op, Prim::F64, level).ok_or("no such kernel");
        let (add, sub, mul) = (single(Arith::Add)?, single(Arith::Sub)?, single(Arith::Mul)?);
        // A destination is never an operand of the same instruction, as in compiled programs.
        let nine: [(TileFn, *mut u8, [*const u8; 2]); 9] = [
            (mul, a, [quarter, x]),
            (mul, b, [a, x]),
            (mul, a, [b, x]),
            (mul, b, [three_quarters, x]),
            (mul, out, [b, y]),
            (add, b, [a, out]),
            (mul, a, [one_and_half, y]),
            (sub, out, [b, a]),
            (add, a, [out, two]),
        ];
        group.bench_function(BenchmarkId::new("nine operators", format!("{level:?}")), |bench| {
            bench.iter(|| {
                for (kernel, dst, [left, right]) in nine {
                    // SAFETY: all operands and destinations hold TILE values, and no destination is an
                    // operand of its instruction.
                    unsafe { kernel(dst, &[left, right, none, none], TILE) };
                }
            });
        });
        let fused = |a, b, c| chain3(a, b, c, Prim::F64, level).ok_or("no such kernel");
        let three: [(TileFn, *mut u8, [*const u8; 4]); 3] = [
            (fused(Chain::Mul, Chain::Mul, Chain::Mul)?, a, [quarter, x, x, x]),
            (fused(Chain::Mul, Chain::Mul, Chain::Add)?, b, [three_quarters, x, y, a]),
            (fused(Chain::Mul, Chain::RSub, Chain::Add)?, out, [one_and_half, y, b, two]),
        ];
        group.bench_function(BenchmarkId::new("three chains", format!("{level:?}")), |bench| {
            bench.iter(|| {
                for (kernel, dst, operands) in &three {
                    // SAFETY: as above.
                    unsafe { kernel(*dst, operands, TILE) };
                }
            });
        });
    }
    group.finish();
    Ok(())
}

fn compare_and_sum(c: &mut Criterion) -> Outcome {
    let column = Column::new(ZONE, |row| (row % 1000) as f64);
    let limit = Column::new(TILE, |_| 500.0);
    let mut bits = [0u64; TILE / 64];

    let mut group = c.benchmark_group("compare, 256 rows f64 to bits");
    group.throughput(Throughput::Elements(TILE as u64));
    for level in Level::available() {
        let kernel = compare(Compare::Lt, Prim::F64, level);
        let operands = [column.get(), limit.get(), std::ptr::null(), std::ptr::null()];
        group.bench_function(BenchmarkId::from_parameter(format!("{level:?}")), |bench| {
            // SAFETY: the operands hold TILE values, the destination a bit for each.
            bench.iter(|| unsafe { kernel(bits.as_mut_ptr().cast(), &operands, TILE) });
        });
    }
    group.finish();

    let mask = vec![0x5555_5555_5555_5555u64; ZONE / 64];
    let mut group = c.benchmark_group("sum, one zone f64");
    group.throughput(Throughput::Bytes(ZONE as u64 * 8));
    for level in Level::available() {
        for (what, mask) in
            [("all rows", std::ptr::null()), ("every other row", mask.as_ptr().cast())]
        {
            let fresh = SumF64::new(Prim::F64, level).ok_or("no such kernel")?;
            group.bench_function(BenchmarkId::new(what, format!("{level:?}")), |bench| {
                bench.iter(|| {
                    let mut sum = fresh.clone();
                    // SAFETY: ZONE values, and a bit for each.
                    unsafe { sum.add(0, column.get(), mask, ZONE) };
                    sum.finish()
                });
            });
        }
    }
    group.finish();

    let mut group = c.benchmark_group("variance, one zone f64");
    group.throughput(Throughput::Bytes(ZONE as u64 * 8));
    for level in Level::available() {
        for (what, mask) in
            [("all rows", std::ptr::null()), ("every other row", mask.as_ptr().cast())]
        {
            let fresh = MomentsF64::new(Prim::F64, level).ok_or("no such kernel")?;
            group.bench_function(BenchmarkId::new(what, format!("{level:?}")), |bench| {
                bench.iter(|| {
                    let mut moments = fresh.clone();
                    // SAFETY: ZONE values, and a bit for each.
                    unsafe { moments.add(0, column.get(), mask, ZONE) };
                    moments.finish().variance(1)
                });
            });
        }
    }
    group.finish();
    Ok(())
}

fn copy(c: &mut Criterion) -> Outcome {
    const ROWS: usize = 64 * ZONE; // 32 MiB: larger than a cache share
    let source = Column::new(ROWS, |row| (row % 1000) as f64);
    let mut target = Column::new(ROWS, |_| 0.0);
    let (source, target) = (source.get(), target.get_mut());
    let mut group = c.benchmark_group("copy, 64 zones f64, one thread");
    group.throughput(Throughput::Bytes(ROWS as u64 * 8));
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("memcpy", |bench| {
        // SAFETY: both hold ROWS values, and are apart.
        bench.iter(|| unsafe { target.copy_from_nonoverlapping(source, ROWS * 8) });
    });
    for level in Level::available() {
        let kernel = copy_with_stats(Prim::F64, level);
        for (what, streaming) in [("with statistics, streaming", true), ("with statistics", false)]
        {
            group.bench_function(BenchmarkId::new(what, format!("{level:?}")), |bench| {
                bench.iter(|| {
                    for zone in 0..ROWS / ZONE {
                        let at = zone * ZONE * 8;
                        // SAFETY: zone is below ROWS / ZONE, and both hold ROWS values.
                        unsafe {
                            kernel(
                                target.add(at),
                                source.add(at),
                                std::ptr::null(),
                                ZONE,
                                streaming,
                            )
                        };
                    }
                });
            });
        }
    }
    group.finish();
    Ok(())
}

fn main() -> Outcome {
    let mut c = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    polynomial(&mut c)?;
    compare_and_sum(&mut c)?;
    copy(&mut c)?;
    c.final_summary();
    Ok(())
}
