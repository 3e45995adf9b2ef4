"""Ablation-CAM: loops over channels, the closed form, tails, and what is believed of either."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import AblationCAM, Attribution, ClassScore, Execution, ModelError, RegionScore, ValueScore, explain
from attribution_captum.ablation_cam import CaptumAblationCAM
from attribution_hooks.cam import ablation_cam, ablations, substitution
from attribution_hooks.cam.ablations import losses
from tests.conftest import BACKENDS, noise
from tests.techniques.cam.nets import CASES, CLASSES, Case, Segments
from tests.techniques.cam.test_any_layer import agree, classes

IMAGE = CASES["image"]
Scores = Callable[[Any, int], list[Tensor]]


def exact(case: Case, model: nn.Module, x: Tensor, scores: Scores, divided: bool = True) -> Tensor:
    """(N, T, *places): each channel of each example set to zero in a forward of its own, in plain loops."""
    layer, rows = model.get_submodule(case.layer), []
    for n in range(len(x)):
        kept: list[Tensor] = []
        with torch.no_grad():
            handle = layer.register_forward_hook(lambda module, given, output, kept=kept: kept.append(output.clone()))
            clean = scores(model(x[n : n + 1]), n)
            handle.remove()
            a = case.values(kept[0])
            maps = [torch.zeros(a.shape[1], dtype=torch.float64) for _ in clean]
            for k in range(len(a)):
                other = kept[0].clone()
                case.values(other)[k] = 0
                handle = layer.register_forward_hook(lambda module, given, output, other=other: other)
                for t, score in enumerate(scores(model(x[n : n + 1]), n)):
                    for p in range(a.shape[1]):
                        weight = float(clean[t] - score) / (abs(float(clean[t])) if divided else 1)
                        maps[t][p] += weight * float(a[k, p])
                handle.remove()
        rows.append(torch.stack(maps).reshape(len(clean), *case.places))
    return torch.stack(rows)


def raw(case: Case, model: nn.Module, x: Tensor, target: Any, backend: str = "hooks", **how: Any) -> Tensor:
    question = AblationCAM(layers=(case.layer,), relu=False)
    return explain(model, x, question, target=target, backend=backend, **how).raw[case.layer]


@BACKENDS
@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("form", CASES)
def test_of_every_form(form: str, examples: int, backend: str) -> None:
    case = CASES[form]
    model, x, targets = case.model(), case.inputs(examples), [[0, 3], [4, 1], [2, 5]][:examples]
    found, wanted = raw(case, model, x, targets, backend), exact(case, model, x, classes(targets))
    assert agree(found, wanted)
    assert not agree(found, exact(case, model, x, classes(targets), divided=False)), "it is a part of the score"
    assert not agree(found.roll(1, dims=1), wanted), "the neighbour's target is another map"


REGION = torch.zeros(3, 7, 11, dtype=torch.bool)
REGION[0, :3, :4] = REGION[1, 2:, 5:] = REGION[2, 6, :] = True


@BACKENDS
def test_of_other_scores(backend: str) -> None:
    model, x = IMAGE.model(), IMAGE.inputs(3)
    asked: dict[str, tuple[Any, Scores]] = {
        "probability": (ClassScore(3, of="probability"), lambda o, n: [o[0].softmax(0)[3]]),
        "value": (ValueScore(2), lambda o, n: [o[0, 2]]),
        "function": (lambda output: output.square().sum(1), lambda o, n: [o[0].square().sum()]),
    }
    for target, by_hand in asked.values():
        assert agree(raw(IMAGE, model, x, target, backend), exact(IMAGE, model, x, by_hand))
    case = Case(Segments, (3, 7, 11), "conv", lambda a: a[0].flatten(1), (7, 11))
    found = raw(case, case.model(), x, RegionScore(4, REGION), backend)
    assert agree(found, exact(case, case.model(), x, lambda o, n: [o[0, 4][REGION[n]].mean()]))
    assert not agree(found, exact(case, case.model(), x, lambda o, n: [o[0, 4][REGION[n - 1]].mean()]))


@pytest.mark.parametrize("budget", [1, 20_000, 2**30])
def test_chunks_change_no_map(budget: int) -> None:
    model, x = IMAGE.model(), IMAGE.inputs(2)
    parts = raw(IMAGE, model, x, "all", execution=Execution(memory_budget=budget))
    assert agree(parts, raw(IMAGE, model, x, "all"))


class Pooled(nn.Module):
    """A convolution, a ReLU, a mean over places, and a linear layer; ``also`` changes logits."""

    def __init__(self, also: Callable[[Tensor, Tensor], Tensor] = lambda a, logits: logits) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Linear(5, CLASSES)
        self.also, self.rows = also, 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        a = self.relu(self.conv(x))
        return self.also(a, self.head(a.mean((2, 3))))


def pooled(also: Callable[[Tensor, Tensor], Tensor] = lambda a, logits: logits) -> Pooled:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        return Pooled(also).double().eval()


X = noise(3, 3, 7, 9, dtype=torch.float64)
POOLED = Case(pooled, (3, 7, 9), "relu", lambda a: a[0].flatten(1), (5, 7))


def answered(model: nn.Module, target: Any = "all", **how: Any) -> Attribution:
    return explain(model, X, AblationCAM(layers=("relu",), relu=False), target=target, **how)


@pytest.mark.parametrize("of", ["logit", "probability", "sigmoid"])
def test_before_a_mean_and_a_linear_layer_it_takes_no_forward(of: Any) -> None:
    model = pooled()
    answered(model, ClassScore("all", of=of))  # what is found out once
    result = answered(model, ClassScore("all", of=of))
    assert result.provenance["engine relu"] == "closed form"
    score = ClassScore(of=of)
    assert agree(result.raw["relu"], exact(POOLED, model, X, lambda o, n: [*score.score_of(o)[0]]))
    assert agree(answered(model, ClassScore("all", of=of), backend="captum").raw["relu"], result.raw["relu"])


def test_there_it_is_cam_divided_by_the_score() -> None:
    model = pooled()
    a, size = model.relu(model.conv(X)).detach(), model(X).detach().abs()[..., None, None]
    cam = torch.einsum("tk,nk,nkhw->nthw", model.head.weight.detach(), a.mean((2, 3)), a) / size
    assert agree(answered(model).raw["relu"], cam)


def test_forwards_of_the_closed_form_are_counted() -> None:
    """The inputs, and one row for each of them and one more for the proof, however many channels there are."""
    model = pooled()
    answered(model)
    counted: list[int] = []

    def count(module: nn.Module, given: Any, output: Any) -> None:
        counted.append(len(output))

    handle = model.register_forward_hook(count)  # a hook rules the closed form out
    answered(model)
    handle.remove()
    assert sum(counted) >= 5 * 3
    counted.clear()

    def note(a: Tensor, logits: Tensor) -> Tensor:
        counted.append(len(a))
        return logits

    own = pooled(note)
    answered(own)
    counted.clear()
    answered(own)
    assert 3 + 4 <= sum(counted) <= 3 + 4 + 6, "with what a call takes to know the model again"


def dead_channels(a: Tensor, logits: Tensor) -> Tensor:
    """A channel that is zero everywhere brings a bonus, which no input here has."""
    return logits + (a.flatten(2).amax(2) == 0).any(1, keepdim=True)


def test_a_tail_that_is_linear_on_the_inputs_alone_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pooled(dead_channels)
    wanted = exact(POOLED, model, X, classes([[*range(CLASSES)]] * 3))
    result = answered(model)
    assert result.provenance["engine relu"] == "tail"
    assert agree(result.raw["relu"], wanted)
    monkeypatch.setattr(ablations, "alike", lambda *_: True)
    assert not agree(answered(model).raw["relu"], wanted), "the proof was not needed"


class Early(nn.Module):
    """Reads a module that ends before the layer in ways of its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(9, CLASSES)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        if self.how == "written":
            stem = F.relu(stem, inplace=True)
            stem += 1
        elif self.how == "written at the end":
            stem = stem.clone()
        a = self.conv(stem)
        if self.how == "written at the end":
            stem.mul_(a.mean((1, 2, 3), keepdim=True).tanh())
        both = torch.cat([a.tanh().mean((2, 3)), stem.square().mean((2, 3))], 1)
        return self.head(both).tanh() * 3  # type: ignore[no-any-return]


