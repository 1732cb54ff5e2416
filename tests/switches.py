"""A network switch in this process: Ethernet frames between namespaces, later than they were sent, or never."""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from contextlib import suppress

TUNSETIFF = 0x400454CA
TAP_WITHOUT_HEADER = 0x0002 | 0x1000  # IFF_TAP, IFF_NO_PI of linux/if_tun.h
FRAME_BYTES_MAX = 65_536


class Switch:
    """Joins TAP devices, one in each namespace as its eth0. A frame goes out where its address was seen, or at all."""

    def __init__(self, seed: int = 0) -> None:
        self.delay_seconds = 0.0  # of each frame, one way
        self.loss = 0.0  # of so many of them nothing is heard again
        self.frames = 0
        self.lost = 0
        self._chance = random.Random(seed)
        self._ports: list[int] = []
        self._due: list[tuple[float, int, int, bytes]] = []  # when, in which order, from which port, what
        self._place: dict[bytes, int] = {}  # the port at which an Ethernet address was seen
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)
        self._thread.start()

    def plug(self, namespace: str) -> None:
        """Make the eth0 of a namespace. OSError or CalledProcessError where that may not be."""
        name = f"fs{os.getpid() % 100_000}-{len(self._ports)}"
        port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(port, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP_WITHOUT_HEADER))
            command = ["ip", "link", "set", name, "netns", namespace, "name", "eth0"]
            subprocess.run(command, check=True, capture_output=True, timeout=30)
        except BaseException:
            os.close(port)
            raise
        self._ports.append(port)

    def _run(self) -> None:
        while self._is_open:
            wait = min(self._due[0][0] - time.monotonic(), 0.05) if self._due else 0.05
            for port in select.select(list(self._ports), [], [], max(wait, 0))[0]:
                with suppress(OSError):  # the interface is down
                    self._take(port, os.read(port, FRAME_BYTES_MAX))
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, source, frame = heapq.heappop(self._due)
                known = self._place.get(frame[:6])  # of a group, or not seen yet: all
                for port in self._ports if known is None else [known]:
                    if port != source:
                        with suppress(OSError):
                            os.write(port, frame)

    def _take(self, port: int, frame: bytes) -> None:
        self.frames += 1
        self._place[frame[6:12]] = port
        if self._chance.random() < self.loss:
            self.lost += 1
        else:
            heapq.heappush(self._due, (time.monotonic() + self.delay_seconds, self.frames, port, frame))

    def close(self) -> None:
        """Unplug all: their devices go."""
        self._is_open = False
        self._thread.join()
        for port in self._ports:
            os.close(port)

    def __enter__(self) -> Switch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
