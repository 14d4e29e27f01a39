//! Random operations by several processes against a simple model: after each, every process sees
//! the names and contents that the model has, through new handles and through those it has held on
//! to, also when others were killed; and at the end nothing is left over.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Int64Array, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use insitu::{CreateOptions, Error, ErrorCode, Expr, Location, Region, Table, UpdateOptions};
use proptest::prelude::*;

const ROLE: &str = "INSITU_TEST_ROLE";
const PROCESSES: usize = 3;
/// Places for handles, and for views, in each process.
const PLACES: usize = 4;
const NAMES: u8 = 5;

/// What one process is told to do.
#[derive(Clone, Debug)]
enum Op {
    Put {
        name: u8,
        from: i16,
        rows: u16,
        replace: bool,
    },
    Share {
        name: u8,
        from: u8,
    },
    Append {
        name: u8,
        from: i16,
        rows: u8,
    },
    /// Through a new handle.
    Update {
        name: u8,
        add: i8,
        atomic: bool,
    },
    /// Through a handle that is held.
    UpdateHeld {
        place: usize,
        add: i8,
    },
    Delete {
        name: u8,
    },
    Hold {
        name: u8,
        place: usize,
    },
    Release {
        place: usize,
    },
    View {
        place: usize,
    },
    Forget {
        place: usize,
    },
    Latest {
        place: usize,
    },
    Gc,
    Trim,
    Kill,
}

fn ops() -> impl Strategy<Value = (usize, Op)> {
    let name = || 0..NAMES;
    let place = || 0..PLACES;
    let rows = prop_oneof![0_u16..50, 0_u16..9_000];
    let op = prop_oneof![
        5 => (name(), any::<i16>(), rows, any::<bool>())
            .prop_map(|(name, from, rows, replace)| Op::Put { name, from, rows, replace }),
        2 => (name(), name()).prop_map(|(name, from)| Op::Share { name, from }),
        3 => (name(), any::<i16>(), 1_u8..90)
            .prop_map(|(name, from, rows)| Op::Append { name, from, rows }),
        4 => (name(), any::<i8>(), any::<bool>())
            .prop_map(|(name, add, atomic)| Op::Update { name, add, atomic }),
        2 => (place(), any::<i8>()).prop_map(|(place, add)| Op::UpdateHeld { place, add }),
        2 => name().prop_map(|name| Op::Delete { name }),
        4 => (name(), place()).prop_map(|(name, place)| Op::Hold { name, place }),
        1 => place().prop_map(|place| Op::Release { place }),
        3 => place().prop_map(|place| Op::View { place }),
        1 => place().prop_map(|place| Op::Forget { place }),
        1 => place().prop_map(|place| Op::Latest { place }),
        1 => Just(Op::Gc),
        1 => Just(Op::Trim),
        1 => Just(Op::Kill),
    ];
    (0..PROCESSES, op)
}

// --- The processes ---------------------------------------------------------------------------

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("s", DataType::Utf8, true),
    ]))
}

fn batch(from: i64, rows: usize) -> RecordBatch {
    let numbers = from..from + rows as i64;
    let text = numbers.clone().map(|n| (n % 3 != 0).then(|| n.to_string()));
    let columns: [Arc<dyn arrow_array::Array>; 2] = [
        Arc::new(Int64Array::from_iter_values(numbers.clone())),
        Arc::new(StringArray::from_iter(text)),
    ];
    RecordBatch::try_new(schema(), columns.into()).unwrap()
}

/// A number for a content.
fn digest(numbers: impl Iterator<Item = i64>) -> String {
    let (mut sum, mut rows) = (0_u64, 0_u64);
    for n in numbers {
        sum = sum.rotate_left(7).wrapping_mul(31) ^ n as u64;
        rows += 1;
    }
    format!("{rows}:{sum:x}")
}

fn digest_of(batches: &[RecordBatch]) -> String {
    digest(batches.iter().flat_map(|batch| {
        let numbers = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(batch.column(1).len(), numbers.len());
        numbers
    }))
}

struct Process {
    region: Region,
    handles: Vec<Option<Table>>,
    views: Vec<Option<Vec<RecordBatch>>>,
}

