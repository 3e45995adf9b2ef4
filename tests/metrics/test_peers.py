"""torch-cam's metric and pytorch-grad-cam's, where they are installed (dependency group ``peers``), as oracles.

The loops in `by_hand` are the oracles where they are not.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from attribution.metrics import baselines, removal_curves
from attribution.metrics.imputation import impute
from attribution.testing import small_cnn
from benchmarks.given_maps import GivenMaps
from tests.conftest import noise

MAPS = noise(3, 1, 16, 24, dtype=torch.float64, seed=3)


def distinct() -> Tensor:
    """The maps with values in [0, 1) that float32 tells apart."""
    return MAPS.flatten().argsort().argsort().reshape(MAPS.shape).float() / MAPS.numel()


def test_torch_cams_insertion_and_deletion() -> None:
    theirs = pytest.importorskip("torchcam.metrics", reason="torch-cam is not installed: uv sync --group peers")
    model, x = small_cnn(dtype=torch.float64), noise(3, 3, 16, 24, dtype=torch.float64)
    for steps in (6, 8):
        metric = theirs.DeletionInsertionMetric(GivenMaps(model, MAPS), lambda logits: logits.softmax(1), steps=steps)
        metric.update(x, [1, 0, 3])
        found = metric.summary()
        asked: dict[str, Any] = {"target": [1, 0, 3], "baselines": (0.0,), "steps": steps, "cells": None}
        ours = removal_curves(model, x, {"m": MAPS}, **asked)["m"]
        # it adds up in float32
        assert float(ours.deletion.mean()) == pytest.approx(found["deletion_auc"], abs=2e-7)
        assert float(ours.insertion.mean()) == pytest.approx(found["insertion_auc"], abs=2e-7)
        mutant = removal_curves(model, x, {"m": MAPS.roll(1, 0)}, **asked)["m"]
        assert abs(float(mutant.insertion.mean()) - found["insertion_auc"]) > 2e-6


def test_pytorch_grad_cams_removal_by_percentile() -> None:
    reason = "grad-cam is not installed: uv sync --group peers"
    theirs = pytest.importorskip("pytorch_grad_cam.metrics.perturbation_confidence", reason=reason)
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets", reason=reason)
    model, x = small_cnn(), noise(3, 3, 16, 24)
    maps = distinct()
    asked: dict[str, Any] = {"target": [1, 0, 3], "baselines": (0.0,), "steps": 4, "cells": None}
    ours = removal_curves(model, x, {"m": maps}, **asked)["m"]
    classes = [targets.ClassifierOutputSoftmaxTarget(target) for target in (1, 0, 3)]
    for way, curve in (
        (theirs.RemoveMostRelevantFirst, ours.most),
        (theirs.RemoveLeastRelevantFirst, ours.least),
    ):
        for step, percentile in ((1, 75), (2, 50), (3, 25)):
            metric = theirs.PerturbationConfidenceMetric(way(percentile, lambda image, kept: image * kept))
            found = metric(x, maps[:, 0].numpy(), classes, model, return_diff=False)
            torch.testing.assert_close(curve[:, 0, 0, step], torch.from_numpy(found), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_pytorch_grad_cams_road(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, which is not seeded there."""
    reason = "grad-cam is not installed: uv sync --group peers"
    road = pytest.importorskip("pytorch_grad_cam.metrics.road", reason=reason)
    theirs = pytest.importorskip("pytorch_grad_cam.metrics.perturbation_confidence", reason=reason)
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets", reason=reason)
    monkeypatch.setattr(baselines, "IMPUTED", 0.0)
    model, x, maps, imputer = small_cnn(), noise(3, 3, 16, 24), distinct(), road.NoisyLinearImputer(noise=0)
    asked: dict[str, Any] = {"target": [1, 0, 3], "baselines": ("linear",), "removed": (0.25, 0.5, 0.75), "cells": None}
    ours = removal_curves(model, x, {"m": maps}, **asked)["m"]
    classes = [targets.ClassifierOutputSoftmaxTarget(target) for target in (1, 0, 3)]
    for way, curve in ((theirs.RemoveMostRelevantFirst, ours.most), (theirs.RemoveLeastRelevantFirst, ours.least)):
        for step, percentile in ((1, 75), (2, 50), (3, 25)):
            metric = theirs.PerturbationConfidenceMetric(way(percentile, imputer))
            found = torch.from_numpy(metric(x, maps[:, 0].numpy(), classes, model, return_diff=False))
            torch.testing.assert_close(curve[:, 0, 0, step], found, rtol=0, atol=1e-5)
            assert (curve[:, 0, 0, 4 - step if step != 2 else 1] - found).abs().max() > 1e-4  # another percentile
    gone = maps[:1] > 0.4
    filled = torch.stack([imputer(x[0], (~gone[0, 0]).float())])
    torch.testing.assert_close(impute(x[:1], gone), filled, rtol=0, atol=1e-4)
