"""Queries: what they compile to, what they refuse, and that SQL and Python say the same."""

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import count, product

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldsync import schema as fs
from fieldsync.errors import LimitExceeded, SchemaError
from fieldsync.limits import IN_VALUES_MAX, TERMS_MAX
from fieldsync.query import OPERATORS, Conditions, Ordering, Plan, column_value, quote


class Thing(fs.Record):
    a: int
    b: str
    line__total: float


THINGS = fs.Collection.of(Thing)
NOTES = fs.Collection("notes")
SCOPES = {"job/1": 1, "job/2": 2, "area": 7}
SCOPE_NAME = "(SELECT name FROM scope WHERE id = _scope)"
NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
few = st.sampled_from(  # values that meet each other in comparisons
    [
        *(None, True, False, 0, 1, -1, 1.0, 0.5, -0.0, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63), 1e300),
        *(math.inf, -math.inf, Decimal("0.5"), Decimal("1E+400"), Decimal("0.1"), 0.1, 2.0**63),
        *("", "a", "A", "1", "ab", "a\0", "a\0b", "é", "\uffff", "\U0001f600", b"", b"a", b"a\0", b"\xff"),
        *(date(2024, 5, 1), date(1, 1, 1), NOON, NOON + timedelta(microseconds=1), "2024-05-01"),
        *([], [1], [True], ["a", None], {}, {"a": 1, "b": [2]}, {"b": [2], "a": 1}, "[1]"),
    ]
)
operands = few | texts | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.binary(max_size=4)
values = (
    operands | st.just(math.nan) | st.lists(operands, max_size=2) | st.decimals(allow_infinity=False, allow_nan=False)
)
comparable = operands.filter(lambda value: value is not None)


