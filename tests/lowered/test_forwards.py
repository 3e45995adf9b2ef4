"""Forwards by a lowered network: believed only where it says what the model says, and refused with a reason."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from attribution import (
    RISE,
    ClassScore,
    Execution,
    FeatureAblation,
    FunctionScore,
    KernelSHAP,
    LayerScore,
    NonFiniteError,
    Occlusion,
    ScoreCAM,
    ShapleySampling,
    explain,
)  # fmt: skip
from attribution.lowered import forwards
from attribution.lowered.network import Network
from tests.conftest import noise
from tests.lowered import nets

OWN = Execution(lowered=False, incremental=False)
MADE = Execution(incremental=False)
QUESTIONS = [
    RISE(masks=70, cells=3, seed=1),
    Occlusion(window=(3, 4), stride=(2, 2)),
    FeatureAblation(segments=torch.arange(11 * 14).view(11, 14) // 3),
    ShapleySampling(segments=torch.arange(11 * 14).view(11, 14) // 20, permutations=9),
    KernelSHAP(segments=torch.arange(11 * 14).view(11, 14) // 20, samples=60),
    ScoreCAM(layers=("b",), upsample=False),
]
TARGETS = [[0, 3], [4, 1], [2, 2]]


@pytest.fixture(autouse=True)
def _of_small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if they were worth it."""
    monkeypatch.setattr(forwards, "PLACES", 0)


def images(count: int = 3) -> Tensor:
    return noise(count, 3, 11, 14, dtype=torch.float32, seed=4)


def asked(model: nn.Module, question: Any, execution: Execution = MADE, **how: Any) -> tuple[Tensor, str]:
    x = how.pop("x", images())
    found = explain(model, x, question, target=how.pop("target", TARGETS[: len(x)]), execution=execution, **how)
    (map_,) = found.raw.values()
    return map_, str(found.provenance["forwards"])


def same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-4 * b.abs().max())


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_maps_are_those_of_the_model(question: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "WORTH", 10)
    model = nets.net(nets.Base)
    found, told = asked(model, question)
    wanted, why = asked(model, question, OWN)
    assert told == "lowered: 2 convolutions packed, 1 batch norms folded"
    assert why == "the model's own: Execution.lowered is False"
    assert same(found, wanted)
    assert found.any()
    parts, _ = asked(model, question, Execution(incremental=False, batch_size=7))
    assert same(parts, found)


