"""Merging packed records: one rule for all types, what lost, what changed, and the digest of the difference."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, qsort, realloc
from libc.string cimport memcmp, memset

from bytes cimport (
    TAG_LIST, Reader, Writer, compare, read_byte, read_bytes, read_varint, reader_of, write_byte, write_bytes,
    write_fixed, write_tagged_text, write_varint, writer_free,
)
from record cimport (
    BAD_BYTES, DONE, HAS_SUB, KILLS, KIND_EXISTENCE, NO_MEMORY, PER_AUTHOR, SIDE_BY_SIDE, Cell, Dots, Fields,
    Incarnation, Record, Stamp, Status, add_cell, add_dot, add_incarnation, add_seen, author_count, field_kind,
    field_name, fields_of, join_dots, order_addresses, order_incarnations, order_stamps, pack_incarnation,
    parse_incarnation, parse_record, reaches, record_free, same_dot, skip_dots, write_dots,
)
from siphash cimport Digest, SipState, big_word, digest_add, digest_subtract, load_little, sip_begin, sip_end, sip_word

cdef enum:
    PREFIX_BYTES = 48   # of what is hashed of a cell: the names of its incarnation and of its change

ctypedef struct Event:
    Stamp dot        # the change that gained or lost a live cell
    long long by

# The hash of what the cells of one incarnation with one stamp begin with.
ctypedef struct Prefix:
    Stamp incarnation
    uint64_t n
    Stamp stamp
    SipState state

# What merging one record needs besides the record: scratch memory, kept from one record to the next.
ctypedef struct Work:
    Fields fields
    const uint8_t *authors
    uint64_t author_count
    SipState start            # of the digest's hashes, under its key
    Prefix prefixes[2]        # the last ones: of what is gained, and of what is lost
    size_t oldest
    Writer name               # the value of an existence cell: the list of the record's collection and key
    Digest digest
    Event *events
    size_t event_count
    size_t event_room
    uint64_t *changed         # field ids, with repeats
    size_t changed_count
    size_t changed_room
    Writer scratch
    Writer packed
    Writer hashed
    bint failed

# A record that is new in a scope, as other objects hold it: packed, and its key.
ctypedef struct Fresh:
    const uint8_t *data
    size_t size
    const uint8_t *key
    size_t key_size

# What a removal's author had seen at one address.
ctypedef struct Sight:
    Cell at                   # field and sub
    const uint8_t *vector
    size_t vector_size
    const uint8_t *exact
    size_t exact_size


cdef Work work_of(bytes fields, bytes authors) noexcept:
    cdef Work work
    memset(&work, 0, sizeof(Work))
    work.fields = fields_of(fields)
    work.authors = <const uint8_t *>PyBytes_AS_STRING(authors)
    work.author_count = author_count(authors)
    work.prefixes[0].n = work.prefixes[1].n = UINT64_MAX  # nobody's
    return work


cdef void work_free(Work *work) noexcept nogil:
    free(work.events)
    free(work.changed)
    writer_free(&work.name)
    writer_free(&work.scratch)
    writer_free(&work.packed)
    writer_free(&work.hashed)


cdef void add_event(Work *work, const Stamp *dot, long long by) noexcept nogil:
    cdef Event *events
    cdef size_t room
    cdef size_t i = work.event_count
    while i and i + 2 > work.event_count:  # mostly one change's cells give way to another's
        i -= 1
        if same_dot(&work.events[i].dot, dot):
            work.events[i].by += by
            return
    if work.event_count == work.event_room:
        room = work.event_room * 2 + 32
        events = <Event *>realloc(work.events, room * sizeof(Event))
        if events == NULL:
            work.failed = True
            return
        work.events = events
        work.event_room = room
    work.events[work.event_count].dot = dot[0]
    work.events[work.event_count].dot.time = 0
    work.events[work.event_count].by = by
    work.event_count += 1


cdef void add_changed(Work *work, uint64_t field) noexcept nogil:
    cdef uint64_t *changed
    cdef size_t room
    if work.changed_count and work.changed[work.changed_count - 1] == field:
        return
    if work.changed_count == work.changed_room:
        room = work.changed_room * 2 + 32
        changed = <uint64_t *>realloc(work.changed, room * sizeof(uint64_t))
        if changed == NULL:
            work.failed = True
            return
        work.changed = changed
        work.changed_room = room
    work.changed[work.changed_count] = field
    work.changed_count += 1


cdef inline void write_author(Writer *w, const uint8_t *authors, uint64_t author) noexcept nogil:
    write_bytes(w, authors + 8 * author, 8)


cdef int entry_sorter(const void *a, const void *b) noexcept nogil:
    return memcmp(a, b, 16)


cdef void write_seen(Writer *w, const Work *work, const Cell *cell) noexcept nogil:
    """The seen of a cell in its canonical form: full names, sorted by them."""
    cdef Reader r = reader_of(cell.seen, cell.seen_size)
    cdef uint64_t count = read_varint(&r) if cell.seen_size else 0
    cdef uint64_t _
    cdef size_t start
    write_varint(w, count)
    start = w.size
    for _ in range(count):
        write_author(w, work.authors, read_varint(&r))
        write_fixed(w, read_varint(&r))
    if count > 1 and not w.failed:
        qsort(w.data + start, count, 16, entry_sorter)


cdef const SipState *prefix_of(Work *work, const Incarnation *inc, const Stamp *stamp) noexcept nogil:
    """The state after the names of the incarnation and of the change, which many cells share."""
    cdef size_t i
    cdef Prefix *p
    for i in range(2):
        p = &work.prefixes[i]
        if order_stamps(&p.stamp, stamp) == 0 and same_dot(&p.incarnation, &inc.name) and p.n == inc.n:
            return &p.state
    p = &work.prefixes[work.oldest]
    work.oldest = 1 - work.oldest
    p.incarnation, p.n, p.stamp, p.state = inc.name, inc.n, stamp[0], work.start
    sip_word(&p.state, load_little(work.authors + 8 * inc.name.author))
    sip_word(&p.state, big_word(inc.name.seq))
    sip_word(&p.state, big_word(inc.n))
    sip_word(&p.state, load_little(work.authors + 8 * stamp.author))
    sip_word(&p.state, big_word(stamp.seq))
    sip_word(&p.state, big_word(stamp.time))
    return &p.state


cdef Digest end_hash(Work *work, const SipState *prefix) noexcept nogil:
    work.failed = work.failed or work.hashed.failed
    return sip_end(prefix[0], work.hashed.data, work.hashed.size, PREFIX_BYTES)


cdef Digest hash_cell(Work *work, const Incarnation *inc, const Cell *cell) noexcept nogil:
    """The digest of one cell's canonical bytes (docs/format.md, Digest)."""
    cdef Writer *w = &work.hashed
    cdef size_t size = 0
    cdef const uint8_t *name
    w.size = 0
    write_byte(w, cell.kind)
    name = field_name(&work.fields, cell.field, &size)
    write_varint(w, size)
    write_bytes(w, name, size)
    write_varint(w, cell.sub_size)
    write_bytes(w, cell.sub, cell.sub_size)
    write_seen(w, work, cell)
    write_bytes(w, cell.value, cell.value_size)
    return end_hash(work, prefix_of(work, inc, &cell.stamp))


