"""Rounding or bug for gradients, which jump where rounding moves a rectifier across its kink."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Attribution,
    ClassScore,
    Deconvolution,
    ElementWiseCAM,
    Execution,
    GradCAMPlusPlus,
    GradientSHAP,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    InputError,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    Saliency,
    SmoothGrad,
    Technique,
    XGradCAM,
    compare,
    explain,
)
from attribution.agreement import agree
from attribution.comparison import kinks
from attribution.comparison.judgement import Judgement
from attribution.comparison.kinks import KICK
from attribution.comparison.rounding import judge_all, shaken, shaken_model
from attribution.comparison.witness import held_to_float64
from attribution_hooks.gradient.saliency import HooksSaliency
from tests.conftest import build, noise

TECHNIQUES: dict[str, Technique] = {
    "saliency": Saliency(),
    "input_x_gradient": InputXGradient(),
    "integrated_gradients": IntegratedGradients(steps=3),
    "smooth_grad": SmoothGrad(samples=3),
    "smooth_grad, variance": SmoothGrad(samples=3, statistic="variance"),
    "gradient_shap": GradientSHAP(samples=3, baselines=0.25, noise=0.1),
    "guided_backprop": GuidedBackprop(),
    "deconvolution": Deconvolution(),
    "guided_grad_cam": GuidedGradCAM(layer="body"),
    "hires_cam": HiResCAM(layers=("stem",)),
    "element_wise_cam": ElementWiseCAM(layers=("stem",)),
    "layer_cam": LayerCAM(layers=("stem",)),
    "xgrad_cam": XGradCAM(layers=("stem",)),
    "grad_cam_plus_plus": GradCAMPlusPlus(layers=("body",)),
}
EPS = torch.finfo(torch.float32).eps
TARGET = ClassScore([[3, 1], [0, 2]], of="logit")


class Near(nn.Module):
    """Units so near to their kinks that float32 takes the other side, for the first image.

    A unit is open where w·x + b > 0. Its bias is minus the mean of w·x in float32 and in float64.
    """

    def __init__(self, inputs: Tensor, near: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, bias=False)
        self.bias = nn.Parameter(torch.zeros(5, inputs.shape[2] - 2, inputs.shape[3] - 2))
        self.head = nn.Linear(self.bias.numel(), 4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
            exact = nn.functional.conv2d(inputs[:1].double(), self.conv.weight.double())[0]
            single = nn.functional.conv2d(inputs[:1], self.conv.weight)[0].double()
            off = (single - exact).abs().flatten()
            for unit in off.argsort(descending=True)[:near].tolist():  # of these float32 itself is furthest off
                middle = (single + exact).flatten()[unit] / 2
                self.bias.view(-1)[unit] = -middle

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head((self.conv(x) + self.bias).relu().flatten(1))
        return out


@cache
def answers(model_name: str, name: str) -> tuple[dict[str, Attribution], Attribution, list[Attribution]]:
    """float32 by both backends, the oracle, and the oracle of shaken models."""
    model, x, technique = build(model_name), noise(2, 3, 17, 23), TECHNIQUES[name]
    found = {by: explain(model, x, technique, backend=by, target=TARGET) for by in ("hooks", "captum")}
    twins = [
        explain(
            shaken_model(model, torch.float32, seed=1, times=times),
            shaken(x, torch.float32, torch.Generator().manual_seed(1), times=times),
            technique,
            target=TARGET,
        )
        for times in (KICK, -KICK)
    ]
    return found, explain(build(model_name, torch.float64), x.double(), technique, target=TARGET), twins


def changed(result: Attribution, change: Callable[[Tensor], Tensor]) -> Attribution:
    return replace(result, raw={key: change(map_) for key, map_ in result.raw.items()})


def one_place(map_: Tensor) -> Tensor:
    """The largest value of each map is missing."""
    flat = map_.clone().flatten(2)
    return flat.scatter(2, flat.abs().argmax(dim=2, keepdim=True), 0.0).view_as(map_)


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "a percent too large": lambda map_: map_ * 1.01,
    "a tenth of a percent too small": lambda map_: map_ * 0.999,
    "a percent of the next target": lambda map_: map_ + 0.01 * map_.flip(1),
    "upside down": lambda map_: map_.flip(-2),
    "shifted": lambda map_: map_.roll(1, -1),
    "one place missing": one_place,
    "NaN": lambda map_: map_ * float("nan"),
    "another shape": lambda map_: map_[..., 1:],
}


@pytest.mark.parametrize("name", TECHNIQUES)
@pytest.mark.parametrize("model_name", ["cnn", "residual"])
def test_good_backends_round_and_wrong_maps_are_bugs(model_name: str, name: str) -> None:
    found, oracle, twins = answers(model_name, name)
    for backend, result in found.items():
        judged = judge_all(result, oracle, twins)
        assert len(judged) == 4
        assert {each.verdict for each in judged} == {"rounding"}, (backend, judged)
        assert all(each.sharp for each in judged), (backend, judged)
        for wrong, change in WRONG.items():
            told = judge_all(changed(result, change), oracle, twins)
            assert "bug" in {each.verdict for each in told}, (backend, wrong, told)
    near = judge_all(found["hooks"], oracle, plain=found["captum"])
    assert {each.verdict for each in near} == {"rounding"}, near
    far = judge_all(changed(found["hooks"], WRONG["a percent too large"]), oracle, plain=found["captum"])
    assert {each.verdict for each in far} == {"bug"}, far


@pytest.fixture(scope="module")
def near() -> tuple[nn.Module, Tensor]:
    x = noise(1, 3, 13, 17)
    return Near(x).eval(), x


ALONE = Execution(batch_size=1)
"""Two rows at once are convolved by another kernel, whose rounding is another."""

QUESTIONS: dict[str, Technique] = {
    "saliency": Saliency(absolute=False, channels="none"),
    "input_x_gradient": InputXGradient(),
    "smooth_grad": SmoothGrad(samples=2, noise=0.0),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_jump_is_rounding_and_a_percent_is_a_bug(name: str, near: tuple[nn.Module, Tensor]) -> None:
    """No tolerance tells the two from each other: the jump is the larger one."""
    (model, x), technique = near, QUESTIONS[name]
    result = explain(model, x, technique, target=[[1, 3]], execution=ALONE)
    exact = explain(Near(x).double().eval(), x.double(), technique, target=[[1, 3]])
    jump = agree("", result.raw["input"], exact.raw["input"], relative=1e-5)
    percent = agree("", result.raw["input"] * 1.01, result.raw["input"], relative=1e-5)
    assert jump.difference > 2 * percent.difference > 0
    for change, verdict in ((lambda map_: map_, "rounding"), (WRONG["a percent too large"], "bug"), (one_place, "bug")):
        judged = held_to_float64(model, x, {"hooks": changed(result, change)})["hooks"]
        assert {each.verdict for each in judged} == {verdict}, judged
        assert all(each.sharp for each in judged)


def held(monkeypatch: pytest.MonkeyPatch, near: tuple[nn.Module, Tensor], change: Callable[[Tensor], Tensor]) -> Any:
    """What `compare` says where the hooks backend's raw maps are changed in float32."""
    compute = HooksSaliency.compute_many.__func__  # type: ignore[attr-defined]

    def other(cls: Any, asked: Any) -> Any:
        found = compute(cls, asked)
        single = asked[0][1].inputs.dtype == torch.float32
        return [{key: change(map_) if single else map_ for key, map_ in maps.items()} for maps in found]

    monkeypatch.setattr(HooksSaliency, "compute_many", classmethod(other))
    return compare(*near, Saliency(), backends=("captum", "hooks"), target=2)


