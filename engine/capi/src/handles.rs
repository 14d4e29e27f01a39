//! Handles: numbers that stand for the engine's objects. A handle carries what kind it is, its place
//! and a generation, so that whatever number a caller gives, it is told for what it is: good, taken
//! back, of another kind, or none of ours.

use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use insitu::evaluate::Formula;
use insitu::{Error, Result};

use crate::lease::Lease;
use crate::slab::{GENERATION_BITS, INDEX_BITS, Missing, Slab, Use};
use crate::task::Task;

/// All that handles stand for, in this process.
static OBJECTS: Slab<Object> = Slab::new();

/// What a handle can stand for.
pub(crate) enum Object {
    Region(insitu::Region),
    Table(insitu::Table),
    Plan(insitu::Plan),
    Prepared(insitu::Prepared),
    Task(Task),
    Lease(Lease),
    Formula(Formula),
}

impl Object {
    fn kind(&self) -> Kind {
        match self {
            Object::Region(_) => Kind::Region,
            Object::Table(_) => Kind::Table,
            Object::Plan(_) => Kind::Plan,
            Object::Prepared(_) => Kind::Prepared,
            Object::Task(_) => Kind::Task,
            Object::Lease(_) => Kind::Lease,
            Object::Formula(_) => Kind::Formula,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Region = 1,
    Table,
    Plan,
    Prepared,
    Task,
    Lease,
    Formula,
}

impl Kind {
    const ALL: [Kind; 7] = [
        Kind::Region,
        Kind::Table,
        Kind::Plan,
        Kind::Prepared,
        Kind::Task,
        Kind::Lease,
        Kind::Formula,
    ];

    fn name(self) -> &'static str {
        match self {
            Kind::Region => "region",
            Kind::Table => "table",
            Kind::Plan => "plan",
            Kind::Prepared => "prepared query",
            Kind::Task => "task",
            Kind::Lease => "lease",
            Kind::Formula => "formula",
        }
    }
}

/// A type of handles.
pub(crate) trait Handle: Copy {
    /// What it stands for.
    type Target;
    /// Which kind that is.
    const KIND: Kind;

    fn of(id: u64) -> Self;
    fn id(self) -> u64;
    fn target(object: &Object) -> Option<&Self::Target>;
    fn object(target: Self::Target) -> Object;
}

macro_rules! handles {
    ($($handle:ident $kind:ident $target:ty;)*) => {$(
        impl Handle for $handle {
            type Target = $target;
            const KIND: Kind = Kind::$kind;

            fn of(id: u64) -> Self {
                $handle { id }
            }

            fn id(self) -> u64 {
                self.id
            }

            fn target(object: &Object) -> Option<&$target> {
                match object {
                    Object::$kind(target) => Some(target),
                    _ => None,
                }
            }

            fn object(target: $target) -> Object {
                Object::$kind(target)
            }
        }
    )*};
}

handles! {
    InsituRegion Region insitu::Region;
    InsituTable Table insitu::Table;
    InsituPlan Plan insitu::Plan;
    InsituPrepared Prepared insitu::Prepared;
    InsituTask Task Task;
    InsituLease Lease Lease;
    InsituFormula Formula Formula;
}

/// A region that is open: shared memory with named tables in it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InsituRegion {
    /// 0 stands for no region.
    pub id: u64,
}

/// A table of a region, or the result of a query. It keeps the memory of what it stands for, not its
/// content: others may update the table, and what is read next is what is there then.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InsituTable {
    /// 0 stands for no table.
    pub id: u64,
}

/// What is to be computed, of whatever table.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InsituPlan {
    /// 0 stands for no plan.
    pub id: u64,
}

/// A plan that was checked and compiled for a table, to be run more than once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InsituPrepared {
    /// 0 stands for no prepared query.
    pub id: u64,
}

/// What watches a call, and can cancel it, from another thread.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InsituTask {
    /// 0 stands for no task.
    pub id: u64,
}

/// A hold on the content of a table: shared, so that nobody changes it in place, or exclusive, so
/// that nobody else even reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InsituLease {
    /// 0 stands for no lease.
    pub id: u64,
}

/// A formula over arrays anywhere in the process, as `insitu_formula_evaluate` computes it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InsituFormula {
    /// 0 stands for no formula.
    pub id: u64,
}

/// What a handle stands for, as long as this is kept: whoever releases the handle meanwhile.
pub(crate) struct Held<H: Handle> {
    target: NonNull<H::Target>,
    _use: Use<'static, Object>,
    handle: PhantomData<H>,
}

impl<H: Handle> Deref for Held<H> {
    type Target = H::Target;

    #[inline]
    fn deref(&self) -> &H::Target {
        // SAFETY: it lies in the object in use, which stays where and as it is while it is used.
        unsafe { self.target.as_ref() }
    }
}