cdef Digest hash_existence(Work *work, const Incarnation *inc) noexcept nogil:
    work.hashed.size = 0
    write_byte(&work.hashed, KIND_EXISTENCE)
    write_bytes(&work.hashed, work.name.data, work.name.size)
    return end_hash(work, prefix_of(work, inc, &inc.name))


cdef void gain(Work *work, const Incarnation *inc, const Cell *cell) noexcept nogil:
    digest_add(&work.digest, hash_cell(work, inc, cell))
    add_event(work, &cell.stamp, 1)
    add_changed(work, cell.field)


cdef void lose(Work *work, const Incarnation *inc, const Cell *cell) noexcept nogil:
    digest_subtract(&work.digest, hash_cell(work, inc, cell))
    add_event(work, &cell.stamp, -1)
    add_changed(work, cell.field)


cdef void gain_existence(Work *work, const Incarnation *inc) noexcept nogil:
    digest_add(&work.digest, hash_existence(work, inc))
    add_event(work, &inc.name, 1)


cdef void lose_existence(Work *work, const Incarnation *inc) noexcept nogil:
    digest_subtract(&work.digest, hash_existence(work, inc))
    add_event(work, &inc.name, -1)


cdef void change_all(Work *work, const Incarnation *inc) noexcept nogil:
    """All that an incarnation holds enters the record's reading, or leaves it, with the existence cell."""
    cdef size_t i
    for i in range(inc.count):
        add_changed(work, inc.cells[i].field)


