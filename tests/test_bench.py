"""The benchmarks run, agree on the values, and write what they promise. Speed is not asserted anywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench import data, peers, runner
from bench.__main__ import main

ROOT = Path(__file__).parents[1]
FIGURES = {
    "build": {"s", "peak_mb", "bytes"},
    "open": {"ms", "read_all_s", "import_ms"},
    "edit": {"per_s", "batch_per_s", "growth_x"},
    "apply": {"delta_bytes", "delta_ms", "apply_ms", "first_bytes", "first_s"},
    "sketch": {
        f"{figure}_{differences}{suffix}{worst}"
        for figure, *worsts in (
            ("bytes", "_worst"),
            ("round_trips", "_worst"),
            ("bytes_per_difference",),
            ("encode_ms",),
            ("decode_ms",),
        )
        for worst in ("", *worsts)
        for differences in (10, 100, 1_000, 10_000)
        for suffix in ("", "_x10")
    },
    "idle": {"bytes", "round_trips"},
    "lone": {
        f"{figure}{suffix}{side}{worst}"
        for figure in ("bytes", "round_trips")
        for suffix in ("", "_of_50")
        for side in ("", "_pulled")
        for worst in ("", "_worst")
    },
    "bulk": {"bytes_per_edit_one", "bytes_per_edit_many"},
    "rejoin": {
        f"{figure}_{removals}{worst}"
        for figure in ("bytes_over_changes", "round_trips")
        for removals in (10, 100, 1_000)
        for worst in ("", "_worst")
    },
    "move": {
        f"{figure}{worst}" for figure in ("bytes", "bytes_over_entering", "round_trips") for worst in ("", "_worst")
    },
    "text": {"one_s", "one_per_s", "sessions_s", "bytes", "over_pycrdt", "synced_bytes", "live_bytes"},
    "cuts": {"bytes_uninterrupted", "bytes_over_uninterrupted", "bytes_over_uninterrupted_worst"},
}


def test_all_topics(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--records=500", "--repeat=1", f"--json={tmp_path / 'bench.json'}"]
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    skipped = set(filter(runner.skipped, FIGURES))
    assert set(FIGURES) == set(runner.TOPICS)
    assert set(found) == set(FIGURES) - skipped
    assert skipped <= {"text"}
    for name, figures in FIGURES.items():
        if name in skipped:
            assert f"{name}: skipped" in done.stdout
            continue
        present = [one for one in runner.topic(name).CONTENDERS if not peers.is_missing(one)]
        assert set(found[name]) == {f"{one}_{figure}" for one in present for figure in figures}
        assert all(isinstance(value, int | float) for value in found[name].values())
        assert {target.metric for target in runner.topic(name).TARGETS} <= set(found[name])
        assert f"{name}: 500 records" in done.stdout
    assert 0 < found["apply"]["fieldsync_delta_bytes"] < found["apply"]["fieldsync_first_bytes"]
    assert found["build"]["fieldsync_bytes"] > found["build"]["sqlite3_bytes"] > 0
    assert found["idle"]["fieldsync_round_trips"] == 1
    assert 0 < found["idle"]["fieldsync_bytes"] < found["lone"]["fieldsync_bytes_of_50"]
    rejoin = found["rejoin"]
    assert 0 < rejoin["fieldsync_bytes_over_changes_10"] < rejoin["copy_bytes_over_changes_10"]
    assert found["cuts"]["fieldsync_bytes_over_uninterrupted"] > 1


def test_bytes_are_counted_once() -> None:
    assert runner.runs("build", 3) == 3
    assert runner.runs("lone", 3) == 1


def test_missing_peer_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("pycrdt", "loro"):
        monkeypatch.setitem(peers.CONTENDERS, name, (f"{name}_not_there", peers.CONTENDERS[name][1]))
    monkeypatch.setattr(runner, "_measure", lambda *_: runner.Result({"s": 2.0, "peak_mb": 1.0, "bytes": 3}, "digest"))
    assert main(["--only", "build"]) == 0
    assert "pycrdt is missing: pip install pycrdt_not_there" in capsys.readouterr().out


def test_contenders_that_disagree_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(runner, "_measure", lambda _topic, contender, _count: runner.Result({"s": 1.0}, contender))
    assert main(["--only", "build", "--repeat", "1"]) == 1
    assert "different values" in capsys.readouterr().err


def test_a_contender_that_lost_a_value_fails(tmp_path: Path) -> None:
    records = data.records(50)
    peer = peers.contender("sqlite3")(tmp_path)
    peer.build(records)
    assert runner.checked(peer, dict(records)) == data.digest(dict(records))
    peer.edit([data.Edit(records[7][0], "quantity", -1)])
    with pytest.raises(AssertionError, match="other values"):
        runner.checked(peer, dict(records))
    peer.close()


def test_data_is_seeded() -> None:
    records = data.records(300)
    keys = [key for key, _ in records]
    assert records == data.records(300)
    assert records != data.records(300, seed=2)
    assert {len(key) for key in keys} == {22}
    assert all({name: type(value) for name, value in row.items()} == data.FIELDS for _, row in records)
    assert {edit.key for edit in data.overwrites(keys, 1)} == set(keys)
    again = [{(edit.key, edit.field) for edit in data.overwrites(keys, seed)} for seed in (1, 2)]
    assert again[0] == again[1]  # the same fields, and other values
    assert data.overwrites(keys, 1) != data.overwrites(keys, 2)


def test_list_and_unknown_topics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(runner.TOPICS)
    with pytest.raises(SystemExit):
        main(["--only", "build,nothing"])
    assert "no topic nothing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--repeat", "0"])
    assert "not a number above 0" in capsys.readouterr().err
