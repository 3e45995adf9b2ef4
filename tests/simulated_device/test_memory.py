"""Where a device's memory ends: fewer windows go together, the answer is the same, and all is given back."""

from typing import Any, Literal

import pytest
import torch

from attribution import Execution, GradCAM, Occlusion, ResourceError, explain
from attribution.testing import small_cnn
from tests.conftest import noise
from tests.simulated_device.device import memory_limit

DEVICE = "sim:1"
QUESTION = Occlusion(window=5, stride=2)


def held() -> int:
    module: Any = torch.get_device_module(DEVICE)
    return int(module.memory_allocated(DEVICE))


@pytest.mark.parametrize("incremental", ["always", False])
def test_windows_are_halved_until_they_fit(incremental: Literal["always", False]) -> None:
    model, inputs = small_cnn().to(DEVICE), noise(2, 3, 17, 23).to(DEVICE)
    execution = Execution(incremental=incremental)
    whole = explain(model, inputs, QUESTION, target=1, execution=execution)
    before = held()
    with memory_limit(2**19):
        capped = explain(model, inputs, QUESTION, target=1, execution=execution)
    together, apart = (int(answer.provenance["windows_per_forward"]) for answer in (whole, capped))
    assert apart < together
    torch.testing.assert_close(capped.map, whole.map, rtol=1e-4, atol=1e-6)
    del capped
    assert held() == before


def test_what_does_not_fit_at_all_is_said_and_leaves_nothing_behind() -> None:
    model, inputs = small_cnn().to(DEVICE), noise(2, 3, 17, 23).to(DEVICE)
    before = held()
    with memory_limit(2**10), pytest.raises(ResourceError, match="Tried to allocate"):
        explain(model, inputs, GradCAM(layers=("body",)), target=1)
    assert held() == before
