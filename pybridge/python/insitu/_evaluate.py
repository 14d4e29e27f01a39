"""Formulas over arrays, with numexpr's grammar, rules of types and signature.

What can be computed where it lies goes to the engine in one call. Where operands broadcast, have
gaps between their elements, or must be cast, NumPy's iterator brings them together in pieces.
"""

from __future__ import annotations

import difflib
import sys
import threading
import weakref
from typing import Any

import numpy as np

from insitu import _native
from insitu._native import InvalidArgument, Overflow, ShapeMismatch, TypeMismatch, UnknownColumn

# Elements that are brought together at a time.
_PIECE = 65536
# Formulas that are kept.
_KEPT = 256
# Of code that has its local variables in slots: the dict of them is a copy.
_OPTIMIZED = 1

_OPTIMIZATIONS = ("none", "moderate", "aggressive")
_KINDS = {
    "b": "bool",
    "i": "int32",
    "u": "int32",
    "f": "float32",
}

_formulas: dict[tuple[str, bool], _native._Formula] = {}
_last = threading.local()


def evaluate(
    ex: str,
    local_dict: dict[str, Any] | None = None,
    global_dict: dict[str, Any] | None = None,
    out: np.ndarray | None = None,
    order: str | None = "K",
    casting: str = "same_kind",
    sanitize: bool | None = None,
    _frame_depth: int = 3,
    disable_cache: bool = False,
    **kwargs: Any,
) -> np.ndarray:
    """Computes a formula over NumPy arrays, wherever they are; no region is needed.

    `evaluate("a*b + 2*c")` takes a, b and c from the caller's variables, as numexpr does, whose
    grammar, functions, kinds and casts these are: float32 with a float constant is float64, float32
    with int32 is float32, integers below 32 bits are int32, and an integer `// 0` is 0.

    `ex`: the formula. Operators: + - * / // % ** << >> & | ^ ~ and comparisons. Functions: where,
    sqrt, exp, expm1, log, log1p, log2, log10, sin, cos, tan, arcsin, arccos, arctan, arctan2, sinh,
    cosh, tanh, arcsinh, arccosh, arctanh, hypot, abs, sign, floor, ceil, trunc, round, fmod,
    maximum, minimum, copysign, signbit, nextafter, isnan, isinf, isfinite, real, imag, copy,
    ones_like; as the whole formula sum, prod, min and max, with an axis if wanted. `local_dict`,
    `global_dict`: operands by name, instead of the caller's local and global variables. `out`: the
    array that the result goes to, and that is returned; it may overlap operands. `order` ("C", "F",
    "A", "K"): the result's order in memory (None is "K"). `casting`: which casts NumPy may do of
    operands and to `out`. `sanitize`: nothing is ever run as Python, so there is nothing to
    sanitize; accepted, as is `_frame_depth`. `disable_cache`: keeps nothing for `re_evaluate`.
    Further keyword arguments are operands, looked up first; `optimization="none"` divides by
    constants and takes constant powers as written, where else inverses and products are used;
    `truediv` is accepted.

    Operands are anything that `numpy.asarray` takes: arrays, numbers, pandas Series, Arrow arrays,
    columns. The result is a NumPy array, the same to the last bit with any number of threads.

    Different from numexpr on purpose:

    - Complex numbers and byte strings, and what is about them (complex, conj, contains), are
      `Unsupported`. (So are Unicode strings, times and objects, which numexpr refuses too.)
    - A float sum is pairwise (of float32 in float64), not one after another, and functions may
      differ in the last bits. min and max leave NaN out, and are there for integers too.
    - A sum or product of integers that does not fit raises `Overflow`, and does not wrap.
    - Arrays without elements have NumPy's shapes: they broadcast, or are refused, as any others do,
      and a reduction of nothing is 0 or 1, or, of min and max, `InvalidArgument`. numexpr gives the
      shape of the last array without elements, whatever the others' are, also for reductions.
    - Operands may be keyword arguments, which numexpr refuses, and anything that `numpy.asarray`
      takes.
    - A constant formula is cast to `out` as `casting` says; numexpr takes its own rule.
    - A formula may have line breaks anywhere. It is read as a language of its own: `is` and other
      Python that numexpr would run is refused.
    - Errors are those below. numexpr has `SyntaxError` (or `TypeError`) where here is
      `InvalidPlan`, `NotImplementedError` for operators that do not take such operands
      (`TypeMismatch`), `RuntimeError` for a reduction that is not the whole formula
      (`InvalidPlan`), `ZeroDivisionError` for a constant divided by zero (`InvalidArgument`),
      `OverflowError` for a constant that does not fit 64 bits (`LimitExceeded`).

    Raises `InvalidPlan`, a `ValueError`, with the position, for text that is no formula;
    `UnknownColumn`, a `KeyError`, for a name that is nobody's; `TypeMismatch`, a `TypeError`, for
    operators and functions that do not take such operands; `Unsupported`, a `NotImplementedError`;
    `ShapeMismatch`, `InvalidArgument` and `LimitExceeded`, all `ValueError`; `Overflow`, an
    `OverflowError`; and, as NumPy does, `ValueError` for shapes that do not broadcast and for an
    `out` that is read-only, `TypeError` for casts that `casting` does not allow. Ctrl-C raises
    `KeyboardInterrupt`; what `out` holds then is not known.
    """
    formula, operands = _prepare(ex, local_dict, global_dict, _frame_depth, kwargs)
    if out is not None and not isinstance(out, np.ndarray):
        raise TypeMismatch("out must be a NumPy array")
    if not disable_cache:
        _remember(formula, kwargs, out, order, casting)
    result: np.ndarray = _run(formula, operands, out, order, casting)
    return result


