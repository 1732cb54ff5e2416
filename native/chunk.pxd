# The form of chunks, batches of changes as they travel: streams of bytes (docs/format.md, Chunk). Header-only.

cdef enum:
    CHANGES = 0
    PIECES = 1
    NAMES = 2
    CELLS = 3
    SEENS = 4
    REMOVALS = 5
    VALUES = 6           # and one more for each field after the first

cdef enum:
    OWN_NEXT = 0         # references to incarnations: of this change, the next one
    OWN = 1              # of this change, by number
    OTHER = 2            # plus the author: of another change
    HAS_EXISTENCE = 1    # flags of a piece
    HAS_NAME = 2
    HAS_TIME = 1         # flags of a cell
    HAS_SEEN = 2