cdef inline bint sees(const Incarnation *inc, const Cell *cell, const Cell *other) noexcept nogil:
    """Whether a cell replaces another at its address: the one merge rule (data-model.md, Records and cells)."""
    cdef bint own = cell.stamp.author == other.stamp.author
    if cell.kind & PER_AUTHOR and not own:
        return False
    if cell.kind & SIDE_BY_SIDE:
        if same_dot(&cell.stamp, &other.stamp):
            return False
    elif own:
        return cell.stamp.seq > other.stamp.seq
    elif same_dot(&other.stamp, &inc.name):
        return True
    return reaches(cell.seen, cell.seen_size, &other.stamp)


cdef inline void keep(Work *work, Incarnation *out, const Cell *cell) noexcept nogil:
    cdef Cell *slot = add_cell(out)
    if slot == NULL:
        work.failed = True
    else:
        slot[0] = cell[0]


cdef bint outweighs(Work *work, const Cell *a, const Cell *b) noexcept nogil:
    """Which content wins where one dot has two: no honest replica makes that, but all must settle it alike."""
    cdef Writer *w = &work.hashed
    cdef size_t middle
    cdef int order
    if a.stamp.time != b.stamp.time:
        return a.stamp.time > b.stamp.time
    order = compare(a.value, a.value_size, b.value, b.value_size)
    if order == 0 and (a.seen_size or b.seen_size):
        w.size = 0
        write_seen(w, work, a)
        middle = w.size
        write_seen(w, work, b)
        order = compare(w.data, middle, w.data + middle, w.size - middle)
    return order > 0


cdef bint seen_by_any(const Incarnation *inc, const Cell *cell, const Cell *rivals, size_t count) noexcept nogil:
    cdef size_t i
    for i in range(count):
        if sees(inc, &rivals[i], cell):
            return True
    return False


cdef void merge_address(Work *work, const Incarnation *inc, const Cell *a, size_t a_count, const Cell *b,
                        size_t b_count, Incarnation *out) noexcept nogil:
    """Merge the cells of one address that two sides hold; both runs are sorted by stamp."""
    cdef size_t i = 0
    cdef size_t j = 0
    while i < a_count or j < b_count:
        if i < a_count and j < b_count and same_dot(&a[i].stamp, &b[j].stamp):
            if outweighs(work, &b[j], &a[i]):
                lose(work, inc, &a[i])
                gain(work, inc, &b[j])
                keep(work, out, &b[j])
            elif seen_by_any(inc, &a[i], b, b_count):
                lose(work, inc, &a[i])
            else:
                keep(work, out, &a[i])
            i += 1
            j += 1
        elif j == b_count or (i < a_count and order_stamps(&a[i].stamp, &b[j].stamp) < 0):
            if seen_by_any(inc, &a[i], b, b_count):
                lose(work, inc, &a[i])
            else:
                keep(work, out, &a[i])
            i += 1
        else:
            if not seen_by_any(inc, &b[j], a, a_count):
                gain(work, inc, &b[j])
                keep(work, out, &b[j])
            j += 1


cdef inline size_t run_of(const Incarnation *inc, size_t start) noexcept nogil:
    """The end of the run of cells that share an address with the one at `start`."""
    cdef size_t end = start + 1
    while end < inc.count and order_addresses(&inc.cells[start], &inc.cells[end]) == 0:
        end += 1
    return end


cdef void merge_incarnations(Work *work, const Incarnation *a, const Incarnation *b, Incarnation *out) noexcept nogil:
    """Merge what two sides hold of one incarnation: what `b` adds is gained, what of `a` it replaces is lost."""
    cdef size_t i = 0
    cdef size_t j = 0
    cdef size_t i_end, j_end
    cdef int order
    out.name, out.n, out.alive = a.name, a.n, a.alive
    if b.alive and a.alive and b.name.time > a.name.time:
        lose_existence(work, a)
        out.alive = False
    if b.alive and not out.alive:
        out.name, out.alive = b.name, True
        gain_existence(work, out)
        change_all(work, a)
    while i < a.count or j < b.count:
        if j == b.count:
            order = -1
        elif i == a.count:
            order = 1
        else:
            order = order_addresses(&a.cells[i], &b.cells[j])
        if order < 0:
            keep(work, out, &a.cells[i])
            i += 1
        elif order > 0:
            gain(work, out, &b.cells[j])
            keep(work, out, &b.cells[j])
            j += 1
        else:
            i_end = run_of(a, i)
            j_end = run_of(b, j)
            merge_address(work, out, &a.cells[i], i_end - i, &b.cells[j], j_end - j, out)
            i, j = i_end, j_end


