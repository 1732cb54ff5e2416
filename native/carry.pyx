"""Carrying the cells of a record over to another incarnation: where it moved to, or moved to before they came.

Of each address the topmost cell goes; cells that live side by side at one address go one a change, since a change has
one cell at an address, unless all of them are given as one. Counters stay: their totals belong to authors, so whoever
carries adds their differences.

Of a record that moves, what it was created with goes into the change that creates it anew, and is replaced by all that
comes later, as it was before. What was edited since goes into the next change, with its own times, so that what comes
later is concurrent with it, unless it had seen it: then the cell that is written says what it sees there.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport UINT64_MAX, uint8_t, uint64_t
from libc.stdlib cimport free, qsort, realloc
from libc.string cimport memcmp

from bytes cimport Reader, Writer, read_varint, reader_of, taken, write_varint, writer_free
from dots cimport Stamp, order_stamps, same_dot
from packed cimport DONE, pack_incarnation, parse_record
from record cimport (
    HAS_SUB, PER_AUTHOR, SIDE_BY_SIDE, Cell, Fields, Incarnation, Record, Walk, add_cell, add_incarnation, author_count,
    fields_of, next_cell, order_addresses, record_free, walk_of,
)
from values cimport TAG_NONE

cdef enum:
    EDITED = 1  # the change after the creating one, which has what was edited

cdef uint8_t NONE = TAG_NONE

# A cell with what it sorts by where stamps are equal in time, its author's own bytes, and where it lives.
ctypedef struct Entry:
    const Cell *cell
    const uint8_t *author
    size_t incarnation

ctypedef struct Entries:
    Entry *at
    size_t count
    size_t room

# What carries: the records as they were, sorted, and as they are to be; room to pack in.
ctypedef struct Work:
    Fields fields
    Record before
    Entries entries
    Record after
    Record edited
    Writer scratch
    Writer packed
    Writer seen


cdef Work work_of(bytes fields) noexcept:
    cdef Work work
    work.fields = fields_of(fields)
    work.before = work.after = work.edited = Record(NULL, 0, 0)
    work.entries = Entries(NULL, 0, 0)
    work.scratch = work.packed = work.seen = Writer(NULL, 0, 0, False)
    return work


cdef void work_free(Work *work) noexcept:
    free(work.entries.at)
    record_free(&work.before)
    record_free(&work.after)
    record_free(&work.edited)
    writer_free(&work.scratch)
    writer_free(&work.packed)
    writer_free(&work.seen)


cdef int entry_sorter(const void *a, const void *b) noexcept nogil:
    """By address, then by stamp, as all replicas order them: the topmost comes last."""
    cdef const Entry *x = <const Entry *>a
    cdef const Entry *y = <const Entry *>b
    cdef int order = order_addresses(x.cell, y.cell)
    if order == 0 and x.cell.stamp.time != y.cell.stamp.time:
        order = -1 if x.cell.stamp.time < y.cell.stamp.time else 1
    if order == 0:
        order = memcmp(x.author, y.author, 8)
    if order == 0 and x.cell.stamp.seq != y.cell.stamp.seq:
        order = -1 if x.cell.stamp.seq < y.cell.stamp.seq else 1
    if order == 0 and x.incarnation != y.incarnation:
        order = -1 if x.incarnation < y.incarnation else 1
    return order


cdef int gather(Work *work, bytes packed, uint64_t without, bytes authors) except -1:
    """All cells of a record but counters' and those of one field, sorted; nothing is to be written yet."""
    cdef Entries *entries = &work.entries
    cdef size_t room
    cdef Entry *more
    cdef Walk walk
    work.before.count = work.after.count = work.edited.count = 0
    parse_record(packed, &work.before, &work.fields, author_count(authors))
    entries.count = 0
    walk = walk_of(&work.before)
    while next_cell(&walk):
        if walk.cell.kind & PER_AUTHOR or walk.cell.field == without:
            continue
        if entries.count == entries.room:
            room = entries.room * 2 + 32
            more = <Entry *>realloc(entries.at, room * sizeof(Entry))
            if more == NULL:
                raise MemoryError
            entries.at = more
            entries.room = room
        entries.at[entries.count] = Entry(
            walk.cell, <const uint8_t *>PyBytes_AS_STRING(authors) + 8 * walk.cell.stamp.author, walk.place - 1)
        entries.count += 1
    if entries.count > 1:
        qsort(entries.at, entries.count, sizeof(Entry), entry_sorter)
    return 0


