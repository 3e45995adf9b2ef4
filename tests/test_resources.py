"""Lack of memory becomes a typed error that says what to change; other errors stay what they are."""

import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, ModelError, Occlusion, ResourceError, explain


class _Hungry(nn.Module):
    """Fails as torch does when more than ``limit`` images come at once."""

    def __init__(self, limit: int, message: str) -> None:
        super().__init__()
        self.limit, self.message = limit, message
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.limit:
            raise RuntimeError(self.message)
        pooled: Tensor = self.linear(x.mean((2, 3)))
        return pooled


LACKS = ["std::bad_alloc", "could not create a primitive"]
LACK = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"


def test_out_of_memory_is_a_resource_error_that_names_the_way_out() -> None:
    inputs, technique = torch.rand(1, 3, 17, 23), Occlusion(window=5, stride=3)
    said = r"ran out of memory .* smaller batch_size or memory_budget \(now 8 and"
    with pytest.raises(ResourceError, match=said):
        explain(_Hungry(2, LACK), inputs, technique, backend="captum", execution=Execution(batch_size=8))
    with pytest.raises(ResourceError, match=said):
        explain(_Hungry(0, LACK), inputs, technique, execution=Execution(batch_size=8))


@pytest.mark.parametrize("lack", [LACK, *LACKS])
def test_occlusion_goes_on_with_fewer_windows_where_memory_runs_out(lack: str) -> None:
    inputs, technique = torch.rand(1, 3, 17, 23), Occlusion(window=5, stride=3)
    short = explain(_Hungry(2, lack), inputs, technique, target=1, execution=Execution(batch_size=8))
    assert short.provenance["windows_per_forward"] == 2
    torch.manual_seed(0)
    model = _Hungry(2, lack)
    maps = [explain(model, inputs, technique, target=1, execution=Execution(batch_size=size)).map for size in (8, 2)]
    assert maps[0].abs().max() > 1e-3
    assert torch.equal(maps[0], maps[1])


@pytest.mark.parametrize("message", ["mat1 and mat2", "could not create a primitive descriptor for a matmul"])
def test_any_other_runtime_error_of_the_model_is_not_put_down_to_memory(message: str) -> None:
    with pytest.raises(ModelError, match=message):
        explain(_Hungry(2, message), torch.rand(3, 3, 17, 23), Occlusion(window=5, stride=3))
