"""Tables on disk, .csv, .csv.gz and .csv.zip, as rows of typed values.

    table = open_table("flights.csv.zip")
    table.columns                  # {"year": "int", "carrier": "str", "time_hour": "datetime", ...}
    for line, row in table: ...    # 2, {"year": 2013, "carrier": "UA", ...}
    table.bad_rows                 # [BadRow(line=17, reason="column 'year': 'x' is not an integer of 64 bits")]

A file that cannot be read at all is a LoadError; a row that cannot be read is a bad row, and reading goes on.
A guessed type never changes what a value says: codes with a leading zero or a plus sign (zip, phone), integers
beyond 64 bits, times finer than microseconds and times without a zone stay text. A type that the caller gives
is taken at its word and reads those it can.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
import re
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from io import TextIOWrapper
from itertools import chain
from operator import getitem
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from fieldsync.errors import LoadError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    Reader = Callable[[str], object]

TABLE_COLUMNS_MAX = 1_000  # columns of one table
RECORD_CHARS_MAX = 1 << 20  # characters of one record, over all its lines
NUMBER_CHARS_MAX = 400  # characters of one number: the largest float written out, and some
ZIP_MEMBERS_MAX = 100  # members of a zip file, one of which is the table
BAD_ROWS_KEPT = 1_000  # bad rows kept of one reading; the others are counted
SAMPLE_ROWS_MAX = 50_000  # rows sampled in search of a first value in every column
REMEMBERED_TEXTS_MAX = 65_536  # texts whose values are remembered, over all columns of one table
REMEMBERED_CHARS_MAX = 64  # characters of a text whose value is remembered


class BadRow(NamedTuple):
    """A row that was left out: the line it starts on, counted from 1, and why."""

    line: int
    reason: str


def open_table(
    path: str | os.PathLike[str],
    *,
    types: Mapping[str, str] | None = None,
    sample_rows: int = 2000,
    nulls: Collection[str] = ("", "NA"),
) -> Table:
    """Open a CSV file that has a header line; a LoadError says what is wrong with the file and what to do about it.

    A column's type is `types[column]`: int, float, bool, date, datetime, decimal or str (SchemaError for another type
    or an unknown column). Else it is guessed from the first `sample_rows` rows, and more while a column has no value:
    the first of int, float, bool, date, datetime that fits them all, or str. A text in `nulls` is None.
    A later value that does not fit makes its row a bad row, but for a fraction in a column guessed as int: it is read
    as a float and the others stay ints, so no row is lost and none depends on another; give float to have only floats.
    Datetimes become UTC. Without a zone they are text, unless the type datetime is given: then they are UTC already.
    """
    return Table(Path(path), types or {}, sample_rows, frozenset(nulls))


class Table:
    """The rows of a CSV file: each iteration reads it anew and gives (line number, row); LoadError if it is damaged."""

    def __init__(self, path: Path, types: Mapping[str, str], sample_rows: int, nulls: frozenset[str]) -> None:
        self.path = path
        self.bad_rows: list[BadRow] = []  # the first BAD_ROWS_KEPT of the latest reading
        self.bad_row_count = 0  # all of the latest reading
        self._file: IO[bytes] | None = None
        self._bytes_read = 0
        self._nulls = nulls
        with _opened(path) as (file, text):
            self.bytes_total = os.fstat(file.fileno()).st_size  # of the file as it is, compressed or not
            records = _Records(path, text, lambda *_: None)
            _check_types(types, records.names)
            given = {name: (kind, _GIVEN[kind]) for name, kind in types.items()}
            self._readers = _guess(records, nulls, sample_rows) | given
        self.columns = {name: kind for name, (kind, _) in self._readers.items()}  # column -> name of its type

    @property
    def bytes_read(self) -> int:
        """How far the latest reading is into the file's `bytes_total` bytes; it reads a little ahead of the rows."""
        return self._file.tell() if self._file else self._bytes_read

    def __iter__(self) -> Iterator[tuple[int, dict[str, object]]]:
        self.bad_rows, self.bad_row_count = [], 0
        with _opened(self.path) as (file, text):
            self._file = file
            try:
                yield from self._typed(_Records(self.path, text, self._reject))
                file.seek(0, os.SEEK_END)  # past what follows the last row in the file
            finally:
                self._bytes_read, self._file = file.tell(), None

    def _typed(self, records: _Records) -> Iterator[tuple[int, dict[str, object]]]:
        names = records.names
        if names != list(self.columns):
            raise LoadError(f"{self.path}: its columns changed after it was opened; open it again")
        room = REMEMBERED_TEXTS_MAX // len(names)
        columns = [_Column(*self._readers[name], self._nulls, room) for name in names]
        for line, fields in records:
            try:
                row = dict(zip(names, map(getitem, columns, fields), strict=True))
            except ValueError:
                self._reject(line, _misfit(names, columns, fields))
            else:
                yield line, row

    def _reject(self, line: int, reason: str) -> None:
        self.bad_row_count += 1
        if len(self.bad_rows) < BAD_ROWS_KEPT:
            self.bad_rows.append(BadRow(line, reason))


