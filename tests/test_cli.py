"""The command line: what it says of regions of all kinds, and to a person's mistakes."""

from __future__ import annotations

import json
import os
import pickle
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import insitu as ins
import numpy as np
import pyarrow as pa
import pytest

PATIENCE = 60


def insitu(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs the command; nothing it says may be a traceback."""
    command = [sys.executable, "-m", "insitu", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def said(*arguments: object) -> str:
    done = insitu(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def facts(*arguments: object) -> Any:
    return json.loads(said(*arguments, "--json"))


def refused(*arguments: object, code: int = 1) -> str:
    """The one line that a command which cannot be done says."""
    done = insitu(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("insitu: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.fixture
def filled(region: ins.Region) -> ins.Region:
    """A region with a few tables."""
    region.put("ticks", {"price": np.array([1.5, np.nan, 3.0]), "size": np.array([3, 2, 1])})
    region.put("empty", {"a": np.array([], dtype="i8")})
    region.put(
        "kinds",
        pa.table(
            {
                "text": pa.array(["a", None, "ünïcødé"]),
                "flag": pa.array([True, None, False]),
                "day": pa.array([date(2020, 1, 2), None, date(2021, 3, 4)]),
                "at": pa.array([datetime(2020, 1, 2, 3, 4, 5), None, None], pa.timestamp("ns")),
                "bytes": pa.array([b"\x00\xff", None, b""]),
                "list": pa.array([[1, 2], None, []]),
                "struct": pa.array([{"x": 1.0}, None, {"x": float("inf")}]),
                "code": pa.array(["u", "v", "u"]).dictionary_encode(),
                "big": pa.array([2**64 - 1, 0, None], pa.uint64()),
            }
        ),
    )
    return region


def test_ls_lists_regions_of_memory_and_files(
    filled: ins.Region, name: str, new_name: Callable[[], str], tmp_path: Path
) -> None:
    [record] = [record for record in facts("ls") if record["region"] == name]
    stats = filled.stats()
    assert record == {
        "region": name,
        "kind": "shm",
        "tables": 3,
        "poisoned": 0,
        "used": stats["used"],
        "capacity": stats["capacity"],
        "resident": record["resident"],
        "sessions": 1,
        "ephemeral": False,
        "problem": None,
    }
    assert record["resident"] > 0
    with ins.create(new_name(), capacity="1MiB", ephemeral=True) as other:
        text = said("ls", name, other.name)
        assert [line.split()[0] for line in text.splitlines()] == ["REGION", name, other.name]
        assert "ephemeral" in text
        # To look is not to leave as the last one.
        assert facts("ls", other.name)[0]["sessions"] == 1
    ins.create(path=tmp_path / "one", capacity="1MiB").close()
    (tmp_path / "two").write_bytes(b"INSITU\r\n" + b"\x04\0\0\0")
    (tmp_path / "notes.txt").write_text("no region")
    os.mkfifo(tmp_path / "pipe")
    one, two = facts("ls", tmp_path)
    assert (one["region"], one["kind"], one["problem"]) == (str(tmp_path / "one"), "file", None)
    assert one["tables"] == one["sessions"] == 0
    assert "the region is damaged" in two["problem"]
    assert two["capacity"] is None
    assert facts("ls", "--path", tmp_path / "one") == [one]


def test_inspect_shows_a_region_and_its_tables(filled: ins.Region, name: str) -> None:
    found = facts("inspect", name)
    stats: Any = filled.stats()
    for key in ("capacity", "used", "free", "reserved", "max_tables", "sessions", "retired"):
        assert found[key] == stats[key], key
    assert found["region"] == name
    by_name = {table["name"]: table for table in found["tables"]}
    assert list(by_name) == ["empty", "kinds", "ticks"]
    assert by_name["ticks"] == {
        "name": "ticks",
        "rows": 3,
        "columns": 2,
        "bytes": 48,
        "chunks": 1,
        "problem": None,
    }
    text = said("inspect", name)
    assert f"{name}\n" in text
    assert "of 256.0 MiB used" in text
    assert "3 tables of at most" in text
    assert "1 session\n" in text


def test_inspect_shows_what_was_noted_of_a_tables_columns(filled: ins.Region, name: str) -> None:
    found = facts("inspect", name, "ticks")
    assert (found["table"], found["rows"], found["chunks"]) == ("ticks", 3, 1)
    price, size = found["columns"]
    assert price == {
        "name": "price",
        "type": "double",
        "nullable": True,
        "metadata": {},
        "nulls": 0,
        "min": 1.5,
        "max": 3.0,
        "nan": True,
        "sorted": None,
    }
    assert (size["type"], size["min"], size["max"]) == ("int64", 1, 3)
    assert (size["nan"], size["sorted"]) == (False, "descending")
    columns = {column["name"]: column for column in facts("inspect", name, "kinds")["columns"]}
    assert (columns["day"]["min"], columns["day"]["max"]) == ("2020-01-02", "2021-03-04")
    assert columns["day"]["nulls"] == columns["text"]["nulls"] == 1
    assert columns["at"]["min"].startswith("2020-01-02T03:04:05")
    assert columns["big"]["max"] == 2**64 - 1
    assert columns["text"]["min"] is None
    assert columns["code"]["type"].startswith("dictionary")
    text = said("inspect", name, "ticks")
    assert "descending" in text
    assert "has NaN" in text
    assert "3 rows, 2 columns, 48 B, 1 chunk" in text


def test_head_prints_rows_for_people_and_values_for_programs(filled: ins.Region, name: str) -> None:
    lines = said("head", name, "ticks", "-n", 2).splitlines()
    assert [line.split() for line in lines] == [
        ["price", "size"],
        ["double", "int64"],
        ["1.5", "3"],
        ["NaN", "2"],
        ["...", "and", "1", "more", "row"],
    ]
    found = facts("head", name, "ticks")
    assert found == {
        "region": name,
        "table": "ticks",
        "total": 3,
        "columns": [{"name": "price", "type": "double"}, {"name": "size", "type": "int64"}],
        "rows": [[1.5, 3], ["NaN", 2], [3.0, 1]],
    }
    first, second, third = facts("head", name, "kinds")["rows"]
    assert first == [
        "a",
        True,
        "2020-01-02",
        "2020-01-02T03:04:05",
        "00ff",
        [1, 2],
        {"x": 1.0},
        "u",
        2**64 - 1,
    ]
    assert second == [None] * 7 + ["v", 0]
    assert third[6] == {"x": "Infinity"}
    assert facts("head", name, "ticks", "-n", 0)["rows"] == []
    assert facts("head", name, "empty")["rows"] == []
    assert "ünïcødé" in said("head", name, "kinds")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_terminals_that_cannot_show_a_name(filled: ins.Region, name: str, encoding: str) -> None:
    filled.put("täble ☃", {"cölumn ☃": np.arange(3)})
    surroundings = {**os.environ, "PYTHONIOENCODING": encoding}
    for command in (["inspect", name], ["head", name, "täble ☃"]):
        done = insitu(*command, env=surroundings, encoding=encoding)
        assert (done.returncode, done.stderr) == (0, "")
        assert "?" in done.stdout
    done = insitu("head", name, "täble ☂", env=surroundings, encoding=encoding)
    assert done.returncode == 1
    assert done.stderr.startswith("insitu: ")


def test_head_does_not_go_through_pandas(filled: ins.Region, name: str) -> None:
    for arguments in (["head", name, "kinds"], ["head", name, "kinds", "--json"]):
        script = f"""
import sys
from insitu.cli import main
assert main({arguments!r}) == 0
assert "pandas" not in sys.modules, "a second to import, for nothing"
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_chunks_are_counted_and_joined(region: ins.Region, name: str) -> None:
    wide = pa.table({f"column number {i}": [i, i + 1] for i in range(30)})
    region.put("wide", wide)
    assert "column number 29" in said("head", name, "wide")
    nothing = pa.table({"a": pa.array([], pa.int64())})
    region.put("none", nothing)
    assert facts("inspect", name, "none")["rows"] == 0


def test_leases_name_process_and_table(region: ins.Region, name: str) -> None:
    assert said("leases", name) == "nobody holds a table\n"
    t = region.put("t", {"a": np.arange(10)})
    view = t["a"].to_numpy()
    before = time.time()
    kinds = {record["kind"]: record for record in facts("leases", name)}
    assert set(kinds) == {"pin", "lease"}
    lease = kinds["lease"]
    assert lease["pid"] == os.getpid()
    assert lease["command"] == Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    assert (lease["table"], lease["current"]) == ("t", True)
    assert before - 60 < lease["since"] <= time.time()
    del region["t"]
    text = said("leases", name)
    assert str(os.getpid()) in text
    assert "t (replaced or deleted)" in text
    assert view.sum() == 45
    sent = pickle.dumps(region.put("u", {"a": np.arange(10)}).select("a").collect())
    [line] = [line for line in said("leases", name).splitlines() if "ticket" in line]
    assert "(a result)" in line
    assert len(pickle.loads(sent)) == 10
    assert "ticket" not in said("leases", name)


def test_looking_leaves_no_trace(filled: ins.Region, name: str) -> None:
    content = Path(f"/dev/shm/insitu.{name}").read_bytes()
    for command in (["ls"], ["inspect", name], ["inspect", name, "ticks"], ["leases", name]):
        said(*command)
    said("head", name, "kinds")
    said("top", name, "--once")
    said("verify", name, "--read-only")
    assert Path(f"/dev/shm/insitu.{name}").read_bytes() == content
    assert filled.verify().ok


def test_an_ephemeral_region_outlives_who_looks_at_it(new_name: Callable[[], str]) -> None:
    name = new_name()
    with ins.create(name, capacity="1MiB", ephemeral=True):
        for command in ("inspect", "leases", "verify", "gc"):
            said(command, name)
        assert [r["region"] for r in facts("ls", name)] == [name]


def test_gc_says_what_came_free(region: ins.Region, name: str) -> None:
    script = """
import os, sys
import insitu as ins, numpy as np
region = ins.open(sys.argv[1])
t = region.put("t", {"a": np.zeros(1_000_000)})
del region["t"]
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script, name], check=False)
    assert region.stats()["used"] >= 8_000_000
    found = facts("gc", name, "--trim")
    assert found["freed"] >= 8_000_000
    assert found["trimmed"] > 0
    assert found["used"] == region.stats()["used"]
    assert found["reserved"] == region.stats()["reserved"]
    assert said("gc", name) == "0 B freed, 0 B in use\n"
    assert facts("gc", name)["trimmed"] is None


def test_verify_of_a_healthy_region(filled: ins.Region, name: str) -> None:
    found = facts("verify", name)
    assert found == {
        "region": name,
        "ok": True,
        "problems": [],
        "poisoned": [],
        "tables": 3,
        "extents": found["extents"],
    }
    assert found["extents"] > 0
    assert said("verify", name).startswith("ok (3 tables, ")


def test_rm_removes_regions_and_tables(filled: ins.Region, name: str, tmp_path: Path) -> None:
    assert "did you mean" in refused("rm", name, "ticks", "emty")
    assert "ticks" in filled
    assert facts("rm", name, "ticks", "empty") == {"region": name, "removed": ["ticks", "empty"]}
    assert filled.names() == ["kinds"]
    view = filled["kinds"].to_arrow()
    assert said("rm", name) == f"removed region {name}; 1 session of it carry on\n"
    assert view.num_rows == 3
    assert "there is no region" in refused("rm", name)
    file = tmp_path / "region"
    ins.create(path=file, capacity="1MiB").close()
    assert facts("rm", file) == {"region": str(file), "removed": "region"}
    assert not file.exists()


def test_top_is_one_look_where_there_is_no_terminal(filled: ins.Region, name: str) -> None:
    t = filled["ticks"]
    text = said("top", name)
    assert text.splitlines()[0] == name
    assert [line.split()[0] for line in text.splitlines()[4:8]] == [
        "TABLE",
        "kinds",
        "ticks",
        "empty",
    ]
    assert "pin" in text
    assert name in said("top")
    found = facts("top", name)
    assert [lease["kind"] for lease in found["leases"]] == ["pin"]
    assert [table["name"] for table in found["tables"]] == ["empty", "kinds", "ticks"]
    assert name in [record["region"] for record in facts("top")]
    assert t.num_rows == 3


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "insitu", *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40", **environment},
        )
        os.close(slave)
        self.seen = ""

    def until(self, text: str, times: int = 1) -> str:
        deadline = time.monotonic() + PATIENCE
        while self.seen.count(text) < times:
            assert time.monotonic() < deadline, self.seen
            ready, _, _ = select.select([self.master], [], [], 1)
            if ready:
                try:
                    self.seen += os.read(self.master, 65536).decode()
                except OSError:  # the other end is closed
                    break
        assert self.seen.count(text) >= times, self.seen
        return self.seen

    def press(self, key: bytes) -> None:
        os.write(self.master, key)

    def end(self) -> int:
        while self.process.poll() is None:
            ready, _, _ = select.select([self.master], [], [], 0.1)
            try:
                self.seen += os.read(self.master, 65536).decode() if ready else ""
            except OSError:
                break
        code = self.process.wait(PATIENCE)
        os.close(self.master)
        assert "Traceback" not in self.seen
        return code


def test_top_on_a_terminal_follows_what_happens(region: ins.Region, name: str) -> None:
    top = Terminal("top", name, "--interval", "0.05")
    try:
        top.until("0 tables of at most")
        region.put("news", {"a": np.arange(3)})
        top.until("news")
        # Between two looks nobody is there.
        assert region.stats()["sessions"] == 1
        ins.remove(name)
        top.until("there is no region")
        top.press(b"q")
        assert top.end() == 0
    finally:
        top.process.kill()
    assert "\x1b[?1049h" in top.seen
    assert top.seen.index("\x1b[?1049l") > top.seen.index("there is no region")


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_ctrl_c_is_quiet(
    region: ins.Region, name: str, arguments: list[str], tmp_path: Path
) -> None:
    if arguments:
        # Anything that takes long: a look that waits for a writer.
        arguments = ["verify", name]
        script = f"""
import sys
from insitu import cli
from insitu.cli import commands
import time
def slow(place):
    print("waiting", flush=True)
    time.sleep(60)
commands.joined = slow
sys.exit(cli.main({arguments!r}))
"""
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, errors) == (130, b"")
        return
    top = Terminal("top", "--interval", "10")
    try:
        top.until(name)
        top.process.send_signal(signal.SIGINT)
        assert top.end() == 130
    finally:
        top.process.kill()
    assert top.seen.endswith("\x1b[?25h\x1b[?1049l")


def test_colours_are_for_terminals_that_want_them(filled: ins.Region, name: str) -> None:
    def seen(**environment: str) -> str:
        terminal = Terminal("ls", name, **environment)
        assert terminal.end() == 0
        return terminal.seen

    assert "\x1b[1m" in seen()
    assert "\x1b" not in seen(NO_COLOR="1")
    assert "\x1b" not in seen(TERM="dumb")
    assert "\x1b" not in said("ls", name)


def test_lines_fit_the_terminal(region: ins.Region, name: str) -> None:
    region.put("wide", pa.table({f"column number {i}": ["x" * 100] for i in range(30)}))
    terminal = Terminal("head", name, "wide", NO_COLOR="1")
    assert terminal.end() == 0
    lines = terminal.seen.splitlines()
    assert max(map(len, lines)) <= 100
    assert "more columns" in lines[-1]


def test_a_broken_pipe_is_quiet(region: ins.Region, name: str) -> None:
    for i in range(300):
        region.put(f"a table with a long name, number {i}", {"a": np.arange(3)})
    for command in (["inspect", name], ["inspect", name, "--json"]):
        process = subprocess.Popen(
            [sys.executable, "-m", "insitu", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        with process.stderr as errors:
            assert errors.read() == b""
        assert process.wait(PATIENCE) == 141


def test_mistakes_are_one_line(
    filled: ins.Region, name: str, new_name: Callable[[], str], tmp_path: Path
) -> None:
    nowhere = new_name()
    for command in (["inspect"], ["leases"], ["gc"], ["verify"], ["rm"], ["top"], ["ls"]):
        assert "there is no region" in refused(*command, nowhere)
        assert "there is no region at" in refused(*command, tmp_path / "nothing")
    assert f"did you mean '{name}'?" in refused("inspect", name + "x")
    assert "did you mean" in refused("head", name, "tick")
    assert "no table named" in refused("inspect", name, "nothing like it")
    assert "directory" in refused("inspect", tmp_path)
    (tmp_path / "notes").write_text("no region")
    assert "not a healthy region" in refused("inspect", tmp_path / "notes")
    assert (tmp_path / "notes").exists()
    assert "not a healthy region" in refused("rm", tmp_path / "notes")
    assert (tmp_path / "notes").exists()
    assert "there is no region" in refused("inspect", "--path", name)
    done = insitu("inspect", "notes", cwd=tmp_path)
    assert done.returncode == 1
    assert "./notes" in done.stderr
    refused("inspect", "no name at all")
    refused("inspect", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["inspect"],
        ["head", "x"],
        ["head", "x", "y", "-n", "-1"],
        ["head", "x", "y", "-n", "many"],
        ["top", "--interval", "0"],
        ["ls", "--nonsense"],
    ],
)
def test_command_lines_that_make_no_sense(arguments: list[str]) -> None:
    done = insitu(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: insitu")


@pytest.mark.parametrize("command", ["", *"ls inspect head leases top gc verify rm".split()])
def test_help_lists_the_keys(command: str) -> None:
    text = said(*([command] if command else []), "--help")
    assert text.startswith(f"usage: insitu {command}".strip())
    assert ("keys" if command else "exit codes") in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_installed_command_is_the_same(name: str) -> None:
    command = Path(sys.executable).parent / "insitu"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"insitu {ins.__version__}\n")


@pytest.fixture
def damaged(new_name: Callable[[], str]) -> Callable[[int, bytes], str]:
    """Makes regions of one table with some bytes overwritten."""

    def make(at: int, what: bytes) -> str:
        name = new_name()
        with ins.create(name, capacity="8MiB") as region:
            region.put("t", {"a": np.arange(1000)})
        with Path(f"/dev/shm/insitu.{name}").open("r+b") as file:
            file.seek(at)
            file.write(what)
        return name

    return make


@pytest.mark.parametrize(
    ("at", "what"),
    [(0, b"not a region"), (8, b"\xff\xff\xff\xff"), (32, b"\xff" * 16), (40, b"\x00" * 8)],
)
def test_damaged_headers(damaged: Callable[[int, bytes], str], at: int, what: bytes) -> None:
    name = damaged(at, what)
    for command in ("inspect", "leases", "gc", "top"):
        assert "region" in refused(command, name)
    [record] = facts("ls", name)
    assert record["problem"]
    assert record["tables"] is None
    assert record["problem"] in said("ls", name)
    done = insitu("verify", name, "--json")
    assert (done.returncode, done.stderr) == (3, "")
    found = json.loads(done.stdout)
    assert not found["ok"]
    assert found["problems"]
    assert "1 problem" in insitu("verify", name).stdout
    said("rm", name)
    assert not Path(f"/dev/shm/insitu.{name}").exists()


def test_a_damaged_table_is_told_apart(region: ins.Region, name: str) -> None:
    region.put("good", {"a": np.arange(10)})
    region.put("bad", {"marker of this table": np.arange(10)})
    file = Path(f"/dev/shm/insitu.{name}")
    # The column's name in the manifest's schema, and not the end of it: lengths no longer fit.
    at = file.read_bytes().rindex(b"marker of this table")
    with file.open("r+b") as damage:
        damage.seek(at - 200)
        damage.write(b"\xff" * 190)
    tables = {table["name"]: table for table in facts("inspect", name)["tables"]}
    assert tables["good"]["problem"] is None
    assert tables["bad"]["problem"]
    assert tables["bad"]["rows"] is None
    assert tables["bad"]["problem"] in said("inspect", name)
    assert "region" in refused("head", name, "bad")
    done = insitu("verify", name)
    assert done.returncode == 3
    assert "bad" in done.stdout


def test_names_cannot_drive_the_terminal(region: ins.Region, name: str) -> None:
    nasty = "\x1b[2J\nrm -rf"
    region.put(nasty, pa.table({"\x1b[31mred": ["\x07bell\r"]}))
    for command in (["inspect", name], ["inspect", name, nasty], ["head", name, nasty]):
        text = said(*command)
        assert not any(c in text for c in "\x1b\x07\r")
    assert [table["name"] for table in facts("inspect", name)["tables"]] == [nasty]


def test_looking_at_a_busy_region(region: ins.Region, name: str) -> None:
    stop = threading.Event()

    def work() -> None:
        i = 0
        while not stop.is_set():
            region.put(f"t{i % 7}", {"a": np.full(20_000, i)}, replace=True)
            if i % 3 == 0:
                del region[f"t{i % 7}"]
            i += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(3):
            for command in ("inspect", "leases", "verify", "gc", "top"):
                said(command, name)
    finally:
        stop.set()
        worker.join()
    assert region.verify().ok


def test_a_poisoned_table_is_shown_and_accepted(
    filled: ins.Region, name: str, poison: Callable[[str], int]
) -> None:
    pid = poison("ticks")
    # Nobody has taken over from the dead yet.
    assert facts("ls", name)[0]["poisoned"] == 1
    assert "1 poisoned table" in said("ls", name)
    found = facts("inspect", name)
    assert found["poisoned"] == 1
    problems = {table["name"]: table["problem"] for table in found["tables"]}
    assert problems["kinds"] is problems["empty"] is None
    assert f"process {pid}" in problems["ticks"]
    assert "1 poisoned table" in said("inspect", name)
    found = facts("inspect", name, "ticks")
    assert found["rows"] == 3
    assert found["chunks"] == 1
    assert f"process {pid}" in found["problem"]
    assert "poisoned" in said("inspect", name, "ticks")
    for look in ([], ["--read-only"]):
        found = facts("verify", name, *look)
        assert (found["ok"], found["problems"]) == (True, [])
        [sentence] = found["poisoned"]
        assert '"ticks" is poisoned' in sentence
        assert f"process {pid}" in sentence
        text = said("verify", name, *look)
        assert text.startswith("ok (3 tables, ")
        assert sentence.split(";")[0].split(" (begun")[0] in text
    assert "poisoned" in repr(filled.verify())
    assert "did you mean" in refused("repair", name, "tick")
    found = facts("repair", name, "ticks")
    assert (found["table"], found["repaired"]) == ("ticks", True)
    assert f"process {pid}" in found["was"]
    assert facts("repair", name, "ticks")["repaired"] is False
    assert said("repair", name, "kinds") == "kinds was not poisoned\n"
    assert facts("ls", name)[0]["poisoned"] == 0
    assert filled["ticks"]["price"].to_numpy()[0] == -1
    poison("ticks")
    assert said("repair", name, "ticks") == "ticks is accepted as it is\n"


def test_columns_of_one_name_are_shown(region: ins.Region, name: str) -> None:
    twice = pa.table([pa.array([1, 2]), pa.array(["a", "b"])], names=["a", "a"])
    region.put("twice", twice)
    found = facts("inspect", name, "twice")
    assert [(c["name"], c["type"]) for c in found["columns"]] == [("a", "int64"), ("a", "string")]
    assert found["chunks"] == 1
    [table] = facts("inspect", name)["tables"]
    assert (table["columns"], table["problem"]) == (2, None)
    assert facts("head", name, "twice")["rows"] == [[1, "a"], [2, "b"]]
    assert said("inspect", name, "twice").count("\na ") == 2


def test_what_fails_says_so_to_programs(filled: ins.Region, name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no region" * 1000)
    for arguments, kind in (
        (["inspect", "no-such-region"], "RegionNotFound"),
        (["ls", "no-such-region"], "RegionNotFound"),
        (["rm", "no-such-region"], "RegionNotFound"),
        (["inspect", name, "tick"], "TableNotFound"),
        (["head", name, "tick"], "TableNotFound"),
        (["repair", name, "tick"], "TableNotFound"),
        (["rm", name, "tick"], "TableNotFound"),
        (["leases", tmp_path], "RegionCorrupt"),
        (["top", tmp_path / "notes.txt"], "RegionCorrupt"),
        (["gc", "not/a/file"], "RegionNotFound"),
        (["inspect", "no good name"], "InvalidArgument"),
        (["inspect"], "Usage"),
        (["nonsense", name], "Usage"),
        (["head", name, "ticks", "-n", "many"], "Usage"),
    ):
        done = insitu(*arguments, "--json")
        assert (done.returncode, done.stdout) == (2 if kind == "Usage" else 1, ""), arguments
        assert done.stderr.count("\n") == 1
        said = json.loads(done.stderr)
        assert set(said) == {"error", "message"}
        assert said["error"] == kind, arguments
        assert said["message"]


def test_tables_that_are_being_built_are_listed(region: ins.Region, name: str) -> None:
    with region.build("later", {"a": "float64"}, rows=100_000):
        [record] = facts("leases", name)
        assert (record["table"], record["kind"], record["pid"]) == ("later", "build", os.getpid())
        assert record["bytes"] >= 800_000
        assert "later (being built)" in said("leases", name)
    assert [record["kind"] for record in facts("leases", name)] == []