cdef size_t run_of(const Entries *entries, size_t start) noexcept nogil:
    """The end of the cells at one address."""
    cdef size_t end = start + 1
    while end < entries.count and order_addresses(entries.at[start].cell, entries.at[end].cell) == 0:
        end += 1
    return end


cdef bint is_beside(const Cell *cell) noexcept nogil:
    """Whether all cells of its address go along."""
    return cell.kind & SIDE_BY_SIDE and not cell.kind & HAS_SUB


cdef Incarnation *incarnation_at(Record *record, size_t place, Stamp name, uint64_t n) except NULL:
    """What is written in one place, the ones before it being empty where nothing is."""
    cdef Incarnation *inc
    while record.count <= place:
        inc = add_incarnation(record)
        if inc == NULL:
            raise MemoryError
        inc.name, inc.n = name, n
    return &record.incarnations[place]


cdef Cell *put(Incarnation *inc, const Cell *cell, Stamp stamp) except NULL:
    """Add a cell that sees nothing."""
    cdef Cell *slot = add_cell(inc)
    if slot == NULL:
        raise MemoryError
    slot[0] = cell[0]
    slot.seen_size = 0
    slot.stamp = stamp
    return slot


cdef int note_edited(Work *work, size_t start, size_t end) except -1:
    """Keep which cell it was that moved, without its value: the last of a run, and its likes in other incarnations."""
    cdef const Entry *entries = work.entries.at
    cdef const Incarnation *old
    cdef Incarnation *inc
    cdef Cell *slot
    cdef size_t i = end
    while i > start and order_stamps(&entries[i - 1].cell.stamp, &entries[end - 1].cell.stamp) == 0:
        i -= 1
        while work.edited.count <= entries[i].incarnation:
            old = &work.before.incarnations[work.edited.count]
            incarnation_at(&work.edited, work.edited.count, old.name, old.n)
        inc = &work.edited.incarnations[entries[i].incarnation]
        slot = put(inc, entries[i].cell, Stamp(entries[i].cell.stamp.author, entries[i].cell.stamp.seq, 0))
        slot.value, slot.value_size = &NONE, 1
    return 0


cdef int put_whole(Work *work, const Cell *cell, bytes value, Stamp dot, Stamp name, uint64_t n) except -1:
    """Write all of an address as one cell of the change that creates the record."""
    cdef Cell *slot = put(incarnation_at(&work.after, 0, name, n), cell, Stamp(dot.author, dot.seq, name.time))
    slot.value = <const uint8_t *>PyBytes_AS_STRING(value)
    slot.value_size = <size_t>PyBytes_GET_SIZE(value)
    return 0


cdef int deal_moved(Work *work, Stamp dot, Stamp name, uint64_t n, dict wholes) except -1:
    """Deal the cells out to the change that creates a record, which is to be there, and those that follow it."""
    cdef Entries *entries = &work.entries
    cdef size_t start = 0
    cdef size_t end, i, place
    cdef const Entry *entry
    while start < entries.count:
        end = run_of(entries, start)
        if wholes and is_beside(entries.at[start].cell) and entries.at[start].cell.field in wholes:
            put_whole(work, entries.at[start].cell, wholes[entries.at[start].cell.field], dot, name, n)
            start = end
            continue
        for i in range(start if is_beside(entries.at[start].cell) else end - 1, end):
            entry = &entries.at[i]
            place = i - start if is_beside(entry.cell) else 0
            if not entry.cell.kind & SIDE_BY_SIDE and not (
                    work.before.count == 1 and same_dot(&entry.cell.stamp, &work.before.incarnations[0].name)):
                place = EDITED
                note_edited(work, start, end)
            put(incarnation_at(&work.after, place, name, n), entry.cell,
                Stamp(dot.author, dot.seq + place, entry.cell.stamp.time if place else name.time))
        start = end
    return 0


