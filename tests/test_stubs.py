"""What the types say is what is there."""

from __future__ import annotations

import builtins
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import insitu as ins
import pytest
from insitu import _native

BRIDGE = Path(__file__).parent.parent / "pybridge"
SHADOWING = {"len", "open"}
"""What the module has and a star import does not bring, as the built-ins have these names."""


def test_generated_stubs_are_current() -> None:
    spec = importlib.util.spec_from_file_location("stubs", BRIDGE / "stubs.py")
    assert spec
    assert spec.loader
    stubs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stubs)
    text = stubs.STUB.read_text()
    assert stubs.generate(text) == text, "run python pybridge/stubs.py"


@pytest.mark.timeout(300)
def test_stubtest() -> None:
    pytest.importorskip("mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "insitu"],
        cwd=BRIDGE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_public_is_exported() -> None:
    native = {name for name in vars(_native) if not name.startswith("_")}
    written = {"evaluate", "get_num_threads", "re_evaluate", "set_num_threads", "validate"}
    assert native | written | {"__version__"} == set(ins.__all__) | SHADOWING
    assert (Path(str(ins.__file__)).parent / "py.typed").exists()


def test_a_star_import_leaves_the_builtins_alone() -> None:
    assert set(dir(builtins)) & set(ins.__all__) == set()
    here: dict[str, object] = {}
    exec("from insitu import *", here)
    assert {"col", "create", "Table", "Error"} <= here.keys()
    assert here.keys() & SHADOWING == set()
    for name in SHADOWING:
        assert getattr(ins, name) is getattr(_native, name)


def test_everything_public_is_documented() -> None:
    for name in {*ins.__all__, *SHADOWING}:
        thing = getattr(ins, name)
        if name == "__version__":
            continue
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing) and not issubclass(thing, BaseException):
            for member, value in vars(thing).items():
                if not member.startswith("_"):
                    assert inspect.getdoc(value), f"{name}.{member}"


def test_every_function_of_the_table_is_a_method_or_a_free_function() -> None:
    for method, _, kind, doc in _native._functions():
        place = ins if kind == "horizontal" else ins.Expr
        written = inspect.getdoc(getattr(place, method))
        assert written == doc or (kind == "window" and written)
        assert hasattr(ins.Column, method) == (kind == "aggregate")


def test_versions_agree() -> None:
    manifest = (BRIDGE.parent / "Cargo.toml").read_text()
    found = re.search(r'^version = "(.*)"$', manifest, re.MULTILINE)
    assert found
    assert ins.__version__ == found[1]
