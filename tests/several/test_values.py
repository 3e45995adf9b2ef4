"""Several techniques at once have the answers that each has alone: bits, forwards, closed forms, scores, order."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    Attribution,
    GradCAM,
    IntegratedGradients,
    LayerCAM,
    Occlusion,
    RegionScore,
    SmoothGrad,
    Technique,
    ValueScore,
    compare,
    explain_many,
)
from attribution_hooks.cam import HooksLayerCAM, backward, family, one_pass
from attribution_hooks.cam.forward import forward
from attribution_hooks.gradient.sums import _Sums
from tests.cases import BACKENDS as BACKEND_NAMES
from tests.conftest import BACKENDS, MODELS, build, noise
from tests.draw import some
from tests.several.asked import CAMS, ROWS, alone, cams, counted, every, gradients, unlike

TARGETS: dict[str, Any] = {"int": 3, "each": [[3, 1], [0, 2], [4, 4]], "all": "all", "prediction": None}


CASES = some(
    [
        pytest.param(model, target, images, backend, id=f"{backend}-{model}-{target}-{images}")
        for model in MODELS
        for target in TARGETS
        for images in (1, 3)
        for backend in BACKEND_NAMES
    ],
    0.3,
    whole=("hooks-residual-all-3", "hooks-cnn-prediction-3"),
)


@pytest.mark.parametrize(("model_name", "target", "images", "backend"), CASES)
def test_each_answer_has_the_bits_of_a_call_of_its_own(model_name: str, target: str, images: int, backend: str) -> None:
    model, inputs, asked = build(model_name), noise(images, 3, 17, 23), TARGETS[target]
    asked = asked[:images] if isinstance(asked, list) else asked
    found = explain_many(model, inputs, every(), backend=backend, target=asked)
    assert [*found] == [*every()]
    for name, technique in every().items():
        assert not unlike(found[name], alone(model, inputs, technique, asked, backend=backend)), name


@pytest.mark.parametrize("targets", [1, 6])
@pytest.mark.parametrize("pooled", [True, False])
def test_with_layers_of_others_an_answer_is_equal_within_rounding(pooled: bool, targets: int) -> None:
    model, inputs = counted(pooled=pooled, dtype=torch.float64), noise(3, 3, 17, 23, dtype=torch.float64)
    layers = (("stem",), ("body",), ("body", "stem"), ("pool",), ("pool", "stem"), ("body", "pool"))
    made = [kind(layers=own, relu=False) for kind, own in zip(CAMS, layers, strict=True)]
    asked = {each.name: each for each in made}
    target = [[*range(targets)]] * 3
    found = explain_many(model, inputs, asked, target=target)
    for name, technique in asked.items():
        assert not unlike(found[name], alone(model, inputs, technique, target), within=1e-12), name


def test_four_cams_are_one_forward_and_sums_share_their_points() -> None:
    model, inputs = counted(), noise(2, 3, 17, 23)

    def rows(asked: Any) -> list[int]:
        explain_many(model, inputs, asked, target=3)  # what is found out once
        ROWS.clear()
        explain_many(model, inputs, asked, target=3)
        return [*ROWS]

    assert rows(cams()) == [2]
    assert rows(cams("stem", "body")) == [2]
    some = gradients()
    assert rows({name: some[name] for name in ("saliency", "input_x_gradient")}) == [2]
    assert rows({name: some[name] for name in ("mean", "squared", "variance")}) == [2, 8, 2]
    assert rows({name: some[name] for name in ("3 steps", "4 steps")}) == [2, 2, 6, 2, 2, 8]  # clean, baseline, line
    assert rows({"a": GradCAM(layers=("body",)), "b": GradCAM(layers=("body",), tokens="channels_first")}) == [2, 2]


def test_grad_cam_keeps_its_closed_form_beside_techniques_that_have_none() -> None:
    model, inputs = counted(), noise(2, 3, 17, 23)
    found = explain_many(model, inputs, cams("act"), target="all")
    engines = {name: each.provenance["engine act"] for name, each in found.items()}
    assert engines == {name: "closed form" if name == "grad_cam" else "backward" for name in cams("act")}
    only = explain_many(model, inputs, {"a": GradCAM(layers=("act",)), "b": GradCAM(layers=("act",))}, target="all")
    assert {each.provenance["engine act"] for each in only.values()} == {"closed form"}
    tail = counted(pooled=False)
    found = explain_many(tail, inputs, cams("act"), target="all")
    assert {each.provenance["engine act"] for each in found.values()} == {"backward"}
    assert {each.provenance["targets per backward"] for each in found.values()} == {7}
    assert not unlike(found["grad_cam"], alone(tail, inputs, cams("act")["grad_cam"], "all"), within=2e-6)


def test_each_technique_keeps_its_own_score() -> None:
    model, inputs = build("cnn"), noise(1, 3, 17, 23)
    found = explain_many(model, inputs, every())
    assert {name: str(each.score) for name, each in found.items() if str(each.score) != "logit"} == {
        "occlusion": "probability",
        "activations": "None",
    }


class Dense(nn.Module):
    """A map of scores (N, 4, h, w), or numbers (N, 2)."""

    def __init__(self, *, numbers: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.body, self.maps, self.numbers = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 1), numbers
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.maps(self.body(x).tanh())
        return maps.mean(dim=(2, 3))[:, :2] if self.numbers else maps


@BACKENDS
@pytest.mark.parametrize("images", [1, 3])
def test_regions_values_and_functions(images: int, backend: str) -> None:
    mask = torch.zeros(images, 9, 13, dtype=torch.bool)
    for n in range(images):
        mask[n, n : n + 4, 2 : 9 - n] = True
    inputs, plain = noise(images, 3, 11, 15), every()
    for numbers, score in (
        (False, RegionScore(2, mask)),
        (False, RegionScore(1)),
        (True, ValueScore(1)),
        (True, lambda output: output.square().sum(dim=1)),
    ):
        model = Dense(numbers=numbers).eval()
        found = explain_many(model, inputs, plain, target=score, backend=backend)
        for name, technique in plain.items():
            other = alone(model, inputs, technique, score, backend=backend)
            assert not unlike(found[name], other), (name, score)


def test_the_order_of_techniques_changes_no_answer() -> None:
    model, inputs, asked = build("residual"), noise(3, 3, 17, 23), every()
    straight = explain_many(model, inputs, asked, target=2)
    mixed = explain_many(model, inputs, dict(reversed(asked.items())), target=2)
    assert [*mixed] == [*reversed(asked)]
    assert not [name for name in asked if unlike(straight[name], mixed[name])]


class Drawing(nn.Module):
    """Adds noise in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build("cnn")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.1 * torch.rand_like(x))  # type: ignore[no-any-return]


