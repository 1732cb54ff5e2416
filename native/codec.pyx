"""Values and cells: Python objects <-> canonical bytes, and the pieces that a transaction writes."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy

from bytes cimport (
    DATETIME_MAX_US, DATETIME_MIN_US, DECIMAL_BYTES_MAX, DECIMAL_EXPONENT_MAX, TAG_BYTES, TAG_DATE, TAG_DATETIME,
    TAG_DECIMAL, TAG_FALSE, TAG_FLOAT, TAG_INT, TAG_LIST, TAG_MAP, TAG_NONE, TAG_SHORT_STR, TAG_SMALL_INT, TAG_STR,
    TAG_TRUE, TAG_UNKNOWN, VALUE_DEPTH_MAX, Reader, Writer, check_value, read_byte, read_bytes, read_fixed,
    read_varint, reader_of, unzigzag, write_byte, write_bytes, write_tagged_float, write_tagged_int,
    write_tagged_text, write_varint, writer_free, zigzag,
)
from record cimport (
    DONE, HAS_SUB, PER_AUTHOR, SIDE_BY_SIDE, Cell, Dots, Fields, Incarnation, Record, Stamp, add_cell, add_dot,
    add_incarnation, add_seen, author_count, cell_sorter, field_kind, field_name, fields_of, join_dots, order_addresses,
    pack_incarnation, parse_head, parse_record, record_free, same_dot, write_dots,
)

import datetime
import decimal
import math
import operator
from decimal import Decimal

cdef enum:
    DECIMAL_DIGITS_MAX = 1234    # of the largest number of DECIMAL_BYTES_MAX bytes

cdef enum:
    KIND_TEXT = 41
    KIND_LIST = 49
    KIND_MAP = 57

cdef object _first = operator.itemgetter(0)
cdef object EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
cdef object EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
cdef object MICROSECOND = datetime.timedelta(microseconds=1)
cdef object date_type = datetime.date
cdef object datetime_type = datetime.datetime
cdef object timedelta_type = datetime.timedelta
cdef object from_ordinal = datetime.date.fromordinal
cdef object EXACT = decimal.Context(prec=decimal.MAX_PREC, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)


class Unknown:
    """A value whose type this version does not know: kept, merged and passed on untouched."""

    __slots__ = ("data", "tag")

    def __init__(self, tag, data):
        self.tag = tag
        self.data = data

    def __eq__(self, other):
        return isinstance(other, Unknown) and (self.tag, self.data) == (other.tag, other.data)

    def __hash__(self):
        return hash((self.tag, self.data))

    def __repr__(self):
        return f"Unknown(tag={self.tag}, {len(self.data)} bytes)"


class Updates(tuple):
    """What lives side by side at one address that has no elements: the updates of a text, list or map.

    By stamp, the oldest first. kind: of the field; stamps: (author id, seq, time) of each.
    """

    kind = 0
    stamps = ()


cdef int write_text(Writer *w, str value, bint tagged) except -1:
    cdef bytes data
    cdef size_t size
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise TypeError("text with a lone surrogate, which UTF-8 cannot hold") from None
    size = <size_t>PyBytes_GET_SIZE(data)
    if tagged:
        write_tagged_text(w, <const uint8_t *>PyBytes_AS_STRING(data), size)
    else:
        write_varint(w, size)
        write_bytes(w, <const uint8_t *>PyBytes_AS_STRING(data), size)
    return 0


cdef int write_integer(Writer *w, object value) except -1:
    cdef int64_t n
    try:
        n = value
    except OverflowError:
        raise TypeError("an integer beyond 64 bits") from None
    write_tagged_int(w, n)
    return 0


cdef int write_decimal(Writer *w, object value) except -1:
    cdef bytes digits
    if not value.is_finite():
        raise TypeError("a Decimal that is not finite")
    sign, places, exponent = value.as_tuple()
    if not -DECIMAL_EXPONENT_MAX <= exponent <= DECIMAL_EXPONENT_MAX or len(places) > DECIMAL_DIGITS_MAX:
        raise TypeError("a Decimal of more than 1233 digits or with an exponent beyond 100000")
    coefficient = int("".join(map(str, places)))
    digits = coefficient.to_bytes((coefficient.bit_length() + 7) // 8, "big")
    if PyBytes_GET_SIZE(digits) > DECIMAL_BYTES_MAX:
        raise TypeError("a Decimal of more than 1233 digits")
    write_byte(w, TAG_DECIMAL)
    write_varint(w, zigzag(exponent))
    write_byte(w, sign)
    write_varint(w, <size_t>PyBytes_GET_SIZE(digits))
    write_bytes(w, <const uint8_t *>PyBytes_AS_STRING(digits), <size_t>PyBytes_GET_SIZE(digits))
    return 0


cdef int write_datetime(Writer *w, object value) except -1:
    cdef int64_t microseconds
    if value.tzinfo is None or value.utcoffset() is None:
        raise TypeError("a datetime without a time zone; attach one, such as tzinfo=datetime.UTC")
    microseconds = (value - EPOCH) // MICROSECOND
    if not DATETIME_MIN_US <= microseconds <= DATETIME_MAX_US:
        raise TypeError("a datetime that is not within the years 1 to 9999 in UTC")
    write_byte(w, TAG_DATETIME)
    write_varint(w, zigzag(microseconds))
    return 0


cdef int write_map(Writer *w, dict value, int depth) except -1:
    for key in value:
        if type(key) is not str:
            raise TypeError(f"a map with a key of type {type(key).__name__}; keys are str")
    write_byte(w, TAG_MAP)
    write_varint(w, <size_t>len(value))
    for key in sorted(value):  # by code point, which is the order of the keys' bytes too
        write_text(w, key, False)
        write_value(w, value[key], depth + 1)
    return 0


cdef int write_other(Writer *w, object value, int depth) except -1:
    """The rarer types, subclasses among them; containers are copied, as encoding an item may run Python code."""
    cdef bytes data
    cdef list items
    if depth >= VALUE_DEPTH_MAX and isinstance(value, (list, tuple, dict)):
        raise TypeError(f"a value nested deeper than {VALUE_DEPTH_MAX}")
    if isinstance(value, datetime_type):
        write_datetime(w, value)
    elif isinstance(value, date_type):
        write_byte(w, TAG_DATE)
        write_varint(w, zigzag(value.toordinal() - EPOCH_DAY))
    elif isinstance(value, Decimal):
        write_decimal(w, value)
    elif isinstance(value, (bytes, bytearray)):
        data = bytes(value)
        write_byte(w, TAG_BYTES)
        write_varint(w, <size_t>PyBytes_GET_SIZE(data))
        write_bytes(w, <const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    elif isinstance(value, (list, tuple)):
        items = list(value)
        write_byte(w, TAG_LIST)
        write_varint(w, <size_t>len(items))
        for item in items:
            write_value(w, item, depth + 1)
    elif isinstance(value, dict):
        write_map(w, dict(value), depth)
    elif isinstance(value, Unknown):
        data = value.data
        if not (TAG_MAP < value.tag < TAG_SMALL_INT or TAG_UNKNOWN <= value.tag <= 255):
            raise TypeError(f"an Unknown with the tag {value.tag}")
        write_byte(w, value.tag)
        write_varint(w, <size_t>PyBytes_GET_SIZE(data))
        write_bytes(w, <const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    elif isinstance(value, str):
        write_text(w, str.__str__(value), True)  # an Enum's own __str__ gives its name
    elif isinstance(value, int):
        write_integer(w, int(value))
    elif isinstance(value, float):
        write_tagged_float(w, value)
    else:
        raise TypeError(f"a value of type {type(value).__name__}")
    return 0


cdef int write_value(Writer *w, object value, int depth) except -1:
    cdef type kind = type(value)
    if kind is str:
        write_text(w, value, True)
    elif kind is int:
        write_integer(w, value)
    elif kind is float:
        write_tagged_float(w, value)
    elif value is None:
        write_byte(w, TAG_NONE)
    elif value is True:
        write_byte(w, TAG_TRUE)
    elif value is False:
        write_byte(w, TAG_FALSE)
    else:
        write_other(w, value, depth)
    return 0


cdef object read_text(Reader *r, uint64_t size):
    cdef const uint8_t *data = read_bytes(r, size)
    if r.bad:
        raise ValueError("truncated value")
    return PyUnicode_DecodeUTF8(<const char *>data, <Py_ssize_t>size, NULL)


cdef object read_decimal(Reader *r):
    cdef int64_t exponent = unzigzag(read_varint(r))
    cdef uint8_t sign = read_byte(r)
    cdef uint64_t size = read_varint(r)
    cdef const uint8_t *digits = read_bytes(r, size)
    if r.bad:
        raise ValueError("truncated value")
    coefficient = int.from_bytes(digits[:size], "big")
    return Decimal((sign, tuple(map(int, str(coefficient))), exponent))


cdef object read_rarer(Reader *r, uint8_t tag):
    cdef uint64_t _, size
    cdef const uint8_t *data
    if tag == TAG_DECIMAL:
        return read_decimal(r)
    if tag == TAG_DATE:
        return from_ordinal(unzigzag(read_varint(r)) + EPOCH_DAY)
    if tag == TAG_DATETIME:
        return EPOCH + timedelta_type(microseconds=unzigzag(read_varint(r)))
    size = read_varint(r)
    if tag == TAG_LIST:
        return [read_value(r) for _ in range(size)]
    if tag == TAG_MAP:
        out = {}
        for _ in range(size):
            key = read_text(r, read_varint(r))
            out[key] = read_value(r)
        return out
    data = read_bytes(r, size)
    if r.bad:
        raise ValueError("truncated value")
    raw = PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>size)
    return raw if tag == TAG_BYTES else Unknown(tag, raw)


cdef object read_value(Reader *r):
    """One value whose form was checked already."""
    cdef uint8_t tag = read_byte(r)
    cdef uint64_t bits
    cdef double real
    if r.bad:
        raise ValueError("truncated value")
    if tag >= TAG_SHORT_STR and tag < TAG_UNKNOWN:
        return read_text(r, tag - TAG_SHORT_STR)
    if tag >= TAG_SMALL_INT and tag < TAG_UNKNOWN:
        return <int>tag - TAG_SMALL_INT - 16
    if tag == TAG_INT:
        return unzigzag(read_varint(r))
    if tag == TAG_FLOAT:
        bits = read_fixed(r)
        memcpy(&real, &bits, 8)
        return real
    if tag == TAG_STR:
        return read_text(r, read_varint(r))
    if tag == TAG_NONE:
        return None
    if tag == TAG_TRUE:
        return True
    if tag == TAG_FALSE:
        return False
    return read_rarer(r, tag)


cdef bytes taken(Writer *w, size_t start):
    """What was written since `start`, as bytes; memory is checked here."""
    if w.failed:
        raise MemoryError
    return PyBytes_FromStringAndSize(<const char *>w.data + start, <Py_ssize_t>(w.size - start))


def encode(value):
    """The canonical bytes of one value; TypeError for a type that Fieldsync cannot hold."""
    cdef Writer w = Writer(NULL, 0, 0, False)
    try:
        write_value(&w, value, 0)
        return taken(&w, 0)
    finally:
        writer_free(&w)


def decode(bytes data not None):
    """The value of canonical bytes; ValueError for anything else."""
    cdef Reader r = reader_of(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    check_value(&r, 0)
    if r.bad or r.at != r.end:
        raise ValueError("not the canonical form of a value")
    r = reader_of(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    return read_value(&r)


cdef object name_of(const Fields *fields, uint64_t field):
    cdef size_t size = 0
    cdef const uint8_t *name = field_name(fields, field, &size)
    return name[:size].decode()


cdef int put_value(Writer *w, Cell *cell, Fields *fields, uint64_t field, object value) except -1:
    """Write a new cell's value; the cell remembers where, as an offset while `w` still grows."""
    cdef size_t start = w.size
    if field >= fields.count:
        raise ValueError("a field that the dictionary does not hold")
    try:
        write_value(w, value, 0)
    except TypeError as error:
        raise TypeError(f"{name_of(fields, field)}: {error}") from None
    cell.field = field
    cell.kind = field_kind(fields, field)
    cell.sub = cell.seen = NULL
    cell.sub_size = cell.seen_size = 0
    cell.value = <const uint8_t *>start
    cell.value_size = w.size - start
    return 0