cdef void take_over(Work *work, const Incarnation *inc, Record *out, bint new) noexcept nogil:
    cdef Incarnation *slot = add_incarnation(out)
    cdef size_t i
    if slot == NULL:
        work.failed = True
        return
    slot.name, slot.n, slot.alive = inc.name, inc.n, inc.alive
    if new and inc.alive:
        gain_existence(work, inc)
    for i in range(inc.count):
        if new:
            gain(work, inc, &inc.cells[i])
        keep(work, slot, &inc.cells[i])


cdef void merge_records(Work *work, const Record *a, const Record *b, Record *out) noexcept nogil:
    cdef size_t i = 0
    cdef size_t j = 0
    cdef int order
    cdef Incarnation *slot
    out.count = 0
    while (i < a.count or j < b.count) and not work.failed:
        if j == b.count:
            order = -1
        elif i == a.count:
            order = 1
        else:
            order = order_incarnations(&a.incarnations[i], &b.incarnations[j])
        if order < 0:
            take_over(work, &a.incarnations[i], out, False)
            i += 1
        elif order > 0:
            take_over(work, &b.incarnations[j], out, True)
            j += 1
        else:
            slot = add_incarnation(out)
            if slot == NULL:
                work.failed = True
                return
            merge_incarnations(work, &a.incarnations[i], &b.incarnations[j], slot)
            i += 1
            j += 1


cdef bint names_exactly(const uint8_t *dots, size_t size, const Stamp *stamp) noexcept nogil:
    cdef Reader r = reader_of(dots, size)
    cdef uint64_t _, author, seq
    cdef uint64_t count = read_varint(&r)
    for _ in range(count):
        author = read_varint(&r)
        seq = read_varint(&r)
        if author == stamp.author and seq == stamp.seq:
            return True
    return False


cdef bint next_sight(Reader *r, uint64_t *pending, const Fields *fields, Sight *sight) noexcept nogil:
    """The next address of a removal; False where there is none."""
    memset(sight, 0, sizeof(Sight))
    if pending[0] == 0:
        return False
    pending[0] -= 1
    sight.at.field = read_varint(r)
    if sight.at.field >= fields.count:
        r.bad = True
    elif field_kind(fields, sight.at.field) & HAS_SUB:
        sight.at.sub_size = read_varint(r)
        sight.at.sub = read_bytes(r, sight.at.sub_size)
    sight.vector = r.at
    skip_dots(r, UINT64_MAX)
    sight.exact = r.at
    skip_dots(r, UINT64_MAX)
    sight.vector_size = <size_t>(sight.exact - sight.vector)
    sight.exact_size = <size_t>(r.at - sight.exact)
    return not r.bad


cdef inline bint was_seen(const Sight *sight, const Stamp *stamp) noexcept nogil:
    return reaches(sight.vector, sight.vector_size, stamp) or names_exactly(sight.exact, sight.exact_size, stamp)


cdef bint remove_cells(Work *work, Incarnation *inc, const uint8_t *item, size_t size) noexcept nogil:
    """Take away what a removal names: the existence and all of the creation, and what was seen at each address.

    Cells and addresses are in the same order, so one pass over both will do. False for bytes that are no removal.
    """
    cdef Reader r = reader_of(item, size)
    cdef bint kills = read_byte(&r) & KILLS
    cdef uint64_t pending = read_varint(&r)
    cdef Sight sight
    cdef bint more = next_sight(&r, &pending, &work.fields, &sight)
    cdef size_t i
    cdef size_t kept = 0
    cdef Cell *cell
    cdef bint hit
    for i in range(inc.count):
        cell = &inc.cells[i]
        while more and order_addresses(&sight.at, cell) < 0:
            more = next_sight(&r, &pending, &work.fields, &sight)
        hit = kills and same_dot(&cell.stamp, &inc.name)
        if hit or (more and order_addresses(&sight.at, cell) == 0 and was_seen(&sight, &cell.stamp)):
            lose(work, inc, cell)
        else:
            inc.cells[kept] = cell[0]
            kept += 1
    inc.count = kept
    if kills and inc.alive:
        lose_existence(work, inc)
        change_all(work, inc)
        inc.alive = False
    return not r.bad


