"""Feature ablation: segments of any form against loops, by tiles and whole, and what is refused."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import ClassScore, Execution, FeatureAblation, InputError, Inputs, RegionScore, compare, explain
from attribution.techniques.perturbation import segments
from attribution.testing import small_cnn, small_residual
from attribution_captum.segments import CaptumFeatureAblation
from attribution_hooks.incremental import engine
from attribution_hooks.perturbation import feature_ablation
from attribution_hooks.perturbation.feature_ablation import spread
from tests.conftest import BACKENDS, noise

DOUBLE = torch.float64
LOGITS = ClassScore("all", of="logit")


class Rank(nn.Module):
    """Of inputs of any rank."""

    def __init__(self, shape: tuple[int, ...], classes: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise(classes, *shape, dtype=DOUBLE, seed=3))

    def forward(self, x: Tensor) -> Tensor:
        return ((x + 0.3 * x**2).flatten(1) @ self.weight.flatten(1).T).tanh() * 2


def slanted(height: int, width: int) -> Tensor:
    """Segments of odd shapes and numbers, one of them in two pieces."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    found = 100 * (rows // 5) + 7 * ((columns + rows // 2) // 6) - 50
    found[-1, -1] = found[0, 0]
    return found


def exact(score: Callable[[Tensor, int], Any], x: Tensor, cover: Tensor, labels: Tensor) -> Tensor:
    """(N, T, *places), place by place; each segment one forward, of integers as they were given."""
    rows = []
    for n in range(len(x)):
        own = labels[n % len(labels)]
        clean = score(x[n : n + 1], n)
        maps = torch.zeros((len(clean), *own.shape), dtype=DOUBLE)
        for number in {int(value) for value in own.flatten()}:
            covered = x[n : n + 1].clone()
            for at in torch.nonzero(own == number).tolist():
                where = (0, *at) if x.ndim == 2 else (0, slice(None), *at)
                covered[where] = cover.expand_as(x)[(n, *where[1:])]
            for t, (before, after) in enumerate(zip(clean, score(covered, n), strict=True)):
                for at in torch.nonzero(own == number).tolist():
                    maps[(t, *at)] = before - after
        rows.append(maps)
    return torch.stack(rows)


def of(model: nn.Module) -> Callable[[Tensor, int], list[float]]:
    def score(x: Tensor, n: int) -> list[float]:
        with torch.no_grad():
            return [float(value) for value in model(x)[0]]

    return score


def close(a: Tensor, b: Tensor, within: float = 1e-10) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= within * b.abs().max() and b.abs().max() > 1e-3)