class _Column(dict[str, object]):
    """Text -> value in one column. It remembers values: columns repeat themselves, and reading text is slow."""

    def __init__(self, kind: str, read: Reader, nulls: frozenset[str], room: int) -> None:
        super().__init__(dict.fromkeys(nulls))
        self.kind, self._read, self._nulls, self._room = kind, read, nulls, room

    def __missing__(self, text: str) -> object:
        value = self._read(text)
        if len(text) <= REMEMBERED_CHARS_MAX:
            if len(self) >= self._room:
                self.clear()
                self.update(dict.fromkeys(self._nulls))
            self[text] = value
        return value


def _misfit(names: list[str], columns: list[_Column], fields: list[str]) -> str:
    """Say which column has a text that does not fit, and what was expected there."""
    for name, column, text in zip(names, columns, fields, strict=True):
        try:
            column[text]
        except ValueError:
            shown = text if len(text) <= 40 else text[:37] + "..."
            return f"column {name!r}: {shown!r} is not {_EXPECTED[column.kind]}"
    raise AssertionError("a row was refused though each of its values fits")


def _check_types(types: Mapping[str, str], names: list[str]) -> None:
    _check_names(types, names)
    for name, kind in types.items():
        if kind not in _GIVEN:
            raise SchemaError(f"column {name!r}: there is no type {kind!r}; the types are {', '.join(_GIVEN)}")


def _check_names(wanted: Iterable[str], names: Collection[str]) -> None:
    for name in wanted:
        if name not in names:
            raise SchemaError(f"there is no column {name!r}; the columns are {', '.join(names)}")


# Files: bytes -> lines -> records


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], TextIOWrapper]]:
    """Open the file, for its position, and its text, uncompressed."""
    with ExitStack() as stack:
        try:
            file = data = cast("IO[bytes]", stack.enter_context(path.open("rb")))
            match path.suffix.lower():
                case ".csv":
                    pass
                case ".gz":
                    data = cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=file)))
                case ".zip":
                    data = stack.enter_context(_only_table(path, stack.enter_context(zipfile.ZipFile(file))))
                case _:
                    raise LoadError(f"{path}: not a .csv, .csv.gz or .csv.zip file; save the table as CSV (UTF-8)")
        except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
            raise LoadError(f"{path}: cannot be opened: {error}; check the path, or fetch the file again") from error
        yield file, stack.enter_context(TextIOWrapper(data, "utf-8-sig", newline=""))


