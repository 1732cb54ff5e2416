"""Canonical bytes in slow, obvious Python: values, and the hash of digests.

It shares no code with the engine, the class of unknown values apart.
"""

from __future__ import annotations

import math
import struct
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from fieldsync._native.codec import Unknown

DEPTH_MAX = 32


def varint(n: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def signed(n: int) -> bytes:
    """A varint of 0, -1, 1, -2, ... numbered 0, 1, 2, 3, ..."""
    return varint(2 * n if n >= 0 else -2 * n - 1)


def sized(data: bytes) -> bytes:
    return varint(len(data)) + data


def encode(value: Any, depth: int = 0) -> bytes:
    """The canonical bytes of a value; TypeError for what has none."""
    match value:
        case None | False | True:
            return bytes([{None: 0, False: 1, True: 2}[value]])
        case int():
            if not -(2**63) <= value < 2**63:
                raise TypeError("beyond 64 bits")
            return bytes([48 + value]) if -16 <= value <= 47 else b"\x03" + signed(value)
        case float():
            return b"\x04" + struct.pack(">d", math.nan if math.isnan(value) else value + 0.0)
        case Decimal():
            sign, digits, exponent = value.as_tuple()
            whole = int("".join(map(str, digits)))
            raw = whole.to_bytes((whole.bit_length() + 7) // 8, "big")
            if len(raw) > 512 or abs(int(exponent)) > 100_000:
                raise TypeError("not a Decimal of up to 512 bytes")
            return b"\x05" + signed(int(exponent)) + bytes([sign]) + sized(raw)
        case str():
            raw = value.encode()
            return bytes([96 + len(raw)]) + raw if len(raw) < 64 else b"\x06" + sized(raw)
        case bytes():
            return b"\x07" + sized(value)
        case datetime():
            microseconds = (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
            return b"\x09" + signed(microseconds)
        case date():
            return b"\x08" + signed((value - date(1970, 1, 1)).days)
        case list() | tuple() | dict() if depth >= DEPTH_MAX:
            raise TypeError("nested too deep")
        case list() | tuple():
            return b"\x0a" + varint(len(value)) + b"".join(encode(item, depth + 1) for item in value)
        case dict():
            items = sorted((key.encode(), item) for key, item in value.items())
            return b"\x0b" + varint(len(items)) + b"".join(sized(key) + encode(item, depth + 1) for key, item in items)
        case Unknown():
            return bytes([value.tag]) + sized(value.data)
    raise TypeError(type(value).__name__)


class Source:
    """Bytes to be read from the front, carelessly: whoever reads them encodes again and compares."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        self.at += size
        if self.at > len(self.data):
            raise ValueError("truncated")
        return self.data[self.at - size : self.at]

    def varint(self) -> int:
        out = shift = 0
        while True:
            (byte,) = self.take(1)
            out |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return out

    def signed(self) -> int:
        n = self.varint()
        return -(n + 1) // 2 if n & 1 else n // 2

    def sized(self) -> bytes:
        return self.take(self.varint())

    def value(self, depth: int = 0) -> Any:
        (tag,) = self.take(1)
        if depth > DEPTH_MAX:
            raise ValueError("nested too deep")
        if 32 <= tag < 96:
            return tag - 48
        if 96 <= tag < 160:
            return self.take(tag - 96).decode()
        match tag:
            case 0 | 1 | 2:
                return (None, False, True)[tag]
            case 3:
                return self.signed()
            case 4:
                return struct.unpack(">d", self.take(8))[0]
            case 5:
                exponent, sign = self.signed(), self.take(1)[0]
                digits = str(int.from_bytes(self.sized(), "big"))
                return Decimal((sign, tuple(map(int, digits)), exponent))
            case 6:
                return self.sized().decode()
            case 7:
                return self.sized()
            case 8:
                return date(1970, 1, 1) + timedelta(days=self.signed())
            case 9:
                return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.signed())
            case 10:
                return [self.value(depth + 1) for _ in range(self.varint())]
            case 11:
                return {self.sized().decode(): self.value(depth + 1) for _ in range(self.varint())}
        return Unknown(tag, self.sized())


def decode(data: bytes) -> Any:
    """The value of canonical bytes; ValueError for any others."""
    source = Source(data)
    try:
        value = source.value()
        canonical = encode(value)
    except (OverflowError, ArithmeticError, TypeError) as error:
        raise ValueError(str(error)) from None
    if canonical != data:
        raise ValueError("not canonical")
    return value


def siphash(key: bytes, data: bytes) -> int:
    """SipHash-2-4 with 128 bits of result, as a little-endian number."""
    mask = 2**64 - 1
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def half(a: int, b: int, left: int, turn: int) -> None:
        v[a] = (v[a] + v[b]) & mask
        v[b] = ((v[b] << left) | (v[b] >> (64 - left))) & mask ^ v[a]
        if turn:
            v[a] = ((v[a] << 32) | (v[a] >> 32)) & mask

    def rounds(count: int) -> None:
        for _ in range(count):
            half(0, 1, 13, 1)
            half(2, 3, 16, 0)
            half(0, 3, 21, 0)
            half(2, 1, 17, 1)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xEE
    rounds(4)
    low = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(4)
    return low | (v[0] ^ v[1] ^ v[2] ^ v[3]) << 64