/// What a handle stands for.
#[inline]
pub(crate) fn get<H: Handle>(handle: H) -> Result<Held<H>> {
    let id = handle.id();
    let object = OBJECTS.get(index(id), generation(id)).map_err(|why| missing::<H>(id, why))?;
    match H::target(&object) {
        Some(target) if kind(id) == H::KIND as u64 => {
            Ok(Held { target: NonNull::from(target), _use: object, handle: PhantomData })
        }
        Some(_) => Err(missing::<H>(id, Missing::Never)),
        None => Err(wrong_kind::<H>(id, object.kind())),
    }
}

/// The same of a handle that may stand for nothing.
pub(crate) fn get_if<H: Handle>(handle: H) -> Result<Option<Held<H>>> {
    if handle.id() == 0 { Ok(None) } else { get(handle).map(Some) }
}

/// A handle for something.
pub(crate) fn give<H: Handle>(target: H::Target) -> Result<H> {
    let (index, generation) = OBJECTS.insert(H::object(target)).map_err(|_| {
        Error::LimitExceeded(
            "as many handles are in use as there can be (16 million); release some".into(),
        )
    })?;
    Ok(H::of(
        (H::KIND as u64) << (GENERATION_BITS + INDEX_BITS)
            | generation << INDEX_BITS
            | u64::from(index),
    ))
}

/// Takes a handle back; one that stands for nothing is fine.
pub(crate) fn release<H: Handle>(handle: H) -> Result<()> {
    if handle.id() == 0 {
        return Ok(());
    }
    // Of the right kind, before it is taken.
    drop(get(handle)?);
    let id = handle.id();
    let object = OBJECTS.take(index(id), generation(id)).map_err(|why| missing::<H>(id, why))?;
    drop(object);
    Ok(())
}

fn index(id: u64) -> u32 {
    (id & ((1 << INDEX_BITS) - 1)) as u32
}

fn generation(id: u64) -> u64 {
    id >> INDEX_BITS & ((1 << GENERATION_BITS) - 1)
}

fn kind(id: u64) -> u64 {
    id >> (GENERATION_BITS + INDEX_BITS)
}

#[cold]
fn missing<H: Handle>(id: u64, why: Missing) -> Error {
    let wanted = H::KIND.name();
    if id == 0 {
        return Error::InvalidArgument(format!(
            "a handle of a {wanted} is wanted, 0 stands for none"
        ));
    }
    let is = Kind::ALL.into_iter().find(|known| *known as u64 == kind(id));
    match (why, is) {
        (Missing::Gone, Some(is)) if is != H::KIND => wrong_kind::<H>(id, is),
        (Missing::Gone, Some(_)) => Error::Stale(format!(
            "the handle {id:#x} of a {wanted} was released already; use a handle until it is \
             released, and release it once"
        )),
        (Missing::Busy, _) => Error::LimitExceeded(format!(
            "too many calls use the handle {id:#x} of a {wanted} at once"
        )),
        _ => Error::InvalidArgument(format!(
            "{id:#x} is no handle of a {wanted}: no call of this process gave it out"
        )),
    }
}

#[cold]
fn wrong_kind<H: Handle>(id: u64, is: Kind) -> Error {
    Error::InvalidArgument(format!(
        "a handle of a {} is wanted, {id:#x} is one of a {}",
        H::KIND.name(),
        is.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> InsituTask {
        give::<InsituTask>(Task::default()).unwrap()
    }

    fn text<T>(result: Result<T>) -> String {
        result.err().map(|error| format!("{}: {error}", error.code())).unwrap_or_default()
    }

    #[test]
    fn a_handle_is_good_until_it_is_released() {
        let handle = task();
        assert!(get(handle).is_ok());
        let held = get(handle).unwrap();
        release(handle).unwrap();
        assert!(!held.is_cancelled());
        assert!(text(get(handle)).starts_with("Stale: the handle 0x"));
        assert!(text(release(handle)).starts_with("Stale: "));
    }

    #[test]
    fn a_handle_of_another_kind_is_told() {
        let handle = task();
        let as_table = InsituTable { id: handle.id };
        assert!(text(get(as_table)).ends_with("is one of a task"), "{}", text(get(as_table)));
        assert!(text(release(as_table)).ends_with("is one of a task"));
        // The same place under the wanted kind's number.
        let forged = InsituTable { id: handle.id & !(15 << 60) | (Kind::Table as u64) << 60 };
        assert!(text(get(forged)).ends_with("is one of a task"));
        let forged = InsituTask { id: handle.id & !(15 << 60) | (Kind::Table as u64) << 60 };
        assert!(text(get(forged)).contains("is no handle of a task"));
        release(handle).unwrap();
        assert!(text(get(as_table)).ends_with("is one of a task"));
    }

    #[test]
    fn numbers_that_are_no_handles_are_told() {
        assert!(text(get(InsituRegion { id: 0 })).ends_with("0 stands for none"));
        release(InsituRegion { id: 0 }).unwrap();
        for id in [1, 2, u64::MAX, 1 << 60, 0xDEAD_BEEF, 1 << 63 | 7, u64::MAX >> 4] {
            let text = text(get(InsituRegion { id }));
            assert!(text.starts_with("InvalidArgument: "), "{text}");
            assert!(release(InsituRegion { id }).is_err());
        }
    }
}
