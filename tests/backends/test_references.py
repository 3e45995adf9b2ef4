"""What pytorch-grad-cam and torch-cam say, as attributors: right where they are, and nobody's model is touched."""

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attribution import (
    BackendNotInstalledError,
    ClassScore,
    DifferenceScore,
    EigenCAM,
    GradCAM,
    HiResCAM,
    InputError,
    LayerCAM,
    LayerError,
    PluginError,
    XGradCAM,
    available,
    compare,
    explain,
    registry,
)
from attribution.agreement import all_hold
from attribution.cli.listing import attributors
from attribution.techniques.cam.family import CAM
from attribution.testing import attributor_checks, small_cnn
from attribution.testing.footprint.guard import guard
from attribution_references import library
from tests.conftest import noise
from tests.techniques.cam.nets import CASES, Case

REFERENCES = registry.references()
WRONG = {
    ("grad_cam_plus_plus", "pytorch_grad_cam"),
    ("grad_cam_plus_plus", "torchcam"),
    ("eigen_cam", "pytorch_grad_cam"),
    ("score_cam", "pytorch_grad_cam"),
    ("score_cam", "torchcam"),
}
"""Held to the size of what is wrong in ``tests/test_disagreements.py``."""

RIGHT = [pair for pair in REFERENCES if pair not in WRONG]
FORMS = ("image", "volume", "tokens", "flattened grid")
EACH = pytest.mark.parametrize("pair", REFERENCES, ids=".".join)


def technique(name: str, layer: str) -> CAM:
    return registry.technique(name)(layers=(layer,))  # type: ignore[call-arg, return-value]


def test_they_are_known_by_name_alone() -> None:
    assert {backend for _, backend in REFERENCES} == {"pytorch_grad_cam", "torchcam"}
    assert not set(REFERENCES) & set(available())
    assert all(registry.get(*pair).reference for pair in REFERENCES)
    assert not any(registry.get(*pair).reference for pair in available())
    assert registry.backends("grad_cam") == ["captum", "hooks"]


def test_compare_leaves_them_out_unless_they_are_named() -> None:
    model, x, question = small_cnn(), noise(1, 3, 17, 23), GradCAM(layers=("body_relu",))
    assert [*compare(model, x, question, target=1).attributions] == ["captum", "hooks"]
    asked = compare(model, x, question, backends=("torchcam", "hooks", "pytorch_grad_cam"), target=1)
    assert asked.holds
    assert [*asked.attributions] == ["torchcam", "hooks", "pytorch_grad_cam"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pair", RIGHT, ids=".".join)
def test_where_they_are_right_ours_are_theirs(pair: tuple[str, str], form: str) -> None:
    """In float32, since torch-cam's XGrad-CAM adds 1e-8 where the others add 1e-7."""
    case, (name, backend) = CASES[form], pair
    model, x = case.model().float(), case.inputs(2).float()
    answer = compare(model, x, technique(name, case.layer), backends=("hooks", backend), target=[[0, 3], [4, 1]])
    assert answer.holds, answer.table()
    a, b = answer.attributions.values()
    wrong = replace(b, raw={layer: map_.flip(1) for layer, map_ in b.raw.items()})
    assert not all_hold(a.technique.agreement(a, wrong)), "the other target is another map"


Enlarge = Callable[[Tensor, tuple[int, ...]], Tensor]
"""From channels (K, *places) and a size to masks (K, *size)."""


def aligned(channels: Tensor, size: tuple[int, ...]) -> Tensor:
    """pytorch-grad-cam: corners aligned, then 0 to 1."""
    return unit(functional.interpolate(channels[None], size, mode="bilinear", align_corners=True)[0])


def scaled_first(channels: Tensor, size: tuple[int, ...]) -> Tensor:
    """torch-cam: 0 to 1, then enlarged."""
    mode = {2: "bilinear", 3: "trilinear"}[channels.ndim - 1]
    return functional.interpolate(unit(channels)[None], size, mode=mode, align_corners=False)[0]


def unit(channels: Tensor) -> Tensor:
    flat = channels.flatten(1)
    low, high = (edge.view(-1, *[1] * (channels.ndim - 1)) for edge in (flat.amin(1), flat.amax(1)))
    return (channels - low) / (high - low + 1e-8)


def score_cam(case: Case, model: nn.Module, x: Tensor, targets: list[list[int]], masks: Enlarge) -> Tensor:
    """(N, T, *places), a forward for each channel of each example."""
    rows: list[Tensor] = []
    for image, classes in zip(x.split(1), targets, strict=True):
        kept: list[Tensor] = []
        handle = model.get_submodule(case.layer).register_forward_hook(lambda *given, to=kept: to.append(given[2]))
        with torch.no_grad():
            model(image)
            handle.remove()
            channels = case.values(kept[0]).reshape(-1, *case.places)
            seen = torch.stack([model(image * mask)[0] for mask in masks(channels, tuple(image.shape[2:]))])
        weights = torch.stack([seen[:, target].softmax(0) for target in classes])
        rows.append(torch.einsum("tk,k...->t...", weights, channels))
    return torch.stack(rows)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("backend", "masks"), [("pytorch_grad_cam", aligned), ("torchcam", scaled_first)])
