"""Odd models, maps and numbers of photos."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution import EigenCAM, InputError, Inputs, NonFiniteError, Saliency, Technique, explain
from attribution.metrics import ROAD, SRG, Table, evaluate, removal_curves
from attribution.metrics.cost import in_forwards
from attribution.testing import small_cnn
from tests.conftest import noise
from tests.metrics.asked import CHEAP, Counted, a_map, cnn, only, photos


class Mixing(nn.Module):
    """Its answer to an image goes by the others of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = cnn()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y - y.mean(dim=0, keepdim=True) / 2


def test_a_model_that_mixes_its_batch_is_asked_image_by_image() -> None:
    model, x = Mixing(), photos()
    asked: dict[str, Any] = {"target": [1, 0, 3], "steps": 3, "baselines": ("mean", "linear")}
    found = only(removal_curves(model, x, {"m": a_map(3, 1, 4, 5)}, **asked))
    for n in range(3):
        one = {**asked, "target": asked["target"][n], "first": n}
        alone = only(removal_curves(model, x[n : n + 1], {"m": a_map(3, 1, 4, 5)[n : n + 1]}, **one))
        torch.testing.assert_close(found.most[n : n + 1], alone.most, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_scores_and_nothing_else(dtype: torch.dtype) -> None:
    model, x = small_cnn().to(dtype), noise(3, 3, 17, 23, dtype=dtype)
    found = removal_curves(model, x, {"m": a_map(3, 1, 5, 7)}, target=1, steps=7, baselines=("mean", "linear"))["m"]
    for n in range(3):
        for b in range(2):
            for curve, area in ((found.most, found.deletion), (found.least, found.insertion)):
                expected = np.trapezoid(curve[n, 0, b].double().numpy(), found.removed.numpy())
                assert float(area[n, 0, b]) == pytest.approx(expected, rel=1e-6)


def test_one_cell_and_one_photo(tmp_path: Path) -> None:
    model, x = cnn(), photos(1)
    found = only(removal_curves(model, x, {"m": a_map(1, 1, 1, 1)}, target=1, steps=4))
    assert found.removed.tolist() == [0, 1]
    assert found.srg.abs().max() == 0
    table = evaluate(model, x, [Saliency()], metrics=(SRG(steps=3), ROAD(removed=(0.5,))), target=1, out=tmp_path)
    assert "1 photo; mean" in table.text()
    assert "nan" not in table.text().lower()
    assert table.verdicts()[0] == "With fewer than 6 photos no two maps are told apart."
    assert not any(table.versus("saliency", name).told_apart for name in table.controls)
    assert table.extremes("saliency") == ([], [])
    assert len(table.save(tmp_path)) == 8


def test_a_constant_map_is_a_random_one_and_a_map_of_photo_size_is_pooled() -> None:
    model, x = cnn(), photos(7)
    maps: dict[str, Any] = {
        "zeros": lambda inputs: torch.zeros(len(inputs), 1, 17, 23),
        "ones": lambda inputs: torch.ones(len(inputs), 1, 7, 7),
        "fine": lambda inputs: a_map(7, 1, 17, 23),
    }
    table = evaluate(model, x, maps, target=1, batch_size=7, metrics=(SRG(steps=4, cells=7),), baselines=("mean",))
    assert table.values("srg")["zeros"].tolist() == table.values("srg")["ones"].tolist()  # pooled to the same cells
    assert not table.versus("zeros", "random").told_apart
    assert abs(table.values("srg")["fine"] - table.values("srg")["zeros"]).min() > 1e-9


def test_targets_of_each_photo_and_techniques_that_ask_none() -> None:
    model, x = cnn(), photos()
    targets = [1, 0, 3]
    techniques: dict[str, Technique] = {"eigen": EigenCAM(layers=("body",)), "saliency": Saliency()}
    table = evaluate(model, x, techniques, target=targets, **CHEAP)
    for n, target in enumerate(targets):
        photo = x[n : n + 1]
        given = {"eigen": explain(model, photo, techniques["eigen"])}
        given["saliency"] = explain(model, photo, techniques["saliency"], target=target)
        alone = removal_curves(model, photo, given, target=target, baselines=("mean",), steps=4, first=n)
        for name, curves in alone.items():
            assert table.values("srg", "mean")[name][n] == pytest.approx(float(curves.srg), abs=1e-10)


@pytest.mark.parametrize(
    ("map_", "text"),
    [
        (a_map(2, 1, 4, 0), r"\(4, 0\) cells for places \(17, 23\)"),
        (a_map(2, 1, 4, 5) * 1j, "complex128, which has no order"),
        (a_map(2, 0, 4, 5), "0 targets|at least one"),
    ],
)
def test_maps_without_an_order_are_refused(map_: Tensor, text: str) -> None:
    with pytest.raises(InputError, match=text):
        evaluate(cnn(), photos(2), {"mine": lambda inputs: map_}, target=1, **CHEAP)


def test_what_is_not_finite_is_named() -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.flatten(1)[:, :4]
            return y / (x.flatten(1).abs().amin(1, keepdim=True) > 0)

    with pytest.raises(NonFiniteError):
        removal_curves(Breaks(), photos(2), {"m": a_map(2, 1, 4, 5)}, target=1, baselines=(0.0,), steps=3)
    signed = {"m": lambda inputs: torch.full((len(inputs), 1, 4, 5), float("inf"))}
    with pytest.raises(NonFiniteError, match=r"100\.0% of the map 'm'"):
        evaluate(Counted(), photos(2), signed, target=1, **CHEAP)


def test_work_is_counted_in_forwards() -> None:
    model, x = Counted(), Inputs.of(photos(1))

    def forwards(count: int) -> float:
        def call() -> None:
            with torch.no_grad():
                for _ in range(count):
                    model(x.tensor)

        return in_forwards(call, model, x)

    assert forwards(3) == 3
    assert forwards(1) == 1  # the mutant would count what is asked, and not what is done
    assert np.isnan(in_forwards(lambda: None, nn.Flatten(), x))


def test_hostile_names_are_kept(tmp_path: Path) -> None:
    names = ["a,b", 'c"d', "e\nf", "\udcff.png", "../x", "ü"]
    table = evaluate(cnn(), photos(6), [Saliency()], names=names, target=1, out=tmp_path / "run", **CHEAP)
    assert table.photos == names
    table.save(tmp_path)
    again = Table.load(tmp_path, table.contestants, table.better)
    assert again.photos == [name.encode("utf-8", "backslashreplace").decode() for name in names]
    assert again.values("srg")["saliency"].tolist() == table.values("srg")["saliency"].tolist()
