"""What the package gives to apps: names, docstrings, errors, and stubs that say what the kernels are."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import fieldsync
from fieldsync import errors

PACKAGE = Path(fieldsync.__file__).parent
KERNELS = sorted(path.name.split(".")[0] for path in PACKAGE.glob("_native/*.so"))
ERRORS = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
CLASSES = [name for name in fieldsync.__all__ if isinstance(getattr(fieldsync, name), type)]


def test_all_is_sorted_and_complete():
    assert fieldsync.__all__ == sorted(fieldsync.__all__)
    public = {name for name, value in vars(fieldsync).items() if name[0] != "_" and not isinstance(value, ModuleType)}
    assert set(fieldsync.__all__) == public | fieldsync._LATE.keys()


@pytest.mark.parametrize("name", [name for name in fieldsync.__all__ if name != "Counter"])  # which is no object
def test_every_public_name_is_documented(name):
    assert getattr(fieldsync, name).__doc__.strip()


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_method_is_documented(name):
    cls = getattr(fieldsync, name)
    own = [base for base in cls.__mro__ if base.__module__.startswith("fieldsync")]
    members = {member: value for base in reversed(own) for member, value in vars(base).items() if member[0] != "_"}
    kinds = (FunctionType, classmethod, staticmethod, property)
    bare = [member for member, value in members.items() if isinstance(value, kinds) and not inspect.getdoc(value)]
    assert not bare


def drawn() -> dict[str, str | None]:
    """The tree in the docstring of errors.py: each error and the one above it."""
    tree: dict[str, str | None] = {}
    above: dict[int, str] = {}
    for line in errors.__doc__.splitlines():
        if match := re.fullmatch(r"    ([ |+-]*)([A-Z]\w+)( {2,}.+)?", line):
            depth = len(match[1]) // 5
            tree[match[2]] = above.get(depth - 1)
            above[depth] = match[2]
    return tree


def test_the_drawn_tree_of_errors_is_the_real_one():
    real = {
        name: next((base.__name__ for base in kind.__bases__ if base in ERRORS.values()), None)
        for name, kind in ERRORS.items()
    }
    assert drawn() == real
    assert list(drawn()) == list(real)


def test_every_error_is_public_and_raised_somewhere():
    assert set(ERRORS) <= set(fieldsync.__all__)
    raised = "".join(
        path.read_text() for path in PACKAGE.rglob("*.py") if path.name not in ("errors.py", "__init__.py")
    )
    leaves = set(ERRORS) - set(drawn().values())
    assert {name for name in leaves if not re.search(rf"raise {name}\b", raised)} == set()


def test_the_stubs_say_what_the_kernels_are(tmp_path):
    assert sorted(path.stem for path in PACKAGE.glob("_native/*.pyi")) == KERNELS
    source = {} if PACKAGE.parent.name == "site-packages" else {"MYPYPATH": str(PACKAGE.parent)}
    modules = [f"fieldsync._native.{name}" for name in KERNELS]
    command = [sys.executable, "-m", "mypy.stubtest", *modules]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
