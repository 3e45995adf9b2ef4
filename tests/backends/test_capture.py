"""The hooks backend's forward ends after the last layer asked for, and only where that is safe."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, FilterVisualization, GradCAM, explain
from attribution_hooks.capture import Gradients, capture
from tests.conftest import build, noise

INPUTS = noise(2, 3, 17, 23)


class Guarded(nn.Module):
    """Swallows exceptions, and cleans up."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.tidy = build("cnn"), [0]

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.net(x)  # type: ignore[no-any-return]
        except Exception:
            return torch.zeros(len(x), 5)
        finally:
            self.tidy[0] += 1


def ran(model: nn.Module, names: tuple[str, ...], ask: Any) -> dict[str, int]:
    calls = dict.fromkeys(names, 0)

    def count(name: str) -> Any:
        def hook(*args: Any) -> None:
            calls[name] += 1

        return hook

    for name in names:
        model.get_submodule(name).register_forward_hook(count(name))
    ask()
    first = dict(calls)
    ask()
    return {name: calls[name] - first[name] for name in names}


@pytest.mark.parametrize(
    ("technique", "after"),
    [
        (Activations(layers=("body", "stem")), 0),
        (Activations(layers=("head.0",)), 1),
        (FilterVisualization(layer="body", channels=(0,), steps=2, size=(17, 23)), 0),
        (GradCAM(layers=("stem",)), 1),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_nothing_runs_after_the_last_layer(technique: Any, after: int) -> None:
    model = build("cnn")
    inputs = INPUTS if technique.needs_inputs else None
    calls = ran(model, ("stem", "head.0"), lambda: explain(model, inputs, technique))
    assert calls["stem"] >= 1
    assert calls["head.0"] == after


def test_a_model_that_swallows_exceptions_does_not_swallow_the_end() -> None:
    model = Guarded()
    found = explain(model, INPUTS, Activations(layers=("net.body",))).map
    expected = explain(model.net, INPUTS, Activations(layers=("body",)), backend="captum").map
    assert torch.equal(found, expected)


def test_captures_may_be_nested() -> None:
    model = build("cnn")
    with torch.no_grad(), capture(model, ["body"]) as outer, capture(model, ["stem"], stop=True) as inner:
        model(INPUTS.clone())
    assert inner["stem"].shape[1] == 6
    with pytest.raises(Exception, match="never ran"):
        _ = outer["body"]
    assert not any(module._forward_hooks for module in model.modules())


def test_watching_changes_no_logit(model_name: str) -> None:
    model = build(model_name)
    plain = model(INPUTS.clone()).detach()
    layers = [name for name, module in model.named_modules() if name]
    modes: tuple[Gradients | None, ...] = (None, "from the layers", "to the layers", "to the images")
    for gradients in modes:
        begins = gradients in ("to the layers", "to the images")
        with torch.set_grad_enabled(begins), capture(model, layers, gradients=gradients):
            watched = model(INPUTS.clone())
        assert torch.equal(watched.detach(), plain)
        assert watched.requires_grad == (gradients is not None)
        assert torch.is_grad_enabled()
