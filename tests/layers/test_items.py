"""Items of a layer's output whose keys are digits: an index, an int key, or a string as in torchvision's pyramids."""

from collections import OrderedDict, defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from transformers.modeling_outputs import BaseModelOutputWithPooling

from attribution import Activations, FilterVisualization, GradCAM, LayerError, explain
from tests.conftest import noise

INPUTS = noise(3, 3, 11, 9, dtype=torch.float64)


class Levels(nn.Module):
    """Levels of a pyramid under keys of one kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3)

    def forward(self, x: Tensor) -> Any:
        first = self.a(x).relu()
        second = self.b(first)
        if self.kind == "output":
            return BaseModelOutputWithPooling(last_hidden_state=first, pooler_output=second)
        keys = {"text": ("0", "1"), "number": (0, 1), "both": (0, 1, "0", "1"), "padded": ("00", "01")}[self.kind]
        values: dict[Any, Tensor] = defaultdict(lambda: first) if self.kind == "padded" else OrderedDict()
        values.update(zip(keys, (first, second, 0 * first, 0 * second), strict=False))
        return values


class LevelsRead(nn.Module):
    """Both levels are read, the first one twice."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.fpn = Levels(kind)
        self.one, self.two = nn.Linear(4, 5), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        values = self.fpn(x)
        first, second = {
            "output": lambda: (values.last_hidden_state, values["pooler_output"]),
            "text": lambda: (values["0"], values["1"]),
            "padded": lambda: (values["00"], values["01"]),
        }.get(self.fpn.kind, lambda: (values[0], values[1]))()
        logits: Tensor = self.one(first.mean(dim=(2, 3)).square()) + self.two(second.mean(dim=(2, 3)).square())
        return logits


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("text", ("fpn[0]", "fpn[1]")),
        ("number", ("fpn[0]", "fpn[1]")),
        ("both", ("fpn[0]", "fpn[1]")),
        ("padded", ("fpn[00]", "fpn[01]")),
        ("output", ("fpn[0]", "fpn[pooler_output]")),
        ("output", ("fpn[last_hidden_state]", "fpn[1]")),
    ],
)
@pytest.mark.parametrize("images", [1, 3])
def test_items_by_digits(kind: str, layers: tuple[str, str], images: int) -> None:
    """A number where there is one, else its text, else a position; captured, and put back with its gradient."""
    torch.manual_seed(0)
    model, inputs = LevelsRead(kind).double().eval(), INPUTS[:images]
    first = model.fpn.a(inputs).relu().detach().requires_grad_()
    second = model.fpn.b(first)  # a reader of the first as well
    found = explain(model, inputs, Activations(layers=layers)).maps
    assert torch.equal(found[layers[0]], first)
    assert torch.equal(found[layers[1]], second)
    score = (model.one(first.mean(dim=(2, 3)).square()) + model.two(second.mean(dim=(2, 3)).square()))[:, 3].sum()
    for name, tensor, g in zip(layers, (first, second), torch.autograd.grad(score, (first, second)), strict=True):
        expected = (g.mean(dim=(2, 3), keepdim=True) * tensor).sum(dim=1, keepdim=True).detach()
        for asked in ((name,), layers):
            raw = explain(model, inputs, GradCAM(layers=asked, relu=False), target=3).raw[name]
            torch.testing.assert_close(raw, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["text", "number", "padded", "output"])
def test_items_that_are_not_there(kind: str) -> None:
    for layer in ("fpn[2]", "fpn[x]"):
        with pytest.raises(LayerError, match=r"with keys .*choose one item"):
            explain(LevelsRead(kind).double(), INPUTS, Activations(layers=(layer,)))


class Finest(nn.Module):
    """torchvision's pyramid: an ordered dict with the keys "0" to "3" and "pool"."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
        self.head = nn.Linear(256, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x)["0"].mean(dim=(2, 3)))  # type: ignore[no-any-return]


def test_a_level_of_a_pyramid_of_torchvision() -> None:
    torch.manual_seed(0)
    model, inputs = Finest().double().eval(), noise(1, 3, 32, 64, dtype=torch.float64)
    level = model.backbone(inputs)["0"].detach()
    for name in ("backbone.fpn[0]", "backbone[0]"):
        assert torch.equal(explain(model, inputs, Activations(layers=(name,))).map, level)
        raw = explain(model, inputs, GradCAM(layers=(name,), relu=False), target=2).raw[name]
        weights = model.head.weight[2].detach() / level[0, 0].numel()
        torch.testing.assert_close(raw[:, 0], torch.einsum("d,ndhw->nhw", weights, level), rtol=1e-10, atol=1e-12)
    filters = FilterVisualization(layer="backbone.fpn[0]", channels=(3,), steps=1, size=(32, 64))
    assert explain(model, None, filters).extras["status"].tolist() == [0]
    with pytest.raises(LayerError, match=r"gives a OrderedDict with keys \['0', '1', '2', '3', 'pool'\]"):
        explain(model, inputs, Activations(layers=("backbone.fpn[9]",)))