cdef int apply_removals(Work *work, Record *record, tuple removals) except -1:
    cdef size_t i
    cdef uint64_t author, seq, n
    cdef Incarnation *inc
    cdef bytes item
    for author, seq, n, item in removals:
        for i in range(record.count):
            inc = &record.incarnations[i]
            if inc.name.author == author and inc.name.seq == seq and inc.n == n:
                if not remove_cells(
                        work, inc, <const uint8_t *>PyBytes_AS_STRING(item), <size_t>PyBytes_GET_SIZE(item)):
                    raise ValueError("a packed removal is damaged")
    return 0


cdef object pack_one(Work *work, const Incarnation *inc):
    work.packed.size = 0
    if pack_incarnation(&work.packed, &work.scratch, inc) != DONE:
        raise MemoryError
    return PyBytes_FromStringAndSize(<const char *>work.packed.data, <Py_ssize_t>work.packed.size)


cdef object pack_alive(Work *work, const Record *record):
    cdef size_t i
    work.packed.size = 0
    for i in range(record.count):
        if record.incarnations[i].alive:
            if pack_incarnation(&work.packed, &work.scratch, &record.incarnations[i]) != DONE:
                raise MemoryError
    return PyBytes_FromStringAndSize(<const char *>work.packed.data, <Py_ssize_t>work.packed.size)


cdef int number_sorter(const void *a, const void *b) noexcept nogil:
    cdef uint64_t one = (<const uint64_t *>a)[0]
    cdef uint64_t other = (<const uint64_t *>b)[0]
    return (one > other) - (one < other)


cdef bint ascend(const uint64_t *numbers, size_t count) noexcept nogil:
    cdef size_t i
    for i in range(1, count):
        if numbers[i - 1] > numbers[i]:
            return False
    return True


cdef object changed_fields(Work *work):
    """Field ids, ascending, each once."""
    cdef size_t i
    cdef size_t kept = 0
    if not ascend(work.changed, work.changed_count):
        qsort(work.changed, work.changed_count, sizeof(uint64_t), number_sorter)
    for i in range(work.changed_count):
        if kept == 0 or work.changed[i] != work.changed[kept - 1]:
            work.changed[kept] = work.changed[i]
            kept += 1
    if kept == 1:
        return (work.changed[0],)
    return tuple([work.changed[i] for i in range(kept)])


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


cdef object outcome(Work *work, const Record *record):
    """What became of one record: see merge."""
    cdef size_t i
    cdef const Event *event
    cdef list events = []
    cdef const Incarnation *inc
    cdef list headless = []
    for i in range(record.count):
        inc = &record.incarnations[i]
        if not inc.alive and inc.count:
            headless.append((inc.name.author, inc.name.seq, inc.n, pack_one(work, inc)))
    for i in range(work.event_count):
        event = &work.events[i]
        events.append((event.dot.author, event.dot.seq, event.by))
    return pack_alive(work, record), tuple(headless), changed_fields(work), tuple(events)


cdef int merge_piece(Work *work, Record *now, const Record *piece, Record *next) except -1:
    """Merge what comes into a record; `next` is scratch."""
    cdef Record swap
    merge_records(work, now, piece, next)
    if work.failed:
        raise MemoryError
    swap = now[0]
    now[0] = next[0]
    next[0] = swap
    return 0


cdef object merge_one(Work *work, tuple olds, tuple pieces, tuple removals, Record *now, Record *piece, Record *next):
    cdef bytes data
    cdef Digest before = work.digest
    work.event_count = 0
    work.changed_count = 0
    now.count = 0
    for data in olds:
        parse_record(data, now, &work.fields, work.author_count)
    if len(olds) > 1:
        sort_incarnations(now)
    for data in pieces:
        piece.count = 0
        parse_record(data, piece, &work.fields, work.author_count)
        merge_piece(work, now, piece, next)
    apply_removals(work, now, removals)
    if work.failed:
        raise MemoryError
    net_events(work)
    if not work.event_count and work.digest.low == before.low and work.digest.high == before.high:
        return None
    return outcome(work, now)


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


cdef int write_name_part(Writer *w, str text) except -1:
    cdef Py_ssize_t size = 0
    cdef const char *data = PyUnicode_AsUTF8AndSize(text, &size)
    write_tagged_text(w, <const uint8_t *>data, <size_t>size)
    return 0


