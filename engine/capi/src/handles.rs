//! Handles: numbers that stand for the engine's objects. A handle carries what kind it is, its place
//! and a generation, so that whatever number a caller gives, it is told for what it is: good, taken
//! back, of another kind, or none of ours.

use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use insitu::evaluate::Formula;
use insitu::{Error, Result};

use crate::lease::Lease;
use crate::slab::{INDEX_BITS, Missing, STAMP_BITS, Slab, TAG_BITS, Use};
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
    match OBJECTS.get(index(id), stamp::<H>(id)) {
        Ok(object) => match H::target(&object) {
            Some(target) => {
                Ok(Held { target: NonNull::from(target), _use: object, handle: PhantomData })
            }
            None => Err(missing::<H>(id, Missing::Never)),
        },
        Err(why) => Err(missing::<H>(id, why)),
    }
}

/// The same of a handle that may stand for nothing.
pub(crate) fn get_if<H: Handle>(handle: H) -> Result<Option<Held<H>>> {
    if handle.id() == 0 { Ok(None) } else { get(handle).map(Some) }
}

/// A handle for something.
pub(crate) fn give<H: Handle>(target: H::Target) -> Result<H> {
    let (index, stamp) = OBJECTS.insert(H::object(target), H::KIND as u64).map_err(|_| {
        Error::LimitExceeded(
            "as many handles are in use as there can be (16 million); release some".into(),
        )
    })?;
    Ok(H::of(stamp << INDEX_BITS | u64::from(index)))
}

/// Takes a handle back; one that stands for nothing is fine.
pub(crate) fn release<H: Handle>(handle: H) -> Result<()> {
    if handle.id() == 0 {
        return Ok(());
    }
    let id = handle.id();
    // What it stands for goes with its last use, which may be this one.
    OBJECTS.take(index(id), stamp::<H>(id)).map(drop).map_err(|why| missing::<H>(id, why))
}

fn index(id: u64) -> u32 {
    (id & ((1 << INDEX_BITS) - 1)) as u32
}

/// The stamp that a handle says, if it is of the kind that it is taken for; else one that nothing
/// has.
fn stamp<H: Handle>(id: u64) -> u64 {
    let stamp = id >> INDEX_BITS;
    let is_kind = stamp & ((1 << TAG_BITS) - 1) == H::KIND as u64;
    if is_kind && stamp < 1 << STAMP_BITS { stamp } else { 0 }
}

#[cold]
fn missing<H: Handle>(id: u64, why: Missing) -> Error {
    let wanted = H::KIND.name();
    if id == 0 {
        return Error::InvalidArgument(format!(
            "a handle of a {wanted} is wanted, 0 stands for none"
        ));
    }
    // As what it says it is.
    let why = match (OBJECTS.get(index(id), id >> INDEX_BITS), why) {
        (Ok(_), _) => Missing::Other(id >> INDEX_BITS),
        (Err(_), Missing::Busy) => Missing::Busy,
        (Err(why), _) => why,
    };
    let tag = match why {
        Missing::Other(tag) => tag,
        _ => id >> INDEX_BITS,
    } & ((1 << TAG_BITS) - 1);
    let is = Kind::ALL.into_iter().find(|known| *known as u64 == tag);
    match (why, is) {
        (Missing::Gone | Missing::Other(_), Some(is)) if is != H::KIND => wrong_kind::<H>(id, is),
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
        let forged = handle.id & !(15 << INDEX_BITS) | (Kind::Table as u64) << INDEX_BITS;
        let forged = InsituTable { id: forged };
        assert!(text(get(forged)).ends_with("is one of a task"), "{}", text(get(forged)));
        assert!(text(release(forged)).ends_with("is one of a task"));
        assert!(text(get(InsituTask { id: forged.id })).contains("is no handle of a task"));
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
