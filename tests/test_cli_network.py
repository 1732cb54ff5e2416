"""The commands that stay, as processes: a hub with TLS, its page and its desk, an agent, and how they end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from datetime import datetime

import pytest
from tests.networks import eventually, fill, keys

import fieldsync as fs


def command(*arguments):
    return [sys.executable, "-m", "fieldsync", *map(str, arguments)]


def run(*arguments):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def running(*arguments, stderr=None):
    """A command in the background, killed at the end if it still runs."""
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An organisation and its hub, in a folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["org", "create", "org", "--name", "Acme"],
        ["hub", "init", "hub", "--org", "org", "--name", "o"],
    ):
        code, out = run(*arguments)
        assert code == 0, out
    return tmp_path


@pytest.fixture
def hub(place):
    """A hub that is served: its address, its page and its port for those who enrol; ended by SIGTERM."""
    ports = ["--port", 0, "--page", 0, "--admit", 0]
    with (
        (place / "log").open("w") as log,
        running("serve", "--db", "hub.db", "--identity", "hub", "--json", *ports, stderr=log) as process,
    ):
        lines = [process.stdout.readline() for _ in range(3)]
        yield lines[0].split(" on ")[1].split(";")[0], lines[1].split()[-1], lines[2].split()[-1]
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[0] == "stopped\n"
        assert process.returncode == 0


def enrol(name, port):
    code, out = run(
        *("invite", name, "--db", "hub.db", "--identity", "hub", "--write", "*"),
        *("--address", f"wss://127.0.0.1:{port}"),
    )
    assert code == 0, out
    code, out = run("enroll", out.strip(), name)
    assert code == 0, out


def test_a_device_enrols_and_its_agent_syncs(place, hub):
    url, page, port = hub
    enrol("ada", port)
    with fs.open("ada.db") as ada:
        fill(ada, "job/7", "a")
    code, out = run("agent", "--db", "ada.db", "--identity", "ada", "--hub", url, "--once")
    assert (code, "0 changes wait for a hub" in out) == (0, True), out
    with urllib.request.urlopen(f"{page}/metrics", timeout=20) as answer:
        assert b'fieldsync_syncs_total{outcome="failed"} 0\n' in answer.read()
    with urllib.request.urlopen(f"{page}/healthz", timeout=20) as answer:
        assert answer.read() == b"ok\n"
    logged = [json.loads(line) for line in (place / "log").read_text().splitlines()]
    assert {line["outcome"] for line in logged if line["message"] == "session"} == {"complete"}
    with fs.open("hub.db") as office:
        assert keys(office) == {("job/7", "a")}
    options = ["--db", "ada.db", "--identity", "ada", "--hub", url, "--once"]
    code, out = run("agent", *options, "--json", "--bytes-a-day", 1_000_000)
    status = json.loads(out)
    assert (code, status["pending"], status["why_not"]) == (0, 0, "")
    assert [(peer["name"], peer["state"]) for peer in status["peers"]] == [(url, "connected")]
    assert datetime.fromisoformat(status["last_success"]).tzinfo is not None
    code, out = run("agent", *options, "--bytes-a-day", 1)
    assert (code, "the budget is used up" in out) == (1, True), out


def test_an_agent_stays_until_it_is_stopped(place, hub):
    url, _, port = hub
    enrol("ada", port)
    with running("agent", "--db", "ada.db", "--identity", "ada", "--hub", url) as agent:
        with fs.open("ada.db") as ada, fs.open("hub.db") as office:  # three processes have them open
            fill(ada, "job/7", "a")
            eventually(lambda: keys(office) == {("job/7", "a")})
        agent.send_signal(signal.SIGINT)
        out = agent.communicate(timeout=60)[0]
        assert agent.returncode == 0
    assert out.endswith("stopped\n")
    assert url in out


def test_an_agent_that_reaches_nobody_says_why(place):
    code, out = run("agent", "--db", "ada.db", "--hub", "ws://127.0.0.1:9", "--once", "--deadline", 5)
    assert code == 1
    assert "ws://127.0.0.1:9: not connected (" in out
    code, out = run("agent", "--db", "ada.db", "--lan")
    assert (code, "an identity" in out) == (1, True)
    code, out = run("serve", "--db", "ada.db", "--admit", 0)
    assert (code, "a hub with an identity" in out) == (1, True)