def re_evaluate(
    local_dict: dict[str, Any] | None = None,
    global_dict: dict[str, Any] | None = None,
    _frame_depth: int = 2,
) -> np.ndarray:
    """Computes this thread's last formula again, over what its names are now.

    `out`, `order` and `casting` are those of the last `evaluate` or `validate`, and so are operands
    that it was given as keyword arguments, but for those in `local_dict`. Arrays are not kept alive
    for it: raises `UnknownColumn` if such an operand is gone, and `InvalidArgument` (numexpr:
    `RuntimeError`) if there was no formula.
    """
    last = getattr(_last, "call", None)
    if last is None:
        raise InvalidArgument("there is no formula to compute again; call evaluate() first")
    formula, given, out, order, casting = last
    frame = sys._getframe(_frame_depth - 1)
    kwargs = {}
    for name, kept in given.items():
        if local_dict is None or name not in local_dict:
            kwargs[name] = kept() if isinstance(kept, weakref.ref) else kept
            if kwargs[name] is None and kept is not None:
                raise _gone(name)
    operands = _operands(formula.names, kwargs, local_dict, global_dict, frame)
    result: np.ndarray = _run(formula, operands, None if out is None else out(), order, casting)
    return result


def validate(
    ex: str,
    local_dict: dict[str, Any] | None = None,
    global_dict: dict[str, Any] | None = None,
    out: np.ndarray | None = None,
    order: str | None = "K",
    casting: str = "safe",
    _frame_depth: int = 2,
    sanitize: bool | None = None,
    **kwargs: Any,
) -> Exception | None:
    """What is wrong with a formula and its operands, as an exception that is returned, or None.

    Nothing is computed; `re_evaluate` does that. The arguments are those of `evaluate`.
    """
    try:
        formula, operands = _prepare(ex, local_dict, global_dict, _frame_depth + 1, kwargs)
        formula.result(tuple(_converted(operand) for operand in operands))
    except Exception as error:
        return error
    _remember(formula, kwargs, out, order, casting)
    return None


def set_num_threads(nthreads: int) -> int:
    """Uses so many threads, the caller's included, from now on; returns how many it was before."""
    if not 0 < nthreads <= 1024:
        raise InvalidArgument(f"{nthreads} is no number of threads: it is from 1 to 1024")
    before = _native._threads()
    _native._set_threads(nthreads)
    return before


def get_num_threads() -> int:
    """The number of threads in use."""
    return _native._threads()


