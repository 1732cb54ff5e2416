"""A TCP proxy on this machine that does to connections what networks do: cuts them at any byte, or goes silent."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Wire:
    """Forwards connections to a port. `cut_after` bytes of a connection, both ways together, it dies."""

    def __init__(self, port: int, next_cut=lambda: None) -> None:
        self._to = port
        self._next_cut = next_cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.is_silent = False  # bytes vanish, and nobody is told
        self.connections = 0
        self.bytes = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self.connections += 1
                both = [near, far]
                self._open.update(both)
                left = [self._next_cut()]
                for ends in (both, both[::-1]):
                    threading.Thread(target=self._pump, args=(*ends, left), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, left: list[int | None]) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                if self.is_silent:
                    continue
                with self._lock:
                    if left[0] is not None:
                        data = data[: left[0]]
                        left[0] -= len(data)
                    self.bytes += len(data)
                target.sendall(data)
                if left[0] == 0:
                    break
        self.cut(source, target)

    def cut(self, *sockets: socket.socket) -> None:
        """End these connections, or all."""
        for each in sockets or list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
            self._open.discard(each)

    def close(self) -> None:
        """End all of it."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
