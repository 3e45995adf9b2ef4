"""The bundled network: Grad-CAM is better than chance."""

from typing import Any

import pytest

from attribution import GradCAM, Inputs, explain
from attribution.images.samples import DISTINCT
from attribution.metrics import SRG, evaluate, removal_curves
from attribution.metrics.controls import random
from attribution.metrics.statistics import versus
from docs.make_evaluation import bundled


def test_on_the_bundled_network_grad_cam_is_better_than_chance() -> None:
    model, x, _ = bundled(8)
    maps: dict[str, Any] = {"grad_cam": explain(model, x, GradCAM()), "random": random(Inputs.of(x), 0, 0)}
    found = removal_curves(model, x, maps, baselines=("mean",), steps=3)
    gains = {name: each.srg.numpy()[:, 0, 0] for name, each in found.items()}
    difference = versus(("grad_cam", "random"), gains["grad_cam"], gains["random"])
    assert difference.told_apart
    assert difference.difference.low > 0
    assert (-gains["grad_cam"]).mean() < gains["random"].mean()  # the mutant: the ranking reversed


@pytest.mark.slow
def test_the_table_of_the_page_says_the_same_of_all_sample_photos() -> None:
    model, x, names = bundled(len(DISTINCT))
    table = evaluate(model, x, [GradCAM()], names=names, metrics=(SRG(),))
    for baseline in ("mean", "blur"):
        found = table.versus("grad_cam", "random", variant=baseline)
        assert found.told_apart
        assert found.difference.low > 0
