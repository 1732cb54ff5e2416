"""Full-text search: what is found and in which order, and that the search table follows whatever becomes of records."""

from __future__ import annotations

import queue
import subprocess
import sys
import unicodedata
from contextlib import suppress
from datetime import timedelta

import apsw
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fieldsync as fs
from fieldsync.limits import SEARCH_CHARS_MAX, SEARCHES_MAX
from fieldsync.search import expression, ranked
from fieldsync.store import Searched

SCOPE = "job/7"
WORDS = ["valve", "Valve", "välve", "pump", "PUMP", "leaks", "leaking", "öl", "7b", "größe", "日本"]


class Note(fs.Record, table="notes"):
    title: str = fs.field(search=True)
    body: fs.Text = fs.field(search=True)
    kind: str | None = fs.field(default=None, search=True)
    rank: int = 0  # not searched: a name that SQLite's search keeps for itself


class Plain(fs.Record, table="notes"):
    """As an earlier version of the app declares it."""

    title: str
    rank: int = 0


class Porter(fs.Record, table="notes"):
    """As another version does, which makes other words of the texts."""

    title: str = fs.field(search="porter unicode61")


@pytest.fixture
def db(tmp_path):
    with fs.open(tmp_path / "a.db", Note, durability="fast") as db:
        yield db
        assert db.verify().faults == []


def put(db, key, title, body="", *, scope=SCOPE, of=Note, **fields):
    with db.write() as tx:
        tx.create(of, scope=scope, key=key, title=title, **({"body": body} if of is Note else {}), **fields)


def keys(query):
    return [record.key for record in query]


def damage(db, sql):
    connection = apsw.Connection(db.path)
    connection.execute(sql)
    connection.close()


# --- what is found ---


@pytest.fixture
def some(db):
    put(db, "a", "Leaking välve", "The pump is old.")
    put(db, "b", "Pump", "A valve that leaks; it was leaking before.", kind="O'Neil 7-b")
    put(db, "c", "Nothing", "to do with it", scope="job/8")
    return db[Note]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("valve", "ab"),
        ("VÄLVE", "ab"),
        ("pump leaking", "ab"),
        ("leaking  pump\n", "ab"),
        ("leaks", "b"),
        ("leak", ""),
        ("leak*", "ab"),
        ('"leaking valve"', "a"),
        ('"valve leaking"', ""),
        ('"the pu"*', "a"),
        ('"the pump', "a"),  # a quote that is left open
        ('old"the pump"is', "a"),
        ("7-b", "b"),
        ("o'neil", "b"),
        ("o'ne*", "b"),
        ("old AND pump", ""),  # and is a word like any other
        ("- valve !", "ab"),
        ("title:pump", ""),
        ("NEAR(valve, pump)", ""),
        ("valve OR nothing", ""),
        ("", ""),
        ("  ", ""),
        ('"', ""),
        ("*", ""),
        ("-", ""),
        ("valve\0pump", "ab"),
        ("\ud800 valve", "ab"),
    ],
)
def test_words_are_found_as_people_type_them(some, typed, found):
    assert sorted(keys(some.search(typed))) == list(found)
    assert some.search(typed).count() == len(found)


def test_the_best_come_first_and_equals_go_by_key(db):
    put(db, "long", "pump", "with many words round it, more than the others have, so it counts for less")
    put(db, "often", "pump", "pump pump")
    for key in ("z", "y", "x"):
        put(db, key, "pump", "twice")
    assert keys(db[Note].search("pump")) == ["often", "x", "y", "z", "long"]
    assert keys(db[Note].search("pump").limit(2).offset(1)) == ["x", "y"]
    assert db[Note].search("pump").first().key == "often"
    assert keys(db[Note].search("pump").order_by("-key").limit(2)) == ["z", "y"]
    assert db[Note].search("pump").limit(2).count() == 2