def conditions_on(name: str, one: st.SearchStrategy, others: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(
        st.tuples(st.sampled_from([name, f"{name}__eq", f"{name}__ne"]), one),
        st.tuples(st.sampled_from([f"{name}__{operator}" for operator in ("gt", "ge", "lt", "le")]), others),
        st.tuples(st.just(f"{name}__in"), st.lists(one, max_size=4)),
    )


scope_names = st.sampled_from([*SCOPES, "elsewhere"])
where = st.lists(
    conditions_on("a", operands, comparable)
    | conditions_on("b", operands, comparable)
    | conditions_on("line__total", operands, comparable)
    | conditions_on("key", texts, texts)
    | st.tuples(st.sampled_from(["scope", "scope__ne"]), scope_names)
    | st.tuples(st.just("scope__in"), st.lists(scope_names)),
    max_size=3,
).map(dict)
orders = st.lists(
    st.tuples(st.sampled_from(["", "-"]), st.sampled_from(["a", "b", "key", "scope"])).map("".join), max_size=3
)
rows = st.lists(
    st.tuples(st.sampled_from(sorted(SCOPES)), texts, st.tuples(values, values, values)),
    max_size=12,
    unique_by=lambda row: row[1],
)


def table(rows: list) -> apsw.Connection:
    """The rows as a store keeps them: the columns of fields have no type."""
    db = apsw.Connection(":memory:")
    db.execute("CREATE TABLE scope(id INTEGER PRIMARY KEY, name TEXT)")
    db.executemany("INSERT INTO scope VALUES(?, ?)", [(number, name) for name, number in SCOPES.items()])
    db.execute('CREATE TABLE thing(_scope INTEGER, _key TEXT, "a", "b", "line__total")')
    db.executemany(
        "INSERT INTO thing VALUES(?, ?, ?, ?, ?)",
        [(SCOPES[scope], key, *map(column_value, row)) for scope, key, row in rows],
    )
    return db


def keys_by_sql(db: apsw.Connection, plan: Plan) -> list[str]:
    tail, binds = plan.sql(SCOPES.get, SCOPE_NAME)
    return [key for (key,) in db.execute(f"SELECT _key FROM thing {tail}", binds)]


@given(rows, where, orders)
def test_sql_and_python_find_the_same_records_in_the_same_order(rows, given, order):
    plan = Plan.of(THINGS).where(given).order_by(order)
    records = [THINGS.snapshot(key, scope, row) for scope, key, row in rows]
    by_sql = keys_by_sql(table(rows), plan)
    by_python = [record.key for record in plan.select(records)]
    if order:
        assert by_python == by_sql
    assert sorted(by_python) == sorted(by_sql)


EDGES = [
    None,
    math.nan,
    0,
    -0.0,
    1,
    True,
    2**53 + 1,
    float(2**53),
    math.inf,
    Decimal("0.1"),
    "",
    "a",
    "a\0b",
    b"",
    b"a",
]


@pytest.mark.parametrize("operator", ["eq", "ne", "gt", "ge", "lt", "le", "in"])
def test_sql_and_python_agree_on_every_pair_of_edges(operator):
    rows = [("area", f"{number}", (value, value, value)) for number, value in enumerate(EDGES)]
    records = [THINGS.snapshot(key, scope, row) for scope, key, row in rows]
    db, some = table(rows), set()
    for operand in EDGES[2:]:
        plan = Plan.of(THINGS).where({f"a__{operator}": [None, operand] if operator == "in" else operand})
        found = keys_by_sql(db, plan)
        assert [record.key for record in plan.select(records)] == found
        some |= set(found)
    assert some


@given(rows, orders, st.none() | st.integers(0, 14), st.integers(0, 14))
def test_limit_and_offset_cut_the_same_page(rows, order, limit, offset):
    plan = Plan.of(THINGS).order_by([*order, "key"]).only(limit=limit, offset=offset)
    records = [THINGS.snapshot(key, scope, row) for scope, key, row in rows]
    everything = keys_by_sql(table(rows), Plan.of(THINGS).order_by([*order, "key"]))
    page = everything[offset:] if limit is None else everything[offset : offset + limit]
    assert keys_by_sql(table(rows), plan) == page
    assert [record.key for record in plan.select(records)] == page


of_one_type = [
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    texts,
    st.binary(),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
]


@given(st.one_of([st.tuples(kind, kind) for kind in of_one_type]))
def test_columns_sort_as_values_of_one_type_do(pair):
    one, other = pair
    record = THINGS.snapshot("k", "s", (one, None, None))
    assert Conditions(THINGS).where({"a__lt": other}).matches(record) == (one < other)
    assert Conditions(THINGS).where({"a": other}).matches(record) == (one == other)


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (None, None),
        (True, 1),
        (False, 0),
        (5, 5),
        (5.0, 5.0),
        (math.nan, None),
        (math.inf, math.inf),
        (Decimal("5.10"), 5.1),
        (Decimal("NaN"), None),
        (Decimal("1E+400"), math.inf),
        ("Zürich", "Zürich"),
        (b"\0\xff", b"\0\xff"),
        (date(24, 5, 1), "0024-05-01"),
        (NOON, "2024-05-01T12:00:00.000000Z"),
        (NOON.replace(microsecond=1), "2024-05-01T12:00:00.000001Z"),
        ([], "[]"),
        ([1, 1.5, True, None, "é"], '[1,1.5,true,null,"é"]'),
        ({"b": 1, "a": {"c": [b"\x01\xff"]}}, '{"a":{"c":["01ff"]},"b":1}'),
        ([math.nan, -math.inf, Decimal("0.5")], "[null,null,0.5]"),
        ([date(2024, 5, 1), NOON], '["2024-05-01","2024-05-01T12:00:00.000000Z"]'),
        (object(), None),
        ([object()], "[null]"),
    ],
)  # fmt: skip
def test_what_columns_hold(value, column):
    held = column_value(value)
    assert (type(held), held) == (type(column), column)


def test_json_of_a_column_is_json_to_sqlite():
    db = apsw.Connection(":memory:")
    text = column_value({"a": [1, "x", None, math.inf], "b": {"c": Decimal("2.5")}})
    assert db.execute("SELECT json_valid(?), json_extract(?, '$.b.c'), ? ->> '$.a[1]'", (text,) * 3).get == (
        1,
        2.5,
        "x",
    )


def test_quote_keeps_a_name_a_name():
    db = apsw.Connection(":memory:")
    for name in ("plain", 'with "quotes"', "a; drop table x", "größe", "select", "a b", "[x]", "`x`", "'x'", "?"):
        db.execute(f"CREATE TABLE {quote(name)}({quote(name)})")
        assert [column[1] for column in db.execute(f"PRAGMA table_info({quote(name)})")] == [name]
    with pytest.raises(SchemaError, match="NUL"):
        quote("a\0b")


# --- what is compiled ---


