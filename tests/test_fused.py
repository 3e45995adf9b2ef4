"""Maps of several layers as one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attribution import Activations, Attribution, ElementWiseCAM, InputError, LayerCAM, explain
from attribution.fusion import FuseRule
from attribution.testing import small_cnn
from tests.conftest import noise

LAYERS = ("stem_relu", "pool", "body_relu")
X = noise(2, 3, 17, 23)


def asked(*, relu: bool = True, upsample: bool = True) -> Attribution:
    technique = LayerCAM(layers=LAYERS, relu=relu, upsample=upsample)
    return explain(small_cnn(), X, technique, target=[[3, 1], [0, 2]])


def by_hand(maps: dict[str, Tensor], rule: str, *, scaled: bool) -> Tensor:
    """Place by place."""
    planes = [[[map_[n, t] for t in range(2)] for n in range(2)] for map_ in maps.values()]
    found = torch.zeros_like(next(iter(maps.values())))
    for n in range(2):
        for t in range(2):
            sizes = [float(plane[n][t].abs().max()) if scaled else 1.0 for plane in planes]
            for i in range(found.shape[2]):
                for j in range(found.shape[3]):
                    values = [float(p[n][t][i, j]) / s for p, s in zip(planes, sizes, strict=True)]
                    found[n, t, i, j] = {
                        "mean": sum(values) / len(values),
                        "max": max(values),
                        "product": values[0] * values[1] * values[2],
                    }[rule]
    return found


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("rule", ["mean", "max", "product"])
def test_each_rule_place_by_place(rule: FuseRule, scaled: bool, relu: bool) -> None:
    result = asked(relu=relu)
    found = result.fused(rule, scaled=scaled).map
    wanted = by_hand(dict(result.maps), rule, scaled=scaled)
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    other = by_hand(dict(result.maps), rule, scaled=not scaled)
    assert (found - other).abs().max() > 1e-2 * other.abs().max(), "the other scale is another map"


def test_the_answer_keeps_all_else(tmp_path: Path) -> None:
    result = asked()
    fused = result.fused()
    assert list(fused.maps) == ["stem_relu + pool + body_relu"]
    assert fused.provenance["fused"] == "mean of 3 layers, each by its largest value"
    assert fused.score == result.score
    assert list(result.maps) == list(LAYERS)
    read = Attribution.load(fused.save(tmp_path / "map.safetensors"))
    assert torch.equal(read.map, fused.map)
    assert len(fused.figure().axes) >= 4


def test_a_map_of_zeros_adds_nothing() -> None:
    model = small_cnn()
    with torch.no_grad():
        for parameter in model.get_submodule("stem").parameters():
            parameter.zero_()
    result = explain(model, X, ElementWiseCAM(layers=("stem_relu", "body_relu")), target=1)
    assert result.fused().map.isfinite().all()
    assert (result.maps["stem_relu"] == 0).all()


def test_what_cannot_be_fused_is_refused() -> None:
    with pytest.raises(InputError, match="give the technique more layers"):
        explain(small_cnn(), X, LayerCAM(layers=("body",)), target=1).fused()
    with pytest.raises(InputError, match="leave upsample=True"):
        asked(upsample=False).fused()
    with pytest.raises(InputError, match="no heatmaps"):
        explain(small_cnn(), X, Activations(layers=LAYERS)).fused()
    with pytest.raises(InputError, match="rule is 'median'"):
        asked().fused("median")  # type: ignore[arg-type]
