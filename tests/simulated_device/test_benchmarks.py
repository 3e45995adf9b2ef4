"""The benchmarks' harness on the simulated device: a rehearsal of a run on a GPU, whose rows say so."""

import pytest

from attribution import Activations, GradCAM, Occlusion, Technique
from benchmarks.cases import cases
from benchmarks.clock import timed
from benchmarks.models import SMALL
from benchmarks.peers import entries
from benchmarks.questions import Question
from benchmarks.rows import row, settle
from tests.benchmarks.test_peers_listed import Small

TECHNIQUES: list[Technique] = [
    Activations(layers=("stem",)),
    GradCAM(layers=("body",)),
    Occlusion(window=8, stride=8),
]


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.name)
def test_a_row_says_that_its_device_is_simulated(technique: Technique, device: str) -> None:
    case = Small(Question("a question", lambda _: technique, pixels=32), SMALL.name, 2, "float32")
    settled = settle(case, device, sweep=False)
    for backend in ("hooks", "captum"):
        assert not settled.disagreement(backend)
        call, _ = settled.call(backend)
        assert timed(call, device) > 0
        found = row(settled, backend)
        assert (found["device"], found["environment"]["accelerator"]) == (device, "simulated")
        assert found["peak_bytes"] > 0
        assert found["environment"]["tf32"] is False


def test_what_a_gpu_is_asked_is_asked_in_the_rehearsal(device: str) -> None:
    for size in ("smoke", "device"):
        asked, on_a_gpu = (cases(size, name) for name in (device, "cuda"))
        assert [case.group for case in asked] == [case.group for case in on_a_gpu]
        rows = [[(case.group, peer.name, peer.tier) for case, peer in entries(size, name)] for name in (device, "cuda")]
        lucent_aside = [[entry for entry in found if entry[1] != "torch-lucent"] for found in rows]
        assert lucent_aside[0] == lucent_aside[1]
