"""What a type checker says of an app."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fieldsync import schema as fs


def mypy(path: Path, text: str) -> str:
    path.write_text(text)
    options = ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={path.parent}"]
    root = Path(fs.__file__).parent.parent
    environment = os.environ | ({} if root.name == "site-packages" else {"MYPYPATH": str(root)})
    command = [sys.executable, "-m", "mypy", *options, path.name]
    return subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, text=True, check=False).stdout
