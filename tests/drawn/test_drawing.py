"""The draws themselves: repeatable, of every kind, and the loops that they are held to catch a small mistake."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Attribution, explain
from tests.drawn import test_models, truth
from tests.drawn.case import Case, case
from tests.drawn.habits import AsksType, Lasting
from tests.drawn.network import Network
from tests.oracles.forwards import occlusions

KINDS: dict[str, Callable[[Any], bool]] = {
    "asymmetric stride": lambda m: isinstance(m, nn.Conv2d) and m.stride[0] != m.stride[1],
    "dilated": lambda m: isinstance(m, nn.Conv2d) and m.dilation != (1, 1),
    "depthwise": lambda m: isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1,
    "1×1": lambda m: isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1),
    "without bias": lambda m: isinstance(m, nn.Conv2d) and m.bias is None,
    **{
        mode: lambda m, mode=mode: isinstance(m, nn.Conv2d) and m.padding_mode == mode  # type: ignore[misc]
        for mode in ("reflect", "replicate", "circular")
    },
    "in place": lambda m: getattr(m, "inplace", False) or getattr(m, "name", "").endswith("_"),
    "ceiling": lambda m: getattr(m, "ceil_mode", False),
    "padding not counted": lambda m: isinstance(m, nn.AvgPool2d) and not m.count_include_pad,
    "joined": lambda m: isinstance(m, Network) and bool(m.joins),
    "two heads": lambda m: isinstance(m, Network) and m.tail is not None,
    "asks for a type": lambda m: isinstance(m, AsksType),
    "leaves an attribute": lambda m: isinstance(m, Lasting),
    "channels last": lambda m: isinstance(m, nn.Conv2d) and m.weight.stride()[1] == 1 != m.weight[0].numel(),
}
CLASSES = (
    "ConvTranspose2d", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "ReflectionPad2d",
    "ConstantPad2d", "BatchNorm2d", "GroupNorm", "InstanceNorm2d", "LayerNorm", "LocalResponseNorm", "PReLU",
    "Dropout", "Identity", "Softmax", "Residual", "Dense", "Squeeze", "Held", "SqueezeExcitation", "CNBlock",
    "Shuffle", "PixelShuffle", "Upsample", "Crop", "Reused", "AsksTorch", "AssertsShape", "AsksSize",
    "Conditioned", "Mean", "Largest", "Viewed", "Masked",
)  # fmt: skip


def test_everything_is_drawn() -> None:
    seen: Counter[str] = Counter()
    for seed in range(250):
        drawn = case(random.Random(seed))
        for module in drawn.model.modules():
            seen.update([type(module).__name__, *(kind for kind, is_ in KINDS.items() if is_(module))])
        seen[f"{len(drawn.inputs)} images"] += 1
    every = (*KINDS, *CLASSES, "1 images", "2 images", "3 images")
    assert [kind for kind in every if seen[kind] < 3] == []


def test_the_same_draws_give_the_same_case() -> None:
    one, two = case(random.Random(3)), case(random.Random(3))
    assert repr(one) == repr(two)
    assert torch.equal(one.model(one.inputs), two.model(two.inputs))


@pytest.mark.parametrize("seed", range(3))
def test_the_loop_is_that_of_the_other_oracle(seed: int) -> None:
    drawn = replace(case(random.Random(seed)))
    every = torch.arange(drawn.model(drawn.inputs).shape[1]).expand(len(drawn.inputs), -1)
    found, _ = truth.occlusion(drawn.model, drawn.inputs, drawn.occlusion, every, drawn.of)
    exact = occlusions(drawn.model, drawn.inputs, drawn.occlusion, drawn.of)
    assert torch.allclose(found, exact, rtol=1e-10, atol=1e-12)


def a_millionth_larger(map_: Tensor) -> Tensor:
    return map_ * (1 + 1e-6)


def one_pixel_off(map_: Tensor) -> Tensor:
    changed = map_.clone()
    changed[..., 0, 0] += 1e-6 * changed.abs().amax()
    return changed


@pytest.mark.parametrize("mutant", [a_millionth_larger, one_pixel_off])
@pytest.mark.parametrize("hold", [test_models.occlusion, test_models.grad_cam])
def test_a_small_mistake_is_caught(
    mutant: Callable[[Tensor], Tensor], hold: Callable[[Case], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = case(random.Random(8))
    hold(drawn)

    def wrong(*args: Any, **kwargs: Any) -> Attribution:
        result = explain(*args, **kwargs)
        changed = {name: mutant(map_) for name, map_ in result.raw.items()}
        return replace(result, maps=changed, raw=changed)

    monkeypatch.setattr(test_models, "explain", wrong)
    with pytest.raises(AssertionError, match="float64"):
        hold(drawn)
