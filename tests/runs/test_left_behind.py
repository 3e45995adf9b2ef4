"""What a run leaves of the model, of torch and of the process: nothing."""

import gc
import os
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attribution import (
    GradCAM,
    Saliency,
    explain,
    runs,
)
from attribution.runs import Examples, Plan, carry_out
from attribution.testing import small_cnn
from tests.runs.asked import ran
from tests.runs.data import Noise, painted, to_tensor


def test_the_model_torch_and_the_process_are_as_before(tmp_path: Path) -> None:
    model = small_cnn().train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = [len(module._forward_hooks) for module in model.modules()]

    def look() -> tuple[Any, ...]:
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            str(np.random.get_state()),  # noqa: NPY002  # of those who still draw from it
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            threading.active_count(),
            dict(os.environ),
        )

    ran(tmp_path / "first", 1)  # what is imported by then sets variables and draws numbers of its own
    before = look()
    ran(tmp_path / "run", model=model, threads=2)
    assert look() == before
    assert all(module.training for module in model.modules())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


class _Counting(nn.Module):
    """A forward that changes an attribute of the model, which `attribution.prepared` does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = small_cnn(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.inner(x)
        return out


def test_a_model_that_changes_itself_is_run_all_the_same(tmp_path: Path) -> None:
    found = ran(tmp_path, 3, model=_Counting(), techniques=Saliency())
    expected = explain(small_cnn(), torch.stack([Noise(3)[item][0] for item in range(3)]), Saliency()).map
    assert torch.equal(torch.cat([answer.map for _, _, answer in found]), expected)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_files_and_threads_stay_flat_over_a_thousand_images(tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    ran(tmp_path / "first", 1)
    before = len(os.listdir("/proc/self/fd")), threading.active_count()

    def look(folder: Any, record: Any, *rest: Any) -> None:
        if record["items"][0]["item"] in (100, 500, 980):
            gc.collect()
            seen.append((_resident(), len(os.listdir("/proc/self/fd")), threading.active_count()))

    work = runs.Explaining(small_cnn(), {"cam": GradCAM(layers=("body",))})
    items = Examples(Noise(1000, size=(16, 16)))
    carry_out(work, items, tmp_path / "run", Plan(batch_size=20, progress=False), on_shard=look)
    assert len(seen) == 3
    assert max(size for size, _, _ in seen) - seen[0][0] <= 5 * 2**20
    opened = [count for _, count, _ in seen]
    assert max(opened) - min(opened) <= 2  # a file and its folder, while one is written; 44 shards lie between
    assert len({count for _, _, count in seen}) == 1
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_a_thousand_images_of_which_one_in_twenty_is_bad(tmp_path: Path) -> None:
    bad = [item for item in range(1000) if item % 20 == 7]
    photos, clean = painted(tmp_path / "photos", 1000, bad=bad), painted(tmp_path / "clean", 1000)
    outs = {}
    for name, folder in (("mixed", photos), ("good", clean)):
        items = runs.of_folder(folder, to_tensor)
        outs[name] = runs.run(
            small_cnn(), items, GradCAM(layers=("body",)), out=tmp_path / name, batch_size=50, progress=False
        )
    good = {entry.number: answer.map for entry, _, answer in outs["good"]}
    mixed = {entry.number: answer.map for entry, _, answer in outs["mixed"]}
    assert len(good) == 1000
    assert sorted(set(good) - set(mixed)) == bad == [entry.number for entry in outs["mixed"].failures]
    assert all(torch.equal(mixed[number], good[number]) for number in mixed)
