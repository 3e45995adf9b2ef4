"""`evaluate`: tables, sentences, files, resumption, and the bundled network."""

import csv
from pathlib import Path
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
    OutputError,
    RegionScore,
    Saliency,
    SmoothGrad,
    ValueScore,
    explain,
    zoo,
)
from attribution.images.samples import DISTINCT
from attribution.metrics import (
    SRG,
    BackendDifference,
    CompletenessGap,
    Deletion,
    Float64Difference,
    Infidelity,
    Insertion,
    MaxSensitivity,
    PointingGame,
    Randomisation,
    SeedSpread,
    Table,
    evaluate,
    removal_curves,
)
from attribution.metrics.controls import random
from attribution.metrics.rows import Row
from attribution.metrics.statistics import versus
from attribution.testing import guard, small_cnn
from tests.conftest import noise
from tests.metrics.test_removal import SEEN, Counted

CAM = GradCAM(layers=("body",))
CHEAP: dict[str, Any] = {"baselines": ("mean", "blur"), "metrics": (SRG(steps=4), Deletion(steps=4))}


def photos(count: int = 5) -> Tensor:
    return noise(count, 3, 17, 23)


def test_values_are_those_of_each_photo_alone() -> None:
    model, x = small_cnn(), photos(3)
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


def test_forwards_are_shared_by_metrics_and_maps() -> None:
    model, x = Counted(), photos(4).double()
    asked: dict[str, Any] = {
        "metrics": (SRG(steps=8), Insertion(steps=8), Deletion(steps=8)),
        "baselines": ("mean", "blur"),
        "target": 1,
        "batch_size": 4,
    }
    maps = {"a": lambda inputs: noise(4, 1, 5, 6), "b": lambda inputs: noise(4, 1, 5, 6, seed=1)}
    evaluate(model, x, maps, **asked)
    SEEN.clear()
    evaluate(model, x, maps, **asked)
    contestants_and_controls, baselines = 5, 2
    needed = 4 * (contestants_and_controls * baselines * 14 + 1 + baselines)
    assert needed <= sum(SEEN) <= 1.1 * needed


def test_several_targets_are_averaged_within_a_photo() -> None:
    model, x = small_cnn(), photos()
    both = evaluate(model, x, [CAM], target=[[1, 2]] * 5, **CHEAP).values("srg", "mean")["grad_cam"]
    one, two = (evaluate(model, x, [CAM], target=t, **CHEAP).values("srg", "mean")["grad_cam"] for t in (1, 2))
    assert both == pytest.approx((one + two) / 2, abs=1e-6)
    labels = {row.target for row in evaluate(model, x, [CAM], target=[[1, 2]] * 5, **CHEAP).rows}
    assert labels == {"", "class 1", "class 2"}


def test_the_prediction_is_asked_of_all() -> None:
    model, x = small_cnn(), photos()
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
    model, x = small_cnn(), photos()
    whole = evaluate(model, x, [CAM], target=2, **CHEAP)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.arange(5)), batch_size=2)
    parts = evaluate(model, loader, [CAM], target=2, names=map(str, range(5)), **CHEAP)
    for name in whole.maps:  # the random control too: it goes by the photo
        assert parts.values("srg")[name] == pytest.approx(whole.values("srg")[name], abs=1e-6)


def test_every_metric_in_one_table() -> None:
    model, x = small_cnn(), photos(3)
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


class Segmenting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


def test_regions_and_numbers() -> None:
    region = evaluate(Segmenting(), photos(), [CAM], target=RegionScore(2), **CHEAP)
    assert {row.target for row in region.rows} >= {""}
    assert np.abs(region.values("srg")["grad_cam"]).min() > 0
    model, x = nn.Linear(6, 1), noise(8, 6)
    table = evaluate(model, x, [InputXGradient()], target=ValueScore())
    assert table.maps == ["input_x_gradient", "random"]
    assert table.variants("srg") == ["0"]
    assert (table.values("srg")["input_x_gradient"] >= table.values("srg")["random"]).all()
    series = evaluate(nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten()), noise(3, 2, 9), [Saliency()], target=1, **CHEAP)
    assert series.maps == ["saliency", "random", "centre", "edges"]


