"""``channels="none"``: the terms of Grad-CAM and HiResCAM, by channel, against loops; they add up to the map."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import GradCAM, HiResCAM, InputError, LayerCAM, compare, explain, explain_many, load
from attribution.technique import Technique
from attribution_hooks.cam import HooksGradCAM, HooksHiResCAM
from tests.conftest import BACKENDS
from tests.techniques.cam import loops
from tests.techniques.cam.nets import CASES, CLASSES, Case

KINDS: dict[str, Any] = {"grad_cam": GradCAM, "hires_cam": HiResCAM}
BOTH = pytest.mark.parametrize("name", KINDS)
IMAGE = CASES["image"]


def terms(name: str, case: Case, model: nn.Module, x: Tensor, targets: list[list[int]]) -> Tensor:
    """(N, T, D, *places), by loops."""
    layer, rows = model.get_submodule(case.layer), []
    for n in range(len(x)):
        activation, found = loops.gradients(
            lambda n=n: model(x[n : n + 1]),  # type: ignore[misc]
            layer,
            lambda output, n=n: [output[0, c] for c in targets[n]],  # type: ignore[misc]
        )
        values = case.values(activation).tolist()
        each = [
            [loops.FORMULAS[name](g, a) for g, a in zip(case.values(gradient).tolist(), values, strict=True)]
            for gradient in found
        ]
        rows.append(torch.tensor(each, dtype=torch.float64).reshape(len(found), len(values), *case.places))
    return torch.stack(rows)


def agree(found: Tensor, wanted: Tensor) -> bool:
    assert found.shape == wanted.shape
    assert wanted.abs().max() > 1e-6, "nothing is seen"
    return bool((found - wanted).abs().max() <= 1e-10 * wanted.abs().max())


def apart(name: str, case: Case, **options: Any) -> Technique:
    return KINDS[name](layers=(case.layer,), channels="none", relu=False, upsample=False, **options)  # type: ignore[no-any-return]


@BOTH
@BACKENDS
@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("form", CASES)
def test_terms_of_every_form(form: str, examples: int, backend: str, name: str) -> None:
    case = CASES[form]
    model, x, targets = case.model(), case.inputs(examples), [[0, 3], [4, 1], [2, 5]][:examples]
    found = explain(model, x, apart(name, case), target=targets, backend=backend).map
    wanted = terms(name, case, model, x, targets)
    assert agree(found, wanted)
    assert not agree(found.roll(1, dims=2), wanted), "another channel"
    summed = KINDS[name](layers=(case.layer,), relu=False, upsample=False)
    whole = explain(model, x, summed, target=targets, backend=backend).map
    assert agree(found.sum(dim=2), whole)


@BOTH
@BACKENDS
def test_all_classes_together(name: str, backend: str) -> None:
    """Through the batched backward, and of a net of which the closed form is known."""
    model, x = IMAGE.model(), IMAGE.inputs(3)
    wanted = terms(name, IMAGE, model, x, [[*range(CLASSES)]] * 3)
    assert agree(explain(model, x, apart(name, IMAGE), target="all", backend=backend).map, wanted)
    pooled = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, CLASSES)).double()
    case = Case(lambda: pooled, IMAGE.shape, "0", IMAGE.values, IMAGE.places)
    found = explain(pooled, x, apart(name, case), target="all", backend=backend).map
    assert agree(found, terms(name, case, pooled, x, [[*range(CLASSES)]] * 3))
    assert compare(pooled, x, apart(name, case), target="all").holds


def test_beside_techniques_that_add_up() -> None:
    model, x = IMAGE.model(), IMAGE.inputs(2)
    asked: dict[str, Technique] = {f"{name}, apart": apart(name, IMAGE) for name in KINDS}
    asked |= {name: KINDS[name](layers=("conv",), relu=False) for name in KINDS} | {"other": LayerCAM(layers=("conv",))}
    together = explain_many(model, x, asked, target=[[1, 4]] * 2)
    for name, technique in asked.items():
        alone = explain(model, x, technique, target=[[1, 4]] * 2).map
        assert together[name].map.shape == alone.shape
        assert (together[name].map - alone).abs().max() <= 1e-12 * alone.abs().max()


@BOTH
@BACKENDS
def test_each_channel_is_rectified_and_enlarged(name: str, backend: str) -> None:
    model, x = IMAGE.model(), IMAGE.inputs(2)
    asked = KINDS[name](layers=("conv",), channels="none")
    result = explain(model, x, asked, target=[[1, 2]] * 2, backend=backend)
    raw = terms(name, IMAGE, model, x, [[1, 2]] * 2)
    assert result.map.shape == (2, 2, 5, 7, 11)
    for channel in range(5):
        wanted = nn.functional.interpolate(raw[:, :, channel].relu(), size=(7, 11), mode="bilinear")
        assert (result.map[:, :, channel] - wanted).abs().max() <= 1e-10
    after = nn.functional.interpolate(raw.sum(2).relu(), size=(7, 11), mode="bilinear")
    assert (result.map.sum(dim=2) - after).abs().max() > 1e-3, "the ReLU is not the sum's"


def test_a_wrong_channel_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, targets = IMAGE.model(), IMAGE.inputs(2), [[1], [4]]
    hires, grad = (terms(name, IMAGE, model, x, targets) for name in ("hires_cam", "grad_cam"))
    monkeypatch.setattr(HooksHiResCAM, "terms", lambda self, a, g: g.roll(1, 2) * a)
    monkeypatch.setattr(HooksGradCAM, "weights", lambda self, a, mean: mean.roll(1, 2))
    assert not agree(explain(model, x, apart("hires_cam", IMAGE), target=targets).map, hires)
    assert not agree(explain(model, x, apart("grad_cam", IMAGE), target=targets).map, grad)


@BOTH
def test_files_and_figures(name: str, tmp_path: Path) -> None:
    model, x = IMAGE.model(), IMAGE.inputs(2)
    asked = KINDS[name](layers=("conv",), channels="none")
    result = explain(model, x, asked, target=1)
    again = load(result.save(tmp_path / "terms.safetensors"))
    assert again.technique == asked != KINDS[name](layers=("conv",))
    assert torch.equal(again.map, result.map)
    drawn, words = asked.drawn(result.maps)
    assert torch.equal(drawn["conv"], result.map.sum(dim=2))
    assert words == "sum over channels"
    assert result.figure().axes
    with pytest.raises(InputError, match="channels"):
        KINDS[name](channels="max")
