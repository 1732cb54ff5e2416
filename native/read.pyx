"""What a packed record shows: the values of its fields, over all its incarnations."""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc

from bytes cimport Reader, reader_of
from packed cimport parse_record
from record cimport (
    HAS_SUB, PER_AUTHOR, SIDE_BY_SIDE, Cell, Fields, Incarnation, Record, Walk, author_count, field_name, fields_of,
    name_of, next_cell, order_everywhere, record_free, topmost, walk_of,
)
from values cimport (
    TAG_BYTES, TAG_FALSE, TAG_FLOAT, TAG_INT, TAG_NONE, TAG_SMALL_INT, TAG_STR, TAG_TRUE, TAG_UNKNOWN,
)
from fieldsync._native.codec cimport read_value

import decimal
import math
import operator
from decimal import Decimal

from fieldsync._native.codec import Updates, decode

cdef enum:
    KIND_TEXT = 41
    KIND_LIST = 49
    KIND_MAP = 57

cdef object _first = operator.itemgetter(0)
cdef object EXACT = decimal.Context(prec=decimal.MAX_PREC, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)


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


cdef object value_of(const Cell *cell):
    cdef Reader r = reader_of(cell.value, cell.value_size)
    return read_value(&r)


cdef inline bint is_document(const Cell *cell) noexcept nogil:
    return cell.kind == KIND_TEXT or cell.kind == KIND_LIST or cell.kind == KIND_MAP


cdef object read_sides(const Record *record, uint64_t field, const uint8_t *authors, object default):
    """What lives side by side: a set's elements over all incarnations, sorted; the topmost one's updates of a text."""
    cdef Walk walk = walk_of(record)
    cdef const Incarnation *top = &record.incarnations[topmost(record, authors)]
    cdef const Cell *cell
    cdef set elements = set()
    cdef list updates = []
    cdef int kind = 0
    while next_cell(&walk):
        cell = walk.cell
        if cell.field != field:
            continue
        if cell.kind & HAS_SUB:
            elements.add(<bytes>cell.sub[:cell.sub_size])
        elif walk.inc == top:
            name = <bytes>authors[8 * cell.stamp.author:8 * cell.stamp.author + 8]
            stamp = cell.stamp.author, cell.stamp.seq, cell.stamp.time
            updates.append(((cell.stamp.time, name, cell.stamp.seq), stamp, value_of(cell)))
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


cdef object read_field(const Record *record, uint64_t field, const uint8_t *authors, object default):
    """A register's topmost value or a counter's sum, over all incarnations; see read_sides for the others."""
    cdef Walk walk = walk_of(record)
    cdef const Cell *top = NULL
    cdef list totals = []
    while next_cell(&walk):
        if walk.cell.field != field:
            continue
        if walk.cell.kind & SIDE_BY_SIDE:
            return read_sides(record, field, authors, default)
        if walk.cell.kind & PER_AUTHOR:
            totals.append(value_of(walk.cell))
        if top == NULL or order_everywhere(&top.stamp, &walk.cell.stamp, authors) < 0:
            top = walk.cell
    if top == NULL:
        return default
    return sum_up(totals) if top.kind & PER_AUTHOR else value_of(top)


cdef inline const Cell *find_field(const Incarnation *inc, uint64_t field, size_t *at) noexcept nogil:
    """The first cell of a field, NULL without one; `at` begins as 0 and is carried from one field to the next."""
    cdef size_t i = at[0]
    if i and field <= inc.cells[i - 1].field:
        i = 0
    while i < inc.count and inc.cells[i].field < field:
        i += 1
    at[0] = i
    if i == inc.count or inc.cells[i].field != field:
        return NULL
    at[0] += 1
    return &inc.cells[i]


cdef inline bint is_all(const Incarnation *inc, const Cell *cell) noexcept nogil:
    """Whether a cell, the first of its field, is the whole of it: a register's only one."""
    cdef const Cell *end = inc.cells + inc.count
    return not cell.kind & (PER_AUTHOR | SIDE_BY_SIDE) and (cell + 1 == end or (cell + 1).field != cell.field)


cdef object read_single(const Record *record, tuple wanted, tuple defaults, const uint8_t *authors):
    """As read_field for each wanted field, in one pass, where there is one incarnation."""
    cdef const Incarnation *inc = record.incarnations
    cdef Py_ssize_t i
    cdef size_t at = 0
    cdef const Cell *cell
    cdef list out = list(defaults)
    for i in range(len(wanted)):
        cell = find_field(inc, wanted[i], &at)
        if cell == NULL:
            continue
        if is_all(inc, cell):
            out[i] = value_of(cell)
        else:
            out[i] = read_field(record, cell.field, authors, out[i])
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


cdef int fill_columns(object out, Py_ssize_t first, const Record *record, const uint64_t *wanted, size_t count,
                      tuple defaults, convert, const uint8_t *authors) except -1:
    """The wanted fields of a record into the slots of a new tuple from `first` on."""
    cdef const Incarnation *inc = record.incarnations
    cdef size_t i
    cdef size_t at = 0
    cdef const Cell *cell
    cdef object value
    for i in range(count):
        value = defaults[i]
        if record.count != 1:
            value = convert(read_field(record, wanted[i], authors, value))
        else:
            cell = find_field(inc, wanted[i], &at)
            if cell != NULL and is_all(inc, cell):
                value = read_column(cell, convert)
            elif cell != NULL:
                value = convert(read_field(record, wanted[i], authors, None))
        Py_INCREF(value)
        PyTuple_SET_ITEM(out, first + <Py_ssize_t>i, value)
    return 0


cdef object widened(tuple row, const Record *record, const uint64_t *wanted, size_t count, tuple defaults, convert,
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
    cdef size_t size = 0
    cdef Walk walk
    cdef const Cell *cell
    try:
        parse_record(data, &record, &f, author_count(authors))
        walk = walk_of(&record)
        while next_cell(&walk):
            cell = walk.cell
            if (cell.kind & SIDE_BY_SIDE == 0) != (cell.kind & HAS_SUB == 0) and not is_document(cell):
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


def updates(list records not None, bytes fields not None, bytes authors not None):
    """The texts, lists and maps of each packed record: a list of (field id, Updates) for each."""
    cdef Fields f = fields_of(fields)
    cdef const uint8_t *names = <const uint8_t *>PyBytes_AS_STRING(authors)
    cdef Record record = Record(NULL, 0, 0)
    cdef Walk walk
    cdef bytes data
    cdef dict found
    cdef list out = []
    try:
        for data in records:
            record.count = 0
            parse_record(data, &record, &f, author_count(authors))
            found = {}
            walk = walk_of(&record)
            while next_cell(&walk):
                if is_document(walk.cell) and walk.cell.field not in found:
                    found[walk.cell.field] = read_sides(&record, walk.cell.field, names, None)
            out.append([(field, some) for field, some in found.items() if some is not None])
        return out
    finally:
        record_free(&record)
