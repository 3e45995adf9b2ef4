"""Inputs of every rank, several inputs, metadata: both backends against plain loops, beside mutants."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import ClassScore, Execution, InputError, Occlusion, explain
from attribution.inputs.inputs import Inputs
from attribution.run import Run
from tests.conftest import BACKENDS, noise
from tests.techniques.occlusion.loop import (
    TOLERANCE,
    Features,
    Sequence1d,
    Siamese,
    Volume,
    WithMetadata,
    built,
    occlusion,
    off,
)

SHAPES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Any, Any]] = {
    "features": (Features, (9,), 4, 3),
    "sequence": (Sequence1d, (2, 11), 4, 3),
    "volume": (Volume, (2, 5, 6, 7), (3, 4, 3), (2, 3, 3)),
    "volume, one size": (Volume, (2, 5, 6, 7), 4, 3),
}
LOGIT = ClassScore(1, of="logit")


def double(*shape: int, seed: int = 0) -> Tensor:
    return noise(*shape, dtype=torch.float64, seed=seed)


def logit(output: Tensor, n: int) -> Tensor:
    return output[0, 1:2]


def per_axis(given: Any, places: int) -> tuple[int, ...]:
    return given if isinstance(given, tuple) else (given,) * places


def zero(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


@BACKENDS
@pytest.mark.parametrize("batch_size", [1, 2, None])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", list(SHAPES))
def test_every_rank(case: str, batch: int, batch_size: int | None, backend: str) -> None:
    kind, shape, window, stride = SHAPES[case]
    model, x = built(kind), double(batch, *shape)
    technique = Occlusion(window=window, stride=stride)
    execution = Execution(batch_size=batch_size)
    result = explain(model, x, technique, backend=backend, target=LOGIT, execution=execution)
    places = shape[1:] or shape
    sizes: dict[str, Any] = {"window": per_axis(window, len(places)), "stride": per_axis(stride, len(places))}
    expected = occlusion(model, [x], logit, covers=0, baseline=zero(x), **sizes)
    assert result.map.shape == (batch, 1, *places)
    assert list(result.maps) == ["input"]
    assert off(result.map, expected) <= TOLERANCE[backend]
    smaller: dict[str, Any] = {"window": (*sizes["window"][:-1], sizes["window"][-1] - 1), "stride": sizes["stride"]}
    assert off(result.map, occlusion(model, [x], logit, covers=0, baseline=zero(x), **smaller)) > 1e-3
    if backend == "hooks":
        assert result.provenance["engine"] == "dense"
        assert "tiles are of images" in str(result.provenance["reason"])


def test_the_windows_of_a_volume_are_the_crossings_of_its_axes() -> None:
    lattice = Occlusion(window=(2, 3, 4), stride=(2, 3, 2)).lattice(3, 6, 8)
    assert lattice.axes == (((0, 2), (2, 3)), ((0, 3), (3, 6)), ((0, 4), (2, 6), (4, 8)))
    assert len(lattice) == len(lattice.windows) == 12
    assert lattice.windows[0] == ((0, 2), (0, 3), (0, 4))
    assert lattice.windows[-1] == ((2, 3), (3, 6), (4, 8))
    assert lattice.windows[1] == ((0, 2), (0, 3), (2, 6)), "the last axis is the fastest"


@dataclass
class Several:
    """A model of several arguments, and the loop's view of them."""

    model: nn.Module
    arguments: list[Any]
    keyword: bool = False
    names: list[str] = field(default_factory=list)

    @property
    def given(self) -> Any:
        return dict(zip(self.names, self.arguments, strict=True)) if self.keyword else tuple(self.arguments)


def siamese(batch: int, keyword: bool = False) -> Several:
    images = [double(batch, 3, 7, 8), double(batch, 3, 9, 6, seed=1)]
    return Several(built(Siamese), images, keyword, ["left", "right"])


def with_metadata(batch: int, keyword: bool = False) -> Several:
    ages = torch.tensor([2, 7, 4][:batch])
    arguments = [double(batch, 3, 7, 8), ages, torch.tensor([0.5, -0.25], dtype=torch.float64), 1.5]
    return Several(built(WithMetadata), arguments, keyword, ["image", "age", "table", "scale"])


SIZES: dict[str, Any] = {"window": (4, 4), "stride": (3, 3)}


@BACKENDS
@pytest.mark.parametrize("batch_size", [1, 2, None])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("keyword", [False, True])
def test_two_images(keyword: bool, batch: int, batch_size: int | None, backend: str) -> None:
    """Each is covered alone, while the other stays as it is."""
    asked = siamese(batch, keyword)
    question, execution = Occlusion(window=4, stride=3), Execution(batch_size=batch_size)
    result = explain(asked.model, asked.given, question, backend=backend, target=LOGIT, execution=execution)
    keys = ["input.left", "input.right"] if keyword else ["input.0", "input.1"]
    assert list(result.maps) == keys
    for place, key in enumerate(keys):
        x = asked.arguments[place]
        expected = occlusion(asked.model, asked.arguments, logit, covers=place, baseline=zero(x), **SIZES)
        assert off(result.maps[key], expected) <= TOLERANCE[backend]
    gone = [torch.zeros_like(asked.arguments[0]), asked.arguments[1]]  # as if the first stayed covered
    wrong = occlusion(asked.model, gone, logit, covers=1, baseline=zero(gone[1]), **SIZES)
    assert off(result.maps[keys[1]], wrong) > 1e-3
    lattices = [question.lattice(*x.shape[2:]) for x in asked.arguments]
    assert result.provenance["windows"] == sum(map(len, lattices))


