"""Fields of ``Occlusion``: what is refused, what is equal, what a file and the command line keep."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attribution import Attribution, ClassScore, InputError, Occlusion, compare, explain, load
from attribution.cli.parameters import technique as typed
from attribution.testing import small_cnn
from tests.conftest import BACKENDS, noise
from tests.techniques.occlusion.loop import Features, Sequence1d, Siamese, Volume, WithMetadata, built

PICTURE = noise(3, 17, 23)
DISC = torch.ones(17, 23, dtype=torch.bool).tril()

BAD: list[tuple[dict[str, Any], str]] = [
    ({"window": ()}, "window is empty"),
    ({"window": (3, 0)}, "window is 0"),
    ({"stride": "3"}, "stride is '3'"),
    ({"window": (9, 4), "stride": 5}, r"stride \(5, 5\) is larger than the window \(9, 4\)"),
    ({"window": (9, 4), "stride": (3, 3, 2)}, "has 2 sizes"),
    ({"baseline": "grey"}, "baseline is 'grey'"),
    ({"baseline": [[1.0, float("nan")]]}, "no finite number"),
    ({"baseline": [[1.0], [1.0, 2.0]]}, "no array of numbers"),
    ({"baseline": torch.zeros(3, 0, 2)}, "empty"),
    ({"baseline": torch.zeros(1, 1, dtype=torch.bool)}, "bool"),
    ({"channels": ()}, "channels is"),
    ({"channels": 2}, "channels is 2"),
    ({"channels": (0, 0)}, "twice"),
    ({"channels": (-1,)}, "channels is -1"),
    ({"region": torch.zeros(4, 4, dtype=torch.bool)}, "has no place"),
    ({"region": torch.ones(4, 4)}, "give bools"),
    ({"region": ((3, 3), (0, 2))}, "interval is empty"),
    ({"region": ((0, 3, 5),)}, "give bools"),
    ({"region": 3}, "give bools"),
    ({"input": True}, "input is True"),
    ({"input": 1.0}, "input is 1.0"),
]


@pytest.mark.parametrize(("fields", "said"), BAD, ids=str)
def test_out_of_range(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Occlusion(**{"window": 9, "stride": 3, **fields})


IMAGE = noise(2, 3, 17, 23)
MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"window": 18}, r"window \(18, 18\) is larger than the image \(17, 23\)"),
    ({"window": (5, 4, 3), "stride": 2}, "has 3 sizes, and 'input' 2 place axes"),
    ({"baseline": (1.0, 2.0)}, "2 values for 3 channels"),
    ({"baseline": noise(17, 17)}, r"has shape \(17, 17\)"),
    ({"baseline": noise(3, 3, 17, 23)}, "counted from the last"),
    ({"baseline": noise(1, 1, 1, 17, 23)}, "counted from the last"),
    ({"channels": (0, 3)}, "has 3 channels"),
    ({"region": torch.ones(23, 17, dtype=torch.bool)}, r"the places \(17, 23\)"),
    ({"region": ((0, 18), (0, 2))}, "within it"),
    ({"region": ((0, 3),)}, "one .begin, end. for each place axis"),
    ({"region": ((16, 17), (0, 2)), "border": "drop", "window": 6, "stride": 4}, "touches its region"),
    ({"input": "left"}, "explained are 'input'"),
]


@BACKENDS
@pytest.mark.parametrize(("fields", "said"), MISFITS, ids=str)
def test_what_does_not_fit_the_input_is_refused_before_any_work(
    fields: dict[str, Any], said: str, backend: str
) -> None:
    model, ran = small_cnn(), list[int]()
    model.register_forward_hook(lambda *_: ran.append(1))
    with pytest.raises(InputError, match=said):
        explain(model, IMAGE, Occlusion(**{"window": 5, "stride": 3, **fields}), backend=backend, target=1)
    assert not ran


def test_the_defaults_are_refused_where_they_do_not_fit() -> None:
    """A smaller window would be another question, so that it is not chosen for the user."""
    with pytest.raises(InputError, match=r"larger than the input \(9,\)"):
        explain(built(Features).float(), noise(2, 9), Occlusion(), target=1)
    with pytest.raises(InputError, match="has features, and no channels"):
        explain(built(Features).float(), noise(2, 9), Occlusion(window=2, stride=1, channels=(0,)), target=1)
    with pytest.raises(InputError, match="2 values for 9 features"):
        explain(built(Features).float(), noise(2, 9), Occlusion(window=2, stride=1, baseline=(1, 2)), target=1)
    images = (noise(1, 3, 7, 8), noise(1, 3, 9, 6))
    with pytest.raises(
        InputError, match=r"image \(9, 6\); give a smaller window, such as window=\(2, 1\), .*input='1'"
    ):
        explain(built(Siamese).float(), images, Occlusion(window=7, stride=3), target=1)


VALUES: list[Callable[[], Occlusion]] = [
    lambda: Occlusion(baseline=PICTURE.clone()),
    lambda: Occlusion(baseline=PICTURE + 1),
    lambda: Occlusion(baseline=PICTURE.double()),
    lambda: Occlusion(baseline=PICTURE[None].clone()),
    lambda: Occlusion(baseline="blur"),
    lambda: Occlusion(baseline=0.5),
    lambda: Occlusion(region=DISC.clone()),
    lambda: Occlusion(region=~DISC),
    lambda: Occlusion(region=((0, 4), (3, 9))),
    lambda: Occlusion(channels=(0, 2)),
    lambda: Occlusion(input="left"),
    lambda: Occlusion(),
]


def test_techniques_compare_by_value_tensors_included() -> None:
    ones, others = ([make() for make in VALUES] for _ in range(2))
    for i, one in enumerate(ones):
        for j, other in enumerate(others):
            assert (one == other) == (i == j)
            assert hash(one) == hash(other) or i != j
    assert len({*ones, *others}) == len(VALUES)
    assert Occlusion() != 3
    assert Occlusion(window=(4, 4, 4), stride=2) != Occlusion(window=4, stride=2), "one fits volumes alone"


def test_a_technique_keeps_a_baseline_of_its_own() -> None:
    given = PICTURE.clone()
    technique = Occlusion(baseline=given)
    given.zero_()
    assert torch.equal(technique.cover(IMAGE), PICTURE[None])
    assert Occlusion(channels=np.array([2, 0])) == Occlusion(channels=(0, 2))  # type: ignore[arg-type]
    assert Occlusion(region=DISC.numpy()) == Occlusion(region=DISC)  # type: ignore[arg-type]
    assert Occlusion(region=[[0, 4], [3, 9]]) == Occlusion(region=((0, 4), (3, 9)))  # type: ignore[arg-type]
    assert Occlusion(baseline=PICTURE.numpy()) == Occlusion(baseline=PICTURE)  # type: ignore[arg-type]
    assert Occlusion(input="input.left") == Occlusion(input="left")
    assert Occlusion(input=1) == Occlusion(input="1")


KEPT: list[dict[str, Any]] = [
    {"baseline": PICTURE},
    {"baseline": PICTURE.double() / 3},
    {"baseline": noise(2, 1, 1, 1)},
    {"baseline": "blur", "region": DISC},
    {"region": ((0, 4), (3, 9)), "channels": (0, 2)},
    {"window": (5, 7), "stride": (3, 2)},
]


@pytest.mark.parametrize("fields", KEPT, ids=lambda fields: ", ".join(fields))
def test_a_file_keeps_every_field(fields: dict[str, Any], tmp_path: Path) -> None:
    technique = Occlusion(**{"window": 5, "stride": 3, **fields})
    result = explain(small_cnn(), IMAGE, technique, target=1)
    again = load(result.save(tmp_path / "a.safetensors"))
    assert again.technique == result.technique == technique
    assert again.score == result.score == ClassScore(torch.tensor([[1], [1]]), of="probability")
    assert torch.equal(again.map, result.map)


RANKS: list[tuple[Callable[[], Any], tuple[int, ...]]] = [
    (Features, (2, 9)),
    (Sequence1d, (2, 2, 11)),
    (Volume, (2, 2, 5, 6, 7)),
]


@pytest.mark.parametrize(("kind", "shape"), RANKS, ids=["features", "sequence", "volume"])
def test_a_file_keeps_maps_of_every_rank(kind: Callable[[], Any], shape: tuple[int, ...], tmp_path: Path) -> None:
    result = explain(built(kind).float(), noise(*shape), Occlusion(window=3, stride=2), target=1)
    path = result.save(tmp_path / "a.safetensors")
    again: Attribution = load(path)
    assert torch.equal(again.map, result.map)
    assert again.map.ndim == len(shape) - (len(shape) > 2) + 1


SIZES: list[tuple[Callable[[], Any], tuple[int, ...]]] = [
    (Features, (2, 9)),
    (Sequence1d, (2, 2, 11)),
    (small_cnn, (2, 3, 9, 8)),
    (Volume, (2, 2, 5, 6, 7)),
]


@BACKENDS
@pytest.mark.parametrize(("kind", "shape"), SIZES, ids=["features", "sequence", "image", "volume"])
@pytest.mark.parametrize("field", ["window", "stride"])
def test_sizes_are_as_many_as_place_axes_equal_ones_too(
    field: str, kind: Callable[[], Any], shape: tuple[int, ...], backend: str
) -> None:
    """One int alone stands for every axis."""
    model, axes = built(kind).float(), max(1, len(shape) - 2)
    other: dict[str, Any] = {"window": 2, "stride": 2}
    one = explain(model, noise(*shape), Occlusion(window=2, stride=2), target=1, backend=backend)
    for count in (1, 2, 3):
        technique = Occlusion(**{**other, field: (2,) * count})
        if count == axes:
            assert torch.equal(explain(model, noise(*shape), technique, target=1, backend=backend).map, one.map)
            continue
        with pytest.raises(InputError, match=rf"Occlusion\.{field} \(.*\) has {count} sizes.* {axes} place axes"):
            explain(model, noise(*shape), technique, target=1, backend=backend)


def test_backends_are_compared_map_by_map() -> None:
    images = (noise(2, 3, 7, 8), noise(2, 3, 9, 6))
    answer = compare(built(Siamese).float(), images, Occlusion(window=4, stride=3))
    assert answer.holds
    ages: Tensor = torch.tensor([2, 7])
    table = Occlusion(window=4, stride=3, baseline="blur")
    given = {"image": noise(2, 3, 7, 8), "age": ages, "table": torch.ones(2)[:1]}
    assert compare(built(WithMetadata).float(), given, table).holds


def test_the_command_line_takes_them() -> None:
    given = ["window=[5, 7]", "stride=3", 'baseline="blur"', "channels=[0, 2]", "region=[[0, 4], [3, 9]]"]
    expected = Occlusion(window=(5, 7), stride=3, baseline="blur", channels=(0, 2), region=((0, 4), (3, 9)))
    assert typed(Occlusion, given, ()) == expected
    assert typed(Occlusion, ["baseline=[0.5, 0, -1]"], ()) == Occlusion(baseline=(0.5, 0.0, -1.0))
    assert typed(Occlusion, ["baseline=0.5", "window=[40, 40]"], ()) == Occlusion(baseline=0.5, window=(40, 40))
    for wrong in ("window=true", "channels=2", 'region="all"', "baseline=true"):
        with pytest.raises(InputError):
            typed(Occlusion, [wrong], ())
