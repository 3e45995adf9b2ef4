"""Several techniques at once on their ways out: errors that name one, passes that fail, interrupts, threads, memory."""

import random
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    Attribution,
    AttributionError,
    Attributor,
    Execution,
    FilterVisualization,
    GradCAM,
    InputError,
    IntegratedGradients,
    LayerCAM,
    LayerError,
    NonFiniteError,
    Run,
    Saliency,
    SmoothGrad,
    TargetError,
    Technique,
    UnknownAttributorError,
    compare,
    explain,
    explain_many,
)
from attribution.technique import Maps
from attribution.testing import guard, small_residual
from attribution.testing.footprint.interruption import interrupted, places
from attribution.testing.footprint.snapshot import Snapshot
from attribution.testing.threads import together
from attribution_hooks.cam import HooksGradCAM, HooksLayerCAM
from attribution_hooks.cam.family import CamAttributor
from tests.conftest import build, noise
from tests.live import Live
from tests.several.asked import alone, cams, every, gradients, unlike
from tests.test_memory_budget import MIB, X, net

INPUTS = noise(2, 3, 17, 23)
CAM = GradCAM(layers=("body",))


class Poisoned(nn.Module):
    """Its gradient is NaN, unless it is healthy, and its scores are not."""

    def __init__(self, *, healthy: bool = False) -> None:
        super().__init__()
        self.healthy = healthy
        self.body, self.head, self.unused = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = self.body(x).relu().mean(dim=(2, 3))
        return self.head(means) if self.healthy else self.head(means) + (0 * means[:, :1]).sqrt()  # type: ignore[no-any-return]


REFUSED: list[tuple[type[AttributionError], str, dict[str, Any]]] = [
    (LayerError, "second", {"first": CAM, "second": LayerCAM(layers=("nothing",))}),
    (InputError, "second", {"first": Saliency(), "second": IntegratedGradients(baseline=(1.0, 2.0))}),
    (InputError, "second", {"first": CAM, "second": FilterVisualization(layer="body", channels=(0,))}),
]


@pytest.mark.parametrize(("error", "label", "asked"), REFUSED, ids=["layer", "baseline", "no inputs"])
def test_who_is_refused_is_named_before_any_work(
    error: type[AttributionError], label: str, asked: dict[str, Technique]
) -> None:
    model = build("cnn")
    with guard(model, INPUTS), pytest.raises(error, match=f"^{label}: ") as caught:
        explain_many(model, INPUTS, asked)
    assert caught.value.label == label


def test_who_fails_on_the_way_is_named_and_nothing_is_returned() -> None:
    first = GradCAM(layers=("body",))
    for model, label, kind in ((Poisoned(), "first", NonFiniteError), (Poisoned(healthy=True), "second", LayerError)):
        model.eval()
        for layers in (("unused",), ("body", "unused")):
            second = LayerCAM(layers=layers)
            with guard(model, INPUTS), pytest.raises(kind, match=rf"^{label}: (?!{label})") as caught:
                explain_many(model, INPUTS, {"first": first, "second": second}, target=1)
            with pytest.raises(kind) as single:  # in a call of its own the first fails too, or only the second does
                explain(model, INPUTS, first if label == "first" else second, target=1)
            assert (str(caught.value), caught.value.label) == (f"{label}: {single.value}", label)
    model = Poisoned().eval()
    with pytest.raises(TargetError, match=r"^first: target 9 is out of range"):
        explain_many(model, INPUTS, {"first": first, "second": first}, target=9)
    with pytest.raises(NonFiniteError, match=r"^gradient: "):
        explain_many(model, INPUTS, {"values": Activations(layers=("body",)), "gradient": Saliency()}, target=1)


def test_what_is_no_question_is_refused() -> None:
    model = build("cnn")
    for given in ({}, [CAM], {"a": GradCAM}, {1: CAM}, {"": CAM}, CAM):
        with pytest.raises(InputError, match="give a dict such as"):
            explain_many(model, INPUTS, given)  # type: ignore[arg-type]
    with pytest.raises(TargetError, match="none of a, b explains a score"):
        explain_many(model, INPUTS, {"a": Activations(), "b": Activations()}, target=1)
    with pytest.raises(UnknownAttributorError, match=r"^a: no attributor grad_cam\.nobody"):
        explain_many(model, INPUTS, {"a": CAM}, backend="nobody")
    with pytest.raises(InputError, match=r"^a: comparing needs two"):
        compare(model, INPUTS, {"a": CAM}, backends=["hooks"])


def test_a_pass_that_fails_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = build("cnn"), {"a": CAM, "b": LayerCAM(layers=("body",))}

    def fails(cls: Any, asked: Any) -> list[Maps]:
        for _, run in asked:
            run.inputs.tensor.requires_grad_()  # of this pass, and of no other
        raise RuntimeError("not together")

    monkeypatch.setattr(CamAttributor, "compute_many", classmethod(fails))
    with guard(model, INPUTS):
        found = explain_many(model, INPUTS, asked, target=1)
    for name, each in found.items():
        assert each.provenance["pass"] == "its own, since together they fail: not together"
        assert not unlike(each, alone(model, INPUTS, asked[name], 1))


class Shouting(HooksLayerCAM):
    """Another `compute` than that of its family."""

    backend: ClassVar[str] = "shouting"

    def compute(self, run: Run[Any]) -> Maps:  # type: ignore[misc]
        return {name: 2 * map_ for name, map_ in super().compute(run).items()}


