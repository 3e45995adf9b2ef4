"""The rule of agreement, and that the installed backends keep it."""

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, Execution, FilterVisualization, GradCAM, Occlusion, Technique, compare, explain
from attribution.agreement import Agreement, agree, all_hold, coarser, relative_tolerance, table
from attribution.errors import InputError
from attribution.scores.targets import Target
from tests.conftest import MODELS, build, logit, noise
from tests.draw import pairwise

DTYPES = [torch.float32, torch.float64]
BATCHES = [(1, (17, 23)), (3, (17, 23)), (3, (25, 12))]

HEATMAPS: dict[str, Technique] = {
    "grad_cam": GradCAM(layers=("stem", "body")),
    "grad_cam-default": GradCAM(relu=False, upsample=False),
    "occlusion": Occlusion(window=7, stride=5),
    "occlusion-drop": Occlusion(window=(7, 5), stride=(5, 3), border="drop", baseline=0.4),
    "occlusion-logit": Occlusion(window=(9, 6), stride=(4, 6), baseline=(0.5, -0.5, 0.1)),
    "occlusion-probability-channels": Occlusion(window=10, stride=10, baseline=(-1.0, 2.0, 0.0)),
    "occlusion-whole": Occlusion(window=12, stride=4),
}
BY_LOGIT = ("occlusion-logit", "occlusion-whole")


TILES = Execution(incremental="always")
"""Small models gain nothing by tiles, least of all on an accelerator."""


def targets(images: int) -> list[Target]:
    flat = [4, 0, 2][:images]
    return [3, flat, torch.tensor(flat), [[t, 1] for t in flat], "all", None]


def check(pairs: dict[tuple[str, str], list[Agreement]], count: int) -> None:
    assert pairs, "no pair of backends"
    for pair, found in pairs.items():
        assert len(found) == count
        assert not [a for a in found if a.degenerate], pair
        assert all(a.holds for a in found), table(found)


@pytest.mark.device
@pairwise(model_name=[*MODELS], name=[*HEATMAPS], batch=BATCHES, dtype=DTYPES)
def test_heatmaps(
    model_name: str, name: str, batch: tuple[int, tuple[int, int]], dtype: torch.dtype, device: str
) -> None:
    model, technique, (images, size) = build(model_name, dtype).to(device), HEATMAPS[name], batch
    inputs = noise(images, 3, *size, dtype=dtype).to(device)
    layers = len(technique.layers) or 1 if isinstance(technique, GradCAM) else 1
    per_image = {0: 1, 1: 1, 2: 1, 3: 2, 4: 5, 5: 1}
    for index, target in enumerate(targets(images)):
        if name != "grad_cam" and index in (0, 2, 5) and size != (17, 23):
            continue
        found = compare(model, inputs, technique, target=logit(target) if name in BY_LOGIT else target, execution=TILES)
        check(found.agreements, layers * images * per_image[index])
        assert found.attributions["hooks"].provenance.get("engine", "incremental") == "incremental"
        assert found.holds
        a, b = (side.target for side in found.attributions.values())
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)


@pytest.mark.device
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("images", "size"), BATCHES, ids=str)
def test_activations(model_name: str, images: int, size: tuple[int, int], dtype: torch.dtype, device: str) -> None:
    model, inputs = build(model_name, dtype).to(device), noise(images, 3, *size, dtype=dtype).to(device)
    layers = ("stem", "stem_relu", "pool", "body", "head", "head.0")
    check(compare(model, inputs, Activations(layers=layers)).agreements, len(layers) * images)
    assert compare(model, inputs, Activations()).holds


@pytest.mark.device
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [(1,), (0, 2, 5)], ids=str)
@pytest.mark.parametrize("layer", ["stem", "body"])
def test_filter_visualization(
    model_name: str, layer: str, channels: tuple[int, ...], dtype: torch.dtype, device: str
) -> None:
    technique = FilterVisualization(layer=layer, channels=channels, steps=15, size=(17, 23))
    found = compare(build(model_name, dtype).to(device), None, technique)
    check(found.agreements, 2 * len(channels))


def test_tolerances() -> None:
    assert relative_tolerance(torch.float64) == 1e-10
    assert relative_tolerance(torch.float32) == 1e-5
    assert relative_tolerance(torch.float32, host=False) == 1e-4
    assert relative_tolerance(torch.float16, host=False) == relative_tolerance(torch.float16)
    with pytest.raises(InputError, match=r"torch\.int64"):
        relative_tolerance(torch.int64)
    assert coarser(torch.float64, None, torch.float32) == torch.float32
    assert coarser(torch.float16, torch.bfloat16) == torch.bfloat16
    assert coarser(torch.int64, None) == torch.float64


