"""Priorities and budgets: the most urgent scopes come first, a sync ends when it has had enough, the next goes on."""

import random

import pytest

import fieldsync as fs

SCOPES = {"job/1": 0, "job/2": 2, "job/3": 1}  # with their priorities
RECORDS = 150


@pytest.fixture
def hub(tmp_path):
    """A hub with three scopes of some 10 KB each."""
    chance = random.Random(0)
    with fs.open(tmp_path / "hub.db", hub=True, durability="fast") as hub:
        for scope in SCOPES:
            with hub.write() as tx:
                for number in range(RECORDS):
                    tx.create("notes", scope=scope, key=f"n-{number}", text=chance.randbytes(30).hex())
        yield hub


@pytest.fixture
def device(tmp_path):
    with fs.open(tmp_path / "device.db", durability="fast") as device:
        for scope, priority in SCOPES.items():
            device.enter(scope, priority=priority)
        yield device


@pytest.fixture(params=["memory", "websocket"])
def peer(request, hub):
    if request.param == "memory":
        yield hub
        return
    with fs.serve(hub) as server:
        yield server.url


def ready(device):
    return {scope.name for scope in device.scopes() if scope.state == "ready"}


def size(report):
    return report.bytes_sent + report.bytes_received


def test_a_budget_of_bytes_fills_the_most_urgent_scopes_first(device, hub, peer, tmp_path):
    with fs.open(tmp_path / "whole.db") as whole:
        whole.enter(*SCOPES)
        uninterrupted = size(whole.sync(hub))
    reports, filled = [], []
    while not (reports and reports[-1].complete):
        reports.append(device.sync(peer, max_bytes=4_000))
        filled += sorted(ready(device) - set(filled))
    assert filled == ["job/2", "job/3", "job/1"]
    assert len(reports) > uninterrupted / 5_500
    assert max(map(size, reports)) < 5_500  # a part of a chunk may be under way when it is used up
    assert sum(map(size, reports)) < 1.15 * uninterrupted + 150 * len(reports)  # each says who and what again
    assert {scope.name: scope.digest for scope in device.scopes()} == {
        scope.name: scope.digest for scope in hub.scopes()
    }


def test_no_time_at_all_is_no_error(device, peer):
    report = device.sync(peer, max_seconds=0)
    assert not report.complete
    assert not ready(device)
    assert device.sync(peer, max_seconds=3_600).complete
    assert ready(device) == set(SCOPES)


def test_priorities_stay_until_they_are_changed(device, hub):
    device.enter("job/1", priority=9)
    device.enter("job/2")
    device.sync(hub, max_bytes=1)
    first = []

    def note(_):
        first.extend(sorted(ready(device) - set(first)))

    device.sync(hub, progress=note)
    assert first == ["job/1", "job/2", "job/3"]
