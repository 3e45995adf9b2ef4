"""Many layers and targets from one forward and one batched backward: what Captum gives one by one, and nothing left."""

import warnings
from collections import Counter
from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils._python_dispatch import TorchDispatchMode

from attribution import Execution, GradCAM, LayerError, explain
from attribution.agreement import relative_tolerance
from attribution_hooks.cam import backward
from tests.conftest import build, noise

pytestmark = pytest.mark.usefixtures("two_are_many")
LAYERS = ("stem", "stem_relu", "body")
TARGETS = [[0, 3, 1], [4, 1, 2]]
INPUTS = noise(2, 3, 17, 23)


def one_by_one(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """A Captum call per layer and target."""
    return {
        layer: torch.cat(
            [
                LayerGradCam(model, model.get_submodule(layer)).attribute(inputs, target=list(column)).detach()
                for column in zip(*TARGETS, strict=True)
            ],
            dim=1,
        )
        for layer in LAYERS
    }


def agree(found: Tensor, exact: Tensor) -> bool:
    assert found.shape == exact.shape
    size = exact.abs().amax((2, 3), keepdim=True)
    assert size.min() > 1e-6, "a map without signal proves nothing"
    return bool(((found - exact).abs() <= relative_tolerance(exact.dtype) * size).all())


def ask(model: nn.Module, *, budget: int = 2**30) -> Any:
    technique = GradCAM(layers=LAYERS)
    return explain(model, INPUTS, technique, target=TARGETS, execution=Execution(memory_budget=budget))


@pytest.mark.parametrize("budget", [2**30, 40_000, 1], ids=["all at once", "in parts", "one by one"])
def test_layers_and_targets_are_those_of_separate_captum_calls(model_name: str, budget: int) -> None:
    model = build(model_name)
    result = ask(model, budget=budget)
    assert result.provenance["engine stem"] == "backward"
    if budget in (1, 2**30):
        assert result.provenance["targets per backward"] == {1: 1, 2**30: 3}[budget]
    exact = one_by_one(build(model_name), INPUTS)
    assert all(agree(result.raw[layer], exact[layer]) for layer in LAYERS)
    assert not agree(result.raw["stem"].roll(1, dims=1), exact["stem"]), "targets mixed up must be seen"


def test_a_smaller_budget_takes_fewer_targets_at_once() -> None:
    """Of one image; more room is for more images first."""
    model, technique = build("cnn"), GradCAM(layers=LAYERS)
    sizes = [
        explain(
            model, INPUTS[:1], technique, target=TARGETS[:1], execution=Execution(memory_budget=int(2 ** (power / 4)))
        ).provenance["targets per backward"]
        for power in range(40, 96)
    ]
    assert sizes == sorted(sizes)
    assert {1, 2, 3} == set(sizes)


class Stubborn(Function):
    """Looks at its gradient, which cannot be done to a batch of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * (2 if g.abs().sum().item() > 0 else 1)


class Tail(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Stubborn.apply(x)  # type: ignore[no-any-return]


def test_what_torch_cannot_batch_is_done_one_by_one_and_said() -> None:
    model = build("cnn")
    head = model.get_submodule("head")
    assert isinstance(head, nn.Sequential)
    head[1] = nn.Sequential(nn.Flatten(), Tail())
    result = ask(model)
    assert "one by one" in str(result.provenance["backward"])
    assert result.provenance["targets per backward"] == 1
    exact = one_by_one(model, INPUTS)
    assert all(agree(result.raw[layer], exact[layer]) for layer in LAYERS)
    plain = ask(build("cnn"))
    assert "backward" not in plain.provenance
    assert agree(result.raw["stem"], 2 * plain.raw["stem"])


class Shuffled(nn.Module):
    """The older of torch's ways is wrong here: a batch norm in eval mode before a channels-last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.PixelShuffle(2), nn.BatchNorm2d(3)
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(self.norm(self.up(x))).relu().mean((2, 3)))  # type: ignore[no-any-return]


def shuffled() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Shuffled().eval().to(memory_format=torch.channels_last)


