"""How many kernels a call launches and how often it waits for the device: numbers that no noise can move."""

from functools import cache
from importlib.metadata import version
from typing import Any

import pytest

from benchmarks import launches
from benchmarks.launches import QUESTIONS, RESULTS, Count, Question

BARE = 68
"""Kernels of ResNet-18's forward without graph."""

MOST: dict[tuple[str, str], tuple[int, int]] = {
    ("forward, without graph", "the network"): (BARE, 0),
    ("activations, layer2", "hooks"): (BARE + 4, 1),
    ("activations, layer2", "captum"): (80, 1),
    ("grad_cam, layer4, 1 target", "hooks"): (BARE + 18, 1),
    ("grad_cam, layer4, 1 target", "captum"): (BARE + 28, 1),
    ("grad_cam, 3 layers × 3 targets, 3 images", "hooks"): (240, 1),
    ("grad_cam, 3 layers × 3 targets, 3 images", "captum"): (940, 1),
    ("grad_cam, layer2, 64 targets, 64 px", "hooks"): (230, 2),
    ("layer_cam, layer4, 1 target", "hooks"): (BARE + 20, 1),
    ("layer_cam, layer4, 1 target", "captum"): (175, 1),
    ("saliency, 1 target", "hooks"): (170, 1),
    ("saliency, 1 target", "captum"): (240, 1),
    ("integrated_gradients, 8 points, 8 a pass, 64 px", "hooks"): (370, 4),  # inputs, scores, maps, and zeros in them
    ("integrated_gradients, 8 points, 8 a pass, 64 px", "captum"): (450, 5),
    ("integrated_gradients, 32 points, 8 a pass, 64 px", "hooks"): (940, 4),
    ("integrated_gradients, 32 points, 8 a pass, 64 px", "captum"): (1000, 8),  # one more for each pass
    ("integrated_gradients, 32 points, all a pass, 64 px", "hooks"): (
        345,
        4,
    ),  # with the clean ones
    ("integrated_gradients, 32 points, all a pass, 64 px", "captum"): (550, 5),
    ("filters, 2 at once, 1 step, 96 px", "hooks"): (300, 2),  # once a batch, and once at the end of the call
    ("filters, 2 at once, 1 step, 96 px", "captum"): (350, 2),
    ("filters, 2 at once, 9 steps, 96 px", "hooks"): (1700, 2),
    ("filters, 2 at once, 9 steps, 96 px", "captum"): (1800, 2),
    ("filters, 2 of a neuron, 1 step, 96 px", "hooks"): (620, 9),
    ("filters, 2 of a neuron, 1 step, 96 px", "captum"): (350, 2),
}
"""By question and who answers it: launches and waits of a warm call."""


@cache
def counted(question: Question, device: str) -> dict[str, Count]:
    return {count.who: count for count in launches.counts(device, [question])}


COMMITTED: Any = launches.read(RESULTS)
"""Versions, and counts."""

GATED = [question for question in QUESTIONS if any(name == question.name for name, _ in MOST)]


@pytest.mark.parametrize("question", GATED, ids=lambda question: question.name)
def test_no_call_launches_or_waits_more(question: Question, device: str) -> None:
    for (name, who), most in MOST.items():
        if name == question.name:
            count = counted(question, device)[who]
            assert (count.launches <= most[0], count.waits <= most[1]) == (True, True), count
            assert count.launches >= most[0] * 0.5, "the limit no longer says much"


@pytest.mark.parametrize("question", GATED, ids=lambda question: question.name)
def test_the_page_tells_what_is_counted(question: Question, device: str) -> None:
    """The committed numbers, also Captum's own; another torch or Captum may launch a few kernels more or fewer."""
    versions, told = COMMITTED
    found, known = counted(question, device), {count.who: count for count in told if count.question == question.name}
    assert found.keys() == known.keys()
    same = all(versions[name] == version(name).partition("+")[0] for name in ("torch", "captum"))
    for who, count in found.items():
        assert count.waits == known[who].waits, count
        assert count.launches == pytest.approx(known[who].launches, rel=0 if same else 0.05), count


def test_the_page_tells_of_no_call_that_launches_or_waits_more() -> None:
    _, told = COMMITTED
    known = {(count.question, count.who): (count.launches, count.waits) for count in told}
    over = {key: known[key] for key, most in MOST.items() if known[key][0] > most[0] or known[key][1] > most[1]}
    assert not over
