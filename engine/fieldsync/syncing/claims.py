"""What a giver says that it has, and how much of that is believed of one who is no hub.

Of its own changes a device may say what it likes. Of others' count those that came: who believed more would never get
them from anybody. What is not believed costs little: nothing of such a change lives at an honest giver, so nothing is
missed, and that it is known comes from its author, or from a hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fieldsync.context import Context
from fieldsync.errors import LimitExceeded
from fieldsync.limits import CLAIMED_BYTES_MAX, CLAIMED_GAPS_MAX
from fieldsync.syncing.exchange import Declaration, provisional_dots
from fieldsync.trust.rights import CONTROL

if TYPE_CHECKING:
    from fieldsync.store import Scope, Writer
    from fieldsync.trust.rights import Rights


def believed(writer: Writer, scope: Scope, giver: Declaration, rights: Rights) -> Declaration | None:
    """What is to be joined of a giver whose whole stream has landed; None for nothing.

    A floor goes with all of its context or not at all: what a forgotten removal took away has to be known, or it could
    come to life again. LimitExceeded where the context would be too large to be told.
    """
    if scope.name == CONTROL or rights.knows_all:
        return giver
    here = writer.context(scope.id)
    came = here | provisional_dots(writer, scope)
    doubted = _doubted(giver.context, giver.context - came, rights)
    if doubted and giver.floor - came:
        return None
    joined = Declaration(giver.context - doubted, Context(), []) if doubted else giver
    check_size(scope, here, here | joined.context)
    return joined


def _doubted(giver: Context, bare: Context, rights: Rights) -> Context:
    """What did not come and is not the giver's own; of that, too, what lies beyond a crowd of gaps."""
    names = bare.authors()
    each = [names[i : i + 8] for i in range(0, len(names), 8)]
    own = {name for name in each if rights.may_claim(name)}
    if not own:
        return bare
    claimed = [interval for interval in giver.intervals() if interval[0] in own]
    return bare - Context.of(claimed[:CLAIMED_GAPS_MAX])


def check_size(scope: Scope, before: Context, after: Context) -> None:
    """LimitExceeded where a device makes a context so large that soon nobody could be told of it."""
    size = len(after.data)
    if size > CLAIMED_BYTES_MAX and size > len(before.data):
        raise LimitExceeded(f"{scope.name!r}: a context of {size:,} bytes; devices may make it {CLAIMED_BYTES_MAX:,}")
