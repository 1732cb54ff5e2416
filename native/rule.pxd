# Merging records: one rule for all types (sees), and what it makes of the cells of two sides. Header-only.
#
# What comes in is gained, what it replaces is lost: both go into the digest of the difference, and into the events, of
# each change how many live cells it gained or lost.

from libc.stdlib cimport free, realloc

from bytes cimport Writer, compare, writer_free
from digest cimport Digester, digester_free, hash_cell, hash_existence, write_seen
from dots cimport Stamp, order_stamps, reaches, same_dot
from record cimport (
    PER_AUTHOR, SIDE_BY_SIDE, Cell, Incarnation, Record, add_cell, add_incarnation, order_addresses,
    order_incarnations, record_free, run_of,
)

ctypedef struct Event:
    Stamp dot        # the change that gained or lost a live cell
    long long by

# What merging one record after another needs.
ctypedef struct Work:
    Digester digester         # of the difference
    Record now                # what is held
    Record piece              # what comes in
    Record next               # scratch: what is held next
    Event *events
    size_t event_count
    size_t event_room
    Writer scratch
    Writer packed
    bint failed


cdef inline void work_free(Work *work) noexcept nogil:
    free(work.events)
    record_free(&work.now)
    record_free(&work.piece)
    record_free(&work.next)
    digester_free(&work.digester)
    writer_free(&work.scratch)
    writer_free(&work.packed)


cdef inline void add_event(Work *work, const Stamp *dot, long long by) noexcept nogil:
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


cdef inline void gain(Work *work, const Incarnation *inc, const Cell *cell) noexcept nogil:
    hash_cell(&work.digester, inc, cell, False)
    add_event(work, &cell.stamp, 1)


cdef inline void lose(Work *work, const Incarnation *inc, const Cell *cell) noexcept nogil:
    hash_cell(&work.digester, inc, cell, True)
    add_event(work, &cell.stamp, -1)


cdef inline void gain_existence(Work *work, const Incarnation *inc) noexcept nogil:
    hash_existence(&work.digester, inc, False)
    add_event(work, &inc.name, 1)


cdef inline void lose_existence(Work *work, const Incarnation *inc) noexcept nogil:
    hash_existence(&work.digester, inc, True)
    add_event(work, &inc.name, -1)


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


cdef inline bint outweighs(Work *work, const Cell *a, const Cell *b) noexcept nogil:
    """Which content wins where one dot has two: no honest replica makes that, but all must settle it alike."""
    cdef Writer *w = &work.scratch
    cdef size_t middle
    cdef int order
    if a.stamp.time != b.stamp.time:
        return a.stamp.time > b.stamp.time
    order = compare(a.value, a.value_size, b.value, b.value_size)
    if order == 0 and (a.seen_size or b.seen_size):
        w.size = 0
        write_seen(w, work.digester.authors, a)
        middle = w.size
        write_seen(w, work.digester.authors, b)
        order = compare(w.data, middle, w.data + middle, w.size - middle)
    return order > 0


cdef inline bint seen_by_any(const Incarnation *inc, const Cell *cell, const Cell *rivals, size_t count) noexcept nogil:
    cdef size_t i
    for i in range(count):
        if sees(inc, &rivals[i], cell):
            return True
    return False


cdef inline void merge_address(Work *work, const Incarnation *inc, const Cell *a, size_t a_count, const Cell *b,
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


cdef inline void merge_incarnations(Work *work, const Incarnation *a, const Incarnation *b,
                                    Incarnation *out) noexcept nogil:
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


cdef inline void take_over(Work *work, const Incarnation *inc, Record *out, bint new) noexcept nogil:
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


cdef inline void merge_piece(Work *work) noexcept nogil:
    """Merge what comes in into what is held."""
    cdef Record held = work.now
    merge_records(work, &work.now, &work.piece, &work.next)
    work.now = work.next
    work.next = held


cdef inline void merge_records(Work *work, const Record *a, const Record *b, Record *out) noexcept nogil:
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