cdef dict write_seen(Work *work, dict sees, uint64_t own):
    """What cells are to see, into work.seen: its place there by address. An author's own cells are seen unnamed."""
    cdef size_t start
    cdef uint64_t author, seq
    cdef dict places = {}
    work.seen.size = 0
    for address, dots in sees.items():
        named = sorted(dict(sorted(dot for dot in dots if dot[0] != own)).items())
        if named:
            start = work.seen.size
            write_varint(&work.seen, <uint64_t>len(named))
            for author, seq in named:
                write_varint(&work.seen, author)
                write_varint(&work.seen, seq)
            places[address] = start, work.seen.size - start
    if work.seen.failed:
        raise MemoryError
    return places


cdef int deal_late(Work *work, Stamp dot, Stamp name, uint64_t n, dict sees) except -1:
    """Deal the cells out to changes, each with its own time; those at some addresses see what lives there."""
    cdef Entries *entries = &work.entries
    cdef size_t start = 0
    cdef size_t end, i, place
    cdef const Cell *cell
    cdef Cell *slot
    cdef dict places = write_seen(work, sees, dot.author)
    while start < entries.count:
        end = run_of(entries, start)
        for i in range(start if is_beside(entries.at[start].cell) else end - 1, end):
            cell = entries.at[i].cell
            place = i - start if is_beside(cell) else 0
            slot = put(incarnation_at(&work.after, place, name, n), cell,
                       Stamp(dot.author, dot.seq + place, cell.stamp.time))
            if places:
                found = places.get((cell.field, <bytes>cell.sub[:cell.sub_size]))
                if found is not None:
                    slot.seen, slot.seen_size = work.seen.data + <size_t>found[0], <size_t>found[1]
        start = end
    return 0


cdef uint64_t lowest_of(const Incarnation *inc) noexcept nogil:
    """The lowest time of what is written."""
    cdef uint64_t lowest = inc.name.time if inc.alive else UINT64_MAX
    cdef size_t i
    for i in range(inc.count):
        lowest = min(lowest, inc.cells[i].stamp.time)
    return lowest


cdef bytes packed_of(Work *work, const Incarnation *inc):
    work.packed.size = 0
    if pack_incarnation(&work.packed, &work.scratch, inc) != DONE:
        raise MemoryError
    return taken(&work.packed)


cdef list pieces_of(Work *work):
    """Each change's piece, how many cells it has, and their lowest time."""
    cdef size_t i
    cdef const Incarnation *inc
    cdef list found = []
    for i in range(work.after.count):
        inc = &work.after.incarnations[i]
        found.append((packed_of(work, inc), inc.count + (1 if inc.alive else 0), lowest_of(inc)))
    return found


cdef list edited_of(Work *work):
    """Of each incarnation the cells that moved as edited."""
    cdef size_t i
    cdef const Incarnation *inc
    cdef list found = []
    for i in range(work.edited.count):
        inc = &work.edited.incarnations[i]
        if inc.count:
            found.append(((inc.name.author, inc.name.seq, inc.n), packed_of(work, inc)))
    return found


def move(list items not None, uint64_t author, uint64_t seq, uint64_t without, bytes fields not None,
         bytes authors not None):
    """Records as change `seq` creates them anew: (the pieces of it and of those that follow, what was edited) each.

    Items are (packed record, incarnation (author id, seq, n), its time, wholes); cells of the field `without` stay.
    wholes: the value's bytes of the one cell that goes in place of all side by side, by field id. A piece is (packed,
    cells, lowest time). What was edited are cells without values: (incarnation, packed).
    """
    cdef Work work = work_of(fields)
    cdef Stamp name
    cdef uint64_t n
    cdef bytes old
    cdef dict wholes
    cdef list out = []
    if author >= author_count(authors):
        raise ValueError("an author that the dictionary does not hold")
    try:
        for old, (name.author, name.seq, n), name.time, wholes in items:
            gather(&work, old, without, authors)
            incarnation_at(&work.after, 0, name, n).alive = True
            deal_moved(&work, Stamp(author, seq, 0), name, n, wholes)
            out.append((pieces_of(&work), edited_of(&work)))
        return out
    finally:
        work_free(&work)


