"""Hypothesis profiles: HYPOTHESIS_PROFILE=long for a night, small for a build with sanitizers. None is about speed."""

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
def fleet(tmp_path):
    """The hub and the devices of tests/movers.py; all of it is looked at in the end."""
    from tests.movers import Fleet  # here: a build with sanitizers has the kernels alone

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
