"""Field types as layouts of cells: a kind is a byte that says how cells merge, then which type reads them.

The three low bits are all that merging needs, so that cells of unknown types merge and pass through untouched.
"""

from enum import IntEnum

SIDE_BY_SIDE = 1  # cells of one address live side by side, unless one names another as seen
HAS_SUB = 2  # the address has a second part
PER_AUTHOR = 4  # each author has an address of its own


class Kind(IntEnum):
    """The kinds this version knows; 3 bits of flags, 5 of type number."""

    EXISTENCE = 0 << 3
    REGISTER = 1 << 3
    COUNTER = 2 << 3 | PER_AUTHOR
    SET = 3 << 3 | HAS_SUB | SIDE_BY_SIDE
    BOUNDED_COUNTER = 4 << 3 | HAS_SUB
    TEXT = 5 << 3 | SIDE_BY_SIDE
    LIST = 6 << 3 | SIDE_BY_SIDE
    MAP = 7 << 3 | SIDE_BY_SIDE


def is_removable(kind: int) -> bool:
    """Whether cells of this kind vanish without anything replacing them, so that their absence must be compared."""
    return bool(kind & SIDE_BY_SIDE) or kind == Kind.EXISTENCE
