"""How many kernels a call launches and how often it waits for the device: numbers that no noise can move."""

from functools import cache

import pytest
import torch

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
    """The committed numbers, also Captum's own, are those of this torch and this Captum."""
    known = launches.read(RESULTS)
    assert known is not None
    if known[0]["torch"] != torch.__version__.partition("+")[0]:
        pytest.skip(f"counted with torch {known[0]['torch']}")
    found = counted(question, device)
    assert {count.who: count for count in known[1] if count.question == question.name} == found