cdef int name_record(Work *work, str collection, str key) except -1:
    """Whose cells are hashed from here on."""
    work.name.size = 0
    write_byte(&work.name, TAG_LIST)
    write_varint(&work.name, 2)
    write_name_part(&work.name, collection)
    write_name_part(&work.name, key)
    work.failed = work.failed or work.name.failed
    return 0


def merge(list items not None, bytes key not None, bytes fields not None, bytes authors not None):
    """Merge pieces into records and hold removals against them: one call for a whole chunk.

    Each item is (olds, pieces, removals, name): packed records held here, packed records that come in, removals as
    (author, seq, n, item), and (collection, key) of the record, None where it is not known. Returns the outcomes and
    the 16 bytes to add to the scope's digest. An outcome is None where nothing changed, else (the live incarnations,
    the incarnations without existence cell as (author, seq, n, packed), field ids that changed, (author, seq, by)
    for each change whose number of live cells changed).
    """
    cdef Work work = work_of(fields, authors)
    cdef Record now = Record(NULL, 0, 0)
    cdef Record piece = Record(NULL, 0, 0)
    cdef Record next = Record(NULL, 0, 0)
    cdef list out = []
    cdef tuple name
    if PyBytes_GET_SIZE(key) != 16:
        raise ValueError("a digest key has 16 bytes")
    work.start = sip_begin(<const uint8_t *>PyBytes_AS_STRING(key))
    try:
        for olds, pieces, removals, name in items:
            work.name.size = 0
            if name is not None:
                name_record(&work, name[0], name[1])
            out.append(merge_one(&work, olds, pieces, removals, &now, &piece, &next))
        return out, (work.digest.low | <object>work.digest.high << 64).to_bytes(16, "little")
    finally:
        record_free(&now)
        record_free(&piece)
        record_free(&next)
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
    net_events(work)
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
    cdef Work work = work_of(fields, authors)
    cdef Record now = Record(NULL, 0, 0)
    cdef Record piece = Record(NULL, 0, 0)
    cdef Record next = Record(NULL, 0, 0)
    cdef bytes data, packed
    cdef int64_t held
    cdef Digest before
    cdef list updates = []
    cdef list names = []
    cdef dict told = {}
    if PyBytes_GET_SIZE(key) != 16:
        raise ValueError("a digest key has 16 bytes")
    work.start = sip_begin(<const uint8_t *>PyBytes_AS_STRING(key))
    try:
        for number, held, name, packed in rows:
            if held != scope:
                return None
            before = work.digest
            work.event_count = work.changed_count = now.count = 0
            parse_record(packed, &now, &work.fields, work.author_count)
            for data in pieces[number]:
                piece.count = 0
                parse_record(data, &piece, &work.fields, work.author_count)
                if not lives_in(&now, &piece):
                    return None
                merge_piece(&work, &now, &piece, &next)
            tell_events(&work, told, number)
            if work.event_count or work.digest.low != before.low or work.digest.high != before.high:
                updates.append((number, pack_alive(&work, &now)))
                names.append(name)
        return updates, names, told, (work.digest.low | <object>work.digest.high << 64).to_bytes(16, "little")
    finally:
        record_free(&now)
        record_free(&piece)
        record_free(&next)
        work_free(&work)


cdef bint gather_seen(const Incarnation *inc, size_t start, size_t end, bint kills, Dots *vector,
                      Dots *exact) noexcept nogil:
    """What a removal's author has seen at one address; False without memory.

    The creation is seen by every register. A kill takes it away wherever it is; else it is named like all the rest.
    """
    cdef size_t i
    cdef const Cell *cell
    cdef bint done = True
    vector.count = exact.count = 0
    for i in range(start, end):
        cell = &inc.cells[i]
        done = done and add_seen(vector, cell)
        if not kills and not (cell.kind & (SIDE_BY_SIDE | PER_AUTHOR)):
            done = done and add_dot(vector, inc.name.author, inc.name.seq)
        if not (kills and same_dot(&cell.stamp, &inc.name)):
            done = done and add_dot(exact if cell.kind & SIDE_BY_SIDE else vector, cell.stamp.author, cell.stamp.seq)
    join_dots(vector, True)
    join_dots(exact, False)
    return done