def additive(count: int = 12) -> Table:
    """A model whose best map is known, and that map reversed."""
    head = nn.Linear(36, 1, bias=False)
    with torch.no_grad():
        head.weight.copy_(noise(1, 36, seed=3).abs())
    x, weights = noise(count, 1, 6, 6, seed=2).abs() + 0.5, head.weight.detach().reshape(1, 1, 6, 6)
    maps = {"best": lambda inputs: inputs.tensor * weights, "reversed": lambda inputs: -inputs.tensor * weights}
    asked: dict[str, Any] = {"target": ValueScore(), "baselines": (0.0,), "metrics": (SRG(steps=6),)}
    return evaluate(nn.Sequential(nn.Flatten(), head), x, maps, batch_size=5, **asked)


def test_what_is_said() -> None:
    table = additive()
    assert table.ranking()[0] == "best"
    assert table.ranking()[-1] == "reversed"
    said = table.verdicts()
    assert said[0].startswith("best by srg: better than random, centre and edges.")
    assert said[1].startswith("reversed by srg: worse than random, centre and edges.")
    assert said[2] == "best beats reversed on 100 % of photos (100–100)."
    assert "two halves of the photos" in said[-1]
    text = table.text()
    assert text.index("| best |") < text.index("| reversed |") < text.index("| *random* |")
    assert "12 photos; mean (95 % interval" in text
    turned = [row if row.map != "best" else Row(**{**vars(row), "value": -row.value}) for row in table.rows]
    mutant = Table(turned, table.curves, table.contestants, table.better)
    assert mutant.verdicts()[0] != said[0]
    few = additive(4).verdicts()
    assert few[0] == "With fewer than 6 photos no two maps are told apart."
    assert "no better than random, centre and edges" in few[1]


def test_photos_are_paired_by_their_names() -> None:
    table = additive()
    rows = [row for row in table.rows if row.map != "random"]
    rows += [row for row in table.rows if row.map == "random"][::-1]  # in another order
    again = Table(rows, table.curves, table.contestants, table.better)
    assert again.values("srg")["random"].tolist() == table.values("srg")["random"].tolist()
    less = Table(
        [r for r in rows if (r.map, r.photo) != ("random", "3")], table.curves, table.contestants, table.better
    )
    assert all(len(each) == 11 for each in less.values("srg").values())


def test_files(tmp_path: Path) -> None:
    table = additive()
    made = table.save(tmp_path)
    assert [path.name for path in made] == ["scores.csv", "curves.csv", "table.md", "curves.png"]
    with (tmp_path / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(table.rows)
    assert [float(line["value"]) for line in lines] == [row.value for row in table.rows]
    again = Table.load(tmp_path, table.contestants, table.better)
    assert again.text() == table.text()
    assert list(again.curves) == list(table.curves)
    with pytest.raises(OutputError):
        table.save(tmp_path / "missing")


def test_a_second_call_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    model, x = Counted(), photos().double()
    asked: dict[str, Any] = {"target": 1, "batch_size": 1, **CHEAP}
    whole = evaluate(model, x, [Saliency()], **asked)

    def breaks(photos: Tensor) -> Any:
        for n, photo in enumerate(photos):
            if n == 3:
                raise KeyboardInterrupt
            yield photo[None]

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, breaks(x), [Saliency()], out=tmp_path, **asked)
    with (tmp_path / "scores.csv").open("a") as file:
        file.write("4,class 1,saliency,srg,mean,0.99\r\n5,cla")  # rows of photos that were not finished
    SEEN.clear()
    found = evaluate(model, x, [Saliency()], out=tmp_path, **asked)
    per_photo = 4 * 2 * 6 + 3
    assert 2 * per_photo <= sum(SEEN) <= 2 * (per_photo + 12)
    for name in whole.maps:
        assert found.values("srg")[name] == pytest.approx(whole.values("srg")[name], abs=1e-12)
    assert len(found.rows) == len(whole.rows)
    SEEN.clear()
    again = evaluate(model, x, [Saliency()], out=tmp_path, **asked)
    assert not SEEN
    assert list(again.rows) == list(found.rows)
    for changes in ({"target": 2}, {"metrics": (SRG(steps=5),)}, {"baselines": (0.0,)}, {"seed": 1}):
        with pytest.raises(OutputError, match="another question"):
            evaluate(model, x, [Saliency()], out=tmp_path, **{**asked, **changes})
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    with pytest.raises(OutputError, match="another question"):
        evaluate(model, x, [Saliency()], out=tmp_path, **asked)


