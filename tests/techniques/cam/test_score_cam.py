"""Score-CAM: plain loops over channels and places, constant channels, and what changes no map."""

from collections.abc import Callable
from itertools import product
from math import exp
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import ClassScore, Execution, LayerError, RegionScore, ScoreCAM, ValueScore, explain
from attribution_hooks.cam import masked, score_cam
from attribution_hooks.cam.masked import scores as scores_of
from tests.conftest import noise
from tests.techniques.cam.nets import CASES, CLASSES, Case, Segments
from tests.techniques.cam.test_any_layer import agree, classes

IMAGE = CASES["image"]
FORMS = ["series", "image", "volume", "tokens", "tokens, sequence first", "flattened grid"]
Scores = Callable[[Any, int], list[Tensor]]


def enlarged(channel: Tensor, size: tuple[int, ...]) -> Tensor:
    """Place by place, half-pixel centres, clamped at the border."""
    found = torch.zeros(size, dtype=torch.float64)
    for at in product(*map(range, size)):
        sides = []
        for place, small, large in zip(at, channel.shape, size, strict=True):
            source = max((place + 0.5) * small / large - 0.5, 0.0)
            low = min(int(source), small - 1)
            sides.append([(low, 1 - (source - low)), (min(low + 1, small - 1), source - low)])
        for corner in product(*sides):
            part = float(channel[tuple(index for index, _ in corner)])
            for _, share in corner:
                part *= share
            found[at] += part
    return found


def exact(case: Case, model: nn.Module, x: Tensor, scores: Scores) -> Tensor:
    """(N, T, *places), one forward for each channel of each example."""
    layer, rows = model.get_submodule(case.layer), []
    for n in range(len(x)):
        kept: list[Tensor] = []
        handle = layer.register_forward_hook(lambda module, given, output, kept=kept: kept.append(output.clone()))
        with torch.no_grad():
            model(x[n : n + 1])
            handle.remove()
            a = case.values(kept[0]).reshape(-1, *case.places)
            given = []
            for channel in a:
                up = enlarged(channel, tuple(x.shape[2:]))
                reach = float(up.max() - up.min())
                constant = bool((channel == channel.flatten()[0]).all())  # enlarged it is so but for rounding
                mask = torch.zeros_like(up) if constant else (up - up.min()) / reach
                given.append([float(s) for s in scores(model(x[n : n + 1] * mask), n)])
        maps = []
        for column in zip(*given, strict=True):
            powers = [exp(s - max(column)) for s in column]
            total = torch.zeros(case.places, dtype=torch.float64)
            for power, channel in zip(powers, a, strict=True):
                total += power / sum(powers) * channel
            maps.append(total)
        rows.append(torch.stack(maps))
    return torch.stack(rows)


def raw(case: Case, model: nn.Module, x: Tensor, target: Any, **how: Any) -> Tensor:
    return explain(model, x, ScoreCAM(layers=(case.layer,), relu=False), target=target, **how).raw[case.layer]


@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_of_every_form(form: str, examples: int) -> None:
    case = CASES[form]
    model, x, targets = case.model(), case.inputs(examples), [[0, 3], [4, 1], [2, 5]][:examples]
    found, wanted = raw(case, model, x, targets), exact(case, model, x, classes(targets))
    assert agree(found, wanted)
    assert not agree(found.roll(1, dims=1), wanted), "the neighbour's target is another map"


def test_of_other_scores() -> None:
    model, x = IMAGE.model(), IMAGE.inputs(3)
    asked: list[tuple[Any, Scores]] = [
        (ClassScore(3, of="probability"), lambda o, n: [o[0].softmax(0)[3]]),
        (ValueScore(2), lambda o, n: [o[0, 2]]),
        (lambda output: output.square().sum(1), lambda o, n: [o[0].square().sum()]),
    ]
    for target, by_hand in asked:
        assert agree(raw(IMAGE, model, x, target), exact(IMAGE, model, x, by_hand))
    region = torch.zeros(3, 7, 11, dtype=torch.bool)
    region[0, :3, :4] = region[1, 2:, 5:] = region[2, 6, :] = True
    case = Case(Segments, (3, 7, 11), "conv", lambda a: a[0].flatten(1), (7, 11))
    wanted = exact(case, case.model(), x, lambda o, n: [o[0, 4][region[n]].mean()])
    assert agree(raw(case, case.model(), x, RegionScore(4, region)), wanted)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_chunks_and_neighbours_change_no_map(size: int) -> None:
    model, x = IMAGE.model(), IMAGE.inputs(3)
    whole = raw(IMAGE, model, x, "all")
    assert agree(raw(IMAGE, model, x, "all", execution=Execution(batch_size=size)), whole)
    assert agree(torch.cat([raw(IMAGE, model, x[n : n + 1], "all") for n in range(3)]), whole)