def test_score_cam_is_that_of_their_masks(backend: str, masks: Enlarge, form: str) -> None:
    """And of no other."""
    case, targets = CASES[form], [[0, 3], [4, 1]]
    model, x = case.model(), case.inputs(2)
    question = technique("score_cam", case.layer)
    if (form, backend) == ("volume", "pytorch_grad_cam"):
        with pytest.raises(LayerError, match="is one of a volume"):
            explain(model, x, question, backend=backend, target=targets)
        return
    found = explain(model, x, question, backend=backend, target=targets).raw[case.layer].double()
    wanted = score_cam(case, model, x, targets, masks)
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    ours = explain(model, x, question, target=targets).raw[case.layer]
    assert (ours - wanted).abs().max() > 1e-3 * wanted.abs().max()
    assert (found.flip(1) - wanted).abs().max() > 1e-3 * wanted.abs().max()


def test_any_score_is_explained() -> None:
    case, score = CASES["image"], DifferenceScore(ClassScore(1, of="log_probability"), 4)
    for question in (HiResCAM(layers=("conv",)), LayerCAM(layers=("conv",))):
        both = compare(case.model(), case.inputs(3), question, backends=("hooks", "pytorch_grad_cam"), target=score)
        assert both.holds, both.table()


@EACH
def test_the_users_model_is_untouched(pair: tuple[str, str]) -> None:
    """Weights, gradients, hooks and modes, also of a frozen model."""
    backend, question = pair[1], technique(pair[0], "body_relu")
    for frozen in (False, True):
        model, x = small_cnn().train(), noise(2, 3, 17, 23)
        model.requires_grad_(not frozen)
        for parameter in model.parameters():
            parameter.grad = None if frozen else torch.ones_like(parameter)
        with guard(model, x):
            explain(model, x, question, backend=backend, target=1 if question.needs_target else None)


@pytest.mark.parametrize("pair", [("grad_cam", "pytorch_grad_cam"), ("layer_cam", "torchcam")], ids=".".join)
@pytest.mark.parametrize("name", ["leaves_no_trace[normal-train]", "leaves_no_trace[raise_in_backward-eval]"])
def test_checks_of_the_kit_hold(pair: tuple[str, str], name: str) -> None:
    (check,) = (c for c in attributor_checks(registry.get(*pair), technique(pair[0], "body_relu")) if c.name == name)
    check()


