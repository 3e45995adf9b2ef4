"""An interrupt that arrives while torch has a mode off its stack of function modes."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from attribution import LIME, GuidedBackprop, Technique, explain
from attribution.isolation import function_modes
from attribution.testing import small_residual
from attribution.testing.footprint.interruption import interrupted, places

PUT_BACK = function_modes.put_back


class Onlooker(TorchFunctionMode):
    """A mode of the user's that changes nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("technique", "backend"),
    [(LIME(samples=32, segments=2), "captum"), (GuidedBackprop(), "hooks")],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.parametrize("restored", [True, False], ids=["", "mutant"])
def test_an_interrupt_while_torch_has_a_mode_off_its_stack(
    technique: Technique, backend: str, restored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt arrives as one, and the user's mode is on after it."""
    ask = partial(explain, small_residual(), torch.randn(2, 3, 9, 11), technique, target=3, backend=backend)
    ask()
    if not restored:
        monkeypatch.setattr(function_modes, "put_back", lambda found: None)
    wrong = 0
    with Onlooker():
        inside = function_modes.stack()
        popping = [place for place in places(ask) if place.code is torch.overrides._pop_mode.__code__]
        assert len(popping) >= 3
        for place in popping:
            try:
                assert interrupted(ask, place)
            except RuntimeError:
                wrong += 1
            wrong += [*map(id, function_modes.stack())] != [*map(id, inside)]
            PUT_BACK(inside)
    assert bool(wrong) is not restored
