"""Merging packed records and holding removals against them: what is left, who gained and lost cells, the digest."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memset

from bytes cimport Reader, read_byte, read_varint, reader_of, taken
from digest cimport digest_bytes, digester_start, name_record, settle
from dots cimport order_stamps, same_dot
from packed cimport DONE, pack_incarnation, parse_record
from record cimport Cell, Incarnation, Record, fields_of, order_addresses, order_incarnations
from removal cimport KILLS, Sight, next_sight, was_seen
from rule cimport Event, Work, lose, lose_existence, merge_piece, work_free
from siphash cimport Digest


cdef int start(Work *work, bytes key, bytes fields, bytes authors) except -1:
    memset(work, 0, sizeof(Work))
    return digester_start(&work.digester, key, fields_of(fields), authors)


cdef inline int parse(Work *work, bytes data, Record *record) except -1:
    """Append the incarnations of a packed record."""
    return parse_record(data, record, &work.digester.fields, work.digester.author_count)


cdef bint remove_cells(Work *work, Incarnation *inc, const uint8_t *item, size_t size) noexcept nogil:
    """Take away what a removal names: the existence and all of the creation, and what was seen at each address.

    Cells and addresses are in the same order, so one pass over both will do. False for bytes that are no removal.
    """
    cdef Reader r = reader_of(item, size)
    cdef bint kills = read_byte(&r) & KILLS
    cdef uint64_t pending = read_varint(&r)
    cdef Sight sight
    cdef bint more = next_sight(&r, &pending, &work.digester.fields, &sight)
    cdef size_t i
    cdef size_t kept = 0
    cdef Cell *cell
    cdef bint hit
    for i in range(inc.count):
        cell = &inc.cells[i]
        while more and order_addresses(&sight.at, cell) < 0:
            more = next_sight(&r, &pending, &work.digester.fields, &sight)
        hit = kills and same_dot(&cell.stamp, &inc.name)
        if hit or (more and order_addresses(&sight.at, cell) == 0 and was_seen(&sight, &cell.stamp)):
            lose(work, inc, cell)
        else:
            inc.cells[kept] = cell[0]
            kept += 1
    inc.count = kept
    if kills and inc.alive:
        lose_existence(work, inc)
        inc.alive = False
    return not r.bad


cdef int apply_removals(Work *work, tuple removals) except -1:
    cdef size_t i
    cdef uint64_t author, seq, n
    cdef Incarnation *inc
    cdef bytes item
    for author, seq, n, item in removals:
        for i in range(work.now.count):
            inc = &work.now.incarnations[i]
            if inc.name.author == author and inc.name.seq == seq and inc.n == n:
                if not remove_cells(
                        work, inc, <const uint8_t *>PyBytes_AS_STRING(item), <size_t>PyBytes_GET_SIZE(item)):
                    raise ValueError("a packed removal is damaged")
    return 0


cdef bytes pack(Work *work, bint alive, size_t first, size_t end):
    """Of the incarnations in that range those that are alive, or those that are not, packed."""
    cdef size_t i
    work.packed.size = 0
    for i in range(first, end):
        if work.now.incarnations[i].alive == alive:
            if pack_incarnation(&work.packed, &work.scratch, &work.now.incarnations[i]) != DONE:
                raise MemoryError
    return taken(&work.packed)


cdef int event_sorter(const void *a, const void *b) noexcept nogil:
    return order_stamps(&(<const Event *>a).dot, &(<const Event *>b).dot)


cdef void net_events(Work *work) noexcept nogil:
    """Leave one event for each change whose number of live cells here rose or fell, ascending."""
    cdef size_t i
    cdef size_t kept = 0
    cdef Event *events = work.events
    if work.event_count > 1:
        qsort(events, work.event_count, sizeof(Event), event_sorter)
    for i in range(work.event_count):
        if kept and same_dot(&events[i].dot, &events[kept - 1].dot):
            events[kept - 1].by += events[i].by
        else:
            if kept and events[kept - 1].by == 0:
                kept -= 1
            events[kept] = events[i]
            kept += 1
    if kept and events[kept - 1].by == 0:
        kept -= 1
    work.event_count = kept


cdef bint changed(Work *work, Digest before) except -1:
    """Whether anything did since the digest was this; the events are summed up."""
    cdef Digest now
    settle(&work.digester.sum)
    if work.failed or work.digester.sum.failed:
        raise MemoryError
    net_events(work)
    now = work.digester.sum.total
    return work.event_count > 0 or now.low != before.low or now.high != before.high


cdef tuple outcome(Work *work):
    """What became of one record: see merge."""
    cdef size_t i
    cdef const Event *event
    cdef list events = []
    cdef const Incarnation *inc
    cdef list headless = []
    for i in range(work.now.count):
        inc = &work.now.incarnations[i]
        if not inc.alive and inc.count:
            headless.append((inc.name.author, inc.name.seq, inc.n, pack(work, False, i, i + 1)))
    for i in range(work.event_count):
        event = &work.events[i]
        events.append((event.dot.author, event.dot.seq, event.by))
    return pack(work, True, 0, work.now.count), tuple(headless), tuple(events)


cdef void sort_incarnations(Record *record) noexcept nogil:
    cdef size_t i, j
    cdef Incarnation swap
    for i in range(1, record.count):
        j = i
        while j and order_incarnations(&record.incarnations[j - 1], &record.incarnations[j]) > 0:
            swap = record.incarnations[j]
            record.incarnations[j] = record.incarnations[j - 1]
            record.incarnations[j - 1] = swap
            j -= 1


cdef object merge_one(Work *work, tuple olds, tuple pieces, tuple removals):
    cdef bytes data
    cdef Digest before = work.digester.sum.total
    work.event_count = work.now.count = 0
    for data in olds:
        parse(work, data, &work.now)
    if len(olds) > 1:
        sort_incarnations(&work.now)
    for data in pieces:
        work.piece.count = 0
        parse(work, data, &work.piece)
        merge_piece(work)
    apply_removals(work, removals)
    return outcome(work) if changed(work, before) else None


def merge(list items not None, bytes key not None, bytes fields not None, bytes authors not None):
    """Merge pieces into records and hold removals against them: one call for a whole chunk.

    Each item is (olds, pieces, removals, name): packed records held here, packed records that come in, removals as
    (author, seq, n, item), and (collection, key) of the record, None where it is not known. Returns the outcomes and
    the 16 bytes to add to the scope's digest. An outcome is None where nothing changed, else (the live incarnations,
    the incarnations without existence cell as (author, seq, n, packed), (author, seq, by) for each change whose number
    of live cells changed).
    """
    cdef Work work
    cdef list out = []
    cdef tuple name
    start(&work, key, fields, authors)
    try:
        for olds, pieces, removals, name in items:
            work.digester.name.size = 0
            if name is not None:
                name_record(&work.digester, name[0], name[1])
            out.append(merge_one(&work, olds, pieces, removals))
        return out, digest_bytes(work.digester.sum.total)
    finally:
        work_free(&work)


cdef bint lives_in(const Record *record, const Record *piece) noexcept nogil:
    """Whether a piece creates nothing, and all that it is of lives in a record."""
    cdef size_t i
    cdef size_t j = 0
    for i in range(piece.count):
        while j < record.count and order_incarnations(&record.incarnations[j], &piece.incarnations[i]) < 0:
            j += 1
        if j == record.count or order_incarnations(&record.incarnations[j], &piece.incarnations[i]) != 0:
            return False
        if piece.incarnations[i].alive or not record.incarnations[j].alive:
            return False
    return True


cdef int tell_events(Work *work, dict told, object number) except -1:
    """Add up what changes gained and lost, and in which rows: (author, seq) -> [by, rows gained in, rows lost in]."""
    cdef size_t i
    cdef list one
    for i in range(work.event_count):
        dot = (work.events[i].dot.author, work.events[i].dot.seq)
        found = told.get(dot)
        if found is None:
            found = told[dot] = [0, [], []]
        one = found
        one[0] += work.events[i].by
        (<list>one[1 if work.events[i].by > 0 else 2]).append(number)
    return 0


def edit(list rows not None, dict pieces not None, int64_t scope, bytes key not None, bytes fields not None,
         bytes authors not None):
    """Merge pieces into records of a scope in which all that they are of lives; None where something does not.

    rows: (number, scope, name, packed) each; pieces: number -> packed pieces. Returns the records that changed, as
    (number, packed) and by their names; (author, seq) -> [by, rows gained in, rows lost in] for each change whose
    number of live cells changed; and the 16 bytes to add to the scope's digest.
    """
    cdef Work work
    cdef bytes data, packed
    cdef int64_t held
    cdef Digest before
    cdef list updates = []
    cdef list names = []
    cdef dict told = {}
    start(&work, key, fields, authors)
    try:
        for number, held, name, packed in rows:
            if held != scope:
                return None
            before = work.digester.sum.total
            work.event_count = work.now.count = 0
            parse(&work, packed, &work.now)
            for data in pieces[number]:
                work.piece.count = 0
                parse(&work, data, &work.piece)
                if not lives_in(&work.now, &work.piece):
                    return None
                merge_piece(&work)
            if changed(&work, before):
                tell_events(&work, told, number)
                updates.append((number, pack(&work, True, 0, work.now.count)))
                names.append(name)
        return updates, names, told, digest_bytes(work.digester.sum.total)
    finally:
        work_free(&work)