def test_backends_that_differ_by_a_jump_agree(monkeypatch: pytest.MonkeyPatch, near: tuple[nn.Module, Tensor]) -> None:
    """The hooks backend's maps are those of float64, of which captum's float32 is off by the jumps."""
    exact = explain(Near(near[1]).double().eval(), near[1].double(), Saliency(), target=2).raw["input"]
    found = held(monkeypatch, near, lambda map_: exact.float())
    assert not all(pair.holds for pair in found.agreements["captum", "hooks"])
    assert found.holds, found.table()
    assert [*found.judgements] == ["captum", "hooks"]
    assert "DIFFERS" in found.table()
    assert found.table().count("allowed  rounding") == 2


@pytest.mark.parametrize("wrong", ["a percent too large", "upside down", "one place missing"])
def test_a_backend_that_is_wrong_does_not_hold(
    wrong: str, monkeypatch: pytest.MonkeyPatch, near: tuple[nn.Module, Tensor]
) -> None:
    found = held(monkeypatch, near, WRONG[wrong])
    assert not found.holds
    assert {name: {each.verdict for each in judged} for name, judged in found.judgements.items()} == {
        "captum": {"rounding"},
        "hooks": {"bug"},
    }


def test_backends_that_agree_are_not_judged(near: tuple[nn.Module, Tensor]) -> None:
    found = compare(*near, Saliency(), target=2)
    assert found.holds
    assert not found.judgements