@pytest.mark.parametrize("which", ["all", "smallest", "strongest"])
def test_a_network_that_is_off_is_not_believed(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All answers, only those of the last and smallest forward, or only the one that changes the score most."""
    question, model, right = RISE(masks=71, cells=3, seed=3), nets.net(nets.Base), Network.__call__
    wanted, _ = asked(model, question, OWN, x=images(1), target=0)
    with torch.no_grad():
        clean, changes = model(images(1))[0, 0], [0.0]

    def call(self: Network, x: Tensor) -> Any:
        found = right(self, x)
        change = (found[:, 0] - clean).abs()
        off = {"all": change >= 0, "smallest": change * 0 + len(x) < 16, "strongest": change > 0.999 * max(changes)}
        changes.append(float(change.max()))
        return torch.where(off[which][:, None], found * 1.2, found) if seen else found

    seen = False
    monkeypatch.setattr(Network, "__call__", call)
    assert asked(model, question, x=images(1), target=0)[1].startswith("lowered")
    seen, told = True, "the model's own: the lowered network answers otherwise than the model"
    found, why = asked(model, question, x=images(1), target=0)
    assert why == told
    assert torch.equal(found, wanted)
    seen = False
    assert asked(model, question, x=images(1), target=0)[1] == told  # it is not tried again
    seen = True
    monkeypatch.setattr(forwards._Proved, "_hold", lambda *_: None)  # without the proof the map is wrong
    assert not same(asked(nets.net(nets.Base), question, x=images(1), target=0)[0], wanted)


class Counting(nets.Base):
    calls = 0

    def middle(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().middle(x) * self.calls


class Drawing(nets.Base):
    def middle(self, x: Tensor) -> Tensor:
        return super().middle(nn.functional.dropout(x, 1e-9, training=True))


class Logarithm(nets.Base):
    """NaN where a mask covers all, which a ReLU of oneDNN would hide."""

    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x.abs().amax((2, 3), keepdim=True).log() + (x - x))


class Mixing(nets.Base):
    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x - x.mean(0))


class Branching(nets.Base):
    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x if x.mean() > 1e9 else 2 * x)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Drawing, "random numbers"),
        (Mixing, "depends on the images beside it"),
        (Branching, "branches on a value"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(462, 5)), "no convolution"),
        (lambda: torch.jit.trace(nets.net(nets.Base), images(1)), "not traceable|no convolution"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_models_that_are_run_themselves(make: Callable[[], nn.Module], why: str) -> None:
    found, told = asked(nets.net(make), QUESTIONS[0])
    wanted, _ = asked(nets.net(make), QUESTIONS[0], OWN)
    assert re.match(f"the model's own: .*({why})", told)
    assert torch.equal(found, wanted)


def test_a_model_that_counts_is_not_answered_for() -> None:
    _, told = asked(nets.net(Counting), QUESTIONS[0])
    assert told.startswith("the model's own")


def test_hooks_see_every_forward() -> None:
    model, seen = nets.net(nets.Base), list[int]()
    model.a.register_forward_hook(lambda module, args, output: seen.append(len(output)))  # type: ignore[union-attr]
    assert "hooks" in asked(model, QUESTIONS[0])[1]
    assert sum(seen) >= 70 * 3


def test_hooks_that_are_gone_are_forgotten() -> None:
    model = nets.net(nets.Base)
    of_one: Any = model.a
    for register in (register_module_forward_hook, of_one.register_forward_hook):
        hook = register(lambda module, args, output: None)
        for _ in range(2):
            assert "hooks" in asked(model, QUESTIONS[0])[1]
        hook.remove()
        assert asked(model, QUESTIONS[0])[1].startswith("lowered")


def test_numbers_that_another_thread_draws_are_none_of_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    right, model, drawn = forwards._Proved._hold, nets.net(nets.Base), list[Tensor]()

    def hold(self: Any, *args: Any) -> None:
        right(self, *args)
        if len(drawn) < 2:  # as between two instructions of this thread
            drawn.append(torch.rand(1))

    monkeypatch.setattr(forwards._Proved, "_hold", hold)
    assert asked(model, QUESTIONS[0])[1].startswith("lowered")
    assert len(drawn) == 2


def test_the_default_device_is_the_callers() -> None:
    model, x = nets.net(nets.Base), images()
    with torch.device("meta"):
        assert asked(model, QUESTIONS[0], x=x)[1].startswith("lowered")


def test_nan_is_not_hidden() -> None:
    question = RISE(masks=60, cells=1, keep=0.5, seed=1)
    for execution in (OWN, MADE):
        with pytest.raises(NonFiniteError):
            asked(nets.net(Logarithm), question, execution)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"x": images().double()}, "float64"),
        ({"execution": Execution(incremental=False, autocast=torch.bfloat16)}, "autocast"),
        ({"execution": Execution(incremental=False, memory_budget=800)}, "memory_budget 800"),
        ({"target": LayerScore("a", 2)}, "one of a layer"),
        ({"x": images(1), "question": RISE(masks=47)}, "47 rows are too few"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_calls_that_are_not_lowered(how: dict[str, Any], why: str) -> None:
    model = nets.net(nets.Base)
    model = model.double() if "float64" in why else model
    assert why in asked(model, how.pop("question", QUESTIONS[0]), **how)[1]


def test_small_images_are_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "PLACES", 210 * 154 + 1)
    assert asked(nets.net(nets.Base), QUESTIONS[0])[1] == "the model's own: 210 rows of 154 places are too few"
    monkeypatch.setattr(forwards, "PLACES", 210 * 154)
    assert asked(nets.net(nets.Base), QUESTIONS[0])[1].startswith("lowered")


@pytest.mark.parametrize("score", [ClassScore("all", of="probability"), FunctionScore(lambda y: y[:, :2] ** 2, "s")])
def test_other_scores(score: Any) -> None:
    model = nets.net(nets.Base)
    found, told = asked(model, QUESTIONS[0], target=score)
    assert told.startswith("lowered")
    assert same(found, asked(model, QUESTIONS[0], OWN, target=score)[0])


def test_nothing_is_left_behind() -> None:
    model = nets.net(nets.Base).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state, held = torch.get_rng_state(), {name: {**vars(module)}.keys() for name, module in model.named_modules()}
    assert asked(model, QUESTIONS[0])[1].startswith("lowered")
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: {**vars(module)}.keys() for name, module in model.named_modules()} == held
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