@BACKENDS
@pytest.mark.parametrize("name", ["right", "input.right"])
def test_one_input_by_name(name: str, backend: str) -> None:
    asked = siamese(3, keyword=True)
    both = explain(asked.model, asked.given, Occlusion(window=4, stride=3), backend=backend, target=LOGIT)
    one = explain(asked.model, asked.given, Occlusion(window=4, stride=3, input=name), backend=backend, target=LOGIT)
    assert list(one.maps) == ["input.right"]
    assert torch.equal(one.map, both.maps["input.right"])
    assert one.technique == Occlusion(window=4, stride=3, input="right")


def test_one_input_by_index() -> None:
    asked = siamese(1)
    one = explain(asked.model, asked.given, Occlusion(window=4, stride=3, input=1), target=LOGIT)
    assert list(one.maps) == ["input.1"]
    with pytest.raises(InputError, match=r"explained are '0', '1'"):
        explain(asked.model, asked.given, Occlusion(window=4, stride=3, input=2), target=LOGIT)


def metadata(keyword: bool, batch: int, batch_size: int | None, backend: str) -> tuple[Tensor, Tensor]:
    asked = with_metadata(batch, keyword)
    question, execution = Occlusion(window=4, stride=3), Execution(batch_size=batch_size)
    result = explain(asked.model, asked.given, question, backend=backend, target=LOGIT, execution=execution)
    assert list(result.maps) == ["input"]
    x, ages, *rest = asked.arguments
    maps = []
    for n in range(batch):  # what is no tensor of examples is not cut
        model: Any = lambda image, n=n: asked.model(image, ages[n : n + 1], *rest)  # noqa: E731
        maps.append(occlusion(model, [x[n : n + 1]], logit, covers=0, baseline=zero(x[n : n + 1]), **SIZES))
    return result.map, torch.cat(maps)


@BACKENDS
@pytest.mark.parametrize("batch_size", [1, 2, None])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("keyword", [False, True])
def test_an_image_with_metadata(keyword: bool, batch: int, batch_size: int | None, backend: str) -> None:
    found, expected = metadata(keyword, batch, batch_size, backend)
    assert off(found, expected) <= TOLERANCE[backend]


@BACKENDS
@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_metadata_of_another_example_is_caught(
    batch_size: int | None, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = Inputs.replaced

    def mixed(self: Inputs, tensors: Any) -> Inputs:
        found = replaced(self, tensors)
        values = {**found.values, "input.1": found.values["input.1"] * 0 + 2}  # the first example's
        return Inputs(values=values, axes=found.axes, call=found.call)

    monkeypatch.setattr(Inputs, "replaced", mixed)
    found, expected = metadata(False, 3, batch_size, backend)
    assert off(found[1:], expected[1:]) > 1e-3
    assert off(found[:1], expected[:1]) <= TOLERANCE[backend]


def test_metadata_in_the_order_of_the_batch_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata that is repeated as the examples lie, whatever the batch shows."""
    shown = Run.shown

    def unaware(self: Any, x: Any, examples: Tensor | None = None) -> Inputs:
        if examples is not None and isinstance(x, Tensor):
            examples = torch.arange(len(x)) % len(self.inputs)
        return shown(self, x, examples)

    monkeypatch.setattr(Run, "shown", unaware)
    found, expected = metadata(False, 3, 2, "hooks")
    assert off(found, expected) > 1e-3


class Answering(nn.Module):
    """The class that is predicted changes under a window."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.amax(dim=(1, 2, 3))
        return torch.stack([bright, torch.full_like(bright, 1.5), x.mean(dim=(1, 2, 3))], dim=1)


@BACKENDS
@pytest.mark.parametrize("batch_size", [1, 2, None])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_predicted_class_is_that_of_the_clean_input(batch: int, batch_size: int | None, backend: str) -> None:
    found, expected = predicted(batch, batch_size, backend)
    assert off(found, expected) <= TOLERANCE[backend]


def predicted(batch: int, batch_size: int | None, backend: str) -> tuple[Tensor, Tensor]:
    model, x = Answering().eval(), 0.3 * double(batch, 3, 7, 8)
    x[:, 0, 3, 3] = 3.0  # a window that hides it changes the class
    classes = model(x).argmax(dim=1)
    assert (classes == 0).all()
    execution = Execution(batch_size=batch_size, incremental=False)
    result = explain(model, x, Occlusion(window=4, stride=3), backend=backend, execution=execution)

    def value(output: Tensor, n: int) -> Tensor:
        return output.softmax(dim=1)[0, classes[n]][None]

    return result.map, occlusion(model, [x], value, covers=0, baseline=zero(x), **SIZES)


@BACKENDS
@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_a_class_that_is_settled_on_covered_outputs_is_caught(
    batch_size: int | None, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "scores", unsettled(Run.scores))
    found, expected = predicted(3, batch_size, backend)
    assert off(found, expected) > 1e-3


def unsettled(scores: Any) -> Any:
    """Chooses anew what the clean output had settled, on whatever output it is given."""

    def anew(self: Any, output: Any, examples: Tensor | None = None) -> Tensor:
        if self.score is None:
            found: Tensor = scores(self, output, examples)
            return found
        own = torch.arange(len(output))
        score = self.asked.chosen(self.asked.choose(output, own))
        matrix = score.matrix(output, own)
        values: Tensor = score.score_of(matrix).gather(1, score.columns(matrix))
        return values

    return anew
