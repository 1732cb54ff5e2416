"""Agents and a hub in one event loop whose clock is a number: connections are pipes in it, and an hour takes seconds.

All above TCP is real: WebSocket and its pings, lines, agendas, sessions, certificates, files. TLS is not, nor mDNS.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from types import SimpleNamespace

from cryptography.hazmat.primitives.serialization import Encoding

from fieldsync.network import discovery, keeper
from fieldsync.network.lines import Lines
from fieldsync.network.server import Listener

HERE: ContextVar[Host] = ContextVar("HERE")
WORK_SECONDS = 0.005  # what a thread is given takes, if the network says nothing else
NANOSECOND = 1e-9


class _Clock(selectors.DefaultSelector):
    """Waits for nothing: time goes on at once."""

    now = 0.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "all wait, and nothing will ever happen"
            self.now += max(timeout, NANOSECOND)  # or who asks for less than a loop can wait asks for ever
        return ready


class Loop(asyncio.SelectorEventLoop):
    """An event loop with a clock and a network of its own. Threads do their work at once, and it is seen later."""

    def __init__(self, network):
        self._clock = _Clock()
        self._network = network
        super().__init__(self._clock)

    def time(self):
        return self._clock.now

    def run_in_executor(self, executor, function, *arguments):
        done = self.create_future()
        try:
            outcome = done.set_result, function(*arguments)
        except Exception as error:
            outcome = done.set_exception, error
        self.call_later(self._network.work_seconds, lambda: done.cancelled() or outcome[0](outcome[1]))
        return done

    async def create_connection(self, factory, host=None, port=None, **_):
        return await self._network.connect(HERE.get(), factory, port)

    async def create_server(self, factory, host=None, port=None, *, sock, **_):
        return Serving(self._network, HERE.get(), factory, sock)


class Serving:
    """A port of a host on which connections are taken."""

    def __init__(self, network, host, factory, sock):
        self.host, self.factory, self.sockets = host, factory, [sock]
        self._ports, self._port = network.ports, sock.getsockname()[1]
        self._ports[self._port] = self

    def is_serving(self):
        return True

    def get_loop(self):
        return asyncio.get_running_loop()

    def close(self):
        self._ports.pop(self._port, None)
        for sock in self.sockets:
            sock.close()

    async def wait_closed(self):
        pass


class Host:
    """A machine on the network, with one interface."""

    def __init__(self, network, identity):
        self.network, self.identity = network, identity
        self.is_plugged = True  # else the cable is out, and the machine knows
        self.is_open = True  # else a wall lets nothing through
        self.addresses = 0  # changes with them

    @property
    def is_there(self):
        return self.is_plugged and self.is_open


class Pipe(asyncio.Transport):
    """One end of a connection. What is written comes out at the other end, in order, when there is a way."""

    def __init__(self, network, host, other_host):
        super().__init__()
        encrypted = SimpleNamespace(
            getpeercert=lambda binary_form: other_host.identity.chain[0].public_bytes(Encoding.DER)
        )
        self._extra = {"ssl_object": encrypted, "socket": SimpleNamespace(fileno=lambda: -1)}
        self.network, self.hosts = network, (host, other_host)
        self.protocol = self.other = None
        self.sent = []  # on its way, or waiting for one
        self.came = []  # waiting for the reader
        self.is_paused = self.is_closed = self.is_lost = False
        self.arrives = 0.0

    # --- what a protocol asks for ---

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def is_closing(self):
        return self.is_closed

    def can_write_eof(self):
        return False

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def get_write_buffer_size(self):
        return 0

    def pause_reading(self):
        self.is_paused = True

    def resume_reading(self):
        self.is_paused = False
        self._hand_over()

    def write(self, data):
        if not self.is_closed:
            self._send(bytes(data))

    def close(self):
        if not self.is_closed:
            self.is_closed = True
            self._send(None)
            self.network.loop.call_soon(self._lose, None)

    def abort(self):
        self.close()

    # --- the wire ---

    def _send(self, data):
        self.sent.append(data)
        if all(host.is_there for host in self.hosts):
            self.go_on(self.network.delay())

    def go_on(self, seconds):
        """Let what was sent arrive, after so many seconds."""
        self.arrives = max(self.arrives, self.network.loop.time() + seconds)
        self.network.loop.call_at(self.arrives, self._arrive)

    def _arrive(self):
        if all(host.is_there for host in self.hosts):
            self.other.came += self.sent
            self.sent = []
            self.other._hand_over()

    def _hand_over(self):
        while self.came and not self.is_paused and not self.is_lost:
            data = self.came.pop(0)
            if data is not None:
                self.protocol.data_received(data)
            elif not self.protocol.eof_received():
                self.close()

    def _lose(self, error):
        if not self.is_lost:
            self.is_lost = True
            self.protocol.connection_lost(error)


class Discovery:
    """What stands for mDNS: who starts is seen by all who are there, and who ends is lost by them."""

    def __init__(self, organisation, port, on_seen, on_lost):
        self.host, self.port, self.on_seen, self.on_lost = HERE.get(), port, on_seen, on_lost
        self.network = self.host.network
        self.name = f"{self.network.chance.getrandbits(64):016x}"
        self.why_not = ""

    async def start(self):
        for other in self.network.announced:
            self._tell(other, self)
            self._tell(self, other)
        self.network.announced.append(self)

    async def close(self):
        self.network.announced.remove(self)
        for other in self.network.announced:
            if self.host.is_there and other.host.is_there:
                self.network.loop.call_later(self.network.delay(), other.on_lost, self.name)

    def _tell(self, who, of_whom):
        def tell():
            if who not in self.network.announced or of_whom not in self.network.announced:
                return
            if who.host.is_there and of_whom.host.is_there:
                who.on_seen(of_whom.name, [f"wss://10.77.0.1:{of_whom.port}"])
            else:
                self.network.loop.call_later(2, tell)  # it is asked for again

        self.network.loop.call_later(2 * self.network.delay() + self.network.chance.random(), tell)


class Wires:
    """The network between hosts, and their agents."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.delay_seconds = self.loss = 0.0
        self.work_seconds = WORK_SECONDS
        self.ports, self.announced, self.pipes = {}, [], []
        self.loop = Loop(self)

    def delay(self):
        """Seconds that something takes, lost packets and all."""
        lost = 0
        while self.chance.random() < self.loss:
            lost += 1
        return self.delay_seconds + 0.001 + (2**lost - 1) * (2 * self.delay_seconds + 0.2)

    async def connect(self, host, factory, port):
        if not host.is_plugged:
            raise OSError(101, "Network is unreachable")
        serving = self.ports.get(port)
        await asyncio.sleep(sum(self.delay() for _ in range(4)))  # TCP, then TLS
        while serving is not None and not (host.is_there and serving.host.is_there):
            await asyncio.sleep(1)
        if serving is None:
            raise ConnectionRefusedError(111, "Connect call failed")
        ends = Pipe(self, host, serving.host), Pipe(self, serving.host, host)
        self.pipes += ends
        for end, other, make in zip(ends, reversed(ends), (factory, serving.factory), strict=True):
            end.other, end.protocol = other, make()
        for end in reversed(ends):
            end.protocol.connection_made(end)
        return ends[0], ends[0].protocol

    def cut(self, host, *, is_known=True):
        """Pull a cable; or, where that is not known, let nothing through."""
        if is_known:
            host.is_plugged, host.addresses = False, host.addresses + 1
        else:
            host.is_open = False

    def mend(self, host):
        """Undo that. TCP, which has tried ever less often, finds out in its own time."""
        if not host.is_plugged:
            host.is_plugged, host.addresses = True, host.addresses + 1
        host.is_open = True
        for pipe in self.pipes:
            if pipe.sent and host in pipe.hosts:
                pipe.go_on(self.delay() + self.chance.uniform(0, 5))

    # --- who is there ---

    @asynccontextmanager
    async def agent(self, database, identity, hub=None):
        """An agent that looks for peers, in this loop."""
        host = Host(self, identity)
        kept = keeper.Keeper(database.replica, keeper.Plan(hub, (), ("", 0), lan=True, identity=identity), lambda: None)
        ready, stop = asyncio.Event(), asyncio.Event()
        HERE.set(host)
        running = asyncio.create_task(kept.keep(ready.set, stop))
        running.add_done_callback(lambda _: ready.set())
        await ready.wait()
        try:
            yield host, kept
        finally:
            stop.set()
            await running

    @asynccontextmanager
    async def hub(self, database, identity, port):
        """A hub, in this loop."""
        HERE.set(Host(self, identity))
        lines = Lines(database.replica, identity.device)
        spreading = asyncio.create_task(lines.spread())
        try:
            async with Listener(database.replica, lines, identity).listen("", port):
                yield
        finally:
            spreading.cancel()
            await asyncio.gather(spreading, return_exceptions=True)

    @contextmanager
    def running(self, monkeypatch):
        """Have agents look at this clock and this network."""
        monkeypatch.setattr(keeper, "clock", self.loop.time)
        monkeypatch.setattr(keeper, "random", self.chance)
        monkeypatch.setattr(keeper, "_Moment", Moment)
        monkeypatch.setattr(discovery, "Discovery", Discovery)
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            yield runner.run


class Moment:
    """By what an agent notices another network: here by the host's addresses alone."""

    def __init__(self):
        self.network = HERE.get().addresses

    def differs(self, before):
        return self.network != before.network


async def until(holds, seconds):
    """Wait until something holds; gives how long that took, or fails."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not holds():
        assert loop.time() < began + seconds, f"waited in vain for {seconds} s"
        await asyncio.sleep(0.25)
    return loop.time() - began
