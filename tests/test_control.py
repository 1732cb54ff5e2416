"""The control scope: statements spread, and nobody writes there what he may not say."""

import pytest
from tests.members import sync
from tests.talking import NOW_MS

from fieldsync.errors import DataError, DecodeError
from fieldsync.trust import control, statements
from fieldsync.trust.rights import CONTROL
from fieldsync.trust.statements import Author, Grant


def test_apps_do_not_write_there(members):
    ada = members.device("ada", write=["*"])
    with pytest.raises(DataError, match="organisation's own"):
        ada.write(CONTROL, "k")
    ada.write("job/1", "k")
    with ada.db.write() as tx, pytest.raises(DataError, match="organisation's own"):
        tx.move("notes", "k", to=CONTROL)


def test_what_a_device_says_of_itself_alone_counts_for_nothing(members):
    eve = members.device("eve", read=["job/1"])
    forged = statements.sign(eve.identity.key, Grant(eve.device, (), ("*",), (), 1 << 60, 0, 99))
    with eve.db.replica.writing() as batch:
        for news in control.add(batch.writer, [forged], eve.identity.key, NOW_MS, lambda: b"12345678"):
            batch.note(CONTROL, *news)
    sync(eve, members.hub)
    assert members.hub.digests()[CONTROL] == eve.digests()[CONTROL]
    assert members.hub.membership.roll.grant(eve.device).write == ()


def test_all_hold_the_same_statements(members):
    ada, ben = (members.device(name, write=["job/1"]) for name in ("ada", "ben"))
    for node in (ada, ben, ada):
        sync(node, members.hub)
    assert len({node.digests()[CONTROL] for node in members.nodes}) == 1


def test_a_removal_in_the_control_scope_is_refused(members):
    """Who alters his own file can take out of it what he likes: nobody else does."""
    eve = members.device("eve", read=["job/1"])
    with eve.db.replica.writing() as batch:
        writer = batch.writer
        scope = writer.scope(CONTROL)
        change = control.LocalChange(writer, scope)
        collection = writer.collection(control.COLLECTION)
        for row in next(rows for number, rows in writer.records(scope.id) if number == collection.id)[:1]:
            change.at(collection.id, control.COLLECTION, row.key, row).deletes = True
        batch.note(CONTROL, change.land(NOW_MS, lambda: b"12345678"), change.dots)
    before = members.hub.digests()[CONTROL]
    with pytest.raises(DecodeError, match="control scope"):
        sync(eve, members.hub)
    assert members.hub.digests()[CONTROL] == before


def test_nobody_writes_under_another_devices_name_there(members):
    eve = members.device("eve", read=["job/1"])
    with members.hub.db.replica.store.reading() as reader:
        scope = reader.scope(CONTROL)
        author, seq, nonce = reader.dictionary.author(scope.author), scope.seq, reader.meta("control nonce")
    said = statements.sign(eve.identity.key, Author(eve.device, b"whatever"))
    with eve.db.replica.writing() as batch:
        writer = batch.writer
        (number,) = writer.author_ids([author])
        writer.save_scope(writer.scope(CONTROL)._replace(author=number, seq=seq))
        writer.set_meta("control nonce", nonce)
        list(control.add(writer, [said], eve.identity.key, NOW_MS, lambda: b"12345678"))
    with eve.db.replica.store.reading() as reader:
        assert reader.dictionary.author(reader.scope(CONTROL).author) != author
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "author_of", lambda *_: author)
        with eve.db.replica.writing() as batch:
            batch.writer.save_scope(batch.writer.scope(CONTROL)._replace(author=number, seq=seq))
            more = statements.sign(eve.identity.key, Author(eve.device, b"whatelse"))
            list(control.add(batch.writer, [more], eve.identity.key, NOW_MS, lambda: b"12345678"))
    with pytest.raises(DecodeError, match="did not write"):
        sync(eve, members.hub)


def test_a_peer_hides_nothing_by_a_context_that_it_makes_up(members):
    ada, eve = members.device("ada", read=["job/1"]), members.device("eve", read=["job/1"])
    members.hub.membership.revoke("0" * 32)
    with members.hub.db.replica.store.reading() as reader:
        context = reader.context(reader.scope(CONTROL).id)
    with eve.db.replica.writing() as batch:
        batch.writer.account(batch.writer.scope(CONTROL).id, context)
    sync(ada, eve)
    assert not ada.membership.roll.is_revoked("0" * 32)
    sync(ada, members.hub)
    assert ada.membership.roll.is_revoked("0" * 32)
