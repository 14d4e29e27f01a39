"""How the commands come to a region.

Looking must not disturb. So whoever only looks opens the region read-only, for as short a time as
the look takes. A session would be worse: it takes one of 512 places; being the only one, it would
recover the region, which repairs what somebody may want to see as it is; and leaving as the last
one, it would remove an ephemeral region. What a read-only opener costs the others is that nobody
recycles memory or updates in place while it is there: for milliseconds, unless someone keeps it
open. That is why `top` opens the region anew for each look.
"""

from __future__ import annotations

import difflib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import insitu as ins

_MAGIC = b"INSITU\r\n"
"""What every region begins with."""


class Mistake(Exception):
    """What the person who typed the command should know; one line. `kind` names it for programs, as
    the exceptions of the package are named."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Place:
    """Where a region is: shared memory of that name, or a file."""

    name: str | None
    path: Path | None

    @classmethod
    def of(cls, text: str, *, path: bool) -> Place:
        """What was typed: a path if it was said to be one, or has a slash."""
        return cls(None, Path(text)) if path or "/" in text else cls(text, None)

    def __str__(self) -> str:
        return str(self.path) if self.name is None else self.name

    @property
    def kind(self) -> str:
        return "file" if self.name is None else "shm"

    def open(self, *, read_only: bool) -> ins.Region:
        try:
            if self.path is not None and self.path.is_dir():
                raise Mistake("RegionCorrupt", f"{self.path} is a directory, not a region")
            return ins.open(self.name, path=self.path, read_only=read_only)
        except ins.RegionNotFound:
            raise self.missing() from None

    def remove(self) -> None:
        try:
            ins.remove(self.name, path=self.path)
        except ins.RegionNotFound:
            raise self.missing() from None

    def missing(self) -> Mistake:
        if self.name is None:
            return Mistake("RegionNotFound", f"there is no region at {self.path}")
        if Path(self.name).exists():
            return Mistake(
                "RegionNotFound",
                f"there is no region {self.name!r} in shared memory; "
                f"for the file of that name write ./{self.name}",
            )
        near = difflib.get_close_matches(self.name, [record["name"] for record in ins.regions()], 1)
        hint = f"did you mean {near[0]!r}?" if near else "`insitu ls` lists those there are"
        return Mistake("RegionNotFound", f"there is no region {self.name!r}; {hint}")


@contextmanager
def observed(place: Place) -> Iterator[ins.Region]:
    """The region, to be looked at; see above."""
    with place.open(read_only=True) as region:
        yield region


@contextmanager
def joined(place: Place) -> Iterator[ins.Region]:
    """The region, to be changed or checked as a whole: a session of it."""
    with place.open(read_only=False) as region:
        yield region


def records(places: list[str], *, path: bool) -> list[dict[str, Any]]:
    """A record for each region: those named, or all in shared memory; a directory stands for the
    regions in it."""
    if not places:
        return [_of_memory(record) for record in ins.regions()]
    found = []
    for text in places:
        place = Place.of(text, path=path)
        if place.path is not None and place.path.is_dir():
            found += [_of_file(file) for file in sorted(place.path.iterdir()) if _is_region(file)]
        elif place.path is not None:
            if not place.path.exists():
                raise place.missing()
            found.append(_of_file(place.path))
        else:
            listed = [record for record in ins.regions() if record["name"] == place.name]
            if not listed:
                raise place.missing()
            found.append(_of_memory(listed[0]))
    return found


def _of_memory(record: Any) -> dict[str, Any]:
    place = Place(record["name"], None)
    return _record(
        place, record["capacity"], record["resident"], record["ephemeral"], record["problem"]
    )


def _of_file(path: Path) -> dict[str, Any]:
    return _record(Place(None, path), None, path.stat().st_blocks * 512, None, None)


def _record(
    place: Place, capacity: int | None, resident: int, ephemeral: bool | None, problem: str | None
) -> dict[str, Any]:
    keys = ("tables", "poisoned", "used", "sessions")
    counts: dict[str, int | None] = dict.fromkeys(keys)
    if problem is None:
        try:
            with observed(place) as region:
                stats = region.stats()
            counts = {key: stats[key] for key in keys}  # type: ignore[literal-required]
            capacity = stats["capacity"]
        except (ins.Error, Mistake) as error:
            # Damaged, or gone since it was listed.
            problem = str(error)
    return {
        "region": str(place),
        "kind": place.kind,
        "tables": counts["tables"],
        "poisoned": counts["poisoned"],
        "used": counts["used"],
        "capacity": capacity,
        "resident": resident,
        "sessions": counts["sessions"],
        "ephemeral": ephemeral,
        "problem": problem,
    }


def _is_region(file: Path) -> bool:
    """Whether a file is meant to be a region; a damaged one still is."""
    try:
        # Opening a pipe would wait, opening a device may do anything.
        if not stat.S_ISREG(file.stat().st_mode):
            return False
        with file.open("rb") as head:
            return head.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def command_of(pid: int) -> str | None:
    """The name of a process, as far as this process may know it."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return None