cdef void place(Record *record, const uint8_t *data) noexcept nogil:
    """Turn the offsets of new cells into addresses, once the bytes they point into no longer move."""
    cdef size_t i, j
    cdef Cell *cell
    for i in range(record.count):
        for j in range(record.incarnations[i].count):
            cell = &record.incarnations[i].cells[j]
            cell.value = data + <size_t>cell.value
            if cell.seen_size:
                cell.seen = data + <size_t>cell.seen


cdef int put_elements(Writer *w, Incarnation *inc, Fields *f, uint64_t field, object subs) except -1:
    """Write the cells of a new set, one an element."""
    cdef bytes element
    cdef Cell *cell
    for element in subs:
        cell = add_cell(inc)
        if cell == NULL:
            raise MemoryError
        put_value(w, cell, f, field, None)
        cell.stamp = inc.name
        cell.sub = <const uint8_t *>PyBytes_AS_STRING(element)
        cell.sub_size = <size_t>PyBytes_GET_SIZE(element)
    return 0


def create(uint64_t author, uint64_t seq, uint64_t time, list rows not None, bytes fields not None):
    """New incarnations: rows of (n, field ids, values) -> a piece each; a value of Ellipsis is left out.

    Of a field whose addresses have subs, the value is a tuple of distinct subs.
    """
    cdef Fields f = fields_of(fields)
    cdef Writer values = Writer(NULL, 0, 0, False)
    cdef Writer scratch = Writer(NULL, 0, 0, False)
    cdef Writer packed = Writer(NULL, 0, 0, False)
    cdef Record record = Record(NULL, 0, 0)
    cdef Incarnation *inc = add_incarnation(&record)
    cdef Cell *cell
    cdef tuple ids, items
    cdef uint64_t field
    cdef Py_ssize_t i
    cdef list out = []
    if inc == NULL:
        raise MemoryError
    inc.name = Stamp(author, seq, time)
    inc.alive = True
    try:
        for n, ids, items in rows:
            inc.n = n
            inc.count = 0
            values.size = 0
            packed.size = 0
            for i in range(len(ids)):
                if items[i] is Ellipsis:
                    continue
                field = ids[i]
                if field < f.count and field_kind(&f, field) & HAS_SUB:
                    put_elements(&values, inc, &f, field, items[i])
                    continue
                cell = add_cell(inc)
                if cell == NULL:
                    raise MemoryError
                cell.stamp = inc.name
                put_value(&values, cell, &f, field, items[i])
            if values.failed:
                raise MemoryError
            place(&record, values.data)
            if inc.count > 1:
                qsort(inc.cells, inc.count, sizeof(Cell), cell_sorter)
            if pack_incarnation(&packed, &scratch, inc) != DONE:
                raise MemoryError
            out.append(taken(&packed, 0))
        return out
    finally:
        record_free(&record)
        writer_free(&values)
        writer_free(&scratch)
        writer_free(&packed)