FORMS: dict[str, tuple[tuple[int, ...], Any]] = {
    "features": ((11,), None),
    "features in groups": ((11,), [0, 0, 5, 5, 5, 1, 1, 1, 9, 9, 0]),
    "series": ((3, 13), None),
    "image": ((3, 13, 17), slanted(13, 17)),
    "images of their own": ((3, 13, 17), torch.stack([slanted(13, 17), slanted(13, 17).flip(1), slanted(17, 13).T])),
    "image on a grid": ((2, 19, 9), None),
    "volume": ((2, 3, 4, 5), torch.arange(60).reshape(3, 4, 5) // 7),
}


@BACKENDS
@pytest.mark.parametrize("form", FORMS)
def test_of_every_form(form: str, backend: str) -> None:
    shape, given = FORMS[form]
    model, x = Rank(shape), noise(3, *shape, dtype=DOUBLE)
    question = FeatureAblation(segments=given, baseline=0.25)
    labels = torch.as_tensor(given) if given is not None else question.labels(x)
    labels = labels if labels.ndim == len(shape[-1:]) + len(shape[1:-1]) + 1 else labels[None]
    found = explain(model, x, question, target=LOGITS, backend=backend).map
    wanted = exact(of(model), x, question.cover(x), labels)
    within = 1e-10 if backend == "hooks" else 1e-6
    assert close(found, wanted, within)
    assert not close(found.roll(1, 1), wanted, within)
    assert not close(found.roll(1, -1), wanted, within)


def test_a_grid_of_eight_is_as_it_is_told() -> None:
    labels = FeatureAblation().labels(noise(1, 3, 19, 9))
    assert labels.shape == (1, 19, 9)
    wanted = [[(i * 8 // 19) * 8 + j * 8 // 9 for j in range(9)] for i in range(19)]
    assert labels[0].tolist() == wanted
    assert FeatureAblation().labels(noise(1, 5)).tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("build", [small_cnn, small_residual])
@pytest.mark.parametrize("given", [None, slanted(37, 43)], ids=["grid", "segments"])
def test_by_what_a_segment_changes(given: Any, build: Callable[..., nn.Module]) -> None:
    """The same as by full forwards, for fewer operations, each image and class."""
    model, x = build(dtype=DOUBLE), noise(2, 3, 37, 43, dtype=DOUBLE)
    question = FeatureAblation(segments=given, baseline=(0.5, -1.0, 0.0))
    found = explain(model, x, question, target=LOGITS)
    labels = question.labels(x)
    assert found.provenance["engine"] == "incremental"
    assert int(found.provenance["macs"]) < int(found.provenance["macs_dense"]) / 5
    assert int(found.provenance["macs_floor"]) <= int(found.provenance["macs"])
    assert close(found.map, exact(of(model), x, question.cover(x), labels))
    dense = explain(model, x, question, target=LOGITS, execution=Execution(incremental=False))
    assert dense.provenance["engine"] == "dense"
    assert close(found.map, dense.map)


def test_tiles_that_are_covered_whole_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies around a segment is no segment: the proof sees it, and without the proof the map is another."""
    model, x, question = (
        small_cnn(dtype=DOUBLE),
        noise(1, 3, 37, 43, dtype=DOUBLE),
        FeatureAblation(segments=slanted(37, 43)),
    )
    wanted = explain(model, x, question, target=LOGITS, execution=Execution(incremental=False))
    monkeypatch.setattr(engine, "_bordered", lambda labels, areas: {})
    found = explain(model, x, question, target=LOGITS)
    assert found.provenance["engine"] == "dense"
    assert close(found.map, wanted.map)


def test_a_region_and_a_baseline_of_each_image() -> None:
    class Segments(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)  # type: ignore[no-any-return]

    model, x, cover = Segments(), noise(3, 3, 7, 11, dtype=DOUBLE), noise(3, 3, 7, 11, dtype=DOUBLE, seed=8)
    region = torch.zeros(3, 7, 11, dtype=torch.bool)
    region[0, :3, :4] = region[1, 2:, 5:] = region[2, 6, :] = True

    def score(shown: Tensor, n: int) -> list[float]:
        with torch.no_grad():
            return [float(model(shown)[0, 2][region[n]].mean())]

    question = FeatureAblation(segments=slanted(7, 11), baseline=cover)
    answer = compare(model, x, question, target=RegionScore(2, region))
    assert answer.holds
    assert close(answer.attributions["hooks"].map, exact(score, x, cover, slanted(7, 11)[None]))
    with torch.no_grad():
        other = explain(model, x, FeatureAblation(segments=slanted(7, 11)), target=RegionScore(2, region))
    assert not close(other.map, answer.attributions["hooks"].map)


@BACKENDS
def test_of_several_inputs_each_is_covered_alone(backend: str) -> None:
    class Two(nn.Module):
        def forward(self, image: Tensor, table: Tensor) -> Tensor:
            joined = image.sum((1, 3))[:, :4] * table
            return joined + joined.roll(1, 1).tanh()

    image, table, model = noise(2, 3, 5, 7, dtype=DOUBLE), noise(2, 4, dtype=DOUBLE, seed=2), Two()
    question = FeatureAblation(segments={"0": slanted(5, 7), "1": None})
    result = explain(model, (image, table), question, target=LOGITS, backend=backend)

    def first(x: Tensor, n: int) -> list[float]:
        return [float(value) for value in model(x, table[n : n + 1])[0]]

    def second(x: Tensor, n: int) -> list[float]:
        return [float(value) for value in model(image[n : n + 1], x)[0]]

    within = 1e-10 if backend == "hooks" else 1e-6
    assert close(result.maps["input.0"], exact(first, image, 0 * image[:1], slanted(5, 7)[None]), within)
    assert close(result.maps["input.1"], exact(second, table, 0 * table[:1], torch.arange(4)[None]), within)


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)).flatten(1)[:, :5] + x.flatten(2).sum(2)[:, :1]


def test_examples_that_go_one_by_one_keep_their_segments() -> None:
    x, maps = noise(3, 3, 7, 11, dtype=DOUBLE), torch.stack([slanted(7, 11), slanted(7, 11).flip(0), slanted(11, 7).T])
    question = FeatureAblation(segments=maps)
    assert question.rows(slice(1, 2), Inputs.of(x)).labels(x[1:2]).equal(question.labels(x)[1:2])
    found = explain(Mixing(), x, question, target=LOGITS).map
    wanted = exact(of(Mixing()), x, 0 * x[:1], maps)
    assert close(found, wanted)


def test_superpixels_are_of_each_image_and_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    blobs = torch.stack([((y - 20) ** 2 + (x - c) ** 2 < 150).float() for c in (15, 40)])[:, None].repeat(1, 3, 1, 1)
    blobs = blobs + 0.02 * noise(2, 3, 40, 60)
    question = FeatureAblation(segments="slic")
    labels = question.labels(blobs)
    assert labels.shape == (2, 40, 60)
    assert 20 <= int(labels.max()) <= 80
    assert not labels[0].equal(labels[1])
    assert compare(small_cnn(), blobs, question, target=1).holds
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(InputError, match=r"'slic' needs scikit-image: pip install 'torch-attribution\[demo\]'"):
        explain(small_cnn(), blobs, question, target=1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("felzenszwalb", "give a map of integers"),
        (torch.rand(7, 11), "is no map of integers"),
        (torch.zeros(7, 11, dtype=torch.bool), "is no map of integers"),
        (torch.zeros(0, 11, dtype=torch.int64), "is no map of integers"),
        (torch.zeros(11, 7, dtype=torch.int64), r"has shape \(11, 7\), and 'input' the places \(7, 11\)"),
        (torch.zeros(3, 7, 11, dtype=torch.int64), r"has shape \(3, 7, 11\)"),
        ({"other": None}, "explained are"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(given: Any, said: str) -> None:
    ran: list[int] = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            ran.append(len(x))
            return x.flatten(1)

    with pytest.raises(InputError, match=said):
        explain(Watched(), noise(2, 3, 7, 11), FeatureAblation(segments=given), target=1)
    with pytest.raises(InputError, match="is for images"):
        explain(Watched(), noise(2, 11), FeatureAblation(segments="slic"), target=1)
    assert ran == []


def test_techniques_compare_by_their_segments() -> None:
    one, same, other = (FeatureAblation(segments=slanted(7, 11) + k // 2) for k in range(3))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other


MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "the neighbour's segment": (
        feature_ablation, "spread", lambda values, labels: spread(values.roll(1, 0), labels)),
    "another example's": (
        feature_ablation, "spread", lambda values, labels: spread(values.roll(1, 1), labels)),
    "a thousandth too large": (
        feature_ablation, "spread", lambda values, labels: spread(values * 1.001, labels)),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, question = Rank((3, 7, 11)), noise(2, 3, 7, 11), FeatureAblation(segments=slanted(7, 11))
    model = model.float()
    assert compare(model, x, question, target=LOGITS).holds
    monkeypatch.setattr(*MUTANTS[name])
    assert not compare(model, x, question, target=LOGITS).holds


def test_captums_mutant_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, question, plain = (
        Rank((3, 7, 11)),
        noise(2, 3, 7, 11, dtype=DOUBLE),
        FeatureAblation(),
        CaptumFeatureAblation.ask,
    )
    assert compare(model, x, question, target=LOGITS).holds
    monkeypatch.setattr(CaptumFeatureAblation, "ask", lambda *given: plain(*given).roll(1, 0))
    assert not compare(model, x, question, target=LOGITS).holds


def test_the_number_of_superpixels_is_as_documented() -> None:
    assert (segments.GRID, segments.SUPERPIXELS) == (8, 50)