@pytest.mark.parametrize("images", [1, 3])
def test_several_targets_are_those_one_by_one_where_torch_batches_wrongly(
    images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = noise(images, 12, 7, 9)
    technique = GradCAM(layers=("up",), relu=False, upsample=False)

    def off() -> float:
        model = shuffled()
        result = explain(model, x, technique, target="all")
        exact = torch.cat([explain(model, x, technique, target=target).map for target in range(5)], dim=1)
        said = "another gradient" in str(result.provenance.get("backward"))
        assert result.provenance["targets per backward"] == (1 if said else 5)
        return float((result.map - exact).abs().max() / exact.abs().max())

    assert off() < 1e-6
    monkeypatch.setattr(backward, "has_rules", lambda *_: False)
    assert off() < 1e-6
    monkeypatch.setattr(backward.Tail, "_proved", lambda *_: True)
    assert images > 1 or off() > 0.1, "torch batches this rightly by now: the proof has no example"


class Operations(TorchDispatchMode):
    """Counts what runs inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func.name())] += 1
        return func(*args, **(kwargs or {}))


def test_each_operation_runs_once_for_all_targets() -> None:
    """And once for the proof, by a backward of its own."""
    model, technique = build("residual"), GradCAM(layers=("stem",))
    convolutions = (
        sum(isinstance(module, nn.Conv2d) for module in model.modules()) - 1
    )  # the stem's is before the layer
    for targets in (4, 5):
        target = [[*range(targets)]] * 2
        explain(model, INPUTS, technique, target=target)  # finds what is kept
        with Operations() as ran:
            result = explain(model, INPUTS, technique, target=target)
        assert result.provenance["targets per backward"] == targets
        assert ran.counts["aten::convolution_backward"] == 2 * convolutions


def test_few_targets_are_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    model, technique = build("cnn"), GradCAM(layers=LAYERS)
    few = explain(model, INPUTS, technique, target=TARGETS)
    assert few.provenance["targets per backward"] == 1
    assert {few.provenance[f"engine {layer}"] for layer in LAYERS} == {"backward"}
    exact = one_by_one(build("cnn"), INPUTS)
    assert all(agree(few.raw[layer], exact[layer]) for layer in LAYERS)
    assert explain(model, INPUTS, technique, target="all").provenance["targets per backward"] == 5


class Attentive(nn.Module):
    """Torch has no rule for many seeds of attention's backward, and warns where it goes on without."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 48), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.mix(self.stem(x).flatten(2).transpose(1, 2))[:, None]
        mixed = nn.functional.scaled_dot_product_attention(*tokens.chunk(3, dim=-1))
        return self.head(mixed[:, 0].mean(1))  # type: ignore[no-any-return]


def test_attention_is_batched_in_silence() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Attentive().eval()
    technique = GradCAM(layers=("stem",), relu=False, upsample=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = explain(model, INPUTS, technique, target="all")
    assert found.provenance["targets per backward"] == 6
    exact = torch.cat([explain(model, INPUTS, technique, target=target).map for target in range(6)], dim=1)
    assert agree(found.map, exact)


class Reversed(Function):
    """The identity, whose gradient has another sign where it is small: not linear in what comes in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return torch.where(g.abs() < 0.02, -g, g)


def test_a_backward_that_is_not_linear_is_taken_one_by_one() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = build("cnn")

        def forward(self, x: Tensor) -> Tensor:
            return self.net.head(Reversed.apply(self.net.body(self.net.pool(self.net.stem(x)))))  # type: ignore[no-any-return, operator]

    model, technique = Net(), GradCAM(layers=("net.stem",), relu=False, upsample=False)
    found = explain(model, INPUTS, technique, target="all")
    exact = torch.cat([explain(model, INPUTS, technique, target=target).map for target in range(5)], dim=1)
    assert agree(found.map, exact)


def test_several_targets_cost_one_backward_more_than_their_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    plain = backward.Tail._grad

    def counted(self: Any, seeds: Tensor, *, batched: bool) -> Any:
        calls.append(batched)
        return plain(self, seeds, batched=batched)

    monkeypatch.setattr(backward.Tail, "_grad", counted)
    ask(build("cnn"))
    assert calls == [True, False]
    calls.clear()
    explain(build("cnn"), INPUTS, GradCAM(layers=LAYERS), target=1)
    assert calls == [False]


def test_lack_of_memory_is_not_taken_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(self: Any, seeds: Tensor, *, batched: bool) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")

    monkeypatch.setattr(backward.Tail, "_grad", hungry)
    with pytest.raises(RuntimeError, match="ran out of memory"):
        ask(build("cnn"))


@pytest.mark.parametrize("targets", [[[1], [2]], TARGETS], ids=["one", "several"])
def test_a_layer_off_the_way_is_named(targets: list[list[int]]) -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.side = build("cnn"), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.side(x)
            return self.net(x)  # type: ignore[no-any-return]

    with pytest.raises(LayerError, match="does not depend on 'side'"):
        explain(Fork(), INPUTS, GradCAM(layers=("net.body", "side")), target=targets)
    with pytest.raises(LayerError, match="does not depend on 'side'"):
        explain(Fork(), INPUTS, GradCAM(layers=("side",)), target=targets)