cdef int put_seen(Writer *w, Dots *seen, const Incarnation *inc, uint64_t field, uint64_t author) except -1:
    """Write the seen of a new cell at a register: all that lives there and what that had seen (transitive)."""
    cdef size_t i
    cdef size_t kept = 0
    cdef const Cell *cell
    seen.count = 0
    for i in range(inc.count):
        cell = &inc.cells[i]
        if cell.field == field:
            if not add_dot(seen, cell.stamp.author, cell.stamp.seq) or not add_seen(seen, cell):
                raise MemoryError
    join_dots(seen, True)
    for i in range(seen.count):
        if not implied(&seen.at[i], inc, author):
            seen.at[kept] = seen.at[i]
            kept += 1
    seen.count = kept
    if kept:
        write_dots(w, seen)
    return 0


cdef inline bint implied(const Stamp *entry, const Incarnation *inc, uint64_t author) noexcept nogil:
    """Own earlier cells and the creation are always seen, and not written down."""
    return entry.author == author or (entry.author == inc.name.author and entry.seq == inc.name.seq)


cdef uint64_t time_above(const Record *record, uint64_t field, uint64_t base) noexcept nogil:
    """The change's own time, or one tick above that field's cells in all incarnations of the key."""
    cdef size_t i, j
    cdef uint64_t time = base
    cdef const Incarnation *inc
    for i in range(record.count):
        inc = &record.incarnations[i]
        for j in range(inc.count):
            if inc.cells[j].field == field and inc.cells[j].stamp.time >= time:
                time = inc.cells[j].stamp.time
                if time < <uint64_t>0x7FFFFFFFFFFFFFFF:
                    time += 1
    return time


