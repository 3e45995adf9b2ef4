"""The family: what a technique of it costs in lines, what a backend takes from a subclass, and where it is known."""

import ast
import inspect
import io
import textwrap
import tokenize
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Attribution,
    Execution,
    GradCAM,
    LayerCAM,
    PluginError,
    ScoreCAM,
    available,
    explain,
    registry,
    techniques,
)
from attribution.techniques.cam.family import CAM
from attribution.testing import Check, CheckFailure, attributor_checks
from attribution_captum.cam import CaptumCAM, CaptumLayerCAM
from attribution_hooks.cam import HooksGradCAM, HooksLayerCAM, backward
from attribution_hooks.cam.family import CamAttributor
from tests.conftest import BACKENDS, noise
from tests.techniques.cam.loops import FORMULAS
from tests.techniques.cam.nets import CASES, CLASSES

OF_THE_FAMILY = [each for each in vars(techniques).values() if isinstance(each, type) and issubclass(each, CAM)]

BY_GRADIENTS = {cls.name for cls in OF_THE_FAMILY if cls.needs_target and cls.takes_gradients}
"""Those that weigh by gradients of a score."""

ATTRIBUTORS = [
    registry.get(cls.name, backend)
    for cls in OF_THE_FAMILY
    for backend in ("captum", "hooks")
    if (cls.name, backend) in available()
]

WITHOUT_CAPTUM = {"score_cam"}
"""Captum has nothing that computes them."""


def lines_of_code(cls: type) -> int:
    """Lines of a class that hold code: no docstring, no comment, no blank line."""
    source = textwrap.dedent(inspect.getsource(cls))
    told: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            told |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    without = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in without:
            held |= set(range(token.start[0], token.end[0] + 1))
    return len(held - told)


def test_lines_are_counted() -> None:
    class Counted:
        """Not
        these.
        """

        a = 1  # nor is this one more

        # nor this
        def f(self) -> int:
            """Nor this."""
            return (
                2
            )  # fmt: skip

    assert lines_of_code(Counted) == 6


@pytest.mark.parametrize("cls", OF_THE_FAMILY, ids=lambda cls: cls.name)
def test_a_technique_costs_few_lines_in_the_core(cls: type) -> None:
    assert 2 <= lines_of_code(cls) <= 40


@pytest.mark.parametrize("cls", ATTRIBUTORS, ids=lambda cls: cls.__name__)
def test_and_few_in_a_backend(cls: type) -> None:
    assert 4 <= lines_of_code(cls) <= 25


def test_every_technique_of_the_family_has_its_backends() -> None:
    assert set(FORMULAS) == BY_GRADIENTS
    for cls in OF_THE_FAMILY:
        expected = {"hooks"} if cls.name in WITHOUT_CAPTUM else {"captum", "hooks"}
        assert {backend for name, backend in available() if name == cls.name} == expected


def test_the_backends_share_no_computation() -> None:
    """Neither family is the other's, and neither imports the other's package."""
    for family, other in ((CamAttributor, "attribution_captum"), (CaptumCAM, "attribution_hooks")):
        assert other not in Path(inspect.getfile(family)).read_text(encoding="utf-8")


@pytest.mark.parametrize("cls", [cls for cls in OF_THE_FAMILY if cls.needs_target], ids=lambda cls: cls.name)
@BACKENDS
@pytest.mark.parametrize("form", ["vectors", "series", "image", "volume"])
def test_an_answer_of_any_rank_is_saved_and_read(form: str, backend: str, cls: type[CAM], tmp_path: Path) -> None:
    if (cls.name, backend) not in available() or (cls is ScoreCAM and form == "vectors"):
        return
    case = CASES[form]
    result = explain(case.model(), case.inputs(2), cls(layers=(case.layer,)), target=[[1, 2]] * 2, backend=backend)
    read = Attribution.load(result.save(tmp_path / "map.safetensors"))
    assert read.technique == result.technique
    assert type(read.technique) is cls
    assert torch.equal(read.map, result.map)


def test_two_techniques_of_the_same_fields_are_not_equal() -> None:
    one: CAM = GradCAM(layers=("a",))
    assert one != LayerCAM(layers=("a",))
    assert one == GradCAM(layers=("a",))


class Neither(CamAttributor[GradCAM]):
    technique_type: ClassVar[type[GradCAM]] = GradCAM


class Twice(HooksGradCAM):
    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient.sum(2)


@pytest.mark.parametrize("cls", [Neither, Twice])
def test_a_subclass_that_says_nothing_or_two_things_is_refused(cls: Any) -> None:
    case = CASES["image"]
    with pytest.raises(PluginError, match=f"{cls.__name__} implements weights or combine, one of the two"):
        cls(case.model(), GradCAM(layers=("conv",))).attribute(case.inputs(1), 1)


class Halved(HooksGradCAM):
    def weights(self, activation: Tensor, mean_gradient: Tensor) -> Tensor:
        return mean_gradient.relu() * activation.flatten(2).mean(2)[:, None]