def _prepare(
    ex: str,
    local_dict: dict[str, Any] | None,
    global_dict: dict[str, Any] | None,
    depth: int,
    kwargs: dict[str, Any],
) -> tuple[_native._Formula, tuple[Any, ...]]:
    if not isinstance(ex, str):
        raise TypeMismatch(f"a formula is a str; {ex!r} is of type {type(ex).__name__}")
    exact = False
    if kwargs:
        optimization = kwargs.pop("optimization", "aggressive")
        if optimization not in _OPTIMIZATIONS:
            raise InvalidArgument(f"optimization is {optimization!r}, not one of {_OPTIMIZATIONS}")
        exact = optimization == "none"
        kwargs.pop("truediv", None)
    formula = _formulas.get((ex, exact))
    if formula is None:
        formula = _native._Formula(ex, exact)
        if len(_formulas) >= _KEPT:
            _formulas.clear()
        _formulas[ex, exact] = formula
    if local_dict is None and len(kwargs) == len(formula.names) and kwargs:
        unused = [name for name in kwargs if name not in formula.names]
        if not unused:
            return formula, tuple([kwargs[name] for name in formula.names])
    frame = sys._getframe(depth - 1)
    operands = _operands(formula.names, kwargs, local_dict, global_dict, frame)
    for name in kwargs:
        if name not in formula.names:
            raise InvalidArgument(f"the formula {ex!r} has no operand {name!r}")
    return formula, operands


def _operands(
    names: tuple[str, ...],
    kwargs: dict[str, Any],
    local_dict: dict[str, Any] | None,
    global_dict: dict[str, Any] | None,
    frame: Any,
) -> tuple[Any, ...]:
    own = local_dict is None
    local: Any = frame.f_locals if own else local_dict
    try:
        found = []
        for name in names:
            if name in kwargs:
                found.append(kwargs[name])
            elif name in local:
                found.append(local[name])
            else:
                variables = frame.f_globals if global_dict is None else global_dict
                if name not in variables:
                    raise _unknown(name, (*kwargs, *local, *variables))
                found.append(variables[name])
        return tuple(found)
    finally:
        # A copy of a function's variables would keep them alive beyond the function's own use.
        if own and frame.f_code.co_flags & _OPTIMIZED and isinstance(local, dict):
            local.clear()