def _only_table(path: Path, archive: zipfile.ZipFile) -> IO[bytes]:
    members = archive.infolist()
    if len(members) > ZIP_MEMBERS_MAX:
        raise LoadError(f"{path}: holds {len(members):,} files; zip the one .csv file alone")
    names = [(member.filename, member) for member in members if not member.filename.startswith("__MACOSX/")]
    tables = [member for name, member in names if name.lower().endswith(".csv")]
    if len(tables) != 1:
        raise LoadError(f"{path}: holds {len(tables)} .csv files where there must be one; zip the one .csv file alone")
    if tables[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise LoadError(f"{path}: is compressed in an uncommon way; zip it with the method 'deflate'")
    return archive.open(tables[0])


class _Records:
    """The records of an open CSV file, (line number, fields); what cannot be parted goes to reject(line, reason)."""

    def __init__(self, path: Path, text: TextIOWrapper, reject: Callable[[int, str], None]) -> None:
        self._path, self._text, self._reject = path, text, reject
        self._length = 0  # characters of the present record
        lines = self._lines()
        first = next(lines, "")
        self._reader = csv.reader(chain([first], lines), delimiter=_delimiter(first), strict=True)
        try:
            header = next(self._reader)
        except csv.Error as error:
            raise LoadError(f"{path}: the header line cannot be read: {error}; correct its quotes") from error
        _check_header(path, header)
        self.names = [name.strip() or f"column{number}" for number, name in enumerate(header, 1)]
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise LoadError(f"{path}: several columns are named {', '.join(twice)}; give each a name of its own")

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        reader, width = self._reader, len(self.names)
        while True:
            line, self._length = reader.line_num + 1, 0
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._reject(line, f"{error} (is a quote left open, or not doubled?)")
                continue
            if len(fields) == width:
                yield line, fields
            elif fields:  # a blank line is no record
                self._reject(line, f"{len(fields)} fields where the header has {width}")

    def _lines(self) -> Iterator[str]:
        number = 1
        try:
            while line := self._text.readline(RECORD_CHARS_MAX + 1):
                self._length += len(line)
                if self._length > RECORD_CHARS_MAX:
                    raise self._error(number, f"a record of over {RECORD_CHARS_MAX:,} characters; is a quote open?")
                if "\0" in line:
                    raise self._error(number, "has a NUL byte; save the table as CSV (UTF-8)")
                yield line
                number += 1
        except UnicodeDecodeError as error:
            number += error.object.count(b"\n", 0, error.start)  # all lines before this piece of the file were given
            raise self._error(number, "is not UTF-8; save the table as CSV (UTF-8)") from error
        except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise self._error(number, f"is damaged or cut off ({error}); fetch the file again") from error

    def _error(self, line: int, problem: str) -> LoadError:
        return LoadError(f"{self._path}: line {line}: {problem}")


def _delimiter(header: str) -> str:
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(",;\t|", key=unquoted.count)


def _check_header(path: Path, header: list[str]) -> None:
    if not header:
        raise LoadError(f"{path}: is empty or begins with a blank line; its first line must name the columns")
    if len(header) > TABLE_COLUMNS_MAX:
        raise LoadError(f"{path}: has {len(header):,} columns; split it into tables of {TABLE_COLUMNS_MAX:,} at most")
    if all(any(_fits(read, name) for read in _GUESSES.values()) for name in header):
        raise LoadError(f"{path}: its first line holds values, not names; put a line with the columns' names above it")


# Types: text -> value, ValueError if it does not fit

_is_integer = re.compile(r"[+-]?[0-9]+").fullmatch
_is_number = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?").fullmatch
_is_code = re.compile(r"\+|-?0[0-9]").match
_is_date = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch
_is_datetime = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?"
).fullmatch
_NOT_FINITE = frozenset(["nan", "NaN", "inf", "Inf", "-inf", "-Inf"])
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


def _int(text: str) -> int:
    if len(text) > NUMBER_CHARS_MAX or not _is_integer(text) or not -(1 << 63) <= (value := int(text)) < 1 << 63:
        raise ValueError(text)
    return value


def _float(text: str) -> float:
    if text in _NOT_FINITE:
        return float(text)
    if len(text) > NUMBER_CHARS_MAX or not _is_number(text) or math.isinf(value := float(text)):
        raise ValueError(text)
    return value


def _exact_float(text: str) -> float:
    value = _float(text)
    if _is_integer(text) and int(text) != value:
        raise ValueError(text)
    return value


def _int_or_float(text: str) -> int | float:
    return _int(text) if _is_integer(text) else _float(text)


def _decimal(text: str) -> Decimal:
    if len(text) > NUMBER_CHARS_MAX or not _is_number(text):
        raise ValueError(text)
    return Decimal(text)


def _bool(text: str) -> bool:
    if (value := _BOOLS.get(text.lower())) is None:
        raise ValueError(text)
    return value


def _date(text: str) -> date:
    if not _is_date(text):
        raise ValueError(text)
    return date.fromisoformat(text)