cdef int order_stamps_everywhere(const Stamp *a, const Stamp *b, const uint8_t *authors) noexcept nogil:
    """The total order of stamps, equal on all replicas: by time, then the author's own bytes, then seq."""
    cdef int i
    if a.time != b.time:
        return -1 if a.time < b.time else 1
    if a.author != b.author:
        for i in range(8):
            if authors[8 * a.author + i] != authors[8 * b.author + i]:
                return -1 if authors[8 * a.author + i] < authors[8 * b.author + i] else 1
    if a.seq != b.seq:
        return -1 if a.seq < b.seq else 1
    return 0


cdef size_t topmost(const Record *record, const uint8_t *authors) noexcept nogil:
    """The index of the incarnation that was created last."""
    cdef size_t i
    cdef size_t top = 0
    for i in range(1, record.count):
        if order_stamps_everywhere(&record.incarnations[top].name, &record.incarnations[i].name, authors) < 0:
            top = i
    return top


cdef object own_total(const Incarnation *inc, uint64_t field, uint64_t author):
    cdef size_t i
    cdef Reader r
    for i in range(inc.count):
        if inc.cells[i].field == field and inc.cells[i].stamp.author == author:
            r = reader_of(inc.cells[i].value, inc.cells[i].value_size)
            return read_value(&r)
    return 0


cdef object add(object total, object amount):
    """The sum of two numbers; of Decimals exactly, whatever the thread's context rounds to."""
    if isinstance(total, Decimal) or isinstance(amount, Decimal):
        return EXACT.add(Decimal(total), Decimal(amount))
    return total + amount


cdef bint is_within(const Stamp *dot, object limits) except -1:
    """Whether a dot lies within {author id: highest seq}; within None, all do."""
    return limits is None or dot.seq <= <uint64_t>(<dict>limits).get(dot.author, 0)


cdef int put_replaced(Writer *w, Dots *seen, const Incarnation *inc, const Cell *new, object limits) except -1:
    """Write the seen of a cell that replaces those beside it, as far as they lie within limits, and what they saw."""
    cdef size_t i
    cdef const Cell *cell
    seen.count = 0
    for i in range(inc.count):
        cell = &inc.cells[i]
        if order_addresses(cell, new) == 0 and is_within(&cell.stamp, limits):
            if not add_dot(seen, cell.stamp.author, cell.stamp.seq) or not add_seen(seen, cell):
                raise MemoryError
    join_dots(seen, True)
    if seen.count:
        write_dots(w, seen)
    return 0


cdef int put_side(Writer *values, Dots *seen, const Incarnation *old, Incarnation *new, Stamp stamp, tuple side,
                  Fields *f) except -1:
    """One more cell beside others: (field id, sub, value, whether it replaces those there, within which limits)."""
    cdef bytes element = side[1]
    cdef Cell *cell = add_cell(new)
    cdef size_t start
    if cell == NULL:
        raise MemoryError
    put_value(values, cell, f, side[0], side[2])
    cell.stamp = stamp
    cell.sub = <const uint8_t *>PyBytes_AS_STRING(element)
    cell.sub_size = <size_t>PyBytes_GET_SIZE(element)
    if not cell.kind & SIDE_BY_SIDE or (cell.sub_size and not cell.kind & HAS_SUB):
        raise ValueError("not an address where cells live side by side")
    if side[3]:
        start = values.size
        put_replaced(values, seen, old, cell, side[4])
        cell.seen = <const uint8_t *>start
        cell.seen_size = values.size - start
    return 0


