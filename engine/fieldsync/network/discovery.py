"""Peers on the local network, by mDNS and DNS-SD (RFC 6762, 6763): announce this device, and look for others.

The service is `_fieldsync._tcp`, its instance a random name for each start, and TXT has

    v=1                the version of these records
    s=16 hex digits    salt, random for each start
    o=16 hex digits    a hash of the organisation's id with that salt

So devices of an organisation know each other, and who only listens can follow none of them from network to network. Who
it is, and whether it may be synced with, the TLS handshake tells.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fieldsync.errors import MissingDependency
from fieldsync.limits import ADDRESSES_MAX, PEERS_MAX, RESOLVE_MS_MAX, RETRY_FIRST_SECONDS, RETRY_SECONDS_MAX
from fieldsync.network.wire import local_addresses

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE = "_fieldsync._tcp.local."
VERSION = b"1"


def _zeroconf() -> Any:
    try:
        import zeroconf
        import zeroconf.asyncio
    except ImportError:
        raise MissingDependency("finding peers needs the package zeroconf: pip install zeroconf") from None
    return zeroconf


def mark(organisation: str, salt: bytes) -> bytes:
    """What tells an organisation's devices, and nobody else, that a device is of theirs."""
    return hashlib.blake2b(organisation.encode(), key=salt, digest_size=8).hexdigest().encode()


def is_ours(properties: dict[bytes, bytes | None], organisation: str) -> bool:
    """Whether TXT records are those of a device of the organisation, and of this version."""
    salt = properties.get(b"s") or b""
    known = properties.get(b"v") == VERSION and 0 < len(salt) <= 64
    return known and properties.get(b"o") == mark(organisation, salt)


def addresses_of(found: list[str], port: int | None) -> list[str]:
    """The WebSocket addresses of a device, IPv4 first: it costs less to fail there."""
    hosts = sorted(found, key=lambda host: ":" in host)[:ADDRESSES_MAX]
    return [f"wss://[{host}]:{port}" if ":" in host else f"wss://{host}:{port}" for host in hosts] if port else []


class Discovery:
    """Announces a port of this device, and tells of others, in the running event loop."""

    def __init__(
        self,
        organisation: str,
        port: int,
        on_seen: Callable[[str, list[str]], object],
        on_lost: Callable[[str], object],
        *,
        interfaces: list[str] | None = None,
    ) -> None:
        """on_seen: a device's name, which means nothing, and its addresses. interfaces: addresses; all if None."""
        self._organisation = organisation
        self._port = port
        self._on_seen = on_seen
        self._on_lost = on_lost
        self._interfaces = interfaces
        self._name = os.urandom(8).hex()
        self._network: Any = None
        self._browser: Any = None
        self._resolving: dict[str, asyncio.Task[None]] = {}  # by name
        self.why_not = ""  # it does not work here; empty where it does

    async def start(self) -> None:
        """Announce and look; where the network does not allow it, `why_not` says so, and configured peers are left."""
        zeroconf = _zeroconf()
        try:
            self._network = zeroconf.asyncio.AsyncZeroconf(
                interfaces=self._interfaces or zeroconf.InterfaceChoice.All, ip_version=zeroconf.IPVersion.All
            )
            self._browser = zeroconf.asyncio.AsyncServiceBrowser(
                self._network.zeroconf, SERVICE, handlers=[self._on_change]
            )
            # whether anybody else has a name of 64 random bits is not worth asking for a second
            await self._network.async_register_service(self._service(zeroconf), cooperating_responders=True)
        except (OSError, zeroconf.Error) as error:
            self.why_not = f"no peers can be found on this network: {error or type(error).__name__}"
            await self.close()

    def _service(self, zeroconf: Any) -> Any:
        salt = os.urandom(8).hex().encode()
        return zeroconf.asyncio.AsyncServiceInfo(
            SERVICE,
            f"{self._name}.{SERVICE}",
            port=self._port,
            server=f"{self._name}.local.",
            properties={b"v": VERSION, b"s": salt, b"o": mark(self._organisation, salt)},
            parsed_addresses=self._interfaces or local_addresses(),
        )

    def _on_change(self, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        instance = name.removesuffix(f".{SERVICE}")
        if instance == self._name or service_type != SERVICE:
            return
        if (older := self._resolving.pop(instance, None)) is not None:
            older.cancel()
        if state_change is _zeroconf().ServiceStateChange.Removed:
            self._on_lost(instance)
        elif len(self._resolving) < PEERS_MAX:
            self._resolving[instance] = asyncio.create_task(self._resolve(zeroconf, name, instance))

    async def _resolve(self, zeroconf: Any, name: str, instance: str) -> None:
        """Ask for what a device announced of itself; whoever is of another organisation is passed over."""
        info = _zeroconf().asyncio.AsyncServiceInfo(SERVICE, name)
        pause = RETRY_FIRST_SECONDS
        while not (is_known := await self._ask(zeroconf, info)) and pause <= RETRY_SECONDS_MAX:
            await asyncio.sleep(pause)  # a device is announced once, and the answer may be lost
            pause *= 2
        if is_known and is_ours(info.properties, self._organisation):
            addresses = addresses_of(info.parsed_scoped_addresses(), info.port)
            if addresses:
                self._on_seen(instance, addresses)
        del self._resolving[instance]

    async def _ask(self, zeroconf: Any, info: Any) -> bool:
        with suppress(OSError, _zeroconf().Error):
            return bool(await info.async_request(zeroconf, RESOLVE_MS_MAX))
        return False

    async def close(self) -> None:
        """Take the announcement back, and look no more."""
        for task in self._resolving.values():
            task.cancel()
        self._resolving.clear()
        network, self._network = self._network, None
        if network is not None:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(5):
                    await network.async_close()