def test_a_search_composes_with_conditions_and_searches(some, db):
    put(db, "d", "pump", "valve", scope="job/8", rank=5)
    assert keys(some.search("pump").where(scope="job/8")) == ["d"]
    assert keys(some.where(rank__gt=4).search("valve")) == ["d"]
    assert keys(some.search("pump").where(scope__in=["job/7", "elsewhere"], key__ne="a")) == ["b"]
    assert keys(some.search("pump").search("old")) == ["a"]
    assert keys(some.search("pump", "title").order_by("key")) == ["b", "d"]
    assert keys(some.search("leaking", "title").search("pump", "body", "kind")) == ["a"]
    assert keys(some.search("old pump", "title")) == []


@given(st.text(st.characters(exclude_categories=[]), max_size=30) | st.text("\"*(){}:^+-a \0'", max_size=30))
@example('"a"*b*"')
def test_nothing_that_is_typed_is_an_error(typed):
    ranked(Searched(("title", 'or "x'), "unicode61"), expression(typed, ("title", 'or "x')), [("a b", "")])


def test_a_long_search_is_one_and_a_longer_is_refused(some):
    assert keys(some.search("valve " * (SEARCH_CHARS_MAX // 6) + "*")) == keys(some.search("valve"))
    assert keys(some.search(" ".join(f"w{number}" for number in range(500)))) == []
    with pytest.raises(fs.LimitExceeded, match="up to 4,000 characters"):
        some.search("x" * (SEARCH_CHARS_MAX + 1))
    for _ in range(SEARCHES_MAX):
        some = some.search("valve")
    assert sorted(keys(some)) == ["a", "b"]
    with pytest.raises(fs.LimitExceeded, match="up to 10 searches"):
        some.search("valve")


def test_what_cannot_be_searched_is_refused(db):
    with pytest.raises(TypeError, match="a search wants str, got int"):
        db[Note].search(7)
    with pytest.raises(fs.SchemaError, match="no field 'titel'; did you mean 'title'"):
        db[Note].search("x", "titel")
    with pytest.raises(fs.SchemaError, match=r"notes\.rank is not searched: declare it with search=True"):
        db[Note].search("x", "rank")
    with pytest.raises(fs.SchemaError, match="others has no field that is searched"):
        db["others"].search("x")


# --- what is declared ---


@pytest.mark.parametrize(
    ("annotation", "options"),
    [
        (int, {}),
        (fs.Counter, {}),
        (set[str], {}),
        (fs.List, {}),
        (fs.Map, {}),
        (list[str], {}),
        (tuple[str, ...], {"keep": "all"}),
    ],
)
def test_words_are_in_texts_only(annotation, options):
    with pytest.raises(TypeError, match=r"things\.a: search= is for str and Text"):
        type("Thing", (fs.Record,), {"__annotations__": {"a": annotation}, "a": fs.field(search=True, **options)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"Rank": True}, r"things\.Rank: SQLite's search keeps this name"),
        ({"a": "words"}, "search= is True, or a tokenizer that begins with unicode61, ascii, porter, trigram"),
        ({"a": 7}, "search= is True, or a tokenizer"),
        ({"a": True, "b": "ascii"}, "all fields that are searched have one tokenizer"),
    ],
)
def test_declarations_that_make_no_sense_are_refused(fields, message):
    body = {name: fs.field(search=search) for name, search in fields.items()}
    with pytest.raises(fs.SchemaError, match=message):
        type("Thing", (fs.Record,), {"__annotations__": dict.fromkeys(fields, str), **body})


def test_a_tokenizer_says_what_a_word_is(tmp_path):
    class Part(fs.Record):
        code: str = fs.field(search="trigram")

    with fs.open(tmp_path / "a.db", Porter, Part, durability="fast") as db:
        put(db, "a", "Leaking Valves", of=Porter)
        assert keys(db[Porter].search("leaked valve")) == ["a"]
        with db.write() as tx:
            tx.create(Part, scope=SCOPE, key="p", code="XK-2210-b")
        assert keys(db[Part].search("k-22")) == ["p"]
        assert db.verify().faults == []


def test_a_tokenizer_that_sqlite_refuses_is_told_when_the_file_is_opened(tmp_path):
    class Odd(fs.Record):
        name: str = fs.field(search="unicode61 colour 5")

    with pytest.raises(fs.SchemaError, match="collection 'odds' cannot be searched"):
        fs.open(tmp_path / "a.db", Odd)


def test_a_search_is_declared_later_and_no_more(tmp_path):
    path = tmp_path / "a.db"
    with fs.open(path, Plain, durability="fast") as db:
        for number in range(10):
            put(db, f"k{number}", "valve" if number % 2 else "pump", of=Plain)
        with pytest.raises(fs.SchemaError, match="no field that is searched"):
            db[Plain].search("valve")
    told = []
    with fs.open(path, Note, progress=lambda *progress: told.append(progress)) as db:
        assert (told, db[Note].search("valve").count()) == ([(10, 10)], 5)
    with fs.open(path, Porter) as db:
        assert db[Porter].search("pumps").count() == 5
        assert db.sql("SELECT count(*) FROM fs_search_notes WHERE fs_search_notes MATCH 'pumping'") == [(5,)]
        assert db.verify().faults == []


def test_an_app_that_declares_no_search_keeps_what_others_search(db):
    put(db, "a", "valve")
    put(db, "gone", "valve")
    for declared in ([], [Plain]):
        with fs.open(db.path, *declared) as older, older.write() as tx:
            tx.create("notes", scope=SCOPE, key=f"b{len(declared)}", title="another valve")
            tx.update("notes", "a", title=f"pump {len(declared)}")
            tx.delete("notes", "gone" if declared else "b0") if declared else None
        assert db.verify().faults == []
    assert sorted(keys(db[Note].search("valve"))) == ["b0", "b1"]
    assert keys(db[Note].search("pump 1")) == ["a"]


def test_columns_of_others_are_not_searched(tmp_path):
    class Title(fs.Record, table="notes"):
        title: str = fs.field(search=True)

    with fs.open(tmp_path / "a.db", Note, durability="fast") as db, fs.open(tmp_path / "a.db", Title) as other:
        put(db, "a", "valve", "pump")
        assert (keys(other[Title].search("valve")), keys(other[Title].search("pump"))) == (["a"], [])
        assert keys(db[Note].search("pump")) == ["a"]


def test_apps_that_make_other_words_open_a_file_in_turn(tmp_path):
    class Body(fs.Record, table="notes"):
        body: fs.Text = fs.field(search="porter unicode61")

    for turn in range(3):
        with fs.open(tmp_path / "a.db", Note, durability="fast") as db:
            put(db, f"k{turn}", "a leaking valve", "it leaks")
            assert (db[Note].search("leaking").count(), db[Note].search("leaked").count()) == (turn + 1, 0)
            assert db.verify().faults == []
        with fs.open(tmp_path / "a.db", Body, durability="fast") as db:
            assert (db[Body].search("leaked").count(), db[Body].search("valve").count()) == (turn + 1, 0)
            assert db.verify().faults == []


OTHER_PROCESS = """
import sys
import fieldsync as fs
with fs.open(sys.argv[1], durability="fast") as db:
    for number in range(100):
        with db.write() as tx:
            tx.create("notes", scope="job/7", key=f"theirs-{number}", title=f"valve {number % 3}")
        with db.write() as tx:
            tx.update("notes", f"theirs-{number}", title=f"pump {number % 3}")
"""


def test_two_processes_write_at_a_time(db):
    other = subprocess.Popen([sys.executable, "-c", OTHER_PROCESS, db.path])
    for number in range(100):
        put(db, f"ours-{number}", f"valve {number % 3}")
        assert db[Note].search("valve 0").count() >= number // 3 + 1
    assert other.wait(timeout=120) == 0
    assert (db[Note].search("valve").count(), db[Note].search("pump").count()) == (100, 100)
    assert db[Note].search("pump 1").count() == 33


def test_a_search_finds_the_same_while_the_table_is_anothers(db):
    for key, title, body in [("a", "Leaking", "valve"), ("b", "valve", "valve"), ("c", "pump", "")]:
        put(db, key, title, body)
    queries = [db[Note].search(*words) for words in (["valve"], ["leak*"], ["valve", "title"], ["leaked"], [""])]
    queries += [queries[0].where(key="a"), queries[0].order_by("-key").limit(1), queries[0].limit(1).offset(1)]
    before = [(keys(query), query.count()) for query in queries]
    with fs.open(db.path, Porter):
        pass
    assert "porter" in db.sql("SELECT sql FROM sqlite_schema WHERE name='fs_words_1'")[0][0]
    assert [(keys(query), query.count()) for query in queries] == before
    put(db, "d", "valve", "")
    assert db[Note].search("valve").count() == 3


# --- SQL, watches ---


def test_sql_joins_by_a_documented_name(some, db):
    sql = "SELECT key, scope, title, snippet(fs_search_notes, -1, '[', ']', '..', 4) FROM fs_search_notes "
    found = db.sql(sql + "WHERE fs_search_notes MATCH ? ORDER BY rank", ("leaking pump",))
    assert [row[:3] for row in found] == [("a", SCOPE, "Leaking välve"), ("b", SCOPE, "Pump")]
    assert found[1][3] == "[Pump]"
    with pytest.raises(fs.DataError, match="SQL: "):
        db.sql("SELECT 1 FROM fs_search_notes WHERE fs_search_notes MATCH ?", ('"',))
    with pytest.raises(fs.DataError, match="only reads"):
        db.sql("INSERT INTO fs_words_1(fs_words_1) VALUES('rebuild')")


def test_a_name_that_sql_has_to_quote(tmp_path):
    class Order(fs.Record, table='the "old" orders'):
        select: str = fs.field(search=True)
        größe: str = fs.field(search=True)

    with fs.open(tmp_path / "a.db", Order, durability="fast") as db:
        with db.write() as tx:
            tx.create(Order, scope=SCOPE, key="a", select="valve", größe="klein")
        assert keys(db[Order].search("klein", "größe")) == ["a"]
        view = '"fs_search_the ""old"" orders"'
        assert db.sql(f"SELECT key FROM {view} WHERE {view} MATCH 'valve'") == [("a",)]


def test_a_watch_hears_of_what_is_found(db):
    put(db, "a", "pump")
    events = queue.Queue()
    watch = db[Note].search("valve").watch(events.put)
    put(db, "b", "no")
    put(db, "c", "a valve")
    assert keys(events.get(timeout=10).created) == ["c"]
    with db.write() as tx:
        tx.get(Note, "a").body += "and valve"
    assert keys(events.get(timeout=10).updated) == ["a"]
    with db.write() as tx:
        tx.update(Note, "c", title="nothing")
    assert events.get(timeout=10).removed == [(SCOPE, "c")]
    watch.close()


# --- the table follows the records ---


def test_leaving_and_coming_back(tmp_path, db):
    put(db, "a", "valve")
    put(db, "b", "valve", scope="job/8")
    db.leave(SCOPE, escrow=tmp_path / "left.bundle")
    assert keys(db[Note].search("valve")) == ["b"]
    db.import_bundle(tmp_path / "left.bundle")
    assert keys(db[Note].search("valve")) == ["a", "b"]


def test_moves_and_the_trash(tmp_path):
    with fs.open(tmp_path / "hub.db", Note, hub=True, durability="fast") as hub:
        put(hub, "a", "valve", "pump")
        put(hub, "b", "valve")
        with fs.open(tmp_path / "a.db", Note, durability="fast") as db:
            db.enter(SCOPE, "job/8")
            db.sync(hub)
            with hub.write() as tx:
                tx.move(Note, "a", to="job/8")
                tx.delete(Note, "b")
            hub.trim(older_than=timedelta(0), keep=0)
            db.sync(hub)
            assert [(one.key, one.scope) for one in db[Note].search("valve")] == [("a", "job/8")]
            (entry,) = [entry for entry in db.trash() if entry.key == "b"]
            db.restore(entry)
            assert sorted(keys(db[Note].search("valve"))) == ["a", "b"]
            for one in (db, hub):
                assert one.verify().faults == []


def test_a_bulk_load_is_searched(db):
    rows = [{"id": f"k{number:04}", "title": f"valve {number}", "kind": "pump"} for number in range(2_500)]
    db.load(Note, rows, key="id", scope=lambda row: SCOPE)
    assert keys(db[Note].search("valve 7")) == ["k0007"]
    assert db[Note].search("pump").count() == 2_500
    db.load(Note, [row | {"title": "nothing"} for row in rows[:10]], key="id", scope=lambda row: SCOPE)
    assert db[Note].search("valve").count() == 2_490


def test_a_value_that_is_no_text_is_searched_as_its_column_shows_it(db):
    put(db, "a", "x")
    with fs.open(db.path) as other:
        for value in (7, 7.0, None, b"7", "7"):
            with other.write() as tx:
                tx.update("notes", "a", kind=value)
            assert db.verify().faults == []
    assert keys(db[Note].search("7", "kind")) == ["a"]


def test_a_collection_without_search_costs_nothing_more(tmp_path):
    statements = []
    with fs.open(tmp_path / "a.db", Plain, durability="fast") as db:
        db.replica.store._writer.exec_trace = lambda _, sql, __: statements.append(sql) or True
        put(db, "a", "x", of=Plain)
        with db.write() as tx:
            tx.update(Plain, "a", title="y")
        with db.write() as tx:
            tx.delete(Plain, "a")
        db.leave(SCOPE, lose_pending=True)
    assert any("fs_record_1" in sql for sql in statements)
    assert not [sql for sql in statements if "fs_words" in sql or "fs_search" in sql]


def test_a_file_is_verified_in_the_middle_of_a_transaction(some, db):
    """What is searched is looked at by a writer, which in this thread is that of the transaction."""
    with db.write() as tx:
        tx.update(Note, "a", title="other words")
        assert db.verify().faults == []
        with pytest.raises(fs.StoreError, match="open in this thread"), db.write():
            pass
    assert db[Note].get("a").title == "other words"
    assert db.verify().faults == []


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO fs_words_1(fs_words_1, rowid, title, body, kind) VALUES('delete', 1, 'valve', '', NULL)",
        "INSERT INTO fs_words_1(rowid, title) VALUES(77, 'valve')",
        "DELETE FROM fs_words_1_data WHERE id>10",
        "UPDATE fs_words_1_data SET block=randomblob(20)",
        "UPDATE fs_words_1_data SET block=x'5d6d3e697a216ff0cd995bbabbf0a49ee8aed30c' WHERE id=10",  # out of memory
        "DELETE FROM fs_words_1_config",
        "DROP TABLE fs_words_1_config",
        "DROP TABLE fs_words_1_data",
        "DROP TABLE fs_words_1",
        "UPDATE fs_record_1 SET title='pump' WHERE _id=1",
    ],
)
def test_a_damaged_index_is_found_and_built_anew(db, sql):
    put(db, "a", "valve")
    put(db, "b", "other")
    damage(db, sql)
    with fs.open(db.path, Note, durability="fast") as again:  # which has not seen the table before
        with suppress(fs.Corrupt, fs.StoreError):
            again[Note].search("valve").all()
        assert again.verify().faults[0].what.startswith("SQLite: the search index fs_words_1 ")
        assert again.verify(repair=True).is_sound
        assert keys(again[Note].search("valve")) == ["a"]
        assert again.sql("SELECT key FROM fs_search_notes WHERE fs_search_notes MATCH 'valve'") == [("a",)]
    assert keys(db[Note].search("valve")) == ["a"]


