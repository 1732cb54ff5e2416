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
