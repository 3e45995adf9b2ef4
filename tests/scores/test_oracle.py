"""Both backends give for every score what a plain loop over single images gives."""

from functools import cache

import pytest
import torch
from torch import Tensor

from attribution import Attribution, Execution, GradCAM, Occlusion, Technique, explain
from tests.conftest import BACKENDS
from tests.draw import pairwise
from tests.scores import net as plain
from tests.scores.by_hand import predicted
from tests.scores.cases import CASES, Case
from tests.scores.net import STRIDE, WINDOW, Net, images

PLAIN = Execution()

EXACT = 1e-10
FOLDED = 1e-6
"""Captum's occlusion adds up in float32."""


def technique(name: str, case: Case) -> Technique:
    if name == "occlusion":
        return Occlusion(window=WINDOW, stride=STRIDE)
    return GradCAM(layers=("stem" if case.layer else "body",), relu=False, upsample=False)


@cache
def truth(name: str, kind: str, count: int) -> tuple[Tensor, Tensor]:
    """(N, T) scores and maps."""
    case, inputs = CASES[name], images(count)
    net = Net(case.finish)
    with torch.no_grad():
        clean = [plain.read(net, image[None], case.layer) for image in inputs]
        scores = torch.stack([torch.stack(case.truth(each, n, each)) for n, each in enumerate(clean)])
    if kind == "occlusion":
        return scores, plain.occlusion(net, inputs, case.truth, case.layer)
    return scores, plain.grad_cam(net, inputs, case.truth, "stem" if case.layer else "body", case.layer)


def answer(name: str, kind: str, backend: str, count: int, execution: Execution = PLAIN) -> Attribution:
    case = CASES[name]
    asked = case.asked(count)
    return explain(
        Net(case.finish), images(count), technique(kind, case), backend=backend, target=asked, execution=execution
    )


def hold(result: Attribution, name: str, kind: str, count: int) -> None:
    scores, maps = truth(name, kind, count)
    assert result.scores is not None
    assert result.map.dtype == torch.float64
    allowed = FOLDED if (kind, result.backend) == ("occlusion", "captum") else EXACT
    assert (result.scores - scores).abs().max() <= EXACT
    assert maps.abs().max() > 1e-4  # else nothing is shown
    assert result.map.shape == maps.shape
    assert (result.map - maps).abs().max() <= allowed * max(1.0, float(scores.abs().max()))


QUESTIONS = [(name, kind) for name in CASES for kind in ("grad_cam", "occlusion") if CASES[name].only in ("", kind)]
BY_NAME = {f"{name}-{kind}": (name, kind) for name, kind in QUESTIONS}


@BACKENDS
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("name", "kind"), QUESTIONS)
def test_a_score_is_what_the_loop_says(name: str, kind: str, count: int, backend: str) -> None:
    hold(answer(name, kind, backend, count), name, kind, count)


@pairwise(question=BY_NAME, size=[1, 2], backend=["hooks", "captum"])
def test_in_parts_it_is_the_same(question: tuple[str, str], size: int, backend: str) -> None:
    name, kind = question
    result = answer(name, kind, backend, 3, Execution(batch_size=size))
    hold(result, name, kind, 3)
    assert result.score == answer(name, kind, backend, 3).score
    assert len(result.names) == 3
    assert all(len(row) == len(result.names[0]) for row in result.names)


def test_the_cases_tell_images_apart() -> None:
    """A region is predicted in each image, and it is another one."""
    net = Net(lambda maps: maps)
    regions = [predicted(net(image[None]), 2) for image in images(3)]
    assert all(0 < int(region.sum()) < region.numel() for region in regions)
    assert not torch.equal(regions[0], regions[1])
