"""Hypothesis profiles, and what tests of several files begin with.

HYPOTHESIS_PROFILE=long is for a night, small for a build with sanitizers; none is about speed. Such a build has the
kernels alone, so fixtures import what they need when they are asked for.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

for name, examples in {"small": 15, "default": 100, "long": 5_000}.items():
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        derandomize="CI" in os.environ,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True, scope="session")
def _notes(tmp_path_factory):
    """Notes of the files that tests open stay out of the home of whoever runs them; children inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def path(tmp_path):
    return tmp_path / "field.db"


@pytest.fixture
def db(path):
    """A database of the orders of tests/orders.py."""
    from tests.orders import Order

    import fieldsync as fs

    with fs.open(path, Order, durability="fast") as db:
        yield db


@pytest.fixture
def other(tmp_path):
    """Another one."""
    from tests.orders import Order

    import fieldsync as fs

    with fs.open(tmp_path / "other.db", Order, durability="fast") as db:
        yield db


@pytest.fixture
def orders(db):
    """A database with ten of them."""
    from tests.orders import fill_with_ten

    return fill_with_ten(db)


@pytest.fixture
def hub(tmp_path):
    """A hub of no organisation."""
    import fieldsync as fs

    with fs.open(tmp_path / "hub.db", hub=True, durability="fast") as hub:
        yield hub


@pytest.fixture
def fleet(tmp_path):
    """The hub and the devices of tests/movers.py; all of it is looked at in the end."""
    from tests.movers import Fleet

    fleet = Fleet(tmp_path)
    yield fleet
    fleet.check()
    fleet.close()


@pytest.fixture
def moved(fleet):
    """The hub, which has moved the record from x to y, and two devices that hold both and do not know yet."""
    from tests.movers import move, put

    one, other = fleet.devices("x", "y")
    put(fleet.hub, "x", name="Ann", visits=3)
    fleet.sync(one, other)
    move(fleet.hub, "y")
    return fleet.hub, one, other


@pytest.fixture
def network(tmp_path):
    """The organisation of tests/networks.py, which talks over real connections."""
    from tests.networks import Network

    with Network(tmp_path) as network:
        yield network


@pytest.fixture
def quick(monkeypatch):
    """Agents whose pauses after failures tests can wait for."""
    monkeypatch.setattr("fieldsync.network.agenda.RETRY_FIRST_SECONDS", 0.05)
    monkeypatch.setattr("fieldsync.network.agenda.RETRY_SECONDS_MAX", 0.2)


@pytest.fixture
def members(tmp_path):
    """The organisation of tests/members.py, which talks in memory; its files are looked at in the end."""
    from tests.members import Members

    with Members(tmp_path) as members:
        yield members
        members.check()


@pytest.fixture
def single_changes(monkeypatch):
    """Each change in a frame of its own."""
    monkeypatch.setattr("fieldsync.syncing.giving.CHUNK_CELLS_TARGET", 1)


@pytest.fixture(scope="module")
def small_chunks():
    """Streams of several frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fieldsync.syncing.giving.CHUNK_CELLS_TARGET", 6)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The two files of tests/talking.py that have something to tell each other."""
    from tests.talking import make_files

    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def recorded(files, small_chunks, tmp_path_factory):
    """All frames of their conversation, and the state that both are in after it."""
    from tests.talking import record_talk

    return record_talk(files, tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def pair(files, small_chunks, tmp_path):
    """Fresh copies of them, opened."""
    from tests.talking import Pair

    with Pair(files, tmp_path) as pair:
        yield pair


@pytest.fixture
def greeted(pair):
    """The responder of a conversation in which both have said hello, and the frames it has sent."""
    from tests.talking import greet

    yield from greet(pair)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command as a shell would, in a wide terminal; gives exit code, output and errors."""
    from fieldsync import cli
    from fieldsync.cli import terminal

    for console in (terminal.console, terminal.errors):
        monkeypatch.setattr(console, "_width", 200)  # which it may have from the environment by now

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["fieldsync", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return ended.value.code or 0, told.out, told.err

    return run