cdef int compose(Record *old, Record *new, Writer *values, Dots *seen, Stamp stamp, tuple registers, tuple increments,
                 tuple sides, Fields *f, const uint8_t *authors) except -1:
    """Fill `new`, which has the incarnations of `old` without cells, with the cells of a local write."""
    cdef size_t i, start
    cdef uint64_t field
    cdef Cell *cell
    cdef Incarnation *inc
    for field, value in registers:
        for i in range(old.count):
            cell = add_cell(&new.incarnations[i])
            if cell == NULL:
                raise MemoryError
            put_value(values, cell, f, field, value)
            cell.stamp = stamp
            cell.stamp.time = time_above(old, field, stamp.time)
            start = values.size
            put_seen(values, seen, &old.incarnations[i], field, stamp.author)
            cell.seen = <const uint8_t *>start
            cell.seen_size = values.size - start
    i = topmost(old, authors)
    inc = &old.incarnations[i]
    for field, value in increments:
        cell = add_cell(&new.incarnations[i])
        if cell == NULL:
            raise MemoryError
        put_value(values, cell, f, field, add(own_total(inc, field, stamp.author), value))
        cell.stamp = stamp
        cell.stamp.time = time_above(old, field, stamp.time)
    for side in sides:
        put_side(values, seen, inc, &new.incarnations[i], stamp, side, f)
    return 0


cdef object write_one(Record *before, Record *after, Writer *values, Writer *scratch, Writer *packed, Dots *seen,
                      Stamp stamp, tuple registers, tuple increments, tuple sides, Fields *f, const uint8_t *authors):
    """(piece, its incarnations, its cells) of a write over a parsed record."""
    cdef Incarnation *inc
    cdef size_t i
    cdef size_t incarnations = 0
    cdef size_t cells = 0
    if before.count == 0:
        raise ValueError("a write over no incarnation")
    for i in range(before.count):
        inc = add_incarnation(after)
        if inc == NULL:
            raise MemoryError
        inc.name = before.incarnations[i].name
        inc.n = before.incarnations[i].n
    compose(before, after, values, seen, stamp, registers, increments, sides, f, authors)
    if values.failed:
        raise MemoryError
    place(after, values.data)
    for i in range(after.count):
        inc = &after.incarnations[i]
        if inc.count == 0:
            continue
        if inc.count > 1:
            qsort(inc.cells, inc.count, sizeof(Cell), cell_sorter)
        if pack_incarnation(packed, scratch, inc) != DONE:
            raise MemoryError
        incarnations += 1
        cells += inc.count
    return taken(packed, 0), incarnations, cells


def write(list items not None, uint64_t author, uint64_t seq, uint64_t time, bytes fields not None,
          bytes authors not None):
    """Local writes over live records -> (the piece that merges into it, its incarnations, its cells) for each.

    Items are (packed record, registers, increments, sides): (field id, value) each, to every incarnation; (field id,
    amount) each, to the topmost; cells that live beside others, to the topmost: (field id, sub, value, whether it
    replaces those there, within {author id: highest seq}, or None for all).
    """
    cdef Fields f = fields_of(fields)
    cdef Record before = Record(NULL, 0, 0)
    cdef Record after = Record(NULL, 0, 0)
    cdef Writer values = Writer(NULL, 0, 0, False)
    cdef Writer scratch = Writer(NULL, 0, 0, False)
    cdef Writer packed = Writer(NULL, 0, 0, False)
    cdef Dots seen = Dots(NULL, 0, 0)
    cdef bytes old
    cdef tuple registers, increments, sides
    cdef list out = []
    try:
        for old, registers, increments, sides in items:
            before.count = after.count = values.size = packed.size = 0
            parse_record(old, &before, &f, author_count(authors))
            out.append(write_one(&before, &after, &values, &scratch, &packed, &seen, Stamp(author, seq, time),
                                 registers, increments, sides, &f, <const uint8_t *>PyBytes_AS_STRING(authors)))
        return out
    finally:
        free(seen.at)
        record_free(&before)
        record_free(&after)
        writer_free(&values)
        writer_free(&scratch)
        writer_free(&packed)


cdef bint is_finite(object total):
    return type(total) is int or type(total) is Decimal or (type(total) is float and math.isfinite(total))


cdef object sum_up(list totals):
    """The exact sum of a counter's totals, in any order; a float is rounded once. What is no number is left out."""
    cdef list finite = [total for total in totals if is_finite(total)]
    kinds = {type(total) for total in finite}
    if kinds <= {int}:
        return sum(finite)
    if Decimal in kinds:
        total = Decimal(0)
        for item in finite:
            total = EXACT.add(total, Decimal(item))
        return total
    finite.sort()
    try:
        return math.fsum(finite)
    except OverflowError:  # on the way or in the end: add 2**-64 of each, which times 2**64 may be infinite
        return math.fsum([math.ldexp(total, -64) for total in finite]) * 2.0 ** 64


