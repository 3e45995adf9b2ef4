"""What a model may be given: forms, what is explained in them, and how examples are taken, repeated and replaced."""

from functools import cached_property
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, Execution, GradCAM, InputError, Inputs, explain
from attribution.inputs.inputs import joined
from tests.conftest import noise

IMAGES, OTHER = noise(3, 3, 7, 9), noise(3, 3, 7, 9, seed=1)
AGES = torch.tensor([7, 11, 13])
META = noise(3, 5)
TABLE = noise(4, 6)


class Case(NamedTuple):
    given: Any
    axes: dict[str, str] | None
    found: dict[str, str]
    call: str = "positional"


FORMS = {
    "a tensor": Case(IMAGES, None, {"input": "n c h w"}),
    "features": Case(META, None, {"input": "n f"}),
    "a signal": Case(noise(3, 2, 11), None, {"input": "n c t"}),
    "a volume": Case(noise(3, 1, 4, 5, 6), None, {"input": "n c d h w"}),
    "one argument": Case((IMAGES,), None, {"input": "n c h w"}),
    "two images": Case((IMAGES, OTHER), None, {"input.0": "n c h w", "input.1": "n c h w"}),
    "image and features": Case((IMAGES, META), None, {"input.0": "n c h w", "input.1": "n f"}),
    "metadata that goes along": Case((IMAGES, META), {"1": "n"}, {"input.0": "n c h w", "input.1": "n"}),
    "a table for all": Case((IMAGES, TABLE), {"1": ""}, {"input.0": "n c h w", "input.1": ""}),
    "ages": Case((IMAGES, AGES), None, {"input.0": "n c h w", "input.1": "n"}),
    "an integer table for all": Case((IMAGES, torch.arange(8)), None, {"input.0": "n c h w", "input.1": ""}),
    "by keyword": Case(
        {"pixels": IMAGES, "age": AGES, "scale": 2.0, "mask": None},
        None,
        {"input.pixels": "n c h w", "input.age": "n"},
        "keyword",
    ),
}


@pytest.mark.parametrize("case", FORMS.values(), ids=FORMS)
def test_forms(case: Case) -> None:
    found = Inputs.of(case.given, case.axes)
    assert (dict(found.axes), found.call) == (case.found, case.call)
    assert found.explained == tuple(name for name, axes in case.found.items() if axes not in ("n", ""))
    assert len(found) == 3
    assert Inputs.of(found) is found


REFUSED = {
    "different numbers of examples": ((IMAGES, TABLE), None, "different numbers of examples"),
    "an unknown name": ((IMAGES,), {"pixels": "n"}, "axes name 'pixels'"),
    "axes of another rank": ((IMAGES,), {"0": "n c t"}, r"'n c t', and it has shape \(3, 3, 7, 9\)"),
    "axes of a number": ((IMAGES, 2.0), {"1": "n"}, "it is a float"),
}


@pytest.mark.parametrize(("given", "axes", "text"), REFUSED.values(), ids=REFUSED)
def test_refused(given: Any, axes: dict[str, str] | None, text: str) -> None:
    with pytest.raises(InputError, match=text):
        Inputs.of(given, axes)


NOT_EXPLAINED = {
    "integers": IMAGES.to(torch.int64),
    "nothing": (),
    "only what goes along": (AGES, 2.0),
    "an array": IMAGES.numpy(),
    "one image without its axis of examples": IMAGES[0],
    "text": "cup.jpg",
}


@pytest.mark.parametrize("given", NOT_EXPLAINED.values(), ids=NOT_EXPLAINED)
def test_refused_before_any_work(given: Any) -> None:
    runs: list[object] = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model.register_forward_hook(lambda *_: runs.append(0))
    with pytest.raises(InputError, match="inputs"):
        explain(model, given, Activations(layers=("0",)))
    assert not runs


