"""The closed forms of the kit that ask for forwards: good attributors pass, and wrong weights do not."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from attribution import registry
from attribution.testing import CheckFailure, attributor_checks
from attribution_hooks.cam.ablation_cam import HooksAblationCAM
from attribution_hooks.cam.score_cam import HooksScoreCAM

FORMS: dict[str, tuple[str, Any]] = {
    "ablation_cam": ("ablation_cam_weighs_what_a_global_mean_loses", HooksAblationCAM),
    "score_cam": ("score_cam_of_a_linear_model_sees_the_masked_mean", HooksScoreCAM),
}
WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "a thousandth too large": lambda weights: weights * 1.001,
    "the next target's": lambda weights: weights.roll(1, dims=1),
    "the next channel's": lambda weights: weights.roll(1, dims=2),
    "all alike": lambda weights: weights * 0 + weights.mean(),
}


def passes(name: str, backend: str) -> bool:
    (check,) = (each for each in attributor_checks(registry.get(name, backend)) if each.name == FORMS[name][0])
    try:
        check()
    except CheckFailure:
        return False
    return True


@pytest.mark.parametrize(("name", "backend"), [(name, by) for name in FORMS for by in registry.backends(name)])
def test_good_attributors_pass(name: str, backend: str) -> None:
    assert passes(name, backend)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", FORMS)
def test_wrong_weights_do_not(name: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = FORMS[name][1]
    weights = cls.weights
    monkeypatch.setattr(cls, "weights", lambda self, run, seen: WRONG[wrong](weights(self, run, seen)))
    assert not passes(name, "hooks")