impl Process {
    /// Does as it is told; what came of it.
    fn obey(&mut self, order: &str) -> insitu::Result<String> {
        let words: Vec<&str> = order.split_whitespace().collect();
        let number = |i: usize| words[i].parse::<i64>().unwrap();
        let place = |i: usize| number(i) as usize;
        let add = |table: &Table, by: i64, atomic: bool| {
            let sets = vec![("n".into(), Expr::column("n") + Expr::literal(by))];
            table.update(sets, None, UpdateOptions { atomic, ..UpdateOptions::default() })
        };
        let done = Ok("ok".to_owned());
        match words[0] {
            "put" => {
                let batch = batch(number(2), number(3) as usize);
                self.region.put(words[1], schema(), [Ok(batch)], words[4] == "true")?;
                done
            }
            "share" => {
                let table = self.region.get(words[2])?;
                self.region.put_table(words[1], &table, true)?;
                done
            }
            "append" => {
                let batch = batch(number(2), number(3) as usize);
                self.region.get(words[1])?.append(&schema(), [Ok(batch)], &|| false)?;
                done
            }
            "update" => {
                add(&self.region.get(words[1])?, number(2), words[3] == "true")?;
                done
            }
            "update-held" => {
                add(self.handles[place(1)].as_ref().unwrap(), number(2), false)?;
                done
            }
            "delete" => {
                self.region.delete(words[1])?;
                done
            }
            "hold" => {
                self.handles[place(2)] = Some(self.region.get(words[1])?);
                done
            }
            "release" => {
                self.handles[place(1)] = None;
                done
            }
            "view" => {
                let table = self.handles[place(1)].as_ref().unwrap();
                self.views[place(1)] = Some(table.to_batches()?);
                done
            }
            "forget" => {
                self.views[place(1)] = None;
                done
            }
            "latest" => {
                let latest = self.handles[place(1)].as_ref().unwrap().latest()?;
                self.handles[place(1)] = Some(latest);
                done
            }
            "gc" => self.region.gc().map(|_| "ok".into()),
            "trim" => self.region.trim().map(|_| "ok".into()),
            "look" => {
                let mut seen = Vec::new();
                for name in self.region.names()? {
                    let table = self.region.get(&name)?;
                    seen.push(format!("{name}={}", digest_of(&table.to_batches()?)));
                }
                for (i, table) in self.handles.iter().enumerate() {
                    if let Some(table) = table {
                        seen.push(format!("h{i}={}", digest_of(&table.to_batches()?)));
                    }
                }
                for (i, view) in self.views.iter().enumerate() {
                    if let Some(view) = view {
                        seen.push(format!("v{i}={}", digest_of(view)));
                    }
                }
                Ok(seen.join(" "))
            }
            other => panic!("no order {other}"),
        }
    }
}

/// Not a test of its own: what the processes run.
#[test]
fn role() {
    let Ok(name) = std::env::var(ROLE) else { return };
    let region = Region::open(Location::Shm(name), false).unwrap();
    let mut process = Process { region, handles: vec![None; PLACES], views: vec![None; PLACES] };
    for order in std::io::stdin().lines() {
        let answer = match process.obey(&order.unwrap()) {
            Ok(answer) => answer,
            Err(e) => format!("{:?}", e.code()),
        };
        println!("\n> {answer}");
    }
}

