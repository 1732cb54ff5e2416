"""Syncs on a budget: bytes are counted as they go, and what is used is kept in the file, over restarts."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from fieldsync.errors import FieldsyncError
from fieldsync.limits import BUDGET_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fieldsync.network.agenda import Budget
    from fieldsync.replica import Replica
    from fieldsync.syncing.report import Report

log = logging.getLogger("fieldsync")
BUDGET_SINCE, BUDGET_USED = "budget since", "budget used"  # facts of a file: milliseconds of the wall clock, bytes


class Spending:
    """What the sessions of one replica use of its budget; where it has none, nothing is done."""

    def __init__(self, replica: Replica, budget: Budget | None, now: Callable[[], float]) -> None:
        """now: seconds of the clock that the budget goes by."""
        self._replica = replica
        self._budget = budget
        self._now = now
        self._paid = asyncio.Event()  # some more is used than is written down

    async def resume(self) -> None:
        """Go on with the period that an agent of this file began before, though it should have been killed."""
        if self._budget is not None:
            await asyncio.to_thread(self._read, self._budget)

    async def remember(self) -> None:
        """Write down what is used, until cancelled: soon where it was quiet, else now and then."""
        while self._budget is not None:
            await self._paid.wait()
            await self.write_down()
            await asyncio.sleep(BUDGET_SECONDS)

    async def write_down(self) -> None:
        """Write down what is used by now, if more is than was."""
        if self._budget is not None and self._paid.is_set():
            await asyncio.to_thread(self._write, self._budget)

    def meter(self) -> Callable[[Report], None]:
        """What counts the bytes of a session as they go, for they are paid for, though it should be cut."""
        budget, counted = self._budget, 0

        def pay(report: Report) -> None:
            nonlocal counted
            total = report.bytes_sent + report.bytes_received
            if budget is not None and total > counted:
                budget.use(total - counted)
                counted = total
                self._paid.set()

        return pay

    def enough(self) -> Callable[[Report], bool] | None:
        """Whether a session that begins now has used what is left."""
        if self._budget is None:
            return None
        left = self._budget.left(self._now())
        return lambda report: report.bytes_sent + report.bytes_received >= left

    def _read(self, budget: Budget) -> None:
        with self._replica.store.reading() as reader:
            since_ms, used = reader.meta(BUDGET_SINCE), reader.meta(BUDGET_USED)
        if since_ms is not None and used is not None:
            budget.resume(used, (self._replica.wall_ms() - since_ms) / 1000, self._now())

    def _write(self, budget: Budget) -> None:
        self._paid.clear()
        used, seconds_ago = budget.kept(self._now())
        try:
            with self._replica.store.writing() as writer:
                writer.set_meta(BUDGET_SINCE, self._replica.wall_ms() - round(1000 * seconds_ago))
                writer.set_meta(BUDGET_USED, used)
        except FieldsyncError as error:  # of a file that is full, or closed by now
            log.warning("what is used of the budget is not written down: %s", error)