class Floored(HooksGradCAM):
    """Gives back what it is given where that is large, so that no other gradients tell what becomes of these."""

    def weights(self, activation: Tensor, mean_gradient: Tensor) -> Tensor:
        return mean_gradient if mean_gradient.abs().amax() > 0.05 else 0.5 * mean_gradient


class Pooled(nn.Module):
    """A mean and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 5, 3), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("cls", [Halved, Floored])
def test_weights_of_ones_own_are_taken_from_a_closed_form_too(cls: type[HooksGradCAM]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Pooled().double().eval()
    x, question = noise(2, 3, 7, 9, dtype=torch.float64), GradCAM(layers=("conv",))
    found = cls(model, question).attribute(x, "all")
    assert found.provenance["engine conv"] == "closed form"
    alone = torch.cat([cls(model, question).attribute(x, target).raw["conv"] for target in range(CLASSES)], dim=1)
    assert torch.allclose(found.raw["conv"], alone, rtol=1e-10, atol=1e-14)
    assert not torch.allclose(HooksGradCAM(model, question).attribute(x, "all").raw["conv"], alone, rtol=1e-3)


class Shuffled(nn.Module):
    """Torch's older batched backward is wrong here, before a channels-last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.PixelShuffle(2), nn.BatchNorm2d(3)
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(self.norm(self.up(x))).relu().mean((2, 3)))  # type: ignore[no-any-return]


def test_gradients_of_each_place_are_proved_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Shuffled().eval().to(memory_format=torch.channels_last)
    x, question = noise(1, 12, 7, 9), LayerCAM(layers=("up",), relu=False, upsample=False)
    monkeypatch.setattr(backward, "has_rules", lambda *_: False)
    found = explain(model, x, question, target="all")
    exact = torch.cat([explain(model, x, question, target=target).map for target in range(5)], dim=1)
    assert torch.allclose(found.map, exact, rtol=1e-5, atol=1e-6 * exact.abs().max().item())
    assert "another gradient" in str(found.provenance["backward"])
    monkeypatch.setattr(backward.Tail, "_proved", lambda *_: True)
    wrong = explain(model, x, question, target="all")
    assert (wrong.map - exact).abs().max() > 0.1 * exact.abs().max(), "torch batches this rightly by now"


def test_a_gradient_that_is_wrong_in_no_mean_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of Grad-CAM's means would not do: places of a batched gradient change places."""
    case = CASES["image"]
    model, x, question = case.model(), case.inputs(2), LayerCAM(layers=("conv",), relu=False)
    exact = explain(model, x, question, target="all").raw["conv"]
    plain = backward.Tail._grad

    def turned(self: Any, seeds: Tensor, *, batched: bool) -> Any:
        found = plain(self, seeds, batched=batched)
        return [gradient if gradient is None else gradient.flip(-1) for gradient in found] if batched else found

    monkeypatch.setattr(backward.Tail, "_grad", turned)
    found = explain(model, x, question, target="all")
    assert torch.allclose(found.raw["conv"], exact, rtol=1e-9, atol=1e-12)
    assert "another gradient" in str(found.provenance["backward"])


@pytest.mark.parametrize("budget", [1, 40_000, 2**30])
def test_chunks_of_targets_change_no_map(budget: int) -> None:
    case = CASES["image"]
    model, x, question = case.model(), case.inputs(1), LayerCAM(layers=("conv",))
    whole = explain(model, x, question, target="all")
    parts = explain(model, x, question, target="all", execution=Execution(memory_budget=budget))
    assert torch.allclose(whole.map, parts.map, rtol=1e-10, atol=1e-13)
    at_once = parts.provenance["targets per backward"]
    assert at_once == {1: 1, 2**30: CLASSES}.get(budget, at_once)


def closed_form(cls: type) -> Check:
    """The kit's check of what an attributor gives on a network that is known on paper."""
    names = ("global_mean", "one_pattern")
    (check,) = (check for check in attributor_checks(cls) if any(name in check.name for name in names))
    return check


@BACKENDS
@pytest.mark.parametrize(
    "name", ["grad_cam", "hires_cam", "element_wise_cam", "xgrad_cam", "grad_cam_plus_plus", "eigen_cam"]
)
def test_the_kit_knows_the_closed_form_of_every_cam(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And maps that are a thousandth too large."""
    cls = registry.get(name, backend)
    compute = cls.compute
    closed_form(cls)()
    monkeypatch.setattr(cls, "compute", lambda self, run: {k: 1.001 * v for k, v in compute(self, run).items()})
    with pytest.raises(CheckFailure, match="a raw map off by"):
        closed_form(cls)()


class WithoutReLU(HooksLayerCAM):
    """Adds negative gradients too."""

    backend: ClassVar[str] = "without"

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (gradient * activation).sum(2)


def test_the_kit_knows_layer_cam() -> None:
    name = "layer_cam_takes_positive_gradients_only"
    for cls, right in ((HooksLayerCAM, True), (CaptumLayerCAM, True), (WithoutReLU, False)):
        (check,) = (check for check in attributor_checks(cls) if check.name == name)
        if right:
            check()
        else:
            with pytest.raises(CheckFailure, match="a raw map off by"):
                check()