cdef tuple elements_of(set subs):
    """The values of a set's subs, in the order of their bytes; what is no value is nobody's element."""
    cdef list found = []
    for sub in sorted(subs):
        try:
            found.append(decode(sub))
        except ValueError:
            continue
    return tuple(found)


cdef object read_sides(Record *record, uint64_t field, const uint8_t *authors, object default):
    """What lives side by side: a set's elements over all incarnations, sorted; the topmost one's updates of a text."""
    cdef size_t i, j
    cdef size_t top = topmost(record, authors)
    cdef Incarnation *inc
    cdef Cell *cell
    cdef Reader r
    cdef set elements = set()
    cdef list updates = []
    cdef int kind = 0
    for i in range(record.count):
        inc = &record.incarnations[i]
        for j in range(inc.count):
            cell = &inc.cells[j]
            if cell.field != field:
                continue
            if cell.kind & HAS_SUB:
                elements.add(<bytes>cell.sub[:cell.sub_size])
            elif i == top:
                r = reader_of(cell.value, cell.value_size)
                name = <bytes>authors[8 * cell.stamp.author:8 * cell.stamp.author + 8]
                stamp = cell.stamp.author, cell.stamp.seq, cell.stamp.time
                updates.append(((cell.stamp.time, name, cell.stamp.seq), stamp, read_value(&r)))
                kind = cell.kind
    if elements:
        return elements_of(elements)
    if not updates:
        return default
    updates.sort(key=_first)
    found = Updates([update for _, _, update in updates])
    found.kind = kind
    found.stamps = tuple([stamp for _, stamp, _ in updates])
    return found


cdef object read_field(Record *record, uint64_t field, const uint8_t *authors, object default):
    """A register's topmost value or a counter's sum, over all incarnations; see read_sides for the others."""
    cdef size_t i, j
    cdef Cell *cell
    cdef Cell *top = NULL
    cdef Reader r
    cdef list totals = []
    for i in range(record.count):
        for j in range(record.incarnations[i].count):
            cell = &record.incarnations[i].cells[j]
            if cell.field != field:
                continue
            if cell.kind & SIDE_BY_SIDE:
                return read_sides(record, field, authors, default)
            if cell.kind & PER_AUTHOR:
                r = reader_of(cell.value, cell.value_size)
                totals.append(read_value(&r))
            if top == NULL or order_stamps_everywhere(&top.stamp, &cell.stamp, authors) < 0:
                top = cell
    if top == NULL:
        return default
    if top.kind & PER_AUTHOR:
        return sum_up(totals)
    r = reader_of(top.value, top.value_size)
    return read_value(&r)


cdef object read_single(Record *record, tuple wanted, tuple defaults, const uint8_t *authors):
    """As read_field for each wanted field, in one pass, where there is one incarnation."""
    cdef Incarnation *inc = record.incarnations
    cdef Py_ssize_t i
    cdef size_t j = 0
    cdef uint64_t field
    cdef Cell *cell
    cdef Reader r
    cdef list out = list(defaults)
    for i in range(len(wanted)):
        field = wanted[i]
        if j and field <= inc.cells[j - 1].field:
            j = 0
        while j < inc.count and inc.cells[j].field < field:
            j += 1
        if j == inc.count or inc.cells[j].field != field:
            continue
        cell = &inc.cells[j]
        j += 1
        if cell.kind & (PER_AUTHOR | SIDE_BY_SIDE) or (j < inc.count and inc.cells[j].field == field):
            out[i] = read_field(record, field, authors, out[i])
        else:
            r = reader_of(cell.value, cell.value_size)
            out[i] = read_value(&r)
    return tuple(out)


def read(list records not None, tuple wanted not None, tuple defaults not None, bytes fields not None,
         bytes authors not None):
    """The values of the wanted fields of each packed record; a field without a cell reads as its default."""
    cdef Fields f = fields_of(fields)
    cdef const uint8_t *names = <const uint8_t *>PyBytes_AS_STRING(authors)
    cdef Record record = Record(NULL, 0, 0)
    cdef Py_ssize_t i
    cdef bytes data
    cdef list out = []
    if len(wanted) != len(defaults):
        raise ValueError("as many defaults as fields are wanted")
    try:
        for data in records:
            record.count = 0
            parse_record(data, &record, &f, author_count(authors))
            if record.count == 1:
                out.append(read_single(&record, wanted, defaults, names))
            else:
                every = [read_field(&record, wanted[i], names, defaults[i]) for i in range(len(wanted))]
                out.append(tuple(every))
        return out
    finally:
        record_free(&record)


cdef object read_column(const Cell *cell, convert):
    """A value as a column holds it: texts, numbers and bytes as they are, the rest by way of `convert`."""
    cdef Reader r = reader_of(cell.value, cell.value_size)
    cdef uint8_t tag = r.at[0] if cell.value_size else <uint8_t>TAG_NONE
    if tag >= TAG_SMALL_INT and tag < TAG_UNKNOWN:
        return read_value(&r)
    if tag == TAG_NONE or tag == TAG_INT or tag == TAG_FLOAT or tag == TAG_STR or tag == TAG_BYTES:
        return read_value(&r)
    if tag == TAG_TRUE or tag == TAG_FALSE:
        return <int>(tag == TAG_TRUE)
    return convert(read_value(&r))


