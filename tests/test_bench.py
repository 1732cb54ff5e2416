"""The benchmarks run, agree on the values, and write what they promise. Speed is not asserted anywhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from bench import bench_delta, bench_scale, clock, compare, data, peers, plot, runner
from bench.__main__ import main

ROOT = Path(__file__).parents[1]
FIGURES = {
    "build": {"s", "peak_mb", "bytes"},
    "open": {"ms", "read_all_s", "import_ms"},
    "edit": {"per_s", "batch_per_s", "growth_x"},
    "delta": {"bytes", "ms", "opened_ms", "first_bytes", "first_s"},
    "apply": {"ms", "bare_ms", "first_s"},
    "first_sync": {"s", "bytes", "taker_mb", "giver_mb"},
    "delete": {"s", "kept_bytes", "bytes"},
    "query": {"key_us", "indexed_us", "range_ms", "scan_ms", "count_ms"},
    "kernels": {
        f"{kernel}_ns"
        for kernel in ("encode", "decode", "merge_nothing", "merge_half", "merge_all", "diff", "digest", "sketch")
    },
    "scale": {f"{figure}{size}" for figure in ("build_us", "build_bytes", "take_us") for size in ("", "_tenth")},
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
    "set": {"per_s", "bytes", "delta_bytes", "delta_ms", "apply_ms"},
    "field_day": {
        *("virtual_s", "bytes", "round_trips", "share_of_full_copy", "share_of_first_sync"),
        *("frame_bytes", "cpu_s", "full_copy_bytes", "first_sync_bytes", "first_sync_s"),
    },
    "fleet": {
        *("devices", "connect_s", "idle_kb", "busy_kb", "idle_cpu_percent", "busy_cpu_percent"),
        *("hub_ms_an_edit", "p50_ms", "p99_ms"),
    },
    "lan": {"s", "s_worst", "by_multicast"},
    "cuts": {"bytes_uninterrupted", "bytes_over_uninterrupted", "bytes_over_uninterrupted_worst"},
}


@pytest.mark.timeout(900)
def test_all_topics(tmp_path: Path) -> None:
    (tmp_path / "before.json").write_text('{"build": {"fieldsync_s": 0.0, "sqlite3_s": 1.0}}')
    outputs = [f"--json={tmp_path / 'bench.json'}", f"--plot={tmp_path / 'plots'}"]
    command = [sys.executable, "-m", "bench", "--records=500", "--repeat=1", *outputs]
    command.append(f"--compare={tmp_path / 'before.json'}")
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
    assert 0 < found["delta"]["fieldsync_bytes"] < found["delta"]["fieldsync_first_bytes"]
    assert 0 < found["first_sync"]["fieldsync_bytes"] < found["first_sync"]["pycrdt_bytes"]
    assert found["delete"]["fieldsync_bytes"] <= 0 < found["delete"]["fieldsync_kept_bytes"]
    bars = [one for one in runner.topic("build").CONTENDERS if not peers.is_missing(one)]
    assert (tmp_path / "plots" / "build.svg").read_text().count("<rect") == len(bars) + 1  # and what is behind them
    assert "nothing got worse" in done.stdout or " figures got worse" in done.stdout
    assert found["build"]["fieldsync_bytes"] > found["build"]["sqlite3_bytes"] > 0
    assert found["idle"]["fieldsync_round_trips"] == 1
    assert 0 < found["idle"]["fieldsync_bytes"] < found["lone"]["fieldsync_bytes_of_50"]
    rejoin = found["rejoin"]
    assert 0 < rejoin["fieldsync_bytes_over_changes_10"] < rejoin["copy_bytes_over_changes_10"]
    assert found["field_day"]["fieldsync_frame_bytes"] < found["field_day"]["fieldsync_bytes"]
    assert found["field_day"]["fieldsync_bytes"] < found["field_day"]["fieldsync_full_copy_bytes"]
    assert found["fleet"]["fieldsync_devices"] == 2
    assert found["cuts"]["fieldsync_bytes_over_uninterrupted"] > 1


def test_bytes_are_counted_once() -> None:
    assert runner.runs("build", 3) == 3
    assert runner.runs("lone", 3) == 1


def test_missing_peer_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("pycrdt", "loro"):
        monkeypatch.setitem(peers.CONTENDERS, name, (f"{name}_not_there", peers.CONTENDERS[name][1]))
    monkeypatch.setattr(runner, "run", lambda *_: runner.Result({"s": 2.0, "peak_mb": 1.0, "bytes": 3}, "digest"))
    assert main(["--only", "build"]) == 0
    assert "pycrdt is missing: pip install pycrdt_not_there" in capsys.readouterr().out


def test_contenders_that_disagree_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(runner, "run", lambda _topic, contender, _count: runner.Result({"s": 1.0}, contender))
    assert main(["--only", "build", "--repeat", "1"]) == 1
    assert "different values" in capsys.readouterr().err


def test_a_topic_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    file.write_text('{"query": {"fieldsync_key_us": 1.0, "sqlite3_key_us": 2.0}}')
    written = []

    def run(topic: str, contender: str, _count: int) -> runner.Result:
        written.append((topic, list(json.loads(file.read_text()))))
        if topic == "set":
            raise RuntimeError(f"set of {contender} failed:\nthe disk is full")
        return runner.Result({"key_us": 2.0}, "digest")

    monkeypatch.setattr(runner, "run", run)
    assert main(["--only", "query,set,scale", "--repeat", "1", f"--json={file}", f"--compare={file}"]) == 1
    assert written[-1] == ("scale", ["query"])  # what there is, topic by topic
    assert list(json.loads(file.read_text())) == ["query", "scale"]
    told = capsys.readouterr()
    assert "the disk is full" in told.err
    assert told.err.endswith("failed: set\n")
    assert "fieldsync_key_us / sqlite3_key_us: 0.5 -> 1, 100% worse" in told.out  # than what the file had before


def test_a_contender_that_does_not_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RUN_SECONDS_MAX", 0.01)
    with pytest.raises(RuntimeError, match=r"build of fieldsync took more than 0\.01 s"):
        runner.run("build", "fieldsync", 50)


def test_seconds_may_be_the_processors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(clock.CPU, "")
    asked = []
    run = lambda *_: asked.append(os.environ[clock.CPU]) or runner.Result({"key_us": 2.0}, "digest")  # noqa: E731
    monkeypatch.setattr(runner, "run", run)
    assert main(["--only", "query", "--repeat", "1", "--cpu"]) == 0
    assert set(asked) == {"1"}
    assert "seconds of the processor" in capsys.readouterr().out
    own, ended = SimpleNamespace(process_time=lambda: 1.0), SimpleNamespace(ru_utime=0.25, ru_stime=0.125)
    monkeypatch.setattr(clock, "time", own)
    monkeypatch.setattr(clock.resource, "getrusage", {clock.resource.RUSAGE_CHILDREN: ended}.get)
    assert clock.processor_seconds() == 1.375


def test_an_app_is_told_of_each_record_that_was_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    hear = peers.Fieldsync.hear
    monkeypatch.setattr(peers.Fieldsync, "hear", lambda peer, keys: hear(peer, keys) or heard.append((peer, set(keys))))
    found = bench_delta.delivered("fieldsync", 50, tmp_path)
    ((taker, keys),) = heard
    records = data.records(50)
    edits = data.edits([key for key, _ in records], 50, 2)
    assert keys <= {edit.key for edit in edits}
    wanted = data.edited(records, edits)
    assert found.digest == data.digest(wanted)
    assert {key: {name: getattr(taker.heard[key], name) for name in wanted[key]} for key in keys} == {
        key: wanted[key] for key in keys
    }
    assert found.bare.size < found.first.size


def test_a_contender_that_lost_a_value_fails(tmp_path: Path) -> None:
    records = data.records(50)
    peer = peers.contender("sqlite3")(tmp_path)
    peer.build(records)
    assert runner.checked(peer, dict(records)) == data.digest(dict(records))
    peer.edit([data.Edit(records[7][0], "quantity", -1)])
    with pytest.raises(AssertionError, match="other values"):
        runner.checked(peer, dict(records))
    peer.close()


def test_scale_has_ten_times_as_many_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(topic: str, contender: str, count: int) -> runner.Result:
        asked.append((topic, contender, count))
        return runner.Result({"s": 3.0, "peak_mb": 6.0, "first_s": 1.5}, f"{topic} {count}")

    monkeypatch.setattr(bench_scale, "run", run)
    figures, digest = bench_scale.measure("loro", 100, tmp_path)
    assert asked == [(topic, "loro", count) for count in (10, 100) for topic in ("build", "apply")]
    assert figures["build_us_tenth"] == 10 * figures["build_us"] == 300_000
    assert (figures["build_bytes"], figures["take_us"]) == (60_000, 15_000)
    assert digest == "build 10 apply 10 build 100 apply 100"
    monkeypatch.setenv(bench_scale.LARGE, "1")
    assert "build_us_large" in bench_scale.measure("loro", 100, tmp_path).figures
    assert asked[-1] == ("apply", "loro", 1_000)


def test_what_got_worse_is_told() -> None:
    build = {"fieldsync_s": 1.0, "fieldsync_single_s": 2.0, "sqlite3_s": 0.5, "pycrdt_s": 2.0, "fieldsync_mb": 1.0}
    edit = {"fieldsync_per_s": 100.0, "loro_per_s": 100.0}
    before = {"build": build, "edit": edit, "idle": {"fieldsync_bytes": 16.0, "fieldsync_round_trips": 1.0}}
    assert list(compare.worse(before, before)) == []
    slow = {topic: {name: 3 * value for name, value in found.items()} for topic, found in before.items()}
    assert [one.metric for one in compare.worse(slow, before)] == ["fieldsync_bytes", "fieldsync_round_trips"]
    now = {"build": build | {"fieldsync_s": 1.2}, "edit": edit | {"fieldsync_per_s": 80.0}, "new": edit}
    assert sorted(map(str, compare.worse(now, before))) == [
        "build: fieldsync_s / pycrdt_s: 0.5 -> 0.6, 20% worse",
        "build: fieldsync_s / sqlite3_s: 2 -> 2.4, 20% worse",
        "edit: fieldsync_per_s / loro_per_s: 1 -> 0.8, 20% worse",
    ]
    assert list(compare.worse(now, {"edit": edit | {"loro_per_s": 0.0}})) == []


def test_plots_are_of_what_was_measured(tmp_path: Path) -> None:
    build = {"fieldsync_s": 1.0, "fieldsync_single_s": 2.5, "ranges_s": 9.0, "pycrdt_peak_mb": 7.0}
    assert [path.name for path in plot.draw(tmp_path / "plots", {"build": build})] == ["build.svg", "memory.svg"]
    text = (tmp_path / "plots" / "build.svg").read_text()
    assert text.count("<rect") == 3
    assert ">fieldsync_single<" in text
    assert ">2.5<" in text
    assert "ranges" not in text
    assert plot.table({"build": build}).splitlines()[2:] == ["| Building all records, seconds | 1 |  |  |  |"]
    assert "| 1 |  | 12,345 (1.2e+04 x) |  |" in plot.table({"build": build | {"pycrdt_s": 12_345.0}})


def test_cost_is_plotted_against_size(tmp_path: Path) -> None:
    scale = {"fieldsync_build_us_tenth": 4.0, "fieldsync_build_us": 5.0, "fieldsync_take_us": 1.0}
    scale |= {"loro_build_us_tenth": 20.0, "loro_build_us": 10.0}
    (curve,) = plot.draw(tmp_path, {"scale": scale})
    text = curve.read_text()
    assert curve.name == "build-by-size.svg"
    assert text.count("<polyline") == 2
    assert "ten times" not in text
    heights = {value: -float(y) for y, value in re.findall(r'y="([\d.]+)" text-anchor="middle">(\d+)<', text)}
    assert sorted(heights, key=heights.__getitem__) == ["4", "5", "10", "20"]


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
