"""Memory: no more of it for more windows, none beyond the budget, and less of it at once where there is none."""

import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, Occlusion, explain
from attribution.testing import calibrated
from tests.conftest import noise
from tests.live import Live

ENGINES = pytest.mark.parametrize("incremental", [False, True], ids=["dense", "incremental"])


def net() -> nn.Module:
    """Wide enough that maps outweigh bookkeeping."""

    def layers() -> nn.Module:
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(32, 8, 3), *head)

    return calibrated(layers, 0, torch.float32)


def peak(model: nn.Module, inputs: Tensor, technique: Occlusion, execution: Execution) -> int:
    explain(model, inputs, technique, target=0, execution=execution)  # surveys and graphs are made once
    with Live() as live:
        result = explain(model, inputs, technique, target=0, execution=execution)
    assert result.provenance["engine"] == ("incremental" if execution.incremental else "dense")
    return int(live.peak)


def test_the_counter_sees_what_lives_at_once_and_no_more() -> None:
    with Live() as live:
        first = torch.empty(1000)
        first.view(10, 100).add_(1)
        assert (live.now, live.peak) == (4000, 4000)
        second = first + 1
        del first
        assert (live.now, live.peak) == (4000, 8000)
        del second
    assert live.now == 0


@ENGINES
def test_windows_need_no_memory_once_they_are_done(incremental: bool) -> None:
    """64 and 4,096 windows of one size, as many at once."""
    model, inputs, execution = net(), noise(1, 3, 71, 71), Execution(batch_size=32, incremental=incremental)
    few, many = (Occlusion(window=8, stride=stride, border="drop") for stride in (8, 1))
    assert [len(technique.lattice(71, 71).windows) for technique in (few, many)] == [64, 4096]
    if not incremental:  # 4,096 forwards say no more than these
        many = Occlusion(window=8, stride=3, border="drop")
    assert peak(model, inputs, many, execution) <= 1.05 * peak(model, inputs, few, execution)


@ENGINES
def test_more_windows_at_once_need_more(incremental: bool) -> None:
    """The counter would see windows that stay: as many as are kept, so much more memory."""
    model, inputs, technique = net(), noise(1, 3, 71, 71), Occlusion(window=16, stride=8)
    small, large = (peak(model, inputs, technique, Execution(batch_size=n, incremental=incremental)) for n in (4, 64))
    assert large > 1.5 * small


@ENGINES
def test_images_keep_to_the_budget_together(incremental: bool) -> None:
    """All images at once would need several times as much."""
    model, inputs, technique = net(), noise(12, 3, 71, 71), Occlusion(window=16, stride=16)
    budget = 4 * 2**20
    tight, roomy = (Execution(memory_budget=n, incremental=incremental) for n in (budget, 2**30))
    assert peak(model, inputs, technique, tight) <= budget + 3 * inputs.nbytes
    assert peak(model, inputs, technique, roomy) > 2 * budget
    small, large = (explain(model, inputs, technique, target=0, execution=execution) for execution in (tight, roomy))
    assert all(pair.holds and not pair.degenerate for pair in technique.agreement(small, large))


CAPPED = """
import json, re, resource, sys
from pathlib import Path
import torch
from torch import nn
from attribution import Execution, Occlusion, explain
from attribution.testing import calibrated

torch.set_num_threads(1)
torch.backends.mkldnn.set_flags(False)  # oneDNN under a cap may crash the process; torch itself raises
layers = lambda: nn.Sequential(
    nn.Conv2d(3, 64, 1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), nn.Conv2d(64, 8, 3, stride=4),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
model = calibrated(layers, 0, torch.float32)
inputs = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
question = Occlusion(window=32, stride=8)

def ask(size, incremental):
    execution = Execution(batch_size=size, incremental=incremental)
    return explain(model, inputs, question, target=[[0, 3]], execution=execution)

answers = []
for incremental, spare in json.loads(sys.argv[1]):
    ample = ask(4, incremental)
    now = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (now + spare * 2**20, resource.RLIM_INFINITY))
    short = ask(81, incremental)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    holds = all(pair.holds and not pair.degenerate for pair in question.agreement(short, ample))
    answers.append({**short.provenance, "holds": holds})
print(json.dumps(answers))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space is capped as Linux does")
def test_a_cap_on_memory_makes_smaller_parts_and_the_same_map() -> None:
    """81 windows at once need more than 100 MiB, and the engine's room for their tiles more than 20.

    What an allocator has kept differs between machines and calls, so that a cap may leave room for all windows, or for
    no tile at all: each answer is the right one, one of them took smaller parts on tiles, and none that was dense
    instead is silent about the memory.
    """
    tiles, dense = [[True, spare] for spare in (30, 40, 60, 20)], [[False, 40], [False, 20]]
    found = subprocess.run(
        [sys.executable, "-c", CAPPED, json.dumps([*tiles, *dense])], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    answers = json.loads(found.stdout)
    assert all(answer["holds"] for answer in answers)
    for answer in answers[:4]:
        assert answer["engine"] == "incremental" or "allocate memory" in answer["reason"]
    parts = [answer["windows_per_forward"] for answer in answers[:4] if answer["engine"] == "incremental"]
    assert min(parts) <= 40
    assert [answer["engine"] for answer in answers[4:]] == ["dense", "dense"]
    assert min(answer["windows_per_forward"] for answer in answers[4:]) <= 40
