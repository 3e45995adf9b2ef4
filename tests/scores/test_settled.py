"""What the clean output decides is decided once, for each image, and holds for all that follows."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import (
    ClassScore,
    DifferenceScore,
    Execution,
    FinerScore,
    GradCAM,
    NonFiniteError,
    Occlusion,
    RegionScore,
    Score,
    SimilarityScore,
    TargetError,
    compare,
    explain,
)
from attribution.scores import classes, difference, functions, regions, score
from tests.conftest import BACKENDS
from tests.scores.by_hand import predicted
from tests.scores.net import Net, images
from tests.scores.outputs import MASKS, REFERENCES, per_image, pooled
from tests.scores.test_oracle import answer, hold, truth

CAM = GradCAM(layers=("body",), relu=False, upsample=False)


def settled(asked: Any, finish: Callable[[Tensor], Any], size: int | None = None, kind: str = "grad_cam") -> Score:
    chosen = CAM if kind == "grad_cam" else Occlusion(window=3, stride=2)
    result = explain(Net(finish), images(3), chosen, target=asked, execution=Execution(batch_size=size))
    assert result.score is not None
    return result.score


@pytest.mark.parametrize("kind", ["grad_cam", "occlusion"])
@pytest.mark.parametrize("size", [None, 1, 2])
def test_a_predicted_region_is_that_of_each_image(size: int | None, kind: str) -> None:
    found = settled(RegionScore(2), lambda m: m, size, kind)
    net = Net(lambda m: m)
    assert isinstance(found, RegionScore)
    assert found.mask is not None
    assert torch.equal(found.mask, torch.stack([predicted(net(image[None]), 2) for image in images(3)]))


@pytest.mark.parametrize("kind", ["grad_cam", "occlusion"])
@pytest.mark.parametrize("size", [None, 1, 2])
def test_references_of_each_image_stay_whole(size: int | None, kind: str) -> None:
    found = settled(SimilarityScore(REFERENCES), pooled, size, kind)
    assert isinstance(found, SimilarityScore)
    assert torch.equal(found.reference, REFERENCES)


@pytest.mark.parametrize("size", [None, 1, 2])
def test_backends_are_asked_what_the_first_one_chose(size: int | None) -> None:
    found = compare(Net(lambda m: m), images(3), CAM, target=RegionScore(2), execution=Execution(batch_size=size))
    assert found.holds
    first, second = found.attributions.values()
    assert first.score == second.score
    assert first.score != RegionScore(2)


def test_a_region_that_the_first_backend_chose_is_asked_of_the_others() -> None:
    """A backend that settles otherwise (here: after a change of the weights) is asked the region all the same."""
    net = Net(lambda m: m)
    first = explain(net, images(3), CAM, backend="hooks", target=RegionScore(2))
    with torch.no_grad():
        net.get_parameter("maps.bias")[2] += 1.5
    assert explain(net, images(3), CAM, backend="captum", target=RegionScore(2)).score != first.score
    assert explain(net, images(3), CAM, backend="captum", target=first.score).score == first.score


@BACKENDS
@pytest.mark.parametrize("name", ["region, predicted", "region, per image", "cosine, per image", "function of two"])
def test_it_stays_where_memory_halves_the_batches(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, seen = Net.forward, []

    def short(self: Net, x: Tensor) -> Any:
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(Net, "forward", short)
    result = answer(name, "occlusion", backend, 3, Execution(incremental=False))
    monkeypatch.undo()
    assert max(seen) <= 2
    hold(result, name, "occlusion", 3)


def coupled(maps: Tensor) -> Tensor:
    """Each image sees the others; alone it sees itself."""
    return maps * (1 + maps.mean(dim=0, keepdim=True))


@BACKENDS
@pytest.mark.parametrize("kind", ["grad_cam", "occlusion"])
@pytest.mark.parametrize("name", ["region, per image", "region, predicted of one channel", "function of two"])
def test_a_model_that_mixes_images_is_asked_one_by_one(
    name: str, kind: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.scores import cases

    case = cases.CASES[name]
    mixing = cases.Case(lambda m: case.finish(coupled(m)), case.asked, case.truth)
    monkeypatch.setitem(cases.CASES, "mixing", mixing)
    truth.cache_clear()
    result = answer("mixing", kind, backend, 3)
    assert str(result.provenance["rows"]).startswith("one by one")
    hold(result, "mixing", kind, 3)
    truth.cache_clear()


MUTANTS: dict[str, tuple[Any, str, str, str, str, str]] = {
    "the mask of another image": (
        regions.RegionScore._weights, " + self._first", "", "region, per image", "grad_cam", "1",
    ),
    "the function's places of the part": (
        functions.FunctionScore.values, "examples + self._first", "examples", "function of two", "grad_cam", "1",
    ),
    "the region of the covered output": (
        regions.RegionScore._weighed, "if self.mask is None:", "if self.mask is None or True:", "region, predicted",
        "occlusion", "",
    ),
    "the argmax of the covered output": (
        classes.ClassScore.values, "target[examples.to(target.device)]", "matrix.argmax(1, keepdim=True)",
        "class difference", "occlusion", "",
    ),
    "the classes of other images": (
        classes.ClassScore.values, "target[examples.to(target.device)]", "target[:1].expand(len(matrix), -1)",
        "class difference", "occlusion", "",
    ),
    "a sum for a mean": (
        regions.RegionScore._reduced, 'self.reduce == "mean"', 'self.reduce != "mean"', "region, common", "grad_cam",
        "",
    ),
    "a softmax for a sigmoid": (
        classes.ClassScore.score_of, "wide.sigmoid()", "wide.softmax(dim=1)", "20 sigmoids", "grad_cam", "",
    ),
    "one side of a difference": (
        difference.DifferenceScore.values, "return a - b", "return a + b", "difference of regions", "grad_cam", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, old, new, case, kind, size = MUTANTS[name]
    if name == "the region of the covered output":
        new = "if True:\n        maps = self._maps(output, len(examples)).detach()\n        " \
              "object.__setattr__(self, 'mask', maps.argmax(dim=1) == self.channel)\n        " \
              "return own.to(torch.float64), self.mask.to(torch.float64)\n    if self.mask is None:"  # fmt: skip
    mutate(monkeypatch, function, old, new)
    with pytest.raises((AssertionError, NonFiniteError)):
        hold(answer(case, kind, "hooks", 3, Execution(batch_size=int(size) if size else None)), case, kind, 3)


def mutate(monkeypatch: pytest.MonkeyPatch, function: Any, old: str, new: str) -> None:
    """Replace a method by itself with other words in it."""
    text = inspect.cleandoc("\n" + inspect.getsource(function))
    assert text.count(old) == 1, text
    scope = dict(vars(inspect.getmodule(function)))
    exec(compile(text.replace(old, new), "mutant", "exec"), scope)
    monkeypatch.setattr(scope[function.__qualname__.split(".")[0]], function.__name__, scope[function.__name__])


def test_a_score_that_forgets_its_masks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert RegionScore(1, MASKS[0]) != RegionScore(1, MASKS[1])
    monkeypatch.setattr(score, "_plain", lambda value: tuple(value.shape) if isinstance(value, Tensor) else value)
    assert RegionScore(1, MASKS[0]) == RegionScore(1, MASKS[1])


@BACKENDS
@pytest.mark.parametrize("count", [2, 3])
def test_data_of_each_image_need_their_places(count: int, backend: str) -> None:
    masks = MASKS[torch.tensor([0, 1, 0])][:count]  # turned round, the outer two are the same
    for held in (masks, masks * 1e-6 + 1):
        with pytest.raises(TargetError, match="examples"):
            explain(
                Net(lambda m: m),
                images(count),
                CAM,
                backend=backend,
                target=lambda o, held=held: (o[:, 1] * held).sum((1, 2)),
            )
    explain(Net(lambda m: m), images(count), CAM, backend=backend, target=per_image)
    explain(Net(lambda m: m), images(count), CAM, backend=backend, target=lambda o: (o[:, 1] * masks[0]).sum((1, 2)))


@pytest.mark.parametrize("size", [1, 2])
def test_data_of_each_image_need_their_places_in_parts_too(size: int) -> None:
    with pytest.raises(Exception, match="examples"):
        explain(
            Net(lambda m: m), images(3), CAM, target=lambda o: (o[:, 1] * MASKS).sum((1, 2)),
            execution=Execution(batch_size=size),
        )  # fmt: skip


def test_a_class_of_a_difference_is_read_as_the_technique_reads_classes() -> None:
    for chosen, of in ((CAM, "logit"), (Occlusion(window=3, stride=2), "probability")):
        found = explain(Net(pooled), images(2), chosen, target=DifferenceScore(1, 2)).score
        assert found == DifferenceScore(*(ClassScore([[k]] * 2, of=of) for k in (1, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "beside", [ClassScore(2, of="logit"), FinerScore(2), DifferenceScore(ClassScore(2, of="logit"), 0)], ids=repr
)
@pytest.mark.parametrize("first", [True, False])
def test_a_class_is_read_as_the_other_side_reads_classes(beside: Any, first: bool) -> None:
    """A logit less a probability would be neither."""
    x, question = images(2), Occlusion(window=3, stride=2)
    sides = (lambda one: (one, beside)) if first else (lambda one: (beside, one))
    for backend in ("hooks", "captum"):
        found, logit, probability = (
            explain(Net(pooled), x, question, target=DifferenceScore(*sides(one)), backend=backend)
            for one in (1, ClassScore(1, of="logit"), ClassScore(1, of="probability"))
        )
        assert torch.equal(found.raw["input"], logit.raw["input"])
        assert not torch.allclose(found.raw["input"], probability.raw["input"])
