"""Tables on disk, .csv, .csv.gz and .csv.zip, as rows of typed values.

    table = open_table("flights.csv.zip")
    table.columns                  # {"year": "int", "carrier": "str", "time_hour": "datetime", ...}
    for line, row in table: ...    # 2, {"year": 2013, "carrier": "UA", ...}
    table.bad_rows                 # [BadRow(line=17, reason="column 'year': 'x' is not an integer of 64 bits")]

A file that cannot be read at all is a LoadError; a row that cannot be read is a bad row, and reading goes on. The types
of columns are given or guessed; see guessing.py.
"""

from __future__ import annotations

import csv
import gzip
import os
import re
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from itertools import chain
from operator import getitem
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from fieldsync.errors import LoadError, SchemaError
from fieldsync.guessing import EXPECTED, GIVEN, guess, looks_typed
from fieldsync.limits import (
    REJECTED_ROWS_KEPT,
    REMEMBERED_CHARS_MAX,
    REMEMBERED_TEXTS_MAX,
    ROW_CHARS_MAX,
    TABLE_COLUMNS_MAX,
    ZIP_MEMBERS_MAX,
)
from fieldsync.template import check_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from fieldsync.guessing import Reader


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
        self.bad_rows: list[BadRow] = []  # the first REJECTED_ROWS_KEPT of the latest reading
        self.bad_row_count = 0  # all of the latest reading
        self._file: IO[bytes] | None = None
        self._bytes_read = 0
        self._nulls = nulls
        with _opened(path) as (file, text):
            self.bytes_total = os.fstat(file.fileno()).st_size  # of the file as it is, compressed or not
            records = _Records(path, text, lambda *_: None)
            _check_types(types, records.names)
            given = {name: (kind, GIVEN[kind]) for name, kind in types.items()}
            sample = (fields for _, fields in records)
            self._readers = guess(records.names, sample, nulls, sample_rows) | given
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
        if len(self.bad_rows) < REJECTED_ROWS_KEPT:
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
            return f"column {name!r}: {shown!r} is not {EXPECTED[column.kind]}"
    raise AssertionError("a row was refused though each of its values fits")


def _check_types(types: Mapping[str, str], names: list[str]) -> None:
    check_columns(types, names)
    for name, kind in types.items():
        if kind not in GIVEN:
            raise SchemaError(f"column {name!r}: there is no type {kind!r}; the types are {', '.join(GIVEN)}")


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
            while line := self._text.readline(ROW_CHARS_MAX + 1):
                self._length += len(line)
                if self._length > ROW_CHARS_MAX:
                    raise self._error(number, f"a record of over {ROW_CHARS_MAX:,} characters; is a quote open?")
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
    if all(map(looks_typed, header)):
        raise LoadError(f"{path}: its first line holds values, not names; put a line with the columns' names above it")
