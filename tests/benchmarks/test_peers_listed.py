"""Peers without their libraries: who is listed, and that each check refuses what it should."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import (
    Activations,
    Attribution,
    EigenCAM,
    FilterVisualization,
    GradCAM,
    HiResCAM,
    IntegratedGradients,
    LayerCAM,
    Occlusion,
    SmoothGrad,
    Technique,
    XGradCAM,
    explain,
)
from attribution.agreement import all_hold
from attribution.techniques.filter_visualization import FIRST_STEP
from attribution.testing import small_residual
from benchmarks import peers
from benchmarks.cases import Case
from benchmarks.models import MODELS, SMALL, model_of
from benchmarks.peers.bout import OURS, first, ours, peer_row
from benchmarks.peers.captum_averages import CaptumIntegratedGradients, CaptumSmoothGrad
from benchmarks.peers.captum_tuned import CaptumActivations, CaptumGradCAM, CaptumOcclusion
from benchmarks.peers.lucent import Normalised, climbed, objective
from benchmarks.peers.peer import Peer
from benchmarks.peers.pytorch_grad_cam import PytorchCAMs, PytorchGradCAM, scaled
from benchmarks.peers.tap import grad_cam, tap
from benchmarks.peers.torchcam import TorchCAM
from benchmarks.questions import QUESTIONS, Question
from benchmarks.rows import subject_of
from benchmarks.schema import Row


class Small(Case):
    """A case on the small model, which has five classes."""

    def target(self, count: int | None = None) -> list[list[int]] | None:
        return [[3]] * self.batch if self.technique.needs_target else None


def _case(technique: Technique, batch: int = 2) -> Case:
    return Small(Question("a question", lambda _: technique, pixels=32, of="logit"), SMALL.name, batch, "float32")


def _ours(case: Case) -> Attribution:
    return ours(case, "cpu").answers[OURS].attribution


CAPTUM: list[tuple[type[Peer], Technique]] = [
    (CaptumActivations, Activations(layers=("stem",))),
    (CaptumGradCAM, GradCAM(layers=("body",))),
    (CaptumOcclusion, Occlusion(window=8, stride=5)),
    (CaptumIntegratedGradients, IntegratedGradients(steps=4)),
]


def test_every_peer_answers_questions_that_are_asked_of_models_that_exist() -> None:
    labels = {question.label for question in QUESTIONS}
    assert {label for peer in peers.PEERS for label in peer.questions} <= labels
    assert {model for peer in peers.PEERS for model in peer.models} <= set(MODELS)
    rows = [(peer.name, peer.tier, label) for peer in peers.PEERS for label in peer.questions]
    assert len(set(rows)) == len(rows)


def test_smoke_size_runs_each_peer_once() -> None:
    met = [id(peer) for _, peer in peers.entries("smoke", "cpu")]
    assert len(set(met)) == len(met)


def test_a_peer_that_is_not_installed_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = TorchCAM(package="no-such-distribution", tier="default", questions=("grad_cam, 1 target",))
    monkeypatch.setattr(peers, "PEERS", (peer,))
    assert peers.entries("full", "cpu") == []
    (line,) = peers.left_out("full", "cpu")
    assert line.startswith("left out: torchcam (default), ")
    assert line.endswith("rows: package no-such-distribution is not installed")


def test_a_refused_case_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = PytorchGradCAM(package="torch", tier="default", questions=("grad_cam, 1 target",))
    monkeypatch.setattr(peers, "PEERS", (peer,))
    assert peers.left_out("full", "cuda") == [
        "left out: pytorch-grad-cam (default), some rows: numpy knows no bfloat16"
    ]
    assert {case.dtype for case, _ in peers.entries("full", "cuda")} == {"float32"}


@pytest.mark.parametrize("tier", ["default", "tuned"])
@pytest.mark.parametrize(("kind", "technique"), CAPTUM)
def test_captum_called_directly_agrees_and_a_mutant_does_not(kind: type[Peer], technique: Technique, tier: Any) -> None:
    case, peer = _case(technique), kind(tier=tier, questions=())  # type: ignore[call-arg]  # subclasses name themselves
    answer, _ = first(peer.enter(case, "cpu", sweep=False).call, "cpu")
    assert all_hold(peer.check(case, "cpu", answer, _ours(case)).agreements)
    assert not all_hold(peer.check(case, "cpu", 1.001 * answer, _ours(case)).agreements)


@pytest.mark.parametrize("tier", ["default", "tuned"])
def test_three_statistics_agree_one_by_one(tier: Any) -> None:
    beside = {each: SmoothGrad(samples=4, statistic=each) for each in ("squared", "variance")}
    case = _case(SmoothGrad(samples=4))
    case = replace(case, question=replace(case.question, beside=lambda _: {**beside}))
    peer = CaptumSmoothGrad(tier=tier, questions=())
    answer, _ = first(peer.enter(case, "cpu", sweep=False).call, "cpu")
    assert answer.shape == (2, 3, 3, 32, 32)
    found = _ours(case)
    assert [*found.raw] == ["smooth_grad: input", "squared: input", "variance: input"]
    assert all_hold(peer.check(case, "cpu", answer, found).agreements)
    for place in range(3):
        wrong = answer.clone()
        wrong[:, place] *= 1.001
        assert not all_hold(peer.check(case, "cpu", wrong, found).agreements)


def test_four_cams_are_held_each_against_its_own() -> None:
    case = _case(GradCAM(layers=("body",)))
    case = replace(case, question=replace(case.question, beside=lambda _: {"layer_cam": LayerCAM(layers=("body",))}))
    found = _ours(case)
    found = replace(found, raw={key.replace("body", case.subject.late): map_ for key, map_ in found.raw.items()})
    peer = PytorchCAMs(package="torch", tier="default", questions=())
    size = (32, 32)
    answer = torch.stack([scaled(found.raw[f"{name}: {case.subject.late}"], size) for name in case.several], dim=1)
    assert all_hold(peer.check(case, "cpu", answer, found).agreements)
    assert not all_hold(peer.check(case, "cpu", answer.flip(1), found).agreements)


def test_a_peers_row_fits_the_schema_and_counts_its_work() -> None:
    case, peer = _case(GradCAM(layers=("body",))), CaptumGradCAM(tier="default", questions=())
    contestant, settled = peer.enter(case, "cpu", sweep=False), ours(case, "cpu")
    answer, seconds = first(contestant.call, "cpu")
    check = peer.check(case, "cpu", answer, settled.answers[OURS].attribution)
    found = Row.model_validate(peer_row(settled, peer, contestant, check, seconds, peak=False))
    assert (found.backend, found.tier, found.agreement.others) == ("captum.attr", "default", ["hooks"])
    assert (found.counts.forwards, found.counts.images, found.counts.parameter_gradients) == (1, 2, 0)


def test_a_tap_tells_what_stood_before_and_after_an_in_place_module() -> None:
    case = _case(GradCAM(layers=("body",)))
    model, inputs = subject_of(case, "cpu")
    assert inputs is not None
    found = tap(model, "body", inputs, [3, 3])
    assert found.overwritten
    torch.testing.assert_close(found.after, torch.relu(found.before), rtol=0, atol=0)
    raw = _ours(case).raw["body"]
    torch.testing.assert_close(grad_cam(found.before, found.before_gradient), raw, rtol=1e-5, atol=1e-6)
    assert (grad_cam(found.after, found.before_gradient) - raw).abs().max() > 1e-2 * raw.abs().max()


def _seen_by_pytorch_grad_cam(before: bool, case: Case) -> Tensor:
    model, inputs = subject_of(case, "cpu")
    assert inputs is not None
    found = tap(model, "body", inputs, [3, 3])
    return scaled(grad_cam(found.before if before else found.after, found.before_gradient), (32, 32))


def _seen_by_torchcam(before: bool, case: Case) -> Tensor:
    model, inputs = subject_of(case, "cpu")
    assert inputs is not None
    found = tap(model, "body", inputs, [3, 3])
    pair = (found.before, found.before_gradient) if before else (found.after, found.after_gradient)
    return torch.relu(grad_cam(*pair))[:, 0]


@pytest.mark.parametrize(("kind", "seen"), [(PytorchGradCAM, _seen_by_pytorch_grad_cam), (TorchCAM, _seen_by_torchcam)])
def test_an_overwritten_activation_is_stated_and_anything_else_is_refused(
    kind: type[Peer], seen: Callable[[bool, Case], Tensor]
) -> None:
    case, peer = _case(GradCAM(layers=("body",))), kind(tier="default", questions=())  # type: ignore[call-arg]
    right = peer.check(case, "cpu", seen(True, case), _ours(case))
    assert all_hold(right.agreements)
    assert "in place" not in right.stated
    explained = peer.check(case, "cpu", seen(False, case), _ours(case))
    assert all_hold(explained.agreements)
    assert "in place" in explained.stated
    for mutant in (0.99 * seen(True, case), seen(False, case).roll(1, dims=-1)):
        assert not all_hold(peer.check(case, "cpu", mutant, _ours(case)).agreements)


@pytest.mark.parametrize(
    "technique",
    [EigenCAM(layers=("body_relu",)), HiResCAM(layers=("body_relu",)), XGradCAM(layers=("body_relu",))],
    ids=lambda t: t.name,
)
def test_other_cams_of_pytorch_grad_cam_are_compared_after_its_scaling(technique: Technique) -> None:
    case, peer = _case(technique), PytorchGradCAM(tier="default", questions=())
    answer, _ = first(peer.enter(case, "cpu", sweep=False).call, "cpu")
    assert all_hold(peer.check(case, "cpu", answer, _ours(case)).agreements)
    for mutant in (0.99 * answer, answer.roll(1, dims=-1)):
        assert not all_hold(peer.check(case, "cpu", mutant, _ours(case)).agreements)


def test_the_step_rule_given_to_lucent_is_ours() -> None:
    model = small_residual()
    technique = FilterVisualization.notebook(layer="body", channels=(2,), steps=1, size=17)
    expected = explain(model, None, technique, backend="hooks").raw[FIRST_STEP]
    start = technique.start(model)
    image = start.clone().requires_grad_()

    def closure() -> Tensor:
        _, gradient = objective(model, "body", 2, image)
        image.grad = -gradient
        return image.sum()

    Normalised([image], technique.step_size).step(closure)
    torch.testing.assert_close(image.detach(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(climbed(model, technique, 2, start, behind=False), expected, rtol=0, atol=1e-6)
    assert (climbed(model, technique, 2, start, behind=True) - expected).abs().max() > 1e-3


def test_a_peer_works_on_its_own_copy_of_the_model() -> None:
    case, peer = _case(GradCAM(layers=("body",))), CaptumGradCAM(tier="tuned", questions=())
    contestant = peer.enter(case, "cpu", sweep=False)
    model = model_of(SMALL.name, "cpu", torch.float32)
    assert contestant.model is not model
    assert {id(p) for p in contestant.model.parameters()}.isdisjoint(id(p) for p in model.parameters())
