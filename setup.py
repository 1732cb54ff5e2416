"""Builds the native kernels of native/*.pyx; everything static is in pyproject.toml.

FIELDSYNC_NATIVE_DEBUG=1 builds without optimisation and with every warning shown.
FIELDSYNC_NATIVE_SANITIZE=1 builds for AddressSanitizer and UBSan (see docs/testing.md).
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

SHARED = Path("engine/fieldsync/_native")  # what one kernel calls of another
HEADERS = [str(path) for folder in (Path("native"), SHARED) for path in sorted(folder.glob("*.pxd"))]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Wno-unused-parameter"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def compile_args() -> list[str]:
    """Flags of the C compiler for the build that the environment asks for."""
    if os.environ.get("FIELDSYNC_NATIVE_SANITIZE"):
        return ["-O1", "-g", *SANITIZERS]
    if os.environ.get("FIELDSYNC_NATIVE_DEBUG"):
        return ["-O0", "-g", *WARNINGS]
    return ["/O2"] if sys.platform == "win32" else ["-O3", "-g0"]


def link_args() -> list[str]:
    """Flags of the linker: the sanitizers' runtime, or stripped symbols."""
    if os.environ.get("FIELDSYNC_NATIVE_SANITIZE"):
        return ["-fsanitize=address,undefined"]
    return ["-Wl,-s"] if sys.platform == "linux" else []


extensions = [
    Extension(
        f"fieldsync._native.{source.stem}",
        [source.as_posix()],
        include_dirs=["native"],
        depends=HEADERS,
        extra_compile_args=compile_args(),
        extra_link_args=link_args(),
    )
    for source in sorted(Path("native").glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives={"language_level": 3, "autotestdict": False},
        include_path=["native", "engine"],
    )
)
