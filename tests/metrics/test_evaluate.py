"""`evaluate`: values, targets, metrics and inputs."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    ClassScore,
    EigenCAM,
    GradCAM,
    InputError,
    Inputs,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    NonFiniteError,
    RegionScore,
    Saliency,
    SmoothGrad,
    ValueScore,
    explain,
)
from attribution.metrics import (
    SRG,
    BackendDifference,
    CompletenessGap,
    Float64Difference,
    Infidelity,
    MaxSensitivity,
    PointingGame,
    Randomisation,
    SeedSpread,
    evaluate,
    removal_curves,
)
from attribution.testing import guard, small_cnn
from tests.conftest import noise
from tests.metrics.asked import (
    CAM,
    CHEAP,
    Segmenting,
    ordered,
    photos,
    pictures,
)


def test_values_are_those_of_each_photo_alone() -> None:
    model, x = small_cnn(), pictures(3)
    table = evaluate(model, x, [CAM, Saliency()], target=2, batch_size=2, **CHEAP)
    assert table.photos == ["0", "1", "2"]
    assert table.maps == ["grad_cam", "saliency", "random", "centre", "edges"]
    assert table.controls == ["random", "centre", "edges"]
    for name, technique in (("grad_cam", CAM), ("saliency", Saliency())):
        for n in range(3):
            given = explain(model, x[n : n + 1], technique, target=2)
            curves = removal_curves(model, x[n : n + 1], {"m": given}, baselines=("mean", "blur"), steps=4, first=n)[
                "m"
            ]
            for b, baseline in enumerate(("mean", "blur")):
                assert table.values("srg", baseline)[name][n] == pytest.approx(float(curves.srg[0, 0, b]), abs=1e-6)
                assert table.values("deletion", baseline)[name][n] == pytest.approx(
                    float(curves.deletion[0, 0, b]), abs=1e-6
                )
    srg = table.values("srg")["grad_cam"]
    assert srg == pytest.approx(sum(table.values("srg", b)["grad_cam"] for b in ("mean", "blur")) / 2)
    assert (np.diff(srg) != 0).all()


def test_several_targets_are_averaged_within_a_photo() -> None:
    model, x = small_cnn(), pictures()
    both = evaluate(model, x, [CAM], target=[[1, 2]] * 5, **CHEAP).values("srg", "mean")["grad_cam"]
    one, two = (evaluate(model, x, [CAM], target=t, **CHEAP).values("srg", "mean")["grad_cam"] for t in (1, 2))
    assert both == pytest.approx((one + two) / 2, abs=1e-6)
    labels = {row.target for row in evaluate(model, x, [CAM], target=[[1, 2]] * 5, **CHEAP).rows}
    assert labels == {"", "class 1", "class 2"}


def test_the_prediction_is_asked_of_all() -> None:
    model, x = small_cnn(), pictures()
    predicted = model(x).argmax(1).tolist()
    table = evaluate(model, x, [Saliency(), CAM], **CHEAP)
    told = evaluate(model, x, [Saliency(), CAM], target=predicted, **CHEAP)
    assert {row.target for row in table.rows if row.photo == "3"} == {"", f"class {predicted[3]}"}
    for name in table.maps:
        assert table.values("srg")[name] == pytest.approx(told.values("srg")[name], abs=1e-7)
    logit = evaluate(model, x, [CAM], target=ClassScore(2, of="logit"), **CHEAP)
    assert {round(row.most, 4) for row in logit.curves if row.removed == 0} == {
        round(value, 4) for value in model(x)[:, 2].tolist()
    }


def test_an_iterable_of_batches_is_the_same_data_set() -> None:
    model, x = small_cnn(), pictures()
    whole = evaluate(model, x, [CAM], target=2, **CHEAP)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.arange(5)), batch_size=2)
    parts = evaluate(model, loader, [CAM], target=2, names=map(str, range(5)), **CHEAP)
    for name in whole.maps:  # the random control too: it goes by the photo
        assert parts.values("srg")[name] == pytest.approx(whole.values("srg")[name], abs=1e-6)


def test_every_metric_in_one_table() -> None:
    model, x = small_cnn(), pictures(3)
    masks = torch.zeros(3, 17, 23, dtype=torch.bool)
    masks[:, 4:9, 5:12] = True
    metrics = (
        SRG(steps=3),
        Infidelity(samples=3),
        MaxSensitivity(samples=2),
        Randomisation(stages=2),
        PointingGame(masks),
        CompletenessGap(),
        SeedSpread(seeds=1),
        BackendDifference(),
        Float64Difference(),
    )
    techniques = [CAM, IntegratedGradients(steps=3, channels="sum"), SmoothGrad(samples=2)]
    with guard(model):
        table = evaluate(model, x, techniques, metrics=metrics, baselines=(0.0,), target=1, batch_size=2)
    asked = {name: set(table.values(name)) for name in table.better}
    techniques_only = {"grad_cam", "integrated_gradients", "smooth_grad"}
    controls = {"random", "centre", "edges"}
    for name in ("srg", "infidelity", "randomisation", "pointing_game"):
        assert asked[name] == techniques_only | controls
    for name in ("max_sensitivity", "backend_difference", "float64_difference"):
        assert asked[name] == techniques_only
    assert asked["completeness_gap"] == {"integrated_gradients"}
    assert asked["seed_spread"] == {"smooth_grad"}
    assert table.variants("randomisation") == ["50%", "100%"]
    assert "integrated_gradients" in table.text()
    assert len(table.seconds()) == 3


def test_regions_and_numbers() -> None:
    region = evaluate(Segmenting(), photos(5), [CAM], target=RegionScore(2), **CHEAP)
    assert {row.target for row in region.rows} >= {""}
    assert np.abs(region.values("srg")["grad_cam"]).min() > 0
    model, x = nn.Linear(6, 1), noise(8, 6)
    table = evaluate(model, x, [InputXGradient()], target=ValueScore())
    assert table.maps == ["input_x_gradient", "random"]
    assert table.variants("srg") == ["0"]
    assert (table.values("srg")["input_x_gradient"] >= table.values("srg")["random"]).all()
    series = evaluate(nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten()), noise(3, 2, 9), [Saliency()], target=1, **CHEAP)
    assert series.maps == ["saliency", "random", "centre", "edges"]


def test_a_technique_that_asks_no_class_is_scored_for_all() -> None:
    table = evaluate(small_cnn(), pictures(2), [EigenCAM(layers=("body",)), CAM], target=[[1, 2]] * 2, **CHEAP)
    assert list(table.contestants) == ["eigen_cam", "grad_cam"]
    found = [row.target for row in table.rows if row.map == "eigen_cam" and row.metric == "srg"]
    assert sorted(set(found)) == ["class 1", "class 2"]


def test_layers_and_twins_are_rows_of_their_own() -> None:
    techniques = [GradCAM(layers=("stem", "body")), LayerCAM(layers=("body",)), LayerCAM(layers=("stem",))]
    table = evaluate(small_cnn(), pictures(2), techniques, target=1, **CHEAP)
    assert list(table.contestants) == ["grad_cam · stem", "grad_cam · body", "layer_cam", "layer_cam 2"]


@pytest.mark.parametrize(
    ("techniques", "changes", "error", "match"),
    [
        ([], {}, InputError, "no technique"),
        ([Activations()], {}, InputError, "gives no heatmap"),
        ([GradCAM], {}, InputError, "is no technique"),
        ({"a": 3}, {}, InputError, "give a technique"),
        ([CAM], {"metrics": ()}, InputError, "at least one"),
        ([CAM], {"metrics": (SRG(), SRG(steps=3))}, InputError, "none twice"),
        ([CAM], {"batch_size": 0}, InputError, "batch_size is 0"),
        ([CAM], {"names": ["a", "a"]}, InputError, "different names"),
        ([CAM], {"names": ["a"]}, InputError, "different names"),
        ({"a": lambda inputs: torch.full((2, 1, 4, 4), float("nan"))}, {}, NonFiniteError, "NaN"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    techniques: Any, changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        evaluate(small_cnn(), pictures(2), techniques, **{"target": 1, **CHEAP, **changes})


def test_no_photos_are_refused() -> None:
    with pytest.raises(InputError, match="no photos"):
        evaluate(small_cnn(), iter(()), [CAM], **CHEAP)
    table = ordered()
    with pytest.raises(InputError, match="no metric 'srgs'; nearest: 'srg'"):
        table.values("srgs")
    with pytest.raises(InputError, match="no variant"):
        table.values("srg", "blur")
    with pytest.raises(InputError, match="not measured of 'bets'; nearest: 'best'"):
        table.versus("bets", "random")


def test_inputs_of_several_arguments() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_cnn()

        def forward(self, image: Tensor, scale: Tensor) -> Tensor:
            return self.inner(image) * scale[:, None]  # type: ignore[no-any-return]

    inputs = Inputs.of((pictures(3), torch.tensor([1, 2, 3])))
    table = evaluate(Two(), inputs, [Saliency()], target=1, batch_size=2, **CHEAP)
    alone = evaluate(Two(), (pictures(3)[2:], torch.tensor([3])), [Saliency()], target=1, **CHEAP)
    assert table.values("srg")["saliency"][2] == pytest.approx(alone.values("srg")["saliency"][0], abs=1e-6)
