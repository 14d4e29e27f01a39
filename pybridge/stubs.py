"""Writes what `_native.pyi` has from the engine's tables: functions, reductions, exceptions.

python stubs.py           writes it
python stubs.py --check   fails where it differs (tests/test_stubs.py does the same)
"""

from __future__ import annotations

import builtins
import re
import sys
from pathlib import Path

from insitu import _native

STUB = Path(__file__).parent / "python" / "insitu" / "_native.pyi"


def functions() -> list[str]:
    lines = []
    for method, arguments, kind, doc in _native._functions():
        if kind in ("horizontal", "window"):
            continue
        rest = parameters(arguments, "_Operand")
        rest = f", *{rest}" if kind == "cumulative" else rest
        lines += [f"    def {method}(self{rest}) -> Expr:", f'        """{doc}"""', ""]
    return lines[:-1]


def horizontals() -> list[str]:
    lines = []
    for method, _, kind, doc in _native._functions():
        if kind == "horizontal":
            lines += [f"def {method}(*exprs: _Columns) -> Expr:", f'    """{doc}"""', ""]
    return lines[:-1]


def parameters(arguments: tuple[str, ...], kind: str) -> str:
    """As they are declared: options have a type of their own."""
    return "".join(f", {a}" if ":" in a else f", {a}: {kind}" for a in arguments)


def reductions() -> list[str]:
    lines = []
    for method, arguments, kind, doc in _native._functions():
        if kind == "aggregate":
            rest = parameters(arguments, "float")
            lines += [f"    def {method}(self{rest}) -> Any:", f'        """{doc}"""', ""]
    return lines[:-1]


def exceptions() -> list[str]:
    classes = [
        value
        for value in vars(_native).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    ]
    lines = []
    for cls in sorted(classes, key=lambda cls: (cls.__name__ != "Error", cls.__name__)):
        bases = ", ".join(base.__name__ for base in cls.__bases__)
        lines += [f"class {cls.__name__}({bases}):", f'    """{cls.__doc__}"""', ""]
        # What a built-in base has already (OSError.errno) is not said again.
        own = {k: v for k, v in vars(cls).items() if not k.startswith("_")}
        for name, initial in own.items():
            kind = "str | None" if initial is None else type(initial).__name__
            if name == "since":
                kind = "float | None"
            if initial == ():
                kind = "Sequence[dict[str, Any]]"  # records, none yet
            lines.append(f"    {name}: {kind}")
        if own:
            lines.append("")
        assert all(
            base is _native.Error or hasattr(builtins, base.__name__) for base in cls.__bases__
        )
    return lines[:-1]


def generate(text: str) -> str:
    sections = {
        "functions": functions,
        "horizontals": horizontals,
        "reductions": reductions,
        "exceptions": exceptions,
    }
    for name, lines in sections.items():
        pattern = rf"^( *)# generated: {name}\n(?s:.*?)^ *# end$"
        assert re.search(pattern, text, re.MULTILINE), f"no mark for {name} in {STUB}"
        body = "\n".join(lines())
        text = re.sub(
            pattern,
            lambda match, name=name, body=body: (
                f"{match[1]}# generated: {name}\n{body}\n\n{match[1]}# end"
            ),
            text,
            flags=re.MULTILINE,
        )
    return text


def main() -> int:
    text = STUB.read_text()
    new = generate(text)
    if "--check" in sys.argv[1:]:
        if new != text:
            print(f"{STUB.name} is not what the tables say; run python pybridge/stubs.py")
            return 1
        return 0
    STUB.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