class Largest(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.argmax(dim=1)


def test_layers_of_integers_are_compared_too() -> None:
    model = torch.nn.Sequential(build("cnn"), Largest())
    found = compare(model, noise(4, 3, 17, 23), Activations(layers=("1",)))
    assert found.holds
    (result, _) = found.attributions.values()
    assert result.maps["1"].dtype == torch.float32
    assert torch.equal(result.raw["1"], model(noise(4, 3, 17, 23)))


def test_the_rule_at_its_edge() -> None:
    a, b = torch.tensor([2.0, -4.0], dtype=torch.float64), torch.tensor([2.0, -3.5], dtype=torch.float64)
    edge = agree("x", a, b, relative=0.125)
    assert (edge.difference, edge.scale, edge.tolerance, edge.holds, edge.scaled) == (0.5, 4.0, 0.5, True, 0.125)
    assert not agree("x", a, b, relative=0.124).holds
    assert agree("x", a, b, relative=0.0, absolute=0.5).holds
    assert not agree("x", a, b, relative=0.0, absolute=0.499).holds


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_never_holds(bad: float) -> None:
    one, other = torch.tensor([bad, 1.0]), torch.tensor([1.0, 1.0])
    for a, b in ((one, other), (other, one), (one, one)):
        assert not agree("x", a, b, relative=1.0, absolute=1e30).holds


def test_a_pair_of_zeros_proves_nothing() -> None:
    zero = torch.zeros(2)
    pair = agree("zero", zero, zero, relative=1e-5)
    assert pair.degenerate
    assert pair.holds
    assert not all_hold([pair])
    assert not all_hold([])
    assert all_hold([pair, agree("one", zero + 1, zero + 1, relative=0.0)])
    assert "degenerate" in table([pair])
    assert table([]) == "nothing was compared"
    assert "DIFFERS" in table([agree("one", zero, zero + 1, relative=0.0)])


def test_a_pair_below_its_tolerance_proves_nothing() -> None:
    """An occlusion that takes 1e-4 off a score of 100 lies within what is put down to the score's rounding."""
    one = torch.tensor([1e-4, 0.0])
    pair = agree("small", one, one.flip(0), relative=1e-5, absolute=1e-3)
    assert pair.holds
    assert pair.degenerate
    assert not all_hold([pair])
    assert not agree("larger", 20 * one, 20 * one, relative=1e-5, absolute=1e-3).degenerate


def test_other_shapes_never_hold() -> None:
    pair = agree("x", torch.ones(2), torch.ones(3), relative=1.0)
    assert not pair.holds
    assert "(2,)" in pair.name
    assert "(3,)" in pair.name


def test_a_missing_layer_or_image_does_not_hold() -> None:
    model, inputs = build("cnn"), noise(2, 3, 17, 23)
    one, two = (explain(model, inputs, Activations(layers=layers)) for layers in (("stem",), ("stem", "body")))
    assert [a.holds for a in one.technique.agreement(one, two)] == [False, True, True]
    fewer = explain(model, inputs[:1], Activations(layers=("stem",)))
    assert not all_hold(one.technique.agreement(one, fewer))


def test_pairs_are_named_by_layer_image_and_class() -> None:
    found = compare(build("cnn"), noise(2, 3, 17, 23), GradCAM(layers=("body",)), target=[[3, 1], [0, 2]])
    (pairs,) = found.agreements.values()
    assert [pair.name for pair in pairs] == [
        f"body · image {n} · target {t}" for n, row in enumerate([[3, 1], [0, 2]]) for t in row
    ]
    assert found.largest == max(pair.scaled for pair in pairs)
    assert found.table().count("agrees") == 4


@pytest.mark.parametrize("backends", [[], ["hooks"], ["hooks", "hooks"]], ids=str)
def test_comparing_needs_two_backends(backends: list[str]) -> None:
    with pytest.raises(InputError, match="two different backends"):
        compare(build("cnn"), noise(1, 3, 17, 23), GradCAM(layers=("body",)), backends=backends)


def test_a_long_table_tells_what_differs_first() -> None:
    one = torch.tensor([1.0, 2.0])
    pairs = [agree(f"class {k}", one, one * (1 + 1e-6 * (k == 50)), relative=1e-5) for k in range(100)]
    pairs[7] = agree("class 7", one, one * 1.5, relative=1e-5)
    pairs[9] = agree("class 9", one * 0, one * 0, relative=1e-5)
    lines = table(pairs, most=8).splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["7", "9", "50"]
    assert [line.split()[-1] for line in lines[:4]] == ["DIFFERS", "degenerate", "agrees", "agrees"]
    assert lines[4] == "and 96 more: 96 agree"
    assert len(lines) == 5
    assert len(table(pairs[:8], most=8).splitlines()) == 8
    wrong = [agree(f"class {k}", one, one * 2, relative=1e-5) for k in range(10)]
    assert table(wrong, most=4).splitlines()[-1] == "and 8 more: 0 agree, 8 DIFFER"


def test_a_comparison_draws_the_two_that_are_furthest_apart() -> None:
    found = compare(build("cnn"), noise(1, 3, 17, 23), GradCAM(layers=("body",)), target=1)
    figure = found.figure()
    assert [axes.get_title() for axes in figure.axes[:2]] == ["body\ncaptum", "body\nhooks"] or figure.axes
    with pytest.raises(InputError, match="'zennit' was not compared; there are captum, hooks"):
        found.figure(backends=("hooks", "zennit"))
    assert repr(found).startswith("<Comparison grad_cam: captum, hooks agree, at most ")


class Faint(nn.Module):
    """Large logits that hardly depend on the image."""

    def forward(self, x: Tensor) -> Tensor:
        return 1000.0 + 1e-4 * x.flatten(1)[:, :3]


def test_maps_within_the_rounding_of_their_score_prove_nothing() -> None:
    found = compare(Faint(), noise(1, 3, 17, 23), Occlusion(window=7, stride=5), target=logit(1))
    assert not any(pair.scale == 0 for pairs in found.agreements.values() for pair in pairs)
    assert all(pair.holds for pairs in found.agreements.values() for pair in pairs)
    assert not found.holds
    assert found.verdict == "prove nothing"
    assert "prove nothing" in repr(found)