def _datetime(text: str) -> datetime:
    if not _is_datetime(text):
        raise ValueError(text)
    value = datetime.fromisoformat(text)
    try:
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError(text) from error


def _zoned(text: str) -> datetime:
    if not (match := _is_datetime(text)) or not match[1]:
        raise ValueError(text)
    return _datetime(text)


def _not_code(read: Reader) -> Reader:
    """The same for a guessed type: 007 and +49 are names (zip, phone), whose digits must stay as they are."""

    def guarded(text: str) -> object:
        if _is_code(text):
            raise ValueError(text)
        return read(text)

    return guarded


_GIVEN: dict[str, Reader] = {
    "int": _int,
    "float": _float,
    "bool": _bool,
    "date": _date,
    "datetime": _datetime,
    "decimal": _decimal,
    "str": str,
}
_GUESSES: dict[str, Reader] = {
    "int": _not_code(_int),
    "float": _not_code(_exact_float),
    "bool": _bool,
    "date": _date,
    "datetime": _zoned,
}
_GUESSED = _GUESSES | {"int": _not_code(_int_or_float), "str": str}
_EXPECTED = {
    "int": "an integer of 64 bits",
    "float": "a number",
    "bool": "true or false",
    "date": "a date such as 2013-01-31",
    "datetime": "a time with its zone such as 2013-01-31T05:00:00Z",
    "decimal": "a decimal number",
}


def _fits(read: Reader, text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


def _guess(records: _Records, nulls: frozenset[str], sample_rows: int) -> dict[str, tuple[str, Reader]]:
    """Column -> the name of its type, and what reads it."""
    kinds = [list(_GUESSES) for _ in records.names]
    empty = set(range(len(kinds)))
    for count, (_, fields) in enumerate(records):
        if count >= sample_rows and (not empty or count >= SAMPLE_ROWS_MAX):
            break
        for number, text in enumerate(fields):
            if text not in nulls:
                empty.discard(number)
                kinds[number] = [kind for kind in kinds[number] if _fits(_GUESSES[kind], text)]
    guesses = ["str" if number in empty or not left else left[0] for number, left in enumerate(kinds)]
    return {name: (kind, _GUESSED[kind]) for name, kind in zip(records.names, guesses, strict=True)}


# Templates: row -> key or scope


def fill_template(template: str, columns: Iterable[str] | None = None) -> Callable[[Mapping[str, object]], str]:
    """Make a function row -> text of a column's name, such as "id", or of a template, such as "job/{job}".

    SchemaError for a template that cannot be read or a column not in `columns` (without them: in the row it is called
    with). The function raises ValueError, with the reason, for a row whose value is None, empty or not a plain value.
    Datetimes are written as 2013-01-31T05:00:00Z, the rest as by str.
    """
    parts = re.split(r"\{([^{}]*)\}", template) if re.search("[{}]", template) else ["", template, ""]
    literals, names = parts[::2], parts[1::2]
    if not names or not all(names) or any(re.search("[{}]", literal) for literal in literals):
        raise SchemaError(f"{template!r} is neither a column nor a template such as 'job/{{job}}'")
    if columns is not None:
        _check_names(names, list(columns))
    pattern = "%s".join(literal.replace("%", "%%") for literal in literals)

    def fill(row: Mapping[str, object]) -> str:
        try:
            texts = [_WRITERS[type(value := row[name])](value) for name in names]
        except KeyError:
            raise _unusable(names, row) from None
        if "" in texts:
            raise _unusable(names, row)
        return pattern % tuple(texts)

    return fill


def _write_datetime(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


_WRITERS: dict[type, Callable[[Any], str]] = {
    datetime: _write_datetime,
    **dict.fromkeys([bool, int, float, str, Decimal, date], str),
}


def _unusable(names: list[str], row: Mapping[str, object]) -> ValueError:
    _check_names(names, list(row))
    name, value = next((name, row[name]) for name in names if type(row[name]) not in _WRITERS or row[name] == "")
    if value is None or value == "":
        return ValueError(f"column {name!r} has no value, and the key or scope is made from it")
    return ValueError(f"column {name!r} has a {type(value).__name__}, which cannot be in a key or scope")
