"""Layer by layer in float64 against plain forwards, each between convolutions, so that its tiles are read again."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from torch import Tensor, nn
from torchvision.models.convnext import CNBlock, LayerNorm2d

from attribution import ClassScore, Execution, Occlusion
from attribution_hooks.incremental import steps
from tests.backends.occlusion.truth import ask, error, image, net

pytestmark = pytest.mark.usefixtures("eager")

Layers = Callable[[], dict[str, nn.Module]]


def conv(*args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(*args, **kwargs)


CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "3x3": conv(6, 4, 3, padding=1),
    "no padding": conv(6, 4, 3),
    "even": conv(6, 4, (2, 4), padding=(1, 2)),
    "stride 2": conv(6, 4, 3, stride=2, padding=1),
    "stride (1, 3)": conv(6, 4, (3, 5), stride=(1, 3), padding=(1, 2)),
    "stride beyond the kernel": conv(6, 4, 2, stride=3),
    "dilation": conv(6, 4, 3, dilation=(2, 3), padding=(2, 3)),
    "dilation and stride": conv(6, 4, 3, dilation=2, padding=2, stride=2),
    "groups": conv(6, 4, 3, groups=2, padding=1),
    "depthwise": conv(6, 12, 3, groups=6, padding=1, bias=False),
    "1x1": conv(6, 4, 1),
    "1x1 stride 2": conv(6, 4, 1, stride=2),
    "1x1 stride (2, 3), padded": conv(6, 4, 1, stride=(2, 3), padding=1),
    "1x3 stride 2": conv(6, 4, (1, 3), stride=2, padding=(0, 1)),
    "5x1 stride (1, 2)": conv(6, 4, (5, 1), stride=(1, 2), padding=(2, 0)),
    "same": conv(6, 4, 3, padding="same"),
    "same, dilated": conv(6, 4, (3, 5), padding="same", dilation=(1, 2)),
    "same, even": conv(6, 4, (2, 4), padding="same"),
    "valid": conv(6, 4, 3, padding="valid"),
    "more padding than kernel": conv(6, 4, 3, padding=4),
    "as large as the map": conv(6, 4, (15, 17)),
}

POOLS: dict[str, Callable[[], nn.Module]] = {
    "max": lambda: nn.MaxPool2d(2),
    "max 3/2 padded": lambda: nn.MaxPool2d(3, 2, 1),
    "max ceil": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "max ceil padded": lambda: nn.MaxPool2d((2, 3), (3, 2), (1, 1), ceil_mode=True),
    "max dilated": lambda: nn.MaxPool2d(3, 1, 1, dilation=2),
    "max 1/2": lambda: nn.MaxPool2d(1, 2),
    "max 1x2/2": lambda: nn.MaxPool2d((1, 2), 2),
    "avg": lambda: nn.AvgPool2d(2),
    "avg padded": lambda: nn.AvgPool2d(3, 2, 1),
    "avg 1/2": lambda: nn.AvgPool2d(1, 2),
    "avg padding not counted": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "avg ceil": lambda: nn.AvgPool2d(2, 2, ceil_mode=True),
    "avg ceil padded": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "avg divisor": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=4),
    "adaptive identity": lambda: nn.AdaptiveAvgPool2d((15, 17)),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((7, 5)),
    "adaptive, one side kept": lambda: nn.AdaptiveAvgPool2d((None, 5)),
    "adaptive max": lambda: nn.AdaptiveMaxPool2d(4),
}

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"{name}{' in place' * flag}": partial(getattr(nn, name), inplace=flag)
        for name in ("ReLU", "ReLU6", "SiLU", "Hardswish", "Hardsigmoid", "LeakyReLU", "ELU", "CELU", "SELU")
        for flag in (False, True)
    },
    "Mish in place": lambda: nn.Mish(inplace=True),
    "Hardtanh": lambda: nn.Hardtanh(-0.3, 0.7),
    "GELU": lambda: nn.GELU(),
    "GELU tanh": lambda: nn.GELU(approximate="tanh"),
    "Sigmoid": lambda: nn.Sigmoid(),
    "Tanh": lambda: nn.Tanh(),
    "Softplus": lambda: nn.Softplus(beta=2),
    "Softsign": lambda: nn.Softsign(),
    "LogSigmoid": lambda: nn.LogSigmoid(),
    "PReLU": lambda: nn.PReLU(6),
    "PReLU one": lambda: nn.PReLU(),
    "Dropout": lambda: nn.Dropout(0.7, inplace=True),
    "Dropout2d": lambda: nn.Dropout2d(0.7),
    "Threshold": lambda: nn.Threshold(0.1, -0.2, inplace=True),
    "Softmax": lambda: nn.Softmax(dim=1),
}

OTHERS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm": lambda: nn.BatchNorm2d(6),
    "BatchNorm without weights": lambda: nn.BatchNorm2d(6, affine=False),
    "GroupNorm": lambda: nn.GroupNorm(2, 6),
    "InstanceNorm": lambda: nn.InstanceNorm2d(6, affine=True),
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(3),
    "ConvNeXt block": lambda: CNBlock(6, 0.5, 0.0),
    "ConvNeXt norm": lambda: LayerNorm2d(6),
    "LayerNorm of everything": lambda: nn.LayerNorm((6, 15, 17)),
    "ZeroPad": lambda: nn.ZeroPad2d((1, 2, 0, 3)),
    "ZeroPad below": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.ReLU(inplace=True)),
    "ZeroPad that crops": lambda: nn.ZeroPad2d((-1, 1, 2, -1)),
    "ConstantPad": lambda: nn.ConstantPad2d((1, 0, 2, 1), 0.7),
    "ReflectionPad": lambda: nn.ReflectionPad2d(2),
    "reflecting convolution": lambda: nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"),
    "circular convolution": lambda: nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular"),
    "transposed convolution": lambda: nn.ConvTranspose2d(6, 4, 3, stride=2),
    "PixelShuffle": lambda: nn.Sequential(nn.Conv2d(6, 8, 1), nn.PixelShuffle(2)),
    "ChannelShuffle": lambda: nn.ChannelShuffle(3),
    "Upsample": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
}


def between(build: Callable[[], nn.Module], n: int = 1) -> tuple[nn.Module, Tensor]:
    """The layer on (6, 15, 17), after one convolution and before another."""

    def body(s: Any, x: Tensor) -> Tensor:
        y: Tensor = s.last(s.layer(s.first(x)))
        return y

    def layers() -> dict[str, nn.Module]:
        return {"first": nn.Conv2d(3, 6, 3), "layer": build(), "last": nn.LazyConv2d(3, 2, padding=1)}

    return net(body, layers), image(n)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", [*CONVOLUTIONS, *POOLS, *ACTIVATIONS, *OTHERS])
def test_layer(name: str) -> None:
    model, x = between({**CONVOLUTIONS, **POOLS, **ACTIVATIONS, **OTHERS}[name])
    result = ask(model, x)
    assert error(model, result, x) < 1e-12, result.provenance
    assert result.provenance["engine"] == "incremental"


@pytest.mark.parametrize("name", ["3x3", "max ceil padded", "1x3 stride 2", "ConvNeXt block"])
@pytest.mark.parametrize(
    ("technique", "of"),
    [
        (Occlusion(window=1, stride=1, baseline=(0.3, -2.0, 1.0)), "probability"),
        (Occlusion(window=(17, 19), stride=5), "logit"),
        (Occlusion(window=(6, 7), stride=(5, 4), border="drop", baseline=2.0), "probability"),
        (Occlusion(window=(17, 2), stride=(17, 2)), "probability"),
    ],
    ids=["pixels", "all", "dropped", "columns"],
)
def test_windows(name: str, technique: Occlusion, of: Any) -> None:
    model, x = between({**CONVOLUTIONS, **POOLS, **OTHERS}[name])
    result = ask(model, x, technique, score=ClassScore("all", of=of))
    assert error(model, result, x, technique, of=of) < 1e-12


@pytest.mark.parametrize("execution", [Execution(), Execution(batch_size=7), Execution(memory_budget=2**16)])
def test_batches(execution: Execution) -> None:
    model, x = between(CONVOLUTIONS["stride 2"], n=3)
    result = ask(model, x, execution=execution)
    assert result.provenance["engine"] == "incremental"
    assert error(model, result, x) < 1e-12


@pytest.mark.usefixtures("unproved")
def test_a_wrong_halo_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = steps.convolution

    def wrong(*args: Any, **kwargs: Any) -> Any:
        step = right(*args, **kwargs)
        assert step is not None
        return steps.Step(step.inputs, step.call, step.whole, step.kernel, step.stride, step.dilation, (0, 0))

    monkeypatch.setattr(steps, "convolution", wrong)
    model, x = between(CONVOLUTIONS["5x1 stride (1, 2)"])
    assert error(model, ask(model, x), x) > 1e-3


@pytest.mark.usefixtures("unproved")
def test_a_pool_that_reads_zero_outside_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = steps.pooling

    def wrong(*args: Any, **kwargs: Any) -> Any:
        step = right(*args, **kwargs)
        assert step is not None
        return steps.Step(step.inputs, step.call, step.whole, step.kernel, step.stride, step.dilation, step.padding)

    monkeypatch.setattr(steps, "pooling", wrong)
    model, x = between(lambda: nn.Sequential(nn.LogSigmoid(), nn.MaxPool2d(3, 2, 1)))
    assert error(model, ask(model, x), x) > 1e-3
