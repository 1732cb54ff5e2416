"""The README's Python, and an organisation's set-up, run as they stand there, and print what comments say."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

from tests.checker import mypy

README = (Path(__file__).parents[1] / "README.md").read_text()
ALL_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
BLOCKS = [block for block in ALL_BLOCKS if "fs.Agent(" not in block]
(AGENT,) = [block for block in ALL_BLOCKS if "fs.Agent(" in block]
(ORGANISATION,) = [block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "fieldsync org" in block]
PROMISE = re.compile(r"^print\(.*\)  # (.+)$", re.MULTILINE)  # in the block of all types of fields


def run(code, folder):
    environment = os.environ | {
        "XDG_STATE_HOME": str(folder),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    (folder / "readme.py").write_text(code)
    command = [sys.executable, "readme.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_of_it_runs_from_top_to_bottom(tmp_path):
    assert len(BLOCKS) >= 4
    code = "".join(BLOCKS).replace("port=8765", "port=0")  # which may be taken here
    assert code.count("port=0") == 1
    run(code, tmp_path)


def test_a_type_checker_has_nothing_to_say(tmp_path):
    """Nor has it of docs/schema.md."""
    schema = (Path(__file__).parents[1] / "docs" / "schema.md").read_text()
    for name, blocks in (("readme", BLOCKS), ("schema", re.findall(r"```python\n(.*?)```", schema, re.DOTALL))):
        assert mypy(tmp_path / f"{name}.py", "\n".join(blocks)).startswith("Success")


def test_every_type_of_field_reads_as_it_says(tmp_path):
    (block,) = [block for block in BLOCKS if "class Customer(" in block]
    promises = PROMISE.findall(block)
    assert len(promises) == 7
    assert run(f"import fieldsync as fs\n{block}", tmp_path).splitlines() == promises


def on_free_ports():
    """Puts ports that are free here in place of the README's."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    return lambda text: text.replace("8765", str(ports[0])).replace("8766", str(ports[1]))


def test_an_organisation_is_set_up_as_it_says(tmp_path):
    here = on_free_ports()
    script = here(ORGANISATION).replace("fieldsync agent ", "fieldsync agent --once ")
    assert script.count("--once") == 1
    lines = [
        "set -euo pipefail",
        "trap 'kill $!; wait' EXIT",  # the hub
        script.replace(" &\n", " > served &\nfor i in $(seq 300); do grep -q enrol served && break; sleep 0.1; done\n"),
        f"{shlex.quote(sys.executable)} agent.py",
    ]
    command = tmp_path / "bin" / "fieldsync"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fieldsync "$@"\n')
    command.chmod(0o700)
    (tmp_path / "agent.py").write_text(here(AGENT))
    (tmp_path / "setup.sh").write_text("\n".join(lines))
    environment = os.environ | {
        "XDG_STATE_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PATH": f"{command.parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "setup.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "enrolled as 'ada'" in done.stdout
    assert done.stdout.count("0 changes wait for a hub") == 2