def test_examples_are_taken_repeated_and_replaced_together() -> None:
    inputs = Inputs.of((IMAGES, META, AGES, TABLE, "word"), {"1": "n", "3": ""})
    some = inputs[torch.tensor([2, 0])]
    assert torch.equal(some.values["input.0"], IMAGES[[2, 0]])
    assert torch.equal(some.values["input.1"], META[[2, 0]])
    assert torch.equal(some.values["input.2"], AGES[[2, 0]])
    assert some.values["input.3"] is TABLE
    assert some.values["input.4"] == "word"
    twice = inputs.repeated(2)
    assert torch.equal(twice.values["input.2"], torch.cat([AGES, AGES]))
    assert torch.equal(twice.values["input.0"], torch.cat([IMAGES, IMAGES]))
    other = inputs.replaced(OTHER)
    assert other.tensor is OTHER
    assert other.values["input.2"] is AGES
    again = joined([inputs[:1], inputs[1:]])
    assert all(torch.equal(a, b) for a, b in zip(again.tensors(), inputs.tensors(), strict=True))
    with pytest.raises(InputError, match=r"several explained inputs \(input.0, input.1\)"):
        _ = Inputs.of((IMAGES, OTHER)).tensor


class Adds(nn.Module):
    """Says what it was given: the mean of the image per channel, times the age, plus the metadata."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, bias=False)
        self.stem.weight.data = noise(4, 3, 3, 3, seed=2)

    def forward(
        self, pixels: Tensor, age: Tensor | None = None, *, meta: Tensor | None = None, by: float = 1.0
    ) -> Tensor:
        logits: Tensor = self.stem(pixels).mean((2, 3)) * by
        if age is not None:
            logits = logits * age[:, None]
        return logits if meta is None else logits + meta[:, :4]


CALLS = {
    "by position": ((IMAGES, AGES), None),
    "by keyword": ({"pixels": IMAGES, "age": AGES, "by": 3.0}, None),
    "with metadata": ({"meta": META, "pixels": IMAGES}, {"meta": "n"}),
}


@pytest.mark.parametrize("size", [None, 1, 2])
@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize(("given", "axes"), CALLS.values(), ids=CALLS)
def test_the_model_gets_what_belongs_to_each_example(
    given: Any, axes: dict[str, str] | None, backend: str, size: int | None
) -> None:
    model = Adds().eval()
    inputs, execution = Inputs.of(given, axes), Execution(batch_size=size)
    found = explain(model, inputs, GradCAM(layers=("stem",)), target=1, backend=backend, execution=execution)
    with torch.no_grad():
        wanted = inputs.into(model)[:, 1:2]
        turned = inputs[torch.tensor([1, 2, 0])].into(model)[:, 1:2]
    assert found.scores is not None
    assert torch.allclose(found.scores, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found.scores, turned, rtol=1e-4, atol=1e-5)


def test_the_callers_tensors_are_neither_kept_nor_written() -> None:
    class Writes(Adds):
        def forward(self, pixels: Tensor, age: Tensor | None = None, **rest: Any) -> Tensor:
            pixels.mul_(2)
            if age is not None:
                age.add_(1)
            return super().forward(pixels, age, **rest)

    images, ages = IMAGES.clone(), AGES.clone()
    explain(Writes().eval(), (images, ages), GradCAM(layers=("stem",)), target=1)
    assert torch.equal(images, IMAGES)
    assert torch.equal(ages, AGES)


@pytest.mark.parametrize("shape", [(1, 3, 17, 23), (3, 3, 17, 23), (2, 5), (1, 2, 4, 5, 6)])
def test_what_is_told_of_a_form_holds_of_every_tensor_of_it(shape: tuple[int, ...]) -> None:
    first, other = Inputs.of(torch.rand(shape)), Inputs.of(torch.rand(shape))
    formed = Inputs.formed(other.tensor, first.axes, first.told)
    assert formed.tensor is other.tensor
    assert formed.told == other.told
    assert len(formed) == shape[0]
    assert Inputs.formed(torch.rand(9, 9), first.axes, first.told).told != Inputs.of(torch.rand(9, 9)).told  # a mutant
    assert not [each for each in first.told.values() if isinstance(each, Tensor)]


def test_all_that_inputs_find_out_once_is_told() -> None:
    once = {name for name, each in vars(Inputs).items() if isinstance(each, cached_property)}
    assert once - {"first"} == Inputs.of(torch.rand(1, 2)).told.keys()