def early(how: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        return Early(how).double().eval()


@pytest.mark.parametrize("how", ["read", "written", "written at the end"])
def test_what_runs_before_the_layer_is_left_out_only_where_nothing_misses_it(how: str) -> None:
    case = Case(lambda: early(how), (3, 7, 9), "conv", lambda a: a[0].flatten(1), (3, 5))
    model = early(how)
    result = explain(model, X, AblationCAM(layers=("conv",), relu=False), target="all")
    assert agree(result.raw["conv"], exact(case, model, X, classes([[*range(CLASSES)]] * 3)))
    assert result.provenance["engine conv"] == "tail"
    assert not any("forward" in vars(module) for module in model.modules())


def test_modules_that_must_run_are_found_by_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module before the layer leaves word for what comes behind it, that it ran."""

    class Stem(nn.Conv2d):
        runs = 0

        def forward(self, x: Tensor) -> Tensor:
            Stem.runs += 1
            return super().forward(x)

    class Counting(Early):
        def forward(self, x: Tensor) -> Tensor:
            before = Stem.runs
            found = super().forward(x)
            return found if Stem.runs > before else found * 1.5

    model = Counting("read")
    model.stem = Stem(3, 4, 3)
    model = model.double().eval()
    case = Case(lambda: model, (3, 7, 9), "conv", lambda a: a[0].flatten(1), (3, 5))
    wanted = exact(case, model, X, classes([[0]] * 3))
    result = explain(model, X, AblationCAM(layers=("conv",), relu=False), target=0)
    assert agree(result.raw["conv"], wanted)
    assert result.provenance["engine conv"] == "whole forwards"
    assert "something else" in str(result.provenance["reason conv"])
    monkeypatch.setattr(substitution, "alike", lambda *_: True)
    found = explain(model, X, AblationCAM(layers=("conv",), relu=False), target=0)
    assert not agree(found.raw["conv"], wanted), "the proof was not needed"


MUTANTS: dict[str, Any] = {
    "the neighbour's weight": lambda run, seen: losses(run, seen).roll(1, 2),
    "another example's": lambda run, seen: losses(run, seen).roll(1, 0),
    "of absolute losses": lambda run, seen: losses(run, seen).abs(),
    "5 % too large": lambda run, seen: losses(run, seen) * 1.05,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, targets = IMAGE.model(), IMAGE.inputs(3), [[1, 4]] * 3
    wanted = exact(IMAGE, model, x, classes(targets))
    assert agree(raw(IMAGE, model, x, targets), wanted)
    monkeypatch.setattr(ablation_cam, "losses", MUTANTS[name])
    assert not agree(raw(IMAGE, model, x, targets), wanted)


def test_captums_mutant_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, plain = IMAGE.model(), IMAGE.inputs(2), CaptumAblationCAM.column
    wanted = exact(IMAGE, model, x, classes([[1], [1]]))
    for wrong in (lambda *given: plain(*given).roll(1, 0), lambda *given: plain(*given) * 4 / 3):
        monkeypatch.setattr(CaptumAblationCAM, "column", wrong)
        assert not agree(raw(IMAGE, model, x, 1, "captum"), wanted)


@BACKENDS
def test_a_negative_score_keeps_the_sign_and_a_score_of_zero_is_refused(backend: str) -> None:
    model = pooled()
    one = explain(model, X, AblationCAM(layers=("relu",), relu=False), target=lambda o: o[:, 1], backend=backend)
    other = explain(model, X, AblationCAM(layers=("relu",), relu=False), target=lambda o: -o[:, 1], backend=backend)
    assert agree(other.raw["relu"], -one.raw["relu"])
    with pytest.raises(ModelError, match="a score is 0, and Ablation-CAM tells which part"):
        explain(model, X, AblationCAM(layers=("relu",)), target=lambda o: o[:, 0] * 0, backend=backend)


@BACKENDS
def test_inputs_of_layers_and_items(backend: str) -> None:
    """``head:in`` of a mean is (N, D); the same as the layer that gives it."""
    model = pooled()
    found = explain(model, X, AblationCAM(layers=("conv:in",), relu=False), target=2, backend=backend).raw["conv:in"]
    case = Case(pooled, (3, 7, 9), "first", lambda a: a[0].flatten(1), (7, 9))
    first = nn.Sequential()
    first.add_module("first", nn.Identity())
    first.add_module("rest", model)
    assert agree(found, exact(case, first, X, classes([[2]] * 3)))