def follow(list items not None, uint64_t author, uint64_t seq, bytes fields not None, bytes authors not None):
    """What came late, as changes from `seq` on write it to what lives: (packed, cells, lowest time) a change each.

    Items are (packed record, incarnation (author id, seq, n), what its cells are to see: dots (author id, seq) by
    address (field id, sub)).
    """
    cdef Work work = work_of(fields)
    cdef Stamp name
    cdef uint64_t n
    cdef bytes old
    cdef dict sees
    cdef list out = []
    if author >= author_count(authors):
        raise ValueError("an author that the dictionary does not hold")
    name.time = 0
    try:
        for old, (name.author, name.seq, n), sees in items:
            gather(&work, old, UINT64_MAX, authors)
            deal_late(&work, Stamp(author, seq, 0), name, n, sees)
            out.append(pieces_of(&work))
        return out
    finally:
        work_free(&work)


def stripped(bytes packed not None, bytes value not None, bytes fields not None, bytes authors not None):
    """The registers of a packed record of one incarnation, with one value for all: a value's bytes."""
    cdef Work work = work_of(fields)
    cdef size_t i
    cdef const Cell *cell
    cdef Cell *slot
    cdef Incarnation *inc
    try:
        parse_record(packed, &work.before, &work.fields, author_count(authors))
        if work.before.count != 1:
            raise ValueError("not one incarnation")
        inc = incarnation_at(&work.edited, 0, work.before.incarnations[0].name, work.before.incarnations[0].n)
        for i in range(work.before.incarnations[0].count):
            cell = &work.before.incarnations[0].cells[i]
            if not cell.kind & (SIDE_BY_SIDE | PER_AUTHOR):
                slot = put(inc, cell, Stamp(cell.stamp.author, cell.stamp.seq, 0))
                slot.seen_size = cell.seen_size
                slot.value, slot.value_size = <const uint8_t *>PyBytes_AS_STRING(value), <size_t>len(value)
        return packed_of(&work, inc) if inc.count else b""
    finally:
        work_free(&work)


def registers(bytes packed not None, bytes fields not None, bytes authors not None):
    """The registers of a packed record, which neither live side by side nor are an author's own.

    (field id, sub, (author id, seq), value's bytes, what it names as seen: (author id, seq) each) each.
    """
    cdef Fields f = fields_of(fields)
    cdef Record record = Record(NULL, 0, 0)
    cdef Walk walk
    cdef const Cell *cell
    cdef list found = []
    try:
        parse_record(packed, &record, &f, author_count(authors))
        walk = walk_of(&record)
        while next_cell(&walk):
            cell = walk.cell
            if not cell.kind & (SIDE_BY_SIDE | PER_AUTHOR):
                found.append((cell.field, <bytes>cell.sub[:cell.sub_size], (cell.stamp.author, cell.stamp.seq),
                              <bytes>cell.value[:cell.value_size], seen_of(cell)))
        return found
    finally:
        record_free(&record)


cdef tuple seen_of(const Cell *cell):
    """What a cell names as seen."""
    cdef Reader r
    cdef uint64_t _, author
    cdef list found = []
    if cell.seen_size:
        r = reader_of(cell.seen, cell.seen_size)
        for _ in range(read_varint(&r)):
            author = read_varint(&r)
            found.append((author, read_varint(&r)))
    return tuple(found)


def totals(list records not None, bytes fields not None, bytes authors not None):
    """The counters' cells of each packed record: (incarnation, field id, author id, value's bytes) each."""
    cdef Fields f = fields_of(fields)
    cdef Record record = Record(NULL, 0, 0)
    cdef Walk walk
    cdef const Cell *cell
    cdef bytes data
    cdef list found
    cdef list out = []
    try:
        for data in records:
            record.count = 0
            parse_record(data, &record, &f, author_count(authors))
            found = []
            walk = walk_of(&record)
            while next_cell(&walk):
                cell = walk.cell
                if cell.kind & PER_AUTHOR:
                    name = walk.inc.name.author, walk.inc.name.seq, walk.inc.n
                    found.append((name, cell.field, cell.stamp.author, <bytes>cell.value[:cell.value_size]))
            out.append(found)
        return out
    finally:
        record_free(&record)