cdef Status write_item(Work *work, const Incarnation *inc, Dots *vector, Dots *exact) noexcept nogil:
    """The removal of an incarnation, or of the cells of one without existence cell, into work.packed."""
    cdef size_t i = 0
    cdef size_t end
    cdef uint64_t addresses = 0
    cdef Writer *w = &work.scratch
    cdef const Cell *cell
    w.size = 0
    while i < inc.count:
        end = run_of(inc, i)
        if not gather_seen(inc, i, end, inc.alive, vector, exact):
            return NO_MEMORY
        if vector.count or exact.count:
            addresses += 1
            cell = &inc.cells[i]
            write_varint(w, cell.field)
            if cell.kind & HAS_SUB:
                write_varint(w, cell.sub_size)
                write_bytes(w, cell.sub, cell.sub_size)
            write_dots(w, vector)
            write_dots(w, exact)
        i = end
    work.packed.size = 0
    write_byte(&work.packed, KILLS if inc.alive else 0)
    write_varint(&work.packed, addresses)
    write_bytes(&work.packed, w.data, w.size)
    return NO_MEMORY if w.failed or work.packed.failed else DONE


def removals(bytes data not None, bytes fields not None):
    """The removals of all that lives in a packed record: (author, seq, n, item) an incarnation.

    An incarnation that is alive is killed; of one without existence cell all cells are dismissed.
    """
    cdef Work work = work_of(fields, b"")
    cdef Record record = Record(NULL, 0, 0)
    cdef Dots vector = Dots(NULL, 0, 0)
    cdef Dots exact = Dots(NULL, 0, 0)
    cdef size_t i
    cdef Incarnation *inc
    cdef list out = []
    try:
        parse_record(data, &record, &work.fields, UINT64_MAX)
        for i in range(record.count):
            inc = &record.incarnations[i]
            if write_item(&work, inc, &vector, &exact) != DONE:
                raise MemoryError
            item = PyBytes_FromStringAndSize(<const char *>work.packed.data, <Py_ssize_t>work.packed.size)
            out.append((inc.name.author, inc.name.seq, inc.n, item))
        return out
    finally:
        free(vector.at)
        free(exact.at)
        record_free(&record)
        work_free(&work)


def removals_at(bytes data not None, set addresses not None, bytes fields not None):
    """The removals of what lives at some addresses, as (field id, sub): (author, seq, n, item) an incarnation."""
    cdef Work work = work_of(fields, b"")
    cdef Record record = Record(NULL, 0, 0)
    cdef Incarnation part
    cdef Dots vector = Dots(NULL, 0, 0)
    cdef Dots exact = Dots(NULL, 0, 0)
    cdef size_t i, j
    cdef Incarnation *inc
    cdef Cell *cell
    cdef list out = []
    memset(&part, 0, sizeof(Incarnation))
    try:
        parse_record(data, &record, &work.fields, UINT64_MAX)
        for i in range(record.count):
            inc = &record.incarnations[i]
            part.name, part.n, part.count = inc.name, inc.n, 0
            for j in range(inc.count):
                cell = &inc.cells[j]
                if (cell.field, <bytes>cell.sub[:cell.sub_size]) in addresses:
                    keep(&work, &part, cell)
            if part.count == 0:
                continue
            if work.failed or write_item(&work, &part, &vector, &exact) != DONE:
                raise MemoryError
            item = PyBytes_FromStringAndSize(<const char *>work.packed.data, <Py_ssize_t>work.packed.size)
            out.append((inc.name.author, inc.name.seq, inc.n, item))
        return out
    finally:
        free(part.cells)
        free(vector.at)
        free(exact.at)
        record_free(&record)
        work_free(&work)


cdef Status add_fresh(Work *work, Record *record, const uint8_t *data, size_t size) noexcept nogil:
    """Add a record of one live incarnation to the digest."""
    cdef Reader r = reader_of(data, size)
    cdef size_t i
    cdef Incarnation *inc
    cdef Status status
    record.count = 0
    inc = add_incarnation(record)
    if inc == NULL:
        return NO_MEMORY
    status = parse_incarnation(&r, inc, &work.fields, work.author_count)
    if status != DONE:
        return status
    if r.at != r.end or not inc.alive:
        return BAD_BYTES
    digest_add(&work.digest, hash_existence(work, inc))
    for i in range(inc.count):
        digest_add(&work.digest, hash_cell(work, inc, &inc.cells[i]))
    return NO_MEMORY if work.failed else DONE