SEEN: list[int] = []


class Counted(nn.Module):
    """Some of its channels are constant: zero, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append(len(x))
        return self.head(self.relu(self.conv(x)).square().mean((2, 3)))  # type: ignore[no-any-return]


def counted() -> Counted:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2)
        model = Counted().double().eval()
    with torch.no_grad():
        model.conv.weight[[0, 3, 4]] = 0
        list(model.conv.parameters())[1][[0, 3, 4]] = torch.tensor([-1.0, 0.7, -2.0], dtype=torch.float64)
    return model


def test_constant_channels_share_one_forward_and_all_targets_have_the_same() -> None:
    case = Case(counted, (3, 7, 9), "relu", lambda a: a[0].flatten(1), (5, 7))
    model, x = counted(), noise(2, 3, 7, 9, dtype=torch.float64)
    counts = []
    for target in (1, "all"):
        raw(case, model, x, target)
        SEEN.clear()
        result = explain(model, x, ScoreCAM(layers=("relu",), relu=False), target=target)
        counts.append(sum(SEEN))
        assert result.provenance["masks relu"] == 2 * 4
    assert counts[0] == counts[1]
    assert 2 + 2 * 4 <= counts[0] <= 2 + 2 * 4 + 6, "with what a call takes to know the model again"
    assert agree(raw(case, model, x, "all"), exact(case, model, x, classes([[*range(CLASSES)]] * 2)))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 5, 3), nn.Linear(9, CLASSES)

    def forward(self, table: Tensor, image: Tensor) -> Tensor:
        return self.head(torch.cat([self.conv(image).tanh().mean((2, 3)), table], 1))  # type: ignore[no-any-return]


def test_an_image_beside_a_table_is_seen_through_and_the_table_stays() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2)
        model = Two().double().eval()
    table, image = noise(2, 4, dtype=torch.float64, seed=4), noise(2, 3, 7, 9, dtype=torch.float64)
    found = explain(model, (table, image), ScoreCAM(layers=("conv",), relu=False), target=1).raw["conv"]
    for n in range(2):

        class Held(nn.Module):
            def __init__(self, n: int = n) -> None:
                super().__init__()
                self.model, self.n = model, n

            def forward(self, x: Tensor) -> Tensor:
                return self.model(table[self.n : self.n + 1], x)  # type: ignore[no-any-return]

        case = Case(Held, (3, 7, 9), "model.conv", lambda a: a[0].flatten(1), (5, 7))
        assert agree(found[n : n + 1], exact(case, Held(), image[n : n + 1], classes([[1]])))


@pytest.mark.parametrize("form", ["vectors", "vectors of an image"])
def test_a_layer_without_places_is_refused(form: str) -> None:
    case = CASES[form]
    with pytest.raises(LayerError, match=r"has 0 axes of places, and no explained input has; .* or AblationCAM"):
        raw(case, case.model(), case.inputs(1), 1)


def corners(channels: Tensor, size: tuple[int, ...]) -> Tensor:
    up = nn.functional.interpolate(channels[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]
    low, high = up.amin((1, 2), keepdim=True), up.amax((1, 2), keepdim=True)
    return (up - low) / (high - low)


def before(channels: Tensor, size: tuple[int, ...]) -> Tensor:
    low, high = channels.amin((1, 2), keepdim=True), channels.amax((1, 2), keepdim=True)
    return nn.functional.interpolate(((channels - low) / (high - low))[:, None], size=size, mode="bilinear")[:, 0]


MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "pytorch-grad-cam's aligned corners": (masked, "_masks", corners),
    "torch-cam's scaling before enlarging": (masked, "_masks", before),
    "without a softmax": (score_cam.HooksScoreCAM, "weights", lambda self, run, seen: scores_of(run, seen)),
    "a softmax over targets": (
        score_cam.HooksScoreCAM, "weights", lambda self, run, seen: scores_of(run, seen).softmax(1)),
    "another example's scores": (score_cam, "scores", lambda run, seen: scores_of(run, seen).roll(1, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, targets = IMAGE.model(), IMAGE.inputs(3), [[1, 4]] * 3
    wanted = exact(IMAGE, model, x, classes(targets))
    assert agree(raw(IMAGE, model, x, targets), wanted)
    monkeypatch.setattr(*MUTANTS[name])
    assert not agree(raw(IMAGE, model, x, targets), wanted)
