"""Watches: what they hear, of whom, and where callbacks run."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from functools import partial
from time import sleep

import pytest
from tests.orders import Order, fill, in_threads

import fieldsync as fs
from fieldsync import apply
from fieldsync import watch as watches


class Heard:
    """Collects the events of a watch."""

    def __init__(self):
        self.events = queue.Queue()

    def __call__(self, event):
        self.events.put(event)

    def next(self):
        event = self.events.get(timeout=10)
        records = [sorted(record.key for record in some) for some in (event.created, event.updated)]
        return *records, sorted(event.removed)


@pytest.fixture
def heard():
    return Heard()


def test_a_watch_hears_local_commits(db, heard):
    fill(db, a="Acme")
    watch = db[Order].where(status="open").watch(heard)
    fill(db, b="Bolt", c="Corn")
    assert heard.next() == (["b", "c"], [], [])
    with db.write() as tx:
        tx.create("notes", scope="job/7", key="n")  # of no interest
    with db.write() as tx:
        tx.get(Order, "a").hours += 1
        tx.update(Order, "b", status="done")
        tx.delete(Order, "c")
    assert heard.next() == ([], ["a"], [("job/7", "b"), ("job/7", "c")])
    watch.close()
    last = Heard()
    db[Order].watch(last)
    fill(db, d="Dune")
    assert last.next() == (["d"], [], [])
    assert heard.events.empty()


def test_a_watch_hears_what_a_sync_brings(db, other, heard):
    fill(other, a="Acme", b="Bolt")
    db.enter("job/7")
    db["orders"].where(scope="job/7").watch(heard)
    db.sync(other)
    assert heard.next() == (["a", "b"], [], [])
    with other.write() as tx:
        tx.update(Order, "a", status="done")
        tx.delete(Order, "b")
    other.sync(db)
    assert heard.next() == ([], ["a"], [("job/7", "b")])


def test_a_watch_hears_what_another_process_wrote_before_this_one_synced(path, db, heard):
    fill(db, a="Acme")
    with fs.open(path, Order) as beside, fs.open(path.with_name("peer.db"), Order) as peer:
        peer.enter("job/7")
        db.sync(peer)
        db[Order].watch(heard)
        time.sleep(3 * watches.WATCH_POLL_SECONDS)  # it has looked at the file
        for turn in range(3):
            with beside.write() as tx:
                tx.update(Order, "a", customer=f"Acme {turn}")
            beside.sync(peer)
            fill(peer, **{f"new{turn}": "Bolt"})
            db.sync(peer)  # joins what the file has by now, and the watch has not heard of
            told = set()
            while not told >= {f"new{turn}", "a"}:  # in one event, or two
                created, updated, _ = heard.next()
                told |= {*created, *updated}


def test_a_record_that_another_process_removed_before_it_came_and_went_here_is_told_to_be_gone():
    here, gone = apply.Touched(1, "s", "k", False, True), apply.Touched(1, "s", "k", True, False)
    ours = [watches.News([one], {"s": (b"0", b"1")}) for one in (here, gone)]
    assert not watches._as_one(ours).touched[0].before  # it came and went unseen
    theirs = watches.News([gone], {})
    assert watches._as_one([ours[0], theirs, ours[1]]).touched == [gone]
    made = watches.News([here], {})  # by another process: an event before may have told it
    assert watches._as_one([made, ours[1]]).touched == [gone]


def test_records_that_wait_for_a_slow_watcher_are_held_up_to_a_bound(db, monkeypatch):
    monkeypatch.setattr(watches, "WATCH_QUEUE_BYTES_MAX", 1_000)
    scheduled, events = queue.Queue(), []
    watch = db[Order].watch(events.append, via=scheduled.put)
    fill(db, a="Acme" * 90)
    deliver = scheduled.get(timeout=10)
    for number in range(9):
        with db.write() as tx:
            tx.update(Order, "a", customer="Acme" * 90 + str(number))
        assert sum(len(one.packed) for news in watch._pending for one in news.touched) <= 1_000
    deliver()
    assert [record.customer for event in events for record in event.created][-1].endswith("8")


def test_what_others_wrote_between_commits_is_read_though_a_later_one_does_not_know_what_was_before():
    ours = [{"s": (b"a0", b"a1")}, {"s": (b"b1", b"b2")}, {"s": (b"", b"d")}, {"s": (b"d", b"e")}]
    for few in range(2, 5):
        assert watches._joined(ours[:few])["s"] == watches.UNKNOWN
    assert watches._joined(ours[2:])["s"] == (b"", b"e")


WRITER = """
import sys, fieldsync
with fieldsync.open(sys.argv[1]) as db, db.write() as tx:
    tx.update("orders", "a", status="done")
    tx.delete("orders", "b")
    tx.create("orders", scope="job/7", key="c", customer="Corn")