def test_a_technique_that_asks_no_class_is_scored_for_all() -> None:
    table = evaluate(small_cnn(), photos(2), [EigenCAM(layers=("body",)), CAM], target=[[1, 2]] * 2, **CHEAP)
    assert list(table.contestants) == ["eigen_cam", "grad_cam"]
    found = [row.target for row in table.rows if row.map == "eigen_cam" and row.metric == "srg"]
    assert sorted(set(found)) == ["class 1", "class 2"]


def test_layers_and_twins_are_rows_of_their_own() -> None:
    techniques = [GradCAM(layers=("stem", "body")), LayerCAM(layers=("body",)), LayerCAM(layers=("stem",))]
    table = evaluate(small_cnn(), photos(2), techniques, target=1, **CHEAP)
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
        evaluate(small_cnn(), photos(2), techniques, **{"target": 1, **CHEAP, **changes})


def test_no_photos_are_refused() -> None:
    with pytest.raises(InputError, match="no photos"):
        evaluate(small_cnn(), iter(()), [CAM], **CHEAP)
    table = additive()
    with pytest.raises(InputError, match="no metric 'srgs'; nearest: 'srg'"):
        table.values("srgs")
    with pytest.raises(InputError, match="no variant"):
        table.values("srg", "blur")
    with pytest.raises(InputError, match="not measured of 'bets'; nearest: 'best'"):
        table.versus("bets", "random")


def test_the_figure_has_a_line_per_baseline() -> None:
    table = evaluate(small_cnn(), photos(2), [CAM], target=1, title="small", **CHEAP)
    figure = table.figure()
    assert len(figure.axes) == 4
    drawn = figure.axes[0].get_lines()
    assert [line.get_label() for line in drawn] == table.maps
    clean = small_cnn()(photos(2)).detach().softmax(1)[:, 1].mean()
    assert float(np.asarray(drawn[0].get_ydata())[0]) == pytest.approx(float(clean), abs=1e-6)
    assert "small · 2 photos" in figure.get_suptitle()
    only = evaluate(small_cnn(), photos(2), [CAM], target=1, metrics=(Infidelity(samples=2),))
    with pytest.raises(InputError, match="no curves"):
        only.figure()


def bundled(count: int) -> tuple[nn.Module, Tensor, list[str]]:
    loaded, names = zoo.load("bundled:squeezenet1_1"), [*DISTINCT[:count]]
    return loaded.model, torch.cat([loaded.inputs(zoo.sample_photo(name)) for name in names]), names


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


def test_inputs_of_several_arguments() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_cnn()

        def forward(self, image: Tensor, scale: Tensor) -> Tensor:
            return self.inner(image) * scale[:, None]  # type: ignore[no-any-return]

    inputs = Inputs.of((photos(3), torch.tensor([1, 2, 3])))
    table = evaluate(Two(), inputs, [Saliency()], target=1, batch_size=2, **CHEAP)
    alone = evaluate(Two(), (photos(3)[2:], torch.tensor([3])), [Saliency()], target=1, **CHEAP)
    assert table.values("srg")["saliency"][2] == pytest.approx(alone.values("srg")["saliency"][0], abs=1e-6)