cdef Status add_all(Work *work, Record *record, const Fresh *collection, const Fresh *some,
                    size_t count) noexcept nogil:
    """Add records of a collection, which is given as the key alone, to the digest."""
    cdef Writer *w = &work.name
    cdef size_t i
    cdef Status status
    for i in range(count):
        w.size = 0
        write_byte(w, TAG_LIST)
        write_varint(w, 2)
        write_tagged_text(w, collection.key, collection.key_size)
        write_tagged_text(w, some[i].key, some[i].key_size)
        status = NO_MEMORY if w.failed else add_fresh(work, record, some[i].data, some[i].size)
        if status != DONE:
            return status
    return DONE


cdef int fill_key(Fresh *one, str key) except -1:
    cdef Py_ssize_t size = 0
    one.key = <const uint8_t *>PyUnicode_AsUTF8AndSize(key, &size)
    one.key_size = <size_t>size
    return 0


def fresh(list pieces not None, str collection not None, list keys not None, bytes key not None, bytes fields not None,
          bytes authors not None):
    """What records of one collection, new in a scope, add to its digest: the 16 bytes that merge would give."""
    cdef Work work = work_of(fields, authors)
    cdef Record record = Record(NULL, 0, 0)
    cdef tuple held = (tuple(pieces), tuple(keys))  # so that nobody takes one away while other threads run
    cdef size_t count = <size_t>len(held[0])
    cdef Fresh *some = NULL
    cdef Fresh named
    cdef size_t i
    cdef Status status
    cdef bytes data
    if PyBytes_GET_SIZE(key) != 16:
        raise ValueError("a digest key has 16 bytes")
    if <size_t>len(held[1]) != count:
        raise ValueError("as many keys as records")
    work.start = sip_begin(<const uint8_t *>PyBytes_AS_STRING(key))
    try:
        some = <Fresh *>calloc(count + 1, sizeof(Fresh))
        if some == NULL:
            raise MemoryError
        fill_key(&named, collection)
        for i in range(count):
            data = held[0][i]
            some[i].data, some[i].size = <const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data)
            fill_key(&some[i], held[1][i])
        with nogil:
            status = add_all(&work, &record, &named, some, count)
        if status == NO_MEMORY:
            raise MemoryError
        if status != DONE:
            raise ValueError("not one live incarnation")
        return (work.digest.low | <object>work.digest.high << 64).to_bytes(16, "little")
    finally:
        free(some)
        record_free(&record)
        work_free(&work)


cdef bint gather_named(Work *work, const uint8_t *item, size_t size, Dots *vector, Dots *exact) noexcept nogil:
    """The dots that a removal names; False for bytes that are no removal, work.failed without memory."""
    cdef Reader r = reader_of(item, size)
    cdef Cell cell
    cdef uint64_t pending, author, _
    cdef Sight sight
    cdef Reader dots
    memset(&cell, 0, sizeof(Cell))
    read_byte(&r)
    pending = read_varint(&r)
    while next_sight(&r, &pending, &work.fields, &sight):
        cell.seen, cell.seen_size = sight.vector, sight.vector_size
        if not add_seen(vector, &cell):
            work.failed = True
        dots = reader_of(sight.exact, sight.exact_size)
        for _ in range(read_varint(&dots)):
            author = read_varint(&dots)
            if not add_dot(exact, author, read_varint(&dots)):
                work.failed = True
    return not r.bad


cdef list pairs_of(const Dots *dots):
    cdef size_t i
    return [(dots.at[i].author, dots.at[i].seq) for i in range(dots.count)]


def named(list removals not None, bytes fields not None):
    """What removals (author, seq, n, item) name: (author id, highest seq) up to which all was seen, and single dots.

    The incarnations' creating changes are among the single dots.
    """
    cdef Work work = work_of(fields, b"")
    cdef Dots vector = Dots(NULL, 0, 0)
    cdef Dots exact = Dots(NULL, 0, 0)
    cdef uint64_t author, seq
    cdef bytes item
    try:
        for author, seq, _, item in removals:
            if not add_dot(&exact, author, seq):
                raise MemoryError
            if not gather_named(
                    &work, <const uint8_t *>PyBytes_AS_STRING(item), <size_t>PyBytes_GET_SIZE(item), &vector, &exact):
                raise ValueError("a packed removal is damaged")
        if work.failed:
            raise MemoryError
        join_dots(&vector, True)
        join_dots(&exact, False)
        return pairs_of(&vector), pairs_of(&exact)
    finally:
        free(vector.at)
        free(exact.at)
        work_free(&work)