@pytest.mark.parametrize(
    ("given", "sql", "binds"),
    [
        ({}, "1", []),
        ({"a": 1}, '"a" IS ?', [1]),
        ({"a": None}, '"a" IS ?', [None]),
        ({"a__ne": True}, '"a" IS NOT ?', [1]),
        ({"a__gt": 1, "b__le": "x"}, '"a" > ? AND "b" <= ?', [1, "x"]),
        ({"line__total": 5}, '"line__total" IS ?', [5]),
        ({"line__total__ge": 5}, '"line__total" >= ?', [5]),
        ({"a__in": [1, 2]}, '"a" IN (?, ?)', [1, 2]),
        ({"a__in": (1, None)}, '("a" IN (?) OR "a" IS NULL)', [1]),
        ({"a__in": []}, '"a" IN ()', []),
        ({"key__in": {"k"}}, '"_key" IN (?)', ["k"]),
        ({"key__gt": "k"}, '"_key" > ?', ["k"]),
        ({"scope": "area"}, '"_scope" IS ?', [7]),
        ({"scope": "elsewhere"}, '"_scope" IS ?', [0]),
        ({"scope__ne": "elsewhere"}, '"_scope" IS NOT ?', [0]),
        ({"scope__in": ["job/1", "elsewhere"]}, '"_scope" IN (?, ?)', [1, 0]),
    ],
)
def test_conditions_compile_to_sql_with_bind_values(given, sql, binds):
    assert Conditions(THINGS).where(given).sql(SCOPES.get) == (sql, binds)


def test_where_adds_to_where_and_order_by_replaces():
    plan = Plan.of(THINGS).where({"a": 1}).where({"b": "x"}).order_by(["a"]).order_by(["-b", "scope"]).only(limit=5)
    assert plan.only(offset=2).sql(SCOPES.get, "name") == (
        'WHERE "a" IS ? AND "b" IS ? ORDER BY "b" DESC, name, "_key" LIMIT ? OFFSET ?',
        [1, "x", 5, 2],
    )
    assert Plan.of(THINGS).sql(SCOPES.get, "name") == ("WHERE 1", [])
    assert Plan.of(THINGS).only(offset=2).sql(SCOPES.get, "name") == ("WHERE 1 LIMIT ? OFFSET ?", [-1, 2])


@pytest.mark.parametrize("given", [{"a": 5}, {"a__in": [5, 6]}, {"a__gt": 5}, {"a__ge": 5, "a__lt": 9}, {"a": None}])
def test_an_index_on_the_column_is_used(given):
    db = table([])
    db.execute('CREATE INDEX thing_a ON thing("a")')
    tail, binds = Plan.of(THINGS).where(given).sql(SCOPES.get, SCOPE_NAME)
    (steps,) = [step for *_, step in db.execute(f"EXPLAIN QUERY PLAN SELECT * FROM thing {tail}", binds)]
    assert steps.startswith("SEARCH thing USING INDEX thing_a")


