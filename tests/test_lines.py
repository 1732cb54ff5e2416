"""What lines are told of, and which of two stays: nothing that changes is lost on the way to those who lack it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import websockets.asyncio.server
from tests.networks import fill

import fieldsync as fs
from fieldsync.errors import StoreError
from fieldsync.limits import FRAME_COST_BYTES, UNTAKEN_BYTES_MAX
from fieldsync.network import lines as module
from fieldsync.network.line import Line
from fieldsync.network.lines import Lines
from fieldsync.network.news import Known, states
from fieldsync.network.wire import dial, patient, settings
from fieldsync.syncing.report import Refused, Report
from fieldsync.trust.rights import CONTROL


@pytest.fixture
def database(tmp_path):
    with fs.open(tmp_path / "ada.db", durability="fast") as database:
        database.enter("job/7")
        yield database


class Told:
    """A line, as far as news are told to it."""

    def __init__(self, known=None, device="ben", *, is_dialer=True):
        self.peer, self.is_dialer = SimpleNamespace(device=device), is_dialer
        self.known, self.trust, self.control = known, None, {}
        self.is_busy, self.was_refused, self.missed, self.count = False, False, set(), 0
        self.codes, self.probes = [], 0

    def miss(self, scopes):
        self.missed |= scopes

    def stir(self):
        self.count += 1

    async def close(self, code=1000, reason=""):
        self.codes.append(code)

    async def probe(self, seconds):
        self.probes += 1


async def told(database, line, work):
    """Spread news to a line while something is done."""
    lines = Lines(database.replica, "ada")
    await lines.add(line)
    spreading = asyncio.create_task(lines.spread())
    await asyncio.sleep(0.05)
    await work(lines)
    for _ in range(400):
        if line.count or line.missed:
            break
        await asyncio.sleep(0.01)
    spreading.cancel()
    await asyncio.gather(spreading, return_exceptions=True)
    return line


def test_what_changes_before_the_first_session_ends_is_looked_at_after_it(database):
    async def work(_):
        fill(database, "job/7", "a")

    assert asyncio.run(told(database, Told(), work)).missed == {"job/7"}


def test_news_are_told_again_whatever_went_wrong(database, monkeypatch):
    errors = [RuntimeError("a bug"), StoreError("a full disk")]

    def fail(*arguments):
        if errors:
            raise errors.pop()
        return states(*arguments)

    async def work(_):
        monkeypatch.setattr(module, "states", fail)
        fill(database, "job/7", "a")

    known = Known(states(database.replica, None), takes_more=False)
    assert asyncio.run(told(database, Told(known), work)).count == 1
    assert not errors


def test_what_was_refused_is_tried_again_when_anybody_brings_news_of_who_may(database, monkeypatch):
    now = {CONTROL: b"before"}
    monkeypatch.setattr(module, "states", lambda *_: dict(now))

    async def work(lines):
        (line,) = lines
        line.control, line.known = dict(now), Known(dict(now), takes_more=False)
        await lines.catch_up(line, Report(refusals=[Refused("job/7", "no-grant", is_ours=False)]))
        assert line.count == 0
        now[CONTROL] = b"after"  # which somebody else brought, to the peer, too
        line.known = Known(dict(now), takes_more=False)
        lines._news.add([CONTROL])

    assert asyncio.run(told(database, Told(), work)).count == 1


@pytest.mark.parametrize(
    ("is_older_ours", "is_newer_ours", "wins"),
    [(True, True, True), (False, False, True), (True, False, False), (False, True, True)],
)
def test_of_two_lines_both_ends_keep_the_same_one(database, is_older_ours, is_newer_ours, wins):
    """The later one of one dialler, else the one of the lower id; and what stays has to prove that it lives."""

    async def meet(own, other, *, is_mirrored):
        lines = Lines(database.replica, own)
        older, newer = (
            Told(device=other, is_dialer=is_ours != is_mirrored) for is_ours in (is_older_ours, is_newer_ours)
        )
        assert await lines.add(older)
        is_won = await lines.add(newer)
        await asyncio.sleep(0)
        assert lines.get(other) is (newer if is_won else older)
        assert (older if is_won else newer).codes == [4001]
        assert older.probes == (not is_won)
        return is_won

    for own, other, is_mirrored in (("ada", "ben", False), ("ben", "ada", True)):
        assert asyncio.run(meet(own, other, is_mirrored=is_mirrored)) is wins


def test_news_that_come_while_a_session_is_made_are_told():
    """The peer was nudged once, and began a session; what it reads may be older than what changes now."""

    async def hold():
        sent, made = [], asyncio.Event()

        async def accept(line):
            line.stir()
            await asyncio.sleep(0)
            made.set()

        async def recv():
            if made.is_set():
                await asyncio.sleep(3600)
            return b"a frame"

        async def send(word):
            sent.append(word)

        async def close(*_):
            pass

        line = Line(SimpleNamespace(recv=recv, send=send, close=close), accept=accept)
        line.stir()
        running = asyncio.create_task(line.run())
        await made.wait()
        await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return sent

    assert asyncio.run(hold()) == ["news", "news"]


@pytest.mark.parametrize("is_moving", [True, False])
def test_a_line_that_does_not_answer_is_closed_unless_something_comes(is_moving):
    codes = []

    async def probe():
        async def ping():
            return asyncio.get_running_loop().create_future()

        async def recv():
            await asyncio.sleep(0.01 if is_moving else 3600)
            return "news"

        async def close(code, _):
            codes.append(code)

        line = Line(SimpleNamespace(ping=ping, recv=recv, close=close, untaken=0))
        running = asyncio.create_task(line.run())
        await line.probe(0.1)
        assert codes == ([] if is_moving else [1001])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(probe())


@pytest.mark.parametrize("count", [3, 200])
def test_a_peer_that_is_at_work_is_not_taken_for_dead(count):
    """It has not taken what was sent it, and answers pings all the same."""

    async def probe():
        async def work(connection):
            await connection.wait_closed()

        server = websockets.asyncio.server
        kind = patient(server.ServerConnection)
        async with server.serve(work, "127.0.0.1", 0, create_connection=kind, **settings()) as busy:
            connection = await dial(f"ws://127.0.0.1:{busy.sockets[0].getsockname()[1]}")
            for _ in range(count):
                await connection.send(b"a small frame")
            (other,) = busy.connections
            async with asyncio.timeout(10):
                while other.untaken < count * FRAME_COST_BYTES:
                    await asyncio.sleep(0.01)
            line = Line(connection)
            await line.probe(5)
            state = connection.state
            connection.transport.abort()
            other.transport.abort()
            return state

    assert asyncio.run(probe()) is websockets.protocol.State.OPEN


def test_what_waits_is_bounded_by_its_bytes():
    async def hold():
        taken = asyncio.Event()

        async def work(connection):
            await taken.wait()
            async for _ in connection:
                pass

        server = websockets.asyncio.server
        kind = patient(server.ServerConnection)
        async with server.serve(work, "127.0.0.1", 0, create_connection=kind, **settings()) as busy:
            connection = await dial(f"ws://127.0.0.1:{busy.sockets[0].getsockname()[1]}")
            sending = asyncio.create_task(send_much(connection))
            while not busy.connections:
                await asyncio.sleep(0.01)
            (other,) = busy.connections
            while not other.is_held_up:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            held = other.untaken
            taken.set()
            await sending
            await connection.close()
            return held

    assert asyncio.run(hold()) < UNTAKEN_BYTES_MAX + READ_BYTES_MAX * FRAME_COST_BYTES // 10


READ_BYTES_MAX = 256 << 10  # at a time, by asyncio


async def send_much(connection):
    for _ in range(100_000):
        await connection.send(b"a small frame")