struct Peer {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Peer {
    fn start(name: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "role", "--nocapture"])
            .env(ROLE, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn ask(&mut self, order: &str) -> String {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{order}\n").as_bytes()).unwrap();
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.out.read_line(&mut line).unwrap(), 0, "{order}: the process ended");
            if let Some(answer) = line.trim_end().strip_prefix("> ") {
                return answer.to_owned();
            }
            if line.trim_end() == ">" {
                return String::new();
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// --- The model -------------------------------------------------------------------------------

/// What a process holds: the table of a handle, and the content of a view.
#[derive(Clone, Default)]
struct Held {
    handles: [Option<usize>; PLACES],
    views: [Option<Vec<i64>>; PLACES],
}

/// Tables by number: an update changes one's content, whatever is put or appended is another.
#[derive(Default)]
struct Model {
    tables: Vec<Vec<i64>>,
    names: BTreeMap<String, usize>,
    /// Where handles of a table were left behind by appends: to what its name has become.
    held: [Held; PROCESSES],
    /// The name that each table had at first.
    named: Vec<String>,
}

impl Model {
    fn make(&mut self, name: &str, content: Vec<i64>) {
        self.names.insert(name.to_owned(), self.tables.len());
        self.tables.push(content);
        self.named.push(name.to_owned());
    }

    /// The order for an operation, and the answer that it must get; `None`: it makes no sense now.
    fn apply(&mut self, process: usize, op: &Op) -> Option<(String, String)> {
        let ok = || "ok".to_owned();
        let code = |code: ErrorCode| format!("{code:?}");
        let missing = code(ErrorCode::TableNotFound);
        let called = |name: u8| format!("n{name}");
        let numbers = |from: i16, rows: usize| {
            (i64::from(from)..i64::from(from) + rows as i64).collect::<Vec<_>>()
        };
        let add = |content: &mut Vec<i64>, by: i8| {
            content.iter_mut().for_each(|n| *n += i64::from(by));
        };
        Some(match *op {
            Op::Put { name, from, rows, replace } => {
                let name = called(name);
                let order = format!("put {name} {from} {rows} {replace}");
                if !replace && self.names.contains_key(&name) {
                    return Some((order, code(ErrorCode::TableExists)));
                }
                self.make(&name, numbers(from, rows.into()));
                (order, ok())
            }
            Op::Share { name, from } => {
                let (name, from) = (called(name), called(from));
                let order = format!("share {name} {from}");
                let Some(&table) = self.names.get(&from) else { return Some((order, missing)) };
                self.make(&name, self.tables[table].clone());
                (order, ok())
            }
            Op::Append { name, from, rows } => {
                let name = called(name);
                let order = format!("append {name} {from} {rows}");
                let Some(&table) = self.names.get(&name) else { return Some((order, missing)) };
                let mut content = self.tables[table].clone();
                content.extend(numbers(from, rows.into()));
                self.make(&name, content);
                (order, ok())
            }
            Op::Update { name, add: by, atomic } => {
                let name = called(name);
                let order = format!("update {name} {by} {atomic}");
                let Some(&table) = self.names.get(&name) else { return Some((order, missing)) };
                add(&mut self.tables[table], by);
                (order, ok())
            }
            Op::UpdateHeld { place, add: by } => {
                let table = self.held[process].handles[place]?;
                let order = format!("update-held {place} {by}");
                if self.names.get(&self.named[table]) != Some(&table) {
                    return Some((order, code(ErrorCode::Stale)));
                }
                add(&mut self.tables[table], by);
                (order, ok())
            }
            Op::Delete { name } => {
                let name = called(name);
                let found = self.names.remove(&name).is_some();
                (format!("delete {name}"), if found { ok() } else { missing })
            }
            Op::Hold { name, place } => {
                let name = called(name);
                let order = format!("hold {name} {place}");
                let Some(&table) = self.names.get(&name) else { return Some((order, missing)) };
                self.held[process].handles[place] = Some(table);
                (order, ok())
            }
            Op::Release { place } => {
                self.held[process].handles[place] = None;
                (format!("release {place}"), ok())
            }
            Op::View { place } => {
                let table = self.held[process].handles[place]?;
                self.held[process].views[place] = Some(self.tables[table].clone());
                (format!("view {place}"), ok())
            }
            Op::Forget { place } => {
                self.held[process].views[place] = None;
                (format!("forget {place}"), ok())
            }
            Op::Latest { place } => {
                let table = self.held[process].handles[place]?;
                let order = format!("latest {place}");
                let Some(&latest) = self.names.get(&self.named[table]) else {
                    return Some((order, missing));
                };
                self.held[process].handles[place] = Some(latest);
                (order, ok())
            }
            Op::Gc => ("gc".into(), ok()),
            Op::Trim => ("trim".into(), ok()),
            Op::Kill => return None,
        })
    }

    /// What a process must see.
    fn seen(&self, process: usize) -> String {
        let mut seen = Vec::new();
        let digest = |content: &[i64]| digest(content.iter().copied());
        for (name, &table) in &self.names {
            seen.push(format!("{name}={}", digest(&self.tables[table])));
        }
        let held = &self.held[process];
        for (i, table) in held.handles.iter().enumerate() {
            if let Some(table) = table {
                seen.push(format!("h{i}={}", digest(&self.tables[*table])));
            }
        }
        for (i, view) in held.views.iter().enumerate() {
            if let Some(view) = view {
                seen.push(format!("v{i}={}", digest(view)));
            }
        }
        seen.join(" ")
    }
}

struct Place(String);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Region::remove(&Location::Shm(self.0.clone()));
    }
}

fn run(script: Vec<(usize, Op)>) {
    let place = Place(format!("test-model-{}", std::process::id()));
    let options = CreateOptions { capacity: Some(64 << 20), ..CreateOptions::default() };
    let region = Region::create(Location::Shm(place.0.clone()), options).unwrap();
    let mut peers: Vec<Peer> = (0..PROCESSES).map(|_| Peer::start(&place.0)).collect();
    let mut model = Model::default();
    for (step, (process, op)) in script.iter().enumerate() {
        if let Op::Kill = op {
            peers[*process] = Peer::start(&place.0);
            model.held[*process] = Held::default();
        }
        if let Some((order, expected)) = model.apply(*process, op) {
            assert_eq!(peers[*process].ask(&order), expected, "step {step}: {order}");
        }
        for (i, peer) in peers.iter_mut().enumerate() {
            assert_eq!(peer.ask("look"), model.seen(i), "step {step}, after {op:?}: process {i}");
        }
        let report = region.verify();
        assert!(report.ok(), "step {step}, after {op:?}: {:?}", report.problems);
    }
    drop(peers);
    for name in region.names().unwrap() {
        region.delete(&name).unwrap();
    }
    region.gc().unwrap();
    let stats = region.stats().unwrap();
    assert_eq!((stats.used, stats.retired, stats.sessions), (0, 0, 1), "{stats:?}");
    assert!(matches!(region.get("n0"), Err(Error::TableNotFound { .. })));
}

/// `CASES` says how many scripts are tried.
fn config() -> ProptestConfig {
    let cases = std::env::var("CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn several_processes_agree_with_a_model(script in prop::collection::vec(ops(), 1..60)) {
        if std::env::var(ROLE).is_err() {
            run(script);
        }
    }
}
