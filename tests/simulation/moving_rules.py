"""Rules of moving records between scopes, each switched off in the engine by a patch: see rules.py."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from fieldsync import carrying, forwarding, moving
from fieldsync.sqlite import SQLiteWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fieldsync.forwarding import _Follower


@contextmanager
def every_hub_moves() -> Iterator[None]:
    """A hub executes the moves in all scopes, whoever owns them."""
    kept = moving._wishes
    with patch.object(moving, "_wishes", lambda writer, touched, owns: kept(writer, touched, lambda _: True)):
        yield


@contextmanager
def forwards_forgotten() -> Iterator[None]:
    """The hub does not remember where a record went."""
    with patch.object(SQLiteWriter, "put_forwards", lambda writer, scope, forwards: list(forwards)):
        yield


@contextmanager
def late_edits_overwrite() -> Iterator[None]:
    """What comes late is written as if its author had seen all that is there."""
    kept = forwarding._Follower._gather

    def gather(follower: _Follower, *rest: Any) -> Any:
        found = kept(follower, *rest)
        for late in found:
            for cell in carrying.registers(follower._writer.dictionary, late.heir.living):
                late.sees[cell.at].add(cell.dot)
        return found

    with patch.object(forwarding._Follower, "_gather", gather):
        yield


@contextmanager
def late_edits_unseeing() -> Iterator[None]:
    """What comes late is written as if its author had seen nothing."""
    with patch.object(carrying, "translated", lambda dictionary, forward, found: set()):
        yield


@contextmanager
def late_edits_unremembered() -> Iterator[None]:
    """The hub does not remember what of a record came late."""
    with patch.object(carrying, "remembering", lambda dictionary, forward, packed, dot: forward):
        yield


@contextmanager
def late_edits_of_one_author() -> Iterator[None]:
    """The hub writes what comes late under the author under which it wrote there before."""
    with patch.object(forwarding._Follower, "_would_replace", lambda follower, author, late: False):
        yield


@contextmanager
def late_totals_count_whole() -> Iterator[None]:
    """The hub does not remember what of a counter moved, or followed."""
    with patch.object(carrying, "dump_totals", lambda some: b""):
        yield


@contextmanager
def late_removals_end() -> Iterator[None]:
    """A removal does not follow a record that was moved."""
    with patch.object(forwarding._Follower, "_remove", lambda follower, source, removals: []):
        yield


MOVING_RULES = [
    every_hub_moves,
    forwards_forgotten,
    late_edits_overwrite,
    late_edits_unseeing,
    late_edits_unremembered,
    late_edits_of_one_author,
    late_totals_count_whole,
    late_removals_end,
]