class Cut(nn.Module):
    """A layer without influence, one that runs twice, one that gives two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.aside, self.twice, self.pair = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), Pair()
        self.vector = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        return self.vector(self.pair(self.twice(self.twice(x)))[0].mean((2, 3)))  # type: ignore[no-any-return]


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 0, x


@pytest.mark.parametrize("backend", ["pytorch_grad_cam", "torchcam"])
@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("aside", "no influence"),
        ("twice", "runs 2 times"),
        ("pair", "gives no tensor"),
        ("pair[0]", "whole layers"),
        ("twice#1", "whole layers"),
        ("vector:in", "whole layers"),
        ("vector", "maps of images and volumes"),
        ("nothing", "no layer"),
    ],
)
def test_what_they_do_not_take_is_refused(layer: str, words: str, backend: str) -> None:
    with pytest.raises(LayerError, match=words):
        explain(Cut().eval(), noise(2, 3, 5, 7), GradCAM(layers=(layer,)), backend=backend, target=1)


def test_numpy_and_centring() -> None:
    model, x = small_cnn(dtype=torch.bfloat16), noise(1, 3, 17, 23, dtype=torch.bfloat16)
    with pytest.raises(InputError, match="numpy, which knows no bfloat16"):
        explain(model, x, GradCAM(layers=("body",)), backend="pytorch_grad_cam", target=1)
    with pytest.raises(InputError, match="is centred"):
        explain(small_cnn(), noise(1, 3, 17, 23), EigenCAM(layers=("body",), centred=False), backend="pytorch_grad_cam")
    kept = GradCAM(layers=("body_relu",), channels="none")
    for backend in ("pytorch_grad_cam", "torchcam"):
        with pytest.raises(InputError, match="adds channels up"):
            explain(small_cnn(), noise(1, 3, 17, 23), kept, backend=backend, target=1)
    assert compare(model, x, XGradCAM(layers=("body_relu",)), backends=("hooks", "torchcam"), target=1).holds


def test_a_missing_library_is_named_and_no_other_is_harmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_spec", lambda name: None if name == "torchcam" else util.find_spec(name))
    monkeypatch.delitem(sys.modules, "attribution_references.torchcam", raising=False)
    registry._imported.cache_clear()
    with pytest.raises(BackendNotInstalledError, match=r"needs torchcam.*'torch-attribution\[torchcam\]'"):
        registry.get("grad_cam", "torchcam")
    assert registry.get("grad_cam", "pytorch_grad_cam").reference
    lines = [line for line in attributors().splitlines() if "torchcam" in line]
    assert lines
    assert all("reference, not installed: " in line for line in lines)
    registry._imported.cache_clear()


def test_a_plugin_whose_library_is_missing_is_passed_over_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "absent_cam-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: absent-cam\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        f"[{registry.GROUP}]\ngrad_cam.theirs = absent_cam:Theirs\ngrad_cam.marked = marked_cam:Marked\n"
    )
    (tmp_path / "absent_cam.py").write_text("import nothing_like_this")
    (tmp_path / "marked_cam.py").write_text(
        "from attribution import Attributor, GradCAM\n"
        "class Marked(Attributor):\n"
        "    technique_type, backend, reference = GradCAM, 'marked', True\n"
        "    def compute(self, run): return {}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match=r"says reference = True.*make it one of attribution\.references"):
        registry.get("grad_cam", "marked")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\ngrad_cam.theirs = absent_cam:Theirs\n")
    registry._scan.cache_clear()
    found = compare(small_cnn(), noise(1, 3, 17, 23), GradCAM(layers=("body",)), target=1)
    assert [*found.attributions] == ["captum", "hooks"]
    assert "nothing_like_this" in found.left_out["theirs"]
    assert "theirs left out: grad_cam.theirs from absent-cam 1.2 needs 'nothing_like_this'" in found.table()


@pytest.mark.parametrize(("name", "backend"), [pair for pair in REFERENCES if pair[0] in ("grad_cam", "hires_cam")])
def test_channels_that_are_kept_are_refused(name: str, backend: str) -> None:
    asked = {"grad_cam": GradCAM, "hires_cam": HiResCAM}[name](layers=("body",), channels="none")
    with pytest.raises(InputError, match="a reference adds channels up"):
        explain(small_cnn(), torch.rand(1, 3, 17, 23), asked, backend=backend, target=1)
