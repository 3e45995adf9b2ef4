"""Values of many tensors: written back where they changed and nowhere else, in as few kernels as there are dtypes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import GradCAM, explain
from attribution.isolation.context import isolated
from attribution.running import torch_internals, values
from attribution.running.values import Values, differ, write
from tests.conftest import build, noise


@pytest.fixture(params=["host", "joined"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tensors are joined where each look is a wait; here so that the test needs no such device."""
    if request.param == "joined":
        monkeypatch.setattr(values, "_joins", lambda tensor: tensor.layout == torch.strided)
    return str(request.param)


def several() -> list[Tensor]:
    infinite = torch.tensor([float("-inf"), 1.0])
    return [noise(3, 4), noise(5).double(), torch.tensor(7), infinite, torch.tensor([True, False]), torch.empty(0)]


@pytest.mark.usefixtures("way")
def test_what_was_written_is_given_back_and_nothing_else_is_touched() -> None:
    tensors = several()
    before = [tensor.clone() for tensor in tensors]
    noted = Values(tensors)
    tensors[0].data[1, 2] += 1  # counts no version
    tensors[2] += 1
    versions = [tensor._version for tensor in tensors]
    noted.give_back()
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    written = [tensor._version != version for tensor, version in zip(tensors, versions, strict=True)]
    assert written == [True, False, True, False, False, False]


@pytest.mark.usefixtures("way")
def test_a_tensor_that_was_resized_has_its_shape_again() -> None:
    tensor = torch.arange(4.0)
    noted = Values([tensor])
    tensor.resize_(9)
    noted.give_back()
    assert tensor.tolist() == [0, 1, 2, 3]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("apart", [2**24, 1])
def test_a_difference_is_found_in_the_pair_that_has_it(apart: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "APART", apart)
    tensors = several()
    for index, tensor in enumerate(tensors[:5]):
        others = [each.clone() for each in tensors]
        assert not any(differ([*zip(tensors, others, strict=True)]))
        others[index] = tensor.logical_not() if tensor.dtype == torch.bool else tensor + 1e-3 if index < 2 else -tensor
        assert differ([*zip(tensors, others, strict=True)]) == [place == index for place in range(6)]
    assert differ([(torch.zeros(2), torch.zeros(3))]) == [True]


def test_one_kernel_writes_all_of_a_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[set[torch.dtype]] = []
    plain: Any = torch_internals.copy_together

    def counted(targets: list[Tensor], sources: list[Tensor]) -> None:
        calls.append({tensor.dtype for tensor in (*targets, *sources)})
        plain(targets, sources)

    monkeypatch.setattr(torch_internals, "copy_together", counted)
    targets, sources = [torch.zeros(2), torch.tensor(1), torch.zeros(3)], [noise(2), torch.tensor(4), noise(3)]
    write(targets, sources)
    assert calls == [{torch.float32}]
    assert all(torch.equal(a, b) for a, b in zip(targets, sources, strict=True))
    calls.clear()
    model = build("residual")
    with isolated(model):
        pass
    with isolated(model):  # whose copy follows the buffers of the model: means and variances, and counts of batches
        assert sorted(map(str, [dtype for kinds in calls for dtype in kinds])) == ["torch.float32", "torch.int64"]
    assert all(len(kinds) == 1 for kinds in calls), "torch takes a list of several dtypes one by one"


def test_the_copy_follows_buffers_of_every_dtype() -> None:
    model, x = build("residual"), noise(1, 3, 17, 23)
    technique = GradCAM(layers=("body",))
    before = explain(model, x, technique, target=1).map
    for buffer in model.buffers():
        buffer.data.add_(1)
    changed = explain(model, x, technique, target=1).map
    assert not torch.equal(before, changed)
    with isolated(model) as (copy, _):
        assert all(torch.equal(a, b) for a, b in zip(copy.buffers(), model.buffers(), strict=True))