def test_operands_are_taken_as_columns_hold_them():
    there = datetime(2024, 5, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    for operand in (NOON, there, "2024-05-01T12:00:00.000000Z"):
        assert Conditions(THINGS).where({"a": operand}).sql(SCOPES.get)[1] == ["2024-05-01T12:00:00.000000Z"]


# --- undeclared collections ---


def test_conditions_on_undeclared_records_read_what_is_missing_as_none():
    full = NOTES.snapshot("n1", "job/1", {"text": "x", "size": 5, "a__b": 1})
    bare = NOTES.snapshot("n2", "area", {})
    for conditions, hits in [
        ({"size__gt": 4}, [full]),
        ({"size__lt": 6}, [full]),
        ({"size__ne": 5}, [bare]),
        ({"size": None}, [bare]),
        ({"size__in": [None, 5]}, [full, bare]),
        ({"scope": "area"}, [bare]),
        ({"key": "n1", "text": "x"}, [full]),
        ({"a__b__eq": 1}, [full]),
        ({}, [full, bare]),
    ]:
        assert Plan.of(NOTES).where(conditions).select([full, bare]) == hits
    assert Ordering(NOTES).by(["-size"]).sorted([bare, full]) == [full, bare]
    assert Ordering(NOTES).by(["size"]).sorted([full, bare]) == [bare, full]


def test_records_that_are_equal_in_order_go_by_key():
    records = [NOTES.snapshot(f"n{number}", "s", {"size": number % 2}) for number in (3, 1, 2, 0)]
    plan = Plan.of(NOTES)
    assert [record.key for record in plan.order_by(["size"]).select(records)] == ["n0", "n2", "n1", "n3"]
    assert [record.key for record in plan.order_by(["-size"]).select(records)] == ["n1", "n3", "n0", "n2"]
    assert plan.select(records) == records


# --- what is refused ---


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"line__totl": 1}, SchemaError, "'totl' is none of .*, le; did you mean 'line__total'"),
        ({"aa": 1}, SchemaError, "things has no field 'aa'; did you mean 'a'"),
        ({"aa__gt": 1}, SchemaError, "things has no field 'aa'; did you mean 'a'"),
        ({"a__gte": 1}, SchemaError, "'gte' is none of eq, ne, in, contains, gt, ge, lt, le$"),
        ({"__gt": 1}, SchemaError, "no field '__gt'"),
        ({"_key": "k"}, SchemaError, "no field '_key'"),
        ({"a": {1}}, TypeError, r"things\.a wants one of"),
        ({"a": 2**63}, TypeError, r"things\.a wants an int of 64 bits"),
        ({"a": datetime(2024, 5, 1)}, TypeError, r"things\.a wants a datetime with a time zone"),
        ({"a__in": [1, {1}]}, TypeError, r"things\.a__in wants one of"),
        ({"a__in": "abc"}, TypeError, r"things\.a__in wants a list of values, got str"),
        ({"a__in": 5}, TypeError, "wants a list of values, got int"),
        ({"a__in": {"k": 1}}, TypeError, "wants a list of values, got dict"),
        ({"a__gt": None}, TypeError, "nothing is greater or less than None; a__ne=None"),
        ({"a": math.nan}, TypeError, "NaN cannot be compared"),
        ({"a__in": [math.nan]}, TypeError, "NaN cannot be compared"),
        ({"key": 5}, TypeError, r"things\.key wants str, got int"),
        ({"scope": None}, TypeError, r"things\.scope wants str, got NoneType"),
        ({"scope__in": [5]}, TypeError, r"things\.scope__in wants str, got int"),
        ({"scope__gt": "a"}, SchemaError, "a scope can be compared by =, __ne and __in"),
        ({"a__in": count()}, LimitExceeded, f"up to {IN_VALUES_MAX} values"),
        ({"a__in": range(IN_VALUES_MAX + 1)}, LimitExceeded, "things.a__in takes up to"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        Conditions(THINGS).where(given)


def test_names_of_undeclared_fields_are_checked_too():
    for conditions in ({"_x": 1}, {"a\nb": 1}, {"as_dict": 1}, {"price__gte": 1}):
        with pytest.raises(SchemaError, match="notes"):
            Conditions(NOTES).where(conditions)
    with pytest.raises(SchemaError, match="notes"):
        Ordering(NOTES).by(["-_x"])


def test_order_by_knows_the_fields():
    for name in ("aa", "-aa", "--a", "", "_key", "a DESC"):
        with pytest.raises(SchemaError, match="no field"):
            Ordering(THINGS).by([name])
    with pytest.raises(LimitExceeded, match=f"up to {TERMS_MAX}"):
        Ordering(THINGS).by(["a"] * (TERMS_MAX + 1))


def test_the_largest_query_runs():
    names = [f"{name}__{operator}" for name, operator in product(("a", "b", "line__total"), OPERATORS)]
    most = {f"{name}__in": range(IN_VALUES_MAX) for name in ("a", "b", "line__total", "key")} | {
        "key__in": ["k"] * IN_VALUES_MAX
    }
    plan = Plan.of(THINGS)
    while len(plan.conditions.terms) + len(most) <= TERMS_MAX:
        plan = plan.where(most)
    row = ("area", "k", (1, 2, 3))
    assert keys_by_sql(table([row]), plan) == ["k"]
    with pytest.raises(LimitExceeded, match=f"up to {TERMS_MAX} conditions"):
        plan.where({name: [1] if name.endswith("in") else 1 for name in names})


@pytest.mark.parametrize("what", ["limit", "offset"])
def test_limit_and_offset_are_counts(what):
    for wrong in (True, 1.0, "5"):
        with pytest.raises(TypeError, match=f"{what} wants int"):
            Plan.of(THINGS).only(**{what: wrong})
    for wrong in (-1, 2**63):
        with pytest.raises(ValueError, match=f"{what} is a number of records"):
            Plan.of(THINGS).only(**{what: wrong})
    for right in (1, 2**63 - 1):
        tail, binds = Plan.of(THINGS).only(**{what: right}).sql(SCOPES.get, SCOPE_NAME)
        found = table([("area", "k", (1, 2, 3))]).execute(f"SELECT _key FROM thing {tail}", binds).fetchall()
        assert found == ([("k",)] if what == "limit" else [])
