"""``prepared``: no comparison of copy and model inside, one at the end."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from attribution import Activations, GradCAM, ModelError, explain, prepared
from attribution.isolation.structural_copy import Shadow
from attribution.testing import guard, small_cnn, small_residual
from tests.conftest import noise

X = noise(2, 3, 17, 23)


def _noted(found: list[object], fits: Callable[[Shadow, nn.Module], bool]) -> Callable[[Shadow, nn.Module], bool]:
    def noted(shadow: Shadow, model: nn.Module) -> bool:
        found.append(model)
        return fits(shadow, model)

    return noted


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each comparison of a copy with its model."""
    found: list[object] = []
    fits = Shadow.fits
    monkeypatch.setattr(Shadow, "fits", _noted(found, fits))
    return found


def test_inside_nothing_is_compared_and_answers_are_the_same(compared: list[object]) -> None:
    model = small_residual()
    plain = explain(model, X, GradCAM(), target=1)
    with guard(model), prepared(model):
        compared.clear()
        found = [explain(model, X, GradCAM(), target=1) for _ in range(3)]
        assert not compared
    assert len(compared) == 1
    assert all(torch.equal(each.map, plain.map) for each in found)
    explain(model, X, GradCAM(), target=1)
    assert len(compared) == 2


def test_values_may_change_inside() -> None:
    model, fresh = small_residual(), small_residual()
    with prepared(model), torch.no_grad():
        explain(model, X, Activations(layers=("body",)))
        for each in (model, fresh):
            for tensor in [*each.parameters(), *(b for b in each.buffers() if b.is_floating_point())]:
                tensor.mul_(1.25)
        found = explain(model, X, Activations(layers=("body",))).map
    expected = explain(fresh, X, Activations(layers=("body",))).map
    assert torch.equal(found, expected)


def _replace_a_layer(model: nn.Module) -> None:
    model.stem = nn.Conv2d(3, 8, 3, padding=1)


def _hook(model: nn.Module) -> None:
    model.get_submodule("stem").register_forward_hook(lambda module, args, output: 2 * output)


def _set_an_attribute(model: nn.Module) -> None:
    setattr(model.get_submodule("stem"), "padding", (2, 2))  # noqa: B010  # a module does not declare it


def _fail(model: nn.Module) -> None:
    _hook(model)
    raise ZeroDivisionError


def _ask_and(change: Callable[[nn.Module], None], model: nn.Module) -> None:
    explain(model, X, GradCAM(), target=1)
    change(model)


@pytest.mark.parametrize("change", [_replace_a_layer, _hook, _set_an_attribute])
def test_another_change_is_told_when_the_block_is_left(change: Callable[[nn.Module], None]) -> None:
    model = small_cnn()
    with pytest.raises(ModelError, match="replaced inside"), prepared(model):
        _ask_and(change, model)
    after = explain(model, X, Activations(layers=("stem",)), target=None).map
    with torch.no_grad():
        assert torch.equal(after, model.get_submodule("stem")(X))


class Counting(nn.Module):
    """Its forward counts, and answers by the count."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.runs = nn.Conv2d(3, 4, 3), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        logits: torch.Tensor = self.stem(x).mean((2, 3)) * self.runs
        return logits


def test_a_forward_that_changes_attributes_is_told() -> None:
    model = Counting().eval()
    with pytest.raises(ModelError, match="its own forward"), prepared(model):
        explain(model, X, GradCAM(layers=("stem",)), target=1)
    assert model.runs == 0


def test_an_error_inside_is_passed_on_and_blocks_may_be_nested() -> None:
    model = small_cnn()
    with pytest.raises(ZeroDivisionError), prepared(model):
        _ask_and(_fail, model)
    with prepared(model), prepared(model):
        explain(model, X, GradCAM(), target=1)
