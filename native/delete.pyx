"""Deleting whole records: what their removals, merged, make of the file, from one look at each."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, qsort, realloc
from libc.string cimport memset

from bytes cimport taken
from digest cimport digest_bytes, digester_start, name_record, settle
from packed cimport parse_record
from record cimport Incarnation, fields_of
from rule cimport Work, lose, lose_existence, work_free
from seen cimport Named, named_free, write_removal

# The name of an incarnation.
ctypedef struct Name:
    uint64_t author
    uint64_t seq
    uint64_t n

# What the deletion of some records comes to.
ctypedef struct Deletion:
    Work work                # the digest of the difference, and what changes lost
    Named named
    Name *gone
    size_t count
    size_t room
    uint64_t size            # bytes of the removals


cdef void deletion_free(Deletion *d) noexcept nogil:
    work_free(&d.work)
    named_free(&d.named)
    free(d.gone)


cdef bint lose_all(Deletion *d, const Incarnation *inc) noexcept nogil:
    """Count out all that an incarnation has, and write its removal; False without memory."""
    cdef size_t i, room
    cdef Name *names
    if d.count == d.room:
        room = d.room * 2 + 1024
        names = <Name *>realloc(d.gone, room * sizeof(Name))
        if names == NULL:
            return False
        d.gone, d.room = names, room
    d.gone[d.count] = Name(inc.name.author, inc.name.seq, inc.n)
    d.count += 1
    lose_existence(&d.work, inc)
    for i in range(inc.count):
        lose(&d.work, inc, &inc.cells[i])
    return write_removal(&d.named, inc)


cdef int note_stale(const Incarnation *inc, set remembered, set stale, object collection, object row) except -1:
    """Note of which remembered changes the row had cells."""
    cdef size_t i
    dot = (inc.name.author, inc.name.seq)
    if dot in remembered:
        stale.add((dot, collection, row))
    for i in range(inc.count):
        dot = (inc.cells[i].stamp.author, inc.cells[i].stamp.seq)
        if dot in remembered:
            stale.add((dot, collection, row))
    return 0


cdef int order_names(const void *a, const void *b) noexcept nogil:
    cdef const Name *x = <const Name *>a
    cdef const Name *y = <const Name *>b
    if x.author != y.author:
        return -1 if x.author < y.author else 1
    if x.seq != y.seq:
        return -1 if x.seq < y.seq else 1
    return (x.n > y.n) - (x.n < y.n)


cdef list runs_of(Deletion *d):
    """The incarnations that went as (author, seq, first n, how many), sorted; None where one went twice."""
    cdef size_t i
    cdef size_t start = 0
    cdef Name *names = d.gone
    cdef list runs = []
    if d.count == 0:
        return runs
    qsort(names, d.count, sizeof(Name), order_names)
    for i in range(1, d.count + 1):
        if i < d.count and names[i].author == names[start].author and names[i].seq == names[start].seq:
            if names[i].n == names[i - 1].n:
                return None
            if names[i].n - names[start].n == i - start:
                continue
        runs.append((names[start].author, names[start].seq, names[start].n, i - start))
        start = i
    return runs


cdef dict losses_of(const Work *work):
    cdef size_t i
    cdef dict lost = {}
    for i in range(work.event_count):
        dot = (work.events[i].dot.author, work.events[i].dot.seq)
        lost[dot] = lost.get(dot, 0) - work.events[i].by
    return lost


cdef bint delete_rows(Deletion *d, tuple change, object collection, str name, list rows, set remembered, set stale,
                      list removals) except -1:
    """Delete some rows of a collection; False where cells lie there without their incarnation."""
    cdef Work *work = &d.work
    cdef const Incarnation *inc
    cdef size_t i
    cdef str key
    cdef bytes packed, item
    scope, author, seq = change
    for number, _, key, packed in rows:
        work.now.count = work.digester.name.size = 0
        name_record(&work.digester, name, key)
        parse_record(packed, &work.now, &work.digester.fields, work.digester.author_count)
        for i in range(work.now.count):
            inc = &work.now.incarnations[i]
            if not inc.alive:
                return False
            if not lose_all(d, inc):
                raise MemoryError
            item = taken(&d.named.packed)
            d.size += d.named.packed.size
            removals.append((scope, inc.name.author, inc.name.seq, inc.n, author, seq, item, collection, key))
            if remembered:
                note_stale(inc, remembered, stale, collection, number)
    return True


def delete(list groups not None, tuple change not None, bytes key not None, set remembered not None,
           bytes fields not None, bytes authors not None):
    """What deleting records by a change (scope id, author id, seq) comes to; None where one is not as it should be.

    groups: (collection id, its name, rows as (number, scope id, key, packed)). Returns the rows of the removal log
    (scope id, author id, seq, n, the change's author id and seq, item, collection id, key); the incarnations in runs
    (author id, seq, first n, count); (author id, seq) -> live cells lost; (change, collection id, row) where one of the
    remembered changes had cells; the 16 bytes to add to the scope's digest; and how many bytes the items have.
    """
    cdef Deletion d
    cdef list removals = []
    cdef set stale = set()
    cdef str name
    cdef list rows
    memset(&d, 0, sizeof(Deletion))
    try:
        digester_start(&d.work.digester, key, fields_of(fields), authors)
        for collection, name, rows in groups:
            if not delete_rows(&d, change, collection, name, rows, remembered, stale, removals):
                return None
        settle(&d.work.digester.sum)
        if d.work.failed or d.work.digester.sum.failed:
            raise MemoryError
        runs = runs_of(&d)
        if runs is None:
            return None
        return removals, runs, losses_of(&d.work), list(stale), digest_bytes(d.work.digester.sum.total), d.size
    finally:
        deletion_free(&d)