"""


def test_a_watch_hears_commits_of_other_processes(path, db, heard):
    fill(db, a="Acme", b="Bolt")
    db[Order].watch(heard)
    subprocess.run([sys.executable, "-c", WRITER, path], check=True)
    assert heard.next() == (["c"], ["a"], [("job/7", "b")])
    with fs.open(path, Order) as second:
        fill(second, "job/8", d="Dune")
    assert heard.next() == (["d"], [], [])
    fill(db, e="East")  # its own commits are heard once
    assert heard.next() == (["e"], [], [])
    fill(db, f="Far")
    assert heard.next() == (["f"], [], [])


def test_callbacks_run_where_the_app_wants(db):
    scheduled, events = queue.Queue(), []
    db[Order].watch(lambda event: events.append((event, threading.current_thread())), via=scheduled.put)
    fill(db, a="Acme")
    deliver = scheduled.get(timeout=10)
    assert events == []
    deliver()
    ((event, thread),) = events
    assert (event.created[0].key, thread) == ("a", threading.current_thread())


def test_events_of_a_slow_watcher_become_one(db, monkeypatch):
    monkeypatch.setattr(watches, "WATCH_QUEUE_EVENTS_MAX", 2)
    scheduled, events = queue.Queue(), []
    watch = db[Order].watch(events.append, via=scheduled.put)
    fill(db, a="Acme")
    deliver = scheduled.get(timeout=10)
    fill(db, b="Bolt")
    for number in range(8):
        with db.write() as tx:
            tx.update(Order, "b", customer=f"Bolt {number}")
        with db.write() as tx:
            tx.delete(Order, "a") if number == 7 else tx.update(Order, "a", status="late")
    assert not any(one.packed for one in watch._pending[0].touched)  # which would be held for as long as he is slow
    deliver()
    assert len(events) <= 3
    assert [record.key for event in events for record in event.created] == ["b"]  # and "a" came and went unseen
    assert {record.customer for event in events for record in event.created + event.updated} == {"Bolt 7"}


def test_a_callback_that_fails_does_not_end_the_watch(db, heard, caplog):
    def fail(event):
        raise ValueError("in the app")

    db[Order].watch(fail)
    db[Order].watch(heard)
    fill(db, a="Acme")
    assert heard.next()[0] == ["a"]
    fill(db, b="Bolt")
    assert heard.next()[0] == ["b"]
    assert "in the app" in caplog.text


def test_a_callback_may_read_and_write(db, heard):
    def answer(event):
        with db.write() as tx:
            for order in event.created:
                tx.create("notes", scope=order.scope, key=order.key, text=db[Order].get(order.key).customer)

    db[Order].watch(answer)
    db["notes"].watch(heard)
    fill(db, a="Acme")
    assert heard.next() == (["a"], [], [])
    assert db["notes"].get("a").text == "Acme"


def test_watchers_hear_every_commit_of_many_threads_once(db, monkeypatch):
    heard, announce = [], db.replica.watches.announce

    def announce_late(news):
        sleep(0.02)  # so that the watch's thread looks at the file just then
        announce(news)

    monkeypatch.setattr(db.replica.watches, "announce", announce_late)
    db[Order].watch(lambda event: heard.extend(record.key for record in event.created))

    def work(name):
        for number in range(10):
            fill(db, **{f"{name}-{number}": "Acme"})

    in_threads(*(partial(work, name) for name in range(4)))
    last = Heard()
    db["notes"].watch(last)
    with db.write() as tx:
        tx.create("notes", scope="job/7", key="n")
    last.next()
    assert sorted(heard) == sorted(f"{name}-{number}" for name in range(4) for number in range(10))
