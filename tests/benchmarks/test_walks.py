"""How many functions of ours a call passes: counts that no noise can move, and that must not grow."""

import pytest

from attribution.isolation.structural_copy import Shadow
from benchmarks.walks import LIMITS, Walk, walks


@pytest.fixture(scope="module")
def found() -> dict[str, Walk]:
    return dict(walks())


@pytest.mark.parametrize("name", LIMITS)
def test_walks_stay_short(name: str, found: dict[str, Walk]) -> None:
    calls, files, changes = LIMITS[name]
    walk = found[name]
    assert len(walk.calls) <= calls, walk
    assert walk.files <= files, walk
    assert walk.changes <= changes, walk


def test_every_walk_has_limits(found: dict[str, Walk]) -> None:
    assert LIMITS.keys() == found.keys()


def test_a_copy_that_is_made_anew_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of a model is most of why a second call is short."""
    monkeypatch.setattr(Shadow, "fits", lambda shadow, model: False)
    name, forgetful = next(walks())
    assert len(forgetful.calls) > 2 * LIMITS[name][0]


def test_limits_are_tight(found: dict[str, Walk]) -> None:
    """What was shortened lowers its limit."""
    loose = [name for name, walk in found.items() if len(walk.calls) < 0.97 * LIMITS[name][0]]
    assert loose == []
