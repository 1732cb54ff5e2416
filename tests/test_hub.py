"""A hub's page for its operator, its logs, and its end."""

from __future__ import annotations

import io
import json
import logging
import re
import urllib.error
import urllib.request

import pytest
from tests.networks import eventually, fill

import fieldsync as fs
from fieldsync.errors import IdentityError
from fieldsync.network.hub import Hub, JsonLines
from fieldsync.network.metrics import Metric, one, render
from fieldsync.trust.desk import ask
from fieldsync.trust.enrolment import enrol, invite
from fieldsync.trust.membership import membership_of


@pytest.fixture
def hub(network):
    with Hub(network.hub.replica, identity=network.hub_identity, page=("127.0.0.1", 0)) as hub:
        yield hub


def get(hub, path):
    try:
        with urllib.request.urlopen(hub.page_url + path, timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"\})? (\S+)')


def parse(text):
    """Metrics by the grammar of the text format: help, then type, then samples of that name, none twice."""
    assert text.endswith("\n")
    found, name, kinds = {}, None, {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in kinds
            assert line.split(" ", 3)[3].endswith(".")
        elif line.startswith("# TYPE "):
            _, _, typed, kind = line.split(" ")
            assert typed == name
            assert kind in ("counter", "gauge")
            kinds[name] = kind
            assert name.endswith("_total") == (kind == "counter")
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] == name in kinds
            assert match[1] + (match[2] or "") not in found
            found[match[1] + (match[2] or "")] = float(match[3])
    return found


def test_metrics_count_what_happens(network, hub):
    device, identity = network.device("ada", "job/7")
    fill(device, "job/7", "a", "b")
    report = device.sync(hub.url, identity=identity)
    eventually(lambda: hub.server.sessions == 2)  # one in which they learn of each other, and another
    status, kind, text = get(hub, "/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    numbers = parse(text)
    assert numbers['fieldsync_syncs_total{outcome="complete"}'] == 2
    assert numbers['fieldsync_syncs_total{outcome="failed"}'] == 0
    assert numbers['fieldsync_changes_total{direction="received"}'] == report.changes_sent
    assert numbers['fieldsync_bytes_total{direction="received"}'] == report.bytes_sent
    assert numbers['fieldsync_connects_total{outcome="accepted"}'] == 1
    assert numbers["fieldsync_scopes"] == 2
    assert numbers["fieldsync_sync_seconds_total"] > 0
    assert "job/7" not in text
    assert identity.device not in text


def test_metrics_are_escaped():
    metric = Metric("m_total", "counter", "Help.", {'a"\\\n': 1.5, "b": 2}, "label")
    assert (
        render([metric])
        == '# HELP m_total Help.\n# TYPE m_total counter\nm_total{label="a\\"\\\\\\n"} 1.5\nm_total{label="b"} 2\n'
    )
    assert parse(render([metric, one("g", "gauge", "Help.", 0.1)]))["g"] == 0.1


def test_health_tells_whether_it_serves(network, hub, monkeypatch):
    assert get(hub, "/healthz") == (200, "text/plain; version=0.0.4; charset=utf-8", "ok\n")

    def stuck(_):
        raise TimeoutError

    monkeypatch.setattr(hub.server, "check", stuck)
    assert get(hub, "/healthz")[0] == 503
    monkeypatch.undo()
    hub.server.close()
    status, _, text = get(hub, "/healthz")
    assert (status, text) == (503, "it was closed\n")


def test_there_is_no_other_page(hub):
    assert get(hub, "/")[0] == 404
    assert get(hub, "/metrics/x")[0] == 404


def test_a_page_is_for_this_machine_only(network):
    with pytest.raises(fs.SyncError, match="loopback"):
        Hub(network.hub.replica, page=("0.0.0.0", 0))


def test_a_page_that_cannot_be_shown_leaves_nothing_behind(network, hub):
    taken = int(hub.page_url.rpartition(":")[2])
    with pytest.raises(fs.ConnectionFailed, match="cannot serve beside"):
        Hub(network.hub.replica, page=("127.0.0.1", taken))


def test_logs_are_lines_of_json(network, hub):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("fieldsync")
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        device, identity = network.device("ada", "job/7")
        fill(device, "job/7", "a")
        report = device.sync(hub.url, identity=identity)
        eventually(lambda: stream.getvalue().count("\n") == 2)
        try:
            raise ValueError
        except ValueError:
            logger.exception("with a trace")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    session, other, failed = map(json.loads, stream.getvalue().splitlines())
    assert (session["message"], session["level"], session["outcome"]) == ("session", "info", "complete")
    assert session["peer"] == identity.device
    assert session["bytes_received"] + other["bytes_received"] == report.bytes_sent
    assert "ValueError" in failed["trace"]
    assert "job/7" not in stream.getvalue()


def test_it_trims_though_no_session_ends(network, monkeypatch):
    tidied = []
    monkeypatch.setattr(network.hub.replica, "tidy", lambda: tidied.append(1))
    monkeypatch.setattr("fieldsync.network.hub.TIDY_SECONDS", 0.01)
    with Hub(network.hub.replica, identity=network.hub_identity):
        eventually(lambda: len(tidied) > 2)


def test_a_device_enrols_at_a_hub_by_a_code(network, tmp_path):
    with Hub(network.hub.replica, identity=network.hub_identity, admit=("127.0.0.1", 0)) as hub:
        office = membership_of(network.hub.replica, network.hub_identity)
        address = f"wss://127.0.0.1:{hub.admit_port}"
        identity = enrol(invite(office, "ada", address, seconds=60, write=["job/*"]).code, tmp_path / "ada", ask)
        device = network.open("ada")
        fill(device, "job/7", "a")
        assert device.sync(hub.url, identity=identity).complete
        assert network.hub["notes"].get("a") is not None


def test_only_a_hub_with_an_identity_admits(network):
    with pytest.raises(IdentityError):
        Hub(network.hub.replica, admit=("127.0.0.1", 0))
    with pytest.raises(IdentityError):
        Hub(network.open("ada").replica, identity=network.admit("ada"), admit=("127.0.0.1", 0))
