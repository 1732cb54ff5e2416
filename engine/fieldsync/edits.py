"""What a transaction gives for a text, list or map: it is edited in place, and remembers how.

A text counts in characters, as a str; its splices in bytes of UTF-8, as Yjs stores it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSequence
from typing import Any, SupportsIndex, overload

from fieldsync import codec
from fieldsync.documents import Splice
from fieldsync.types import Kind
from fieldsync.values import CHECKS, Check, check_value

NEAR_CHARS = 1_000  # on either side of an edit


class _Draft:
    """What the three share: until the transaction is over, and what was done."""

    def __init__(self) -> None:
        self._over = False
        self._splices: list[Splice] = []

    def close(self) -> None:
        """Refuse further edits: the transaction is over."""
        self._over = True

    def _begin(self) -> None:
        if self._over:
            raise AttributeError("cannot edit: the transaction of this draft is over")

    def splices(self) -> list[Splice]:
        """The edits so far."""
        return self._splices


class TextDraft(_Draft):
    """A text in a transaction: read as a str, edited by +=, insert, `del text[a:b]` and `text[a:b] = "..."`."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: str) -> None:
        super().__init__()
        # an edit copies what is near it alone: the text is what lies before, near and behind the last one
        self._before, self._near, self._behind = "", "", text
        self._before_bytes = 0
        self._joined: str | None = text

    @property
    def _text(self) -> str:
        if self._joined is None:
            self._joined = self._before + self._near + self._behind
        return self._joined

    def value(self) -> str:
        """The text as it is now."""
        return self._text

    def insert(self, at: int, text: str) -> None:
        """Insert before a character; as with lists, beyond an end is at that end."""
        size = len(self)
        at = max(at + size, 0) if at < 0 else min(at, size)
        self._replace(at, at, text)

    def append(self, text: str) -> None:
        """Add to the end."""
        self._replace(len(self), len(self), text)

    def assign(self, text: str) -> None:
        """Become another text by one edit: what both begin and end with stays."""
        start, end = common_ends(self._text, text)
        self._replace(start, len(self) - end, text[start : len(text) - end])

    def _replace(self, start: int, stop: int, text: object) -> None:
        self._begin()
        if isinstance(text, TextDraft):
            text = text.value()
        checked: Any = check_value("a text", text)
        if not isinstance(checked, str):
            raise TypeError(f"a text holds str, not {type(text).__name__}")
        if start == stop and not checked:
            return
        self._come_near(start, stop)
        first = len(self._before)
        before, gone = self._near[: start - first], self._near[start - first : stop - first]
        self._near = before + checked + self._near[stop - first :]
        self._joined = None
        self._note(self._before_bytes + _bytes_of(before), _bytes_of(gone), checked)

    def _come_near(self, start: int, stop: int) -> None:
        """Have a range in what is near the last edit."""
        first, size = len(self._before), len(self._near)
        if first <= start and stop <= first + size and size <= 4 * NEAR_CHARS:
            return
        text = self._text
        first = max(start - NEAR_CHARS, 0)
        self._before, self._near = text[:first], text[first : stop + NEAR_CHARS]
        self._behind = text[stop + NEAR_CHARS :]
        self._before_bytes = _bytes_of(self._before)

    def _note(self, at: int, deleted: int, text: str) -> None:
        """Remember an edit; one that touches what the last one left goes into that: who types on, and who corrects."""
        if self._splices:
            first, gone, inserted = self._splices[-1]
            assert isinstance(first, int)
            assert isinstance(inserted, str)
            raw = inserted.encode()
            if at <= first + len(raw) and at + deleted >= first:
                left, right = max(first - at, 0), max(at + deleted - first - len(raw), 0)
                kept = raw[: max(at - first, 0)].decode(), raw[max(at + deleted - first, 0) :].decode()
                self._splices[-1] = Splice(first - left, gone + left + right, kept[0] + text + kept[1])
                return
        self._splices.append(Splice(at, deleted, text))

    def __iadd__(self, text: object) -> TextDraft:
        self._replace(len(self), len(self), text)
        return self

    def __setitem__(self, place: int | slice, text: object) -> None:
        self._replace(*_span(place, len(self)), text)

    def __delitem__(self, place: int | slice) -> None:
        self._replace(*_span(place, len(self)), "")

    def __getitem__(self, place: int | slice) -> str:
        return self._text[place]

    def __add__(self, text: str) -> str:
        return self._text + str(text)

    def __radd__(self, text: str) -> str:
        return text + self._text

    def __contains__(self, text: object) -> bool:
        return str(text) in self._text

    def __eq__(self, other: object) -> bool:
        return self._text == (other._text if isinstance(other, TextDraft) else other)

    def __len__(self) -> int:
        return len(self._before) + len(self._near) + len(self._behind)

    def __iter__(self) -> Iterator[str]:
        return iter(self._text)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return repr(self._text)

    def __format__(self, spec: str) -> str:
        return format(self._text, spec)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._text, name)  # the methods of a str, which change nothing