class Plain(Attributor[Saliency]):
    """A stranger without `compute_many`, who makes leaves of its inputs and writes into them."""

    technique_type: ClassVar[type[Saliency]] = Saliency
    backend: ClassVar[str] = "plain"

    def compute(self, run: Run[Saliency]) -> Maps:
        x = run.inputs.tensor.requires_grad_()
        (gradient,) = torch.autograd.grad(run.scores(run.forward(x)).sum(), x)
        x.detach().zero_()
        return {"input": gradient[:, None].abs()}


def test_strangers_go_alone(registered: Any) -> None:
    registered(Plain)
    registered(Shouting)
    model = build("cnn")
    found = explain_many(model, INPUTS, {"a": Saliency(), "b": Saliency(channels="sum")}, backend="plain", target=1)
    for name, technique in {"a": Saliency(), "b": Saliency(channels="sum")}.items():
        assert found[name].provenance["pass"] == "its own"
        assert not unlike(found[name], explain(model, INPUTS, technique, backend="plain", target=1))
    loud = {layer: LayerCAM(layers=(layer,)) for layer in ("body", "stem")}
    for layer, each in explain_many(model, INPUTS, loud, backend="shouting", target=1).items():
        assert torch.equal(each.raw[layer], 2 * explain(model, INPUTS, loud[layer], target=1).raw[layer])
    assert HooksGradCAM(model, CAM).family == HooksLayerCAM(model, loud["body"]).family
    assert Shouting(model, loud["body"]).family != Shouting(model, loud["stem"]).family


def test_maps_for_other_techniques_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_few(cls: Any, asked: Sequence[Any]) -> list[Maps]:
        return [attributor.compute(run) for attributor, run in asked][1:]

    monkeypatch.setattr(CamAttributor, "compute_many", classmethod(too_few))
    with pytest.raises(AttributionError, match="a, b: compute_many did not return maps for each of the 2 techniques"):
        explain_many(build("cnn"), INPUTS, {"a": CAM, "b": CAM}, target=1)


@pytest.mark.parametrize("asked", [every(), cams("stem", "body")], ids=["every", "cams"])
def test_an_interrupt_anywhere_leaves_no_trace(asked: dict[str, Technique]) -> None:
    """At some of the lines that a call passes; in a model that is copied, and in one that cannot be."""
    draw, locked = random.Random(0), small_residual()
    locked.lock = threading.Lock()  # type: ignore[assignment]
    for model in (small_residual(), locked):
        ask = partial(explain_many, model, INPUTS, asked, target=[[1, 3], [0, 2]])
        right = ask()
        passed = places(ask)
        for place in draw.sample([*passed], 6):
            before = Snapshot(model, INPUTS)
            interrupted(ask, place, draw.randint(1, passed[place]))
            assert not before.changes(), place
        assert not [name for name, each in ask().items() if unlike(each, right[name])]


def test_threads_share_a_model() -> None:
    model, asked = build("residual"), {**cams(), **gradients()}
    inputs = [noise(1, 3, 17, 23, seed=number) for number in range(3)]
    right = [explain_many(model, x, asked, target=number) for number, x in enumerate(inputs)]
    wrong: list[str] = []

    def ask(number: int) -> None:
        found = explain_many(model, inputs[number], asked, target=number)
        wrong.extend(name for name, each in found.items() if unlike(each, right[number][name]))

    assert together(*[partial(ask, number) for number in range(3)], rounds=2) == []
    assert not wrong


@pytest.mark.parametrize("targets", [1, 8])
def test_the_memory_budget_holds_for_all(targets: int) -> None:
    model, target = net(), [[*range(targets)]] * len(X)
    layers = (("0",), ("3",), ("0", "3"), ("3",))
    kinds = (LayerCAM, GradCAM, GradCAM, LayerCAM)
    asked = {f"{n}": kind(layers=own, upsample=False) for n, (kind, own) in enumerate(zip(kinds, layers, strict=True))}

    def peak(budget: int) -> tuple[dict[str, Attribution], int]:
        ask = partial(explain_many, model, X, asked, target=target, execution=Execution(memory_budget=budget))
        ask()  # what is found out once
        with Live() as live:
            found = ask()
        return found, live.peak - 2 * sum(map_.nbytes for each in found.values() for map_ in each.raw.values())

    tight, held = peak(8 * MIB)
    roomy, free = peak(1024 * MIB)
    assert held <= 8 * MIB + X.nbytes
    assert free > 1.25 * held, "all images at once need more"
    for name, technique in asked.items():
        assert all(pair.holds and not pair.degenerate for pair in technique.agreement(tight[name], roomy[name]))


def test_sums_that_are_shared_hold_no_more_than_one_alone() -> None:
    model, x = net(), X[:2]
    execution = Execution(memory_budget=4 * MIB)
    several = {each: SmoothGrad(samples=6, statistic=each) for each in ("mean", "squared", "variance")}

    def peak(asked: dict[str, Technique]) -> Any:
        ask = partial(explain_many, model, x, asked, target=1, execution=execution)
        ask()
        with Live() as live:
            found = ask()
        return live.peak - 2 * sum(map_.nbytes for each in found.values() for map_ in each.raw.values())

    assert peak({**several}) <= peak({"mean": several["mean"]}) + 4 * x.nbytes
