"""Orders, as the tests of the public face declare, write and read them."""

from __future__ import annotations

import threading
from decimal import Decimal

import fieldsync as fs


class Order(fs.Record, table="orders"):
    customer: str
    status: str = fs.field(default="open", index=True)
    price: Decimal | None = None
    hours: fs.Counter = 0
    tags: list[str] = fs.field(default_factory=list)


class Renamed(fs.Record, table="orders"):
    """The same collection in another version of the app."""

    customer: str = fs.field(default="", index=True)
    state: str = "new"
    hours: fs.Counter = 0
    price: Decimal | None = None


def fill(db, scope="job/7", **customers):
    with db.write() as tx:
        for key, customer in customers.items():
            tx.create(Order, scope=scope, key=key, customer=customer)


def fill_with_ten(db):
    """Ten orders and ten notes alike, in three scopes."""
    with db.write() as tx:
        for number in range(10):
            status = ("open", "done")[number % 2]
            price = None if number == 9 else Decimal(number) / 2
            scope = f"job/{number % 3}"
            for of in (Order, "notes"):
                tx.create(of, scope=scope, key=f"o-{number}", customer="ABC"[number % 3], status=status, price=price)
    return db


def held(db):
    return {(scope, key) for key, scope in db.sql("SELECT key, scope FROM orders")}


def in_threads(*works):
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