def test_a_model_that_cannot_be_judged_differs_as_before(
    monkeypatch: pytest.MonkeyPatch, near: tuple[nn.Module, Tensor]
) -> None:
    model, x = near
    monkeypatch.setattr(Near, "double", lambda self: (_ for _ in ()).throw(RuntimeError("no float64 here")))
    found = held(monkeypatch, (model, x), WRONG["a percent too large"])
    assert not found.holds
    assert found.left_out == {"float64": "no float64 here"}
    assert "float64 left out: no float64 here" in found.table()


def test_the_rule_at_its_edges() -> None:
    oracle = torch.arange(1, 102, dtype=torch.float64)
    twin = oracle.clone()
    twin[:60] += 0.5
    twin[3] += 8

    def judged(map_: Tensor, **given: Any) -> Judgement:
        return kinks.judge("x", map_, oracle, [twin, oracle], dtype=torch.float32, **given)

    assert judged(twin) == Judgement("x", 8.5, 101.0, 17.0, "rounding", True, 0.5, 0.5)
    assert judged(oracle + 0.5).verdict == "rounding"
    assert judged(oracle + 0.51).verdict == "bug"
    for off, verdict in ((17.0, "rounding"), (17.1, "bug")):
        single = oracle.clone()
        single[9] += off
        assert judged(single).verdict == verdict
    assert judged(oracle + 0.99, plain=2.0).verdict == "rounding"
    assert judged(oracle + 1.01, plain=2.0).verdict == "bug"
    exact = kinks.judge("x", oracle * (1 + 15 * EPS), oracle, [oracle], dtype=torch.float32)
    assert (exact.verdict, exact.sharp) == ("rounding", True)
    assert kinks.judge("x", oracle * (1 + 17 * EPS), oracle, [oracle], dtype=torch.float32).verdict == "bug"
    blunt = kinks.judge("x", oracle, oracle, [oracle + 0.52], dtype=torch.float32)
    assert (blunt.verdict, blunt.sharp) == ("rounding", False)


def test_zeros_do_not_hide_an_error() -> None:
    """Most places of a guided map are zero; the median is that of the others."""
    oracle = torch.zeros(1000, dtype=torch.float64)
    oracle[:9] = 1.0
    assert kinks.judge("x", oracle * 1.01, oracle, [oracle], dtype=torch.float32).verdict == "bug"
    everywhere = kinks.judge("x", oracle + 1e-3, oracle, [oracle + 1.0], dtype=torch.float32)
    assert everywhere.verdict == "rounding"
    zero = kinks.judge("x", oracle * 0, oracle * 0, [oracle * 0], dtype=torch.float32)
    assert (zero.verdict, zero.sharp) == ("rounding", False)


def test_what_cannot_be_judged_is_refused(near: tuple[nn.Module, Tensor]) -> None:
    one = torch.ones(3, dtype=torch.float64)
    for beside, told in ((one[:2], "off by inf"), (one * float("nan"), "off by nan")):
        with pytest.raises(InputError, match=told):
            kinks.judge("x", one, one, [beside], dtype=torch.float32)
    model, x = Near(near[1]).double().eval(), near[1].double()
    with pytest.raises(InputError, match="in float64"):
        held_to_float64(model, x, {"hooks": explain(model, x, Saliency(), target=1)})