class ListDraft(_Draft, MutableSequence[Any]):
    """A list in a transaction. A list or dict in it that was changed in place is replaced, as a whole."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, items: list[Any]) -> None:
        super().__init__()
        self._items = list(items)
        self._marks = [_mark(item) for item in items]

    def value(self) -> list[Any]:
        """The list as it is now."""
        return list(self._items)

    def assign(self, items: list[Any]) -> None:
        """Become another list by one edit: what both begin and end with stays."""
        self.splices()
        start, end = common_ends(list(map(codec.encode, self._items)), list(map(codec.encode, items)))
        self._replace(start, len(self._items) - end, items[start : len(items) - end])

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """Insert before an item."""
        size, at = len(self._items), int(index)
        at = max(at + size, 0) if at < 0 else min(at, size)
        self._replace(at, at, [value])

    def splices(self) -> list[Splice]:
        """The edits so far."""
        for place, (item, mark) in enumerate(zip(self._items, self._marks, strict=True)):
            if mark is not None and _mark(item) != mark:
                self._replace(place, place + 1, [item])
        return self._splices

    def _replace(self, start: int, stop: int, items: Iterable[Any]) -> None:
        self._begin()
        checked = [check_value("an item", item) for item in items]
        if start == stop and not checked:
            return
        encoded = tuple(map(codec.encode, checked))
        self._items[start:stop] = checked
        self._marks[start:stop] = map(_mark, checked)
        self._splices.append(Splice(start, stop - start, encoded))

    def __setitem__(self, place: Any, value: Any) -> None:
        start, stop = _span(place, len(self._items))
        self._replace(start, stop, list(value) if isinstance(place, slice) else [value])

    def __delitem__(self, place: int | slice) -> None:
        self._replace(*_span(place, len(self._items)), [])

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        return self._items[place]

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        return self._items == (other._items if isinstance(other, ListDraft) else other)

    def __repr__(self) -> str:
        return repr(self._items)


class MapDraft(_Draft, MutableMapping[str, Any]):
    """A map in a transaction: what differs at its end is written, name by name."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, items: Mapping[str, Any]) -> None:
        super().__init__()
        self._items = dict(items)
        self._before = {name: codec.encode(item) for name, item in items.items()}

    def value(self) -> dict[str, Any]:
        """The map as it is now."""
        return dict(self._items)

    def assign(self, items: Mapping[str, Any]) -> None:
        """Become another map."""
        self._begin()
        self._items = dict(items)

    def splices(self) -> list[Splice]:
        """What differs from before."""
        after = {name: codec.encode(check_value("an item", item)) for name, item in self._items.items()}
        gone = [Splice(name, 1, ()) for name in self._before if name not in after]
        return gone + [Splice(name, 0, (item,)) for name, item in after.items() if self._before.get(name) != item]

    def __setitem__(self, name: str, value: Any) -> None:
        self._begin()
        if not isinstance(name, str):
            raise TypeError(f"names of a map are str, got {type(name).__name__}")
        self._items[name] = check_value("an item", value)

    def __delitem__(self, name: str) -> None:
        self._begin()
        del self._items[name]

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The value of a name, which is set if there is none: the map's own, that may be changed in place."""
        if name not in self._items:
            self[name] = default
        return self._items[name]

    def __ior__(self, items: Mapping[str, Any]) -> MapDraft:
        self.update(items)
        return self

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)


AnyDraft = TextDraft | ListDraft | MapDraft


def draft(kind: int, value: Any) -> AnyDraft:
    """What a transaction gives for a text, list or map."""
    return TextDraft(value) if kind == Kind.TEXT else ListDraft(value) if kind == Kind.LIST else MapDraft(value)


def replacing(kind: int, before: Any, after: Any) -> list[Splice]:
    """The edits that make a text, list or map another."""
    some = draft(kind, before)
    some.assign(after)
    return some.splices()


def common_ends(before: Any, after: Any) -> tuple[int, int]:
    """How many elements two sequences begin with alike, and then end with."""
    most = min(len(before), len(after))
    start = _alike(most, lambda count: before[:count] == after[:count])
    return start, _alike(most - start, lambda count: before[len(before) - count :] == after[len(after) - count :])


def _alike(most: int, is_alike: Any) -> int:
    """The highest count up to which they are alike, by halving."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_alike(middle) else (low, middle - 1)
    return low


def _span(place: int | slice, size: int) -> tuple[int, int]:
    if isinstance(place, slice):
        start, stop, step = place.indices(size)
        if step != 1:
            raise ValueError("slices of a draft are of step 1")
        return start, max(start, stop)
    if not -size <= place < size:
        raise IndexError("index out of range")
    return place % size, place % size + 1


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _mark(item: Any) -> bytes | None:
    """By which a change in place is told."""
    return codec.encode(item) if isinstance(item, list | dict) else None


def _of(check: Check) -> Check:
    """A value, or what a transaction gave for one."""
    return lambda value, depth: check(value.value() if isinstance(value, _Draft) else value, depth)  # type: ignore[attr-defined]


TEXT = _of(CHECKS[str])
LIST = _of(CHECKS[list])
MAP = _of(CHECKS[dict])