def test_what_a_reader_has_at_hand_is_no_damage(db):
    """SQLite's look at a search table may hold words of a moment ago against the rows of now."""
    put(db, "a", "valve")
    for n in range(40):
        with db.write() as tx:
            tx.get(Note, "a").body.insert(0, f"pump{n} " * 50)
        assert db.verify().faults == []


# --- random histories ---


def words_of(record):
    """The words of a record's searched fields, as the default tokenizer makes them of such simple ones."""
    text = " ".join([record.title, record.body, record.kind or ""])
    plain = unicodedata.normalize("NFD", text.lower())
    return {"".join(c for c in word if not unicodedata.combining(c)) for word in plain.split()}


def folded(word):
    return "".join(c for c in unicodedata.normalize("NFD", word.lower()) if not unicodedata.combining(c))


def check(db):
    """What is found is what a look at all records finds; and SQL ranks as a table made for the moment does."""
    records = db[Note].all()
    for word in WORDS:
        found = db[Note].search(word)
        assert set(keys(found)) == {record.key for record in records if folded(word) in words_of(record)}
        prefix = {one.key for one in records if any(known.startswith(folded(word[:2])) for known in words_of(one))}
        assert set(keys(db[Note].search(word[:2] + "*"))) == prefix
        assert keys(found) == [record.key for record in found._plan.matching(records)]
    for pair in zip(WORDS, WORDS[3:], strict=False):
        both = {record.key for record in records if set(map(folded, pair)) <= words_of(record)}
        assert set(keys(db[Note].search(" ".join(pair)))) == both


texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
record_keys = st.sampled_from([f"k{number}" for number in range(6)])
steps = st.lists(
    st.tuples(st.integers(0, 2), st.just("put"), record_keys, texts, texts)
    | st.tuples(st.integers(0, 2), st.just("title"), record_keys, texts, texts)
    | st.tuples(st.integers(0, 2), st.just("body"), record_keys, st.integers(0, 9), texts)
    | st.tuples(st.integers(0, 2), st.sampled_from(["delete", "sync", "leave", "move"]), record_keys, texts, texts)
    | st.tuples(st.integers(0, 2), st.just("undone"), record_keys, texts, texts),
    max_size=30,
)


class Undone(Exception):
    """Ends a transaction."""


def play(db, hub, what, key, one, text):
    """One step of a device, where it makes sense."""
    if what == "sync":
        db.enter(SCOPE)
        db.sync(hub)
    elif what == "leave":
        if db is not hub and any(scope.name == SCOPE for scope in db.scopes()):
            db.leave(SCOPE, lose_pending=True)
    else:
        with db.write() as tx:
            if what in ("put", "undone"):
                if db[Note].where(key=key).count() == 0:
                    tx.create(Note, scope=SCOPE, key=key, title=one, body=text)
                else:
                    tx.get(Note, key, scope=db[Note].where(key=key).first().scope).kind = text
            elif (record := db[Note].where(key=key).first()) is None:
                pass
            elif what == "title":
                tx.update(Note, key, scope=record.scope, title=one, kind=text)
            elif what == "body":
                tx.get(Note, key, scope=record.scope).body.insert(min(one, len(record.body)), f" {text} ")
            elif what == "delete":
                tx.delete(Note, key, scope=record.scope)
            elif what == "move":
                tx.move(Note, key, scope=record.scope, to="job/8")
            if what == "undone":
                raise Undone


@settings(max_examples=30)
@given(steps)
def test_what_is_found_is_what_a_look_at_all_records_finds(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("search")
    hub = fs.open(folder / "hub.db", Note, hub=True, durability="fast")
    devices = [hub, *(fs.open(folder / f"{name}.db", Note, durability="fast") for name in "ab")]
    try:
        for device, *step in steps:
            try:
                play(devices[device], hub, *step)
            except Undone:
                check(devices[device])
        for device in devices:
            check(device)
            assert device.verify().faults == []
    finally:
        for device in devices:
            device.close()
