"""Results as text, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .harness import FLOOR, INSITU, Result, Timing


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs"), (1e9, "ns")):
        if seconds * factor >= 1 or unit == "ns":
            value = seconds * factor
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:.{digits}f} {unit}"
    raise AssertionError


def memory(size: float) -> str:
    """Three digits and a unit."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")):
        if size >= factor or unit == "B":
            return f"{size / factor:.3g} {unit}"
    raise AssertionError


def amount(result: Result, value: float) -> str:
    """A timing of the result, or whatever else was measured."""
    return memory(value) if result.unit == "B" else duration(value)


def verdict(result: Result) -> str:
    """insitu's best against the best of the others and the floor, in one line."""
    ours, peer, floor = result.best(INSITU), result.best_peer(), result.best(FLOOR)
    parts = []
    better, worse = ("faster", "SLOWER") if result.unit == "s" else ("less", "MORE")
    if ours:
        parts.append(f"{ours.name} {amount(result, ours.median)}")
        if peer:
            ratio = peer.median / ours.median
            how = f"{ratio:.2f} × {better}" if ratio >= 1 else f"{1 / ratio:.2f} × {worse}"
            parts.append(f"{how} than the best peer, {peer.name} ({amount(result, peer.median)})")
        if floor:
            parts.append(
                f"{ours.median / floor.median:.2f} × the {floor.name} ({duration(floor.median)})"
            )
    elif peer:
        parts.append(f"best peer: {peer.name} {amount(result, peer.median)}")
        if floor:
            parts.append(
                f"{peer.median / floor.median:.2f} × the {floor.name} ({duration(floor.median)})"
            )
    return "; ".join(parts)


def _lines(result: Result) -> tuple[Sequence[str], list[list[str]]]:
    reference = result.best(INSITU) or result.best_peer()
    head = ["", "median", "min", "max", "× " + (reference.name.split(":")[0] if reference else "")]
    if result.bytes:
        head.append("GB/s")
    lines = []
    for timing in sorted(result.timings, key=lambda t: t.median):
        line = [
            timing.name + (f" ({timing.note})" if timing.note else ""),
            amount(result, timing.median),
            amount(result, min(timing.seconds)),
            amount(result, max(timing.seconds)),
            f"{timing.median / reference.median:.2f}" if reference else "",
        ]
        if result.bytes:
            line.append(f"{result.bytes / timing.median / 1e9:.1f}")
        lines.append(line)
    return head, lines


def text(result: Result) -> str:
    """For a terminal."""
    head, lines = _lines(result)
    table = [head, *lines]
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    out = [f"\n{result.title}"]
    for line in table:
        out.append(
            "  "
            + line[0].ljust(widths[0])
            + "".join("  " + c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))
        )
    out.append("  => " + verdict(result))
    if result.note:
        out.append("  " + result.note)
    return "\n".join(out)


def markdown(
    results: list[Result], facts: dict[str, str], threads: dict[str, str], method: str
) -> str:
    """The whole run as a page."""
    out = ["# insitu against its peers", "", method, "", "| | |", "|---|---|"]
    out += [f"| {key} | {value} |" for key, value in facts.items()]
    out += [
        "",
        "Threads: " + ", ".join(f"{k} {v}" for k, v in threads.items()) + ".",
        "",
        "## In short",
        "",
    ]
    out += [f"- **{result.title}**: {verdict(result)}" for result in results]
    for result in results:
        head, lines = _lines(result)
        out += [
            "",
            f"## {result.title}",
            "",
            "| " + " | ".join(head) + " |",
            "|---" + "|---:" * (len(head) - 1) + "|",
        ]
        out += [
            "| " + " | ".join(f"**{c}**" if line[0].startswith(INSITU) else c for c in line) + " |"
            for line in lines
        ]
        if result.note:
            out += ["", result.note]
    return "\n".join(out) + "\n"


def as_json(
    results: list[Result], facts: dict[str, str], threads: dict[str, str], arguments: dict[str, Any]
) -> str:
    """Every number."""

    def timing(t: Timing) -> dict[str, Any]:
        return {
            "name": t.name,
            "engine": t.engine,
            "median": t.median,
            "seconds": t.seconds,
            "note": t.note,
        }

    rows = [
        {
            "key": r.key,
            "title": r.title,
            "bytes": r.bytes,
            "unit": r.unit,
            "note": r.note,
            "timings": [timing(t) for t in r.timings],
        }
        for r in results
    ]
    return (
        json.dumps(
            {"machine": facts, "threads": threads, "arguments": arguments, "rows": rows}, indent=1
        )
        + "\n"
    )


def write(directory: Path, files: dict[str, Callable[[], str]]) -> list[Path]:
    """Writes each, and says where."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in files.items():
        path = directory / name
        path.write_text(content(), encoding="utf-8")
        written.append(path)
    return written