def _unknown(name: str, known: tuple[Any, ...]) -> UnknownColumn:
    near = difflib.get_close_matches(name, [n for n in known if isinstance(n, str)], 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    error = UnknownColumn(f"the formula's operand {name!r} is no variable here{hint}")
    error.name = name
    error.nearest = near[0] if near else None
    return error


def _gone(name: str) -> UnknownColumn:
    error = UnknownColumn(
        f"the operand {name!r} was a keyword argument of the last formula, and nobody has it any "
        "more; give it in local_dict"
    )
    error.name = name
    error.nearest = None
    return error


def _remember(
    formula: Any, operands: dict[str, Any], out: Any, order: str | None, casting: str
) -> None:
    kept = None if out is None else weakref.ref(out)
    given = {name: _weakly(value) for name, value in operands.items()} if operands else operands
    _last.call = (formula, given, kept, order, casting)


def _weakly(value: Any) -> Any:
    """A weak reference, where there can be one: not of numbers."""
    try:
        return weakref.ref(value)
    except TypeError:
        return value


def _run(formula: Any, operands: tuple[Any, ...], out: Any, order: str | None, casting: str) -> Any:
    if order is None:
        order = "K"
    result = formula.run(operands, out, order, casting, True)
    if result is not None:
        return result
    arrays = tuple(_converted(operand) for operand in operands)
    dtype, constant = formula.result(arrays)
    if constant is not None:
        return _stored(np.array(constant, dtype=dtype), out, casting)
    if formula.reduction is None:
        return _iterate(formula, arrays, dtype, out, order, casting)
    return _stored(_reduce(formula, arrays, dtype, order, casting), out, casting)


def _converted(operand: Any) -> np.ndarray:
    """An array that the engine can read elements of: native, aligned, of a type that it has."""
    array = np.asarray(operand)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size not in (4, 8):
        return array.astype("float32" if size < 4 else "float64")
    if not array.dtype.isnative or not array.flags.aligned:
        return array.astype(array.dtype.newbyteorder("="))
    return array


def _seen_as(array: np.ndarray) -> str:
    """The type of the kind that formulas see an array's values as."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind in "iu" and (size > 4 or (kind == "u" and size == 4)):
        return "int64"
    if kind == "f" and size > 4:
        return "float64"
    return _KINDS[kind]


def _iterate(
    formula: Any, arrays: tuple[Any, ...], dtype: str, out: Any, order: Any, casting: Any
) -> Any:
    """Piece by piece, as NumPy's iterator brings the arrays together."""
    shared: Any = ["aligned", "contig", "nbo", "overlap_assume_elementwise"]
    writes: Any = ["writeonly", "allocate", "no_broadcast", *shared]
    iterator = np.nditer(
        [out, *arrays],
        flags=[
            "external_loop",
            "buffered",
            "growinner",
            "zerosize_ok",
            "delay_bufalloc",
            "copy_if_overlap",
        ],
        op_flags=[writes, *(["readonly", *shared] for _ in arrays)],
        op_dtypes=[dtype, *map(_seen_as, arrays)],
        order=order,
        casting=casting,
        buffersize=_PIECE,
    )
    with iterator:
        result = iterator.operands[0]
        if iterator.itersize > 0:
            iterator.reset()
            for piece, *rest in iterator:
                formula.run(tuple(rest), piece, "K", "unsafe", False)
    return result if out is None else out


def _reduce(formula: Any, arrays: tuple[Any, ...], dtype: str, order: str, casting: str) -> Any:
    name, axis = formula.reduction
    values = _iterate(formula, arrays, dtype, None, order, casting)
    if axis is not None and axis >= values.ndim:
        raise ShapeMismatch(f"{name} along axis {axis} of an array of {values.ndim} axes")
    if axis is None or values.ndim == 1:
        flat = values.ravel(order="K")
        reduced = _whole(name, values.dtype)
        return reduced.run((flat,), None, "K", "unsafe", True)
    return _along(name, values, axis)


def _whole(name: str, dtype: np.dtype) -> Any:
    key = (f"{name}(a)", False)
    # Another thread may empty the cache between any two steps.
    formula = _formulas.get(key)
    if formula is None:
        formula = _formulas[key] = _native._Formula(*key)
    return formula


def _along(name: str, values: np.ndarray, axis: int) -> Any:
    if name in ("min", "max"):
        if values.shape[axis] == 0:
            raise InvalidArgument(f"{name} of no values; there is none")
        function: Any = np.fmin if name == "min" else np.fmax
        return function.reduce(values, axis=axis)
    function = np.add if name == "sum" else np.multiply
    if values.dtype.kind == "f":
        return function.reduce(values, axis=axis, dtype="float64").astype(values.dtype)
    result = function.reduce(values, axis=axis, dtype="int64")
    narrow = result.astype(values.dtype)
    fits = bool(np.all(narrow == result))
    # What sizes come to, in floats, is an upper bound but for rounding: from half of the range on
    # 64 bits may have wrapped.
    with np.errstate(over="ignore", invalid="ignore"):
        wraps = function.reduce(np.abs(values.astype("float64")), axis=axis) >= 2.0**62
    if fits and np.any(wraps):
        fits = bool(np.all(function.reduce(values.astype(object), axis=axis) == result))
    if not fits:
        bits = 8 * values.dtype.itemsize
        raise Overflow(f"{name} of {bits}-bit integers does not fit them; reduce wider numbers")
    return narrow


def _stored(result: np.ndarray, out: Any, casting: Any) -> Any:
    if out is None:
        return result
    if result.ndim == 0:
        if out.size != 1:
            raise ShapeMismatch("out must have one element for a result of one value")
        result = result.reshape(out.shape)
    elif out.shape != result.shape:
        raise ShapeMismatch(f"out has the shape {out.shape}, the result {result.shape}")
    np.copyto(out, result, casting=casting)
    return out