cdef int fill_columns(object out, Py_ssize_t at, Record *record, const uint64_t *wanted, size_t count,
                      tuple defaults, convert, const uint8_t *authors) except -1:
    """The wanted fields of a record into the slots of a new tuple from `at` on."""
    cdef Incarnation *inc = record.incarnations
    cdef size_t i
    cdef size_t j = 0
    cdef const Cell *cell
    cdef object value
    for i in range(count):
        value = defaults[i]
        if record.count != 1:
            value = convert(read_field(record, wanted[i], authors, value))
        else:
            if j and wanted[i] <= inc.cells[j - 1].field:
                j = 0
            while j < inc.count and inc.cells[j].field < wanted[i]:
                j += 1
            if j < inc.count and inc.cells[j].field == wanted[i]:
                cell = &inc.cells[j]
                j += 1
                if cell.kind & (PER_AUTHOR | SIDE_BY_SIDE) or (j < inc.count and inc.cells[j].field == wanted[i]):
                    value = convert(read_field(record, wanted[i], authors, None))
                else:
                    value = read_column(cell, convert)
        Py_INCREF(value)
        PyTuple_SET_ITEM(out, at + <Py_ssize_t>i, value)
    return 0


cdef object widened(tuple row, Record *record, const uint64_t *wanted, size_t count, tuple defaults, convert,
                    const uint8_t *authors):
    cdef Py_ssize_t head = PyTuple_GET_SIZE(row) - 1
    cdef Py_ssize_t i
    cdef object out = PyTuple_New(head + <Py_ssize_t>count + 1)
    cdef object item
    for i in range(head + 1):
        item = row[i]
        Py_INCREF(item)
        PyTuple_SET_ITEM(out, i if i < head else head + <Py_ssize_t>count, item)
    fill_columns(out, head, record, wanted, count, defaults, convert, authors)
    return out


def widen(list rows not None, tuple wanted not None, tuple defaults not None, convert, bytes fields not None,
          bytes authors not None):
    """Rows that end with a packed record -> the same with the wanted fields' values before it, as columns hold them.

    A field without a cell reads as its default. `convert` turns what is no text, number, bool or bytes into one.
    """
    cdef Fields f = fields_of(fields)
    cdef const uint8_t *names = <const uint8_t *>PyBytes_AS_STRING(authors)
    cdef Record record = Record(NULL, 0, 0)
    cdef size_t i
    cdef size_t count = <size_t>len(wanted)
    cdef uint64_t *ids = <uint64_t *>malloc((count + 1) * sizeof(uint64_t))
    cdef object row
    cdef list out = []
    if ids == NULL:
        raise MemoryError
    try:
        if len(defaults) != len(wanted):
            raise ValueError("as many defaults as fields are wanted")
        for i in range(count):
            ids[i] = wanted[i]
        for row in rows:
            if not isinstance(row, tuple) or not row:
                raise TypeError("a row is a tuple that ends with a packed record")
            record.count = 0
            parse_record(row[len(row) - 1], &record, &f, author_count(authors))
            out.append(widened(<tuple>row, &record, ids, count, defaults, convert, names))
        return out
    finally:
        free(ids)
        record_free(&record)


def read_all(bytes data not None, bytes fields not None, bytes authors not None):
    """Every register, counter, set, text, list and map of a record, by name; of kinds of one name the lowest.

    A set is a tuple of its elements, a text, list or map its Updates. Names that begin with _ are not an app's, and are
    left out.
    """
    cdef Fields f = fields_of(fields)
    cdef const uint8_t *names = <const uint8_t *>PyBytes_AS_STRING(authors)
    cdef Record record = Record(NULL, 0, 0)
    cdef dict out = {}
    cdef dict kinds = {}
    cdef size_t i, j
    cdef size_t size = 0
    cdef Cell *cell
    try:
        parse_record(data, &record, &f, author_count(authors))
        for i in range(record.count):
            for j in range(record.incarnations[i].count):
                cell = &record.incarnations[i].cells[j]
                if (cell.kind & SIDE_BY_SIDE == 0) != (cell.kind & HAS_SUB == 0):
                    if cell.kind != KIND_TEXT and cell.kind != KIND_LIST and cell.kind != KIND_MAP:
                        continue
                if field_name(&f, cell.field, &size)[0] == 95 and size:  # "_"
                    continue
                name = name_of(&f, cell.field)
                if name in out and kinds[name] <= cell.kind:
                    continue
                value = read_field(&record, cell.field, names, None)
                if value is None and cell.kind & SIDE_BY_SIDE:
                    continue
                kinds[name] = cell.kind
                out[name] = value
        return out
    finally:
        record_free(&record)


cdef bint is_known(const Cell **cells, size_t count, const Cell *cell) noexcept nogil:
    cdef size_t i
    for i in range(count):
        if same_dot(&cells[i].stamp, &cell.stamp):
            return True
    return False