def test_a_model_that_draws_random_numbers_draws_those_of_a_call_of_its_own() -> None:
    model, inputs = Drawing(), noise(2, 3, 17, 23)
    asked = {"a": GradCAM(layers=("net.body",)), "b": IntegratedGradients(steps=3), "c": Occlusion(window=9, stride=9)}
    asked["d"] = Activations(layers=("net.body",))
    before = torch.get_rng_state()
    found = explain_many(model, inputs, asked, target=1)
    assert torch.equal(torch.get_rng_state(), before)
    for name, technique in asked.items():
        assert not unlike(found[name], alone(model, inputs, technique, 1)), name


def test_compare_asks_several() -> None:
    asked = {"cam": GradCAM(layers=("body",)), "noise": SmoothGrad(samples=3), "windows": Occlusion(window=9, stride=7)}
    found = compare(build("cnn"), noise(2, 3, 17, 23), asked)
    assert [*found] == [*asked]
    for name, each in found.items():
        assert each.holds
        assert [*each.attributions] == ["captum", "hooks"]
        assert each.attributions["captum"].score == each.attributions["hooks"].score, name
        single = compare(build("cnn"), noise(2, 3, 17, 23), asked[name])
        assert not unlike(each.attributions["hooks"], single.attributions["hooks"])


QUESTIONS: dict[str, dict[str, Technique]] = {
    "cams": cams(),
    "gradients": gradients(),
    "layers": {"a": LayerCAM(layers=("stem",)), "b": LayerCAM(layers=("body", "stem"))},
}
FORMS: dict[str, Any] = {"few": [[3, 1], [0, 2], [4, 4]], "many": "all"}


def answers(question: str, form: str) -> dict[str, Attribution]:
    return explain_many(build("cnn"), noise(3, 3, 17, 23), QUESTIONS[question], target=FORMS[form])


def faults(truth: Mapping[tuple[str, str], Mapping[str, Attribution]]) -> list[str]:
    """Techniques whose answers beside others are not those that they have alone."""
    return [
        name
        for key, right in truth.items()
        for name, each in answers(*key).items()
        if unlike(each, right[name], within=1e-5)
    ]


def targets_of_another(tail: Any, target: Tensor, size: int, proved: Any = backward.Tail.proved) -> Any:
    return proved(tail, target.roll(1, dims=1), size)


def layers_of_another(runs: Any, names: Any, forward: Any = forward) -> Any:
    ran = forward(runs, names)
    return replace(ran, outputs=dict(zip(ran.outputs, reversed(ran.outputs.values()), strict=True)))


def maps_of_another(asked: Any, maps_of: Any = one_pass.maps_of) -> Any:
    return maps_of(asked)[::-1]


def moments_of_another(sums: _Sums, maker: Any, technique: Any) -> dict[str, list[Tensor]]:
    return {name: [each[0]] * len(maker.moments(technique)) for name, each in sums.totals[technique.sums].items()}


def writes_into_the_gradient(maker: Any, activation: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.relu_() * activation).sum(dim=2)


MUTANTS = [
    (backward.Tail, "proved", targets_of_another),
    (one_pass, "forward", layers_of_another),
    (family, "maps_of", maps_of_another),
    (_Sums, "of", moments_of_another),
    (HooksLayerCAM, "combine", writes_into_the_gradient),
]


@pytest.mark.parametrize(("owner", "name", "mutant"), MUTANTS, ids=lambda each: getattr(each, "__name__", None))
def test_wrong_ways_to_share_are_seen(owner: Any, name: str, mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = build("cnn"), noise(3, 3, 17, 23)
    truth = {
        (question, form): {label: alone(model, inputs, each, target) for label, each in asked.items()}
        for question, asked in QUESTIONS.items()
        for form, target in FORMS.items()
    }
    assert not faults(truth)
    monkeypatch.setattr(owner, name, mutant)
    assert faults(truth)