cdef list rivals_of(Record *record, const uint8_t *authors):
    """The registers of one record that several changes wrote apart, as `rivals` has them."""
    cdef const Cell *cells[64]
    cdef size_t i, j, k, count
    cdef const Cell *cell
    cdef const Cell *other
    cdef uint64_t field
    cdef Reader r
    cdef list found = []
    cdef list claims
    cdef set done = set()
    for i in range(record.count):
        for j in range(record.incarnations[i].count):
            cell = &record.incarnations[i].cells[j]
            if cell.kind & (SIDE_BY_SIDE | HAS_SUB | PER_AUTHOR) or cell.field in done:
                continue
            if record.count == 1 and (j + 1 == record.incarnations[i].count or (cell + 1).field != cell.field):
                continue
            field = cell.field
            done.add(field)
            count = 0
            for k in range(record.count):
                count = gather_rivals(&record.incarnations[k], field, cells, count)
            if count < 2:
                continue
            sort_rivals(cells, count, authors)
            claims = []
            for k in range(count):
                other = cells[k]
                r = reader_of(other.value, other.value_size)
                claims.append((other.stamp.author, other.stamp.seq, other.stamp.time, read_value(&r)))
            found.append((field, claims))
    return found


cdef size_t gather_rivals(const Incarnation *inc, uint64_t field, const Cell **cells, size_t count) noexcept nogil:
    """Add the cells of a field whose changes are not there yet; of very many the first 64."""
    cdef size_t i
    for i in range(inc.count):
        if inc.cells[i].field == field and count < 64 and not is_known(cells, count, &inc.cells[i]):
            cells[count] = &inc.cells[i]
            count += 1
    return count


cdef void sort_rivals(const Cell **cells, size_t count, const uint8_t *authors) noexcept nogil:
    """The one with the highest stamp first."""
    cdef size_t i, j
    cdef const Cell *cell
    for i in range(1, count):
        cell = cells[i]
        j = i
        while j and order_stamps_everywhere(&cells[j - 1].stamp, &cell.stamp, authors) < 0:
            cells[j] = cells[j - 1]
            j -= 1
        cells[j] = cell


def rivals(list records not None, bytes fields not None, bytes authors not None):
    """Registers that several changes wrote apart, of each packed record: (field id, claims), the topmost claim first.

    A claim is (author id, seq, time, value). Of more than 64 the rest is left out.
    """
    cdef Fields f = fields_of(fields)
    cdef Record record = Record(NULL, 0, 0)
    cdef bytes data
    cdef list out = []
    try:
        for data in records:
            record.count = 0
            parse_record(data, &record, &f, author_count(authors))
            out.append(rivals_of(&record, <const uint8_t *>PyBytes_AS_STRING(authors)))
        return out
    finally:
        record_free(&record)


def stamps(list records not None, bytes fields not None, bytes authors not None):
    """Who wrote what lives in each packed record, existence left out.

    A list of (field name, kind, author id, seq, time) for each.
    """
    cdef Fields f = fields_of(fields)
    cdef Record record = Record(NULL, 0, 0)
    cdef size_t i, j
    cdef Cell *cell
    cdef bytes data
    cdef list found
    cdef list out = []
    try:
        for data in records:
            record.count = 0
            parse_record(data, &record, &f, author_count(authors))
            found = []
            for i in range(record.count):
                for j in range(record.incarnations[i].count):
                    cell = &record.incarnations[i].cells[j]
                    name = name_of(&f, cell.field)
                    found.append((name, cell.kind, cell.stamp.author, cell.stamp.seq, cell.stamp.time))
            out.append(found)
        return out
    finally:
        record_free(&record)


def updates(list records not None, bytes fields not None, bytes authors not None):
    """The texts, lists and maps of each packed record: a list of (field id, Updates) for each."""
    cdef Fields f = fields_of(fields)
    cdef const uint8_t *names = <const uint8_t *>PyBytes_AS_STRING(authors)
    cdef Record record = Record(NULL, 0, 0)
    cdef size_t i, j
    cdef Cell *cell
    cdef bytes data
    cdef dict found
    cdef list out = []
    try:
        for data in records:
            record.count = 0
            parse_record(data, &record, &f, author_count(authors))
            found = {}
            for i in range(record.count):
                for j in range(record.incarnations[i].count):
                    cell = &record.incarnations[i].cells[j]
                    if cell.kind != KIND_TEXT and cell.kind != KIND_LIST and cell.kind != KIND_MAP:
                        continue
                    if cell.field not in found:
                        found[cell.field] = read_sides(&record, cell.field, names, None)
            out.append([(field, some) for field, some in found.items() if some is not None])
        return out
    finally:
        record_free(&record)


def incarnations(list records not None, bytes fields not None, bytes authors not None):
    """The names of the incarnations in each packed record: a list of (author id, seq, n) for each."""
    cdef uint64_t count = author_count(authors)
    cdef Incarnation inc
    cdef Reader r, body
    cdef bytes data
    cdef list names
    cdef list out = []
    for data in records:
        r = reader_of(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
        names = []
        while r.at < r.end:
            if not parse_head(&r, &body, &inc, count):
                raise ValueError("a packed record is damaged")
            names.append((inc.name.author, inc.name.seq, inc.n))
        out.append(names)
    return out
