"""Maps on their way to the host: in order, through two buffers, whole at the end. A stand-in is the device."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attribution import Activations, Execution, GradCAM, explain
from attribution.running.offload import Offload
from tests.conftest import build, noise


class Slow:
    """Copies nothing until it is waited for, as a busy device may, and notes what is asked of it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.stages = 0

    def stage(self, size: int) -> Tensor:
        self.stages += 1
        return torch.full((size,), 255, dtype=torch.uint8)

    def copy(self, target: Tensor, source: Tensor) -> Callable[[], None]:
        number = sum(entry.startswith("begin") for entry in self.log)
        self.log.append(f"begin {number}")

        def wait() -> None:
            self.log.append(f"end {number}")
            target.copy_(source)

        return wait


MAPS = [
    noise(2, 3, 5, 7),
    noise(1, 2, 3, 3, dtype=torch.float64),
    noise(2, 4, 6, 6).contiguous(memory_format=torch.channels_last),
    noise(4, 6).t(),
    noise(3, 8)[:, ::2],
    noise(2, 2, 2, 2).bfloat16(),
    torch.arange(7),
    noise(0, 3),
    torch.tensor(2.5),
]


@pytest.mark.parametrize("stage", [8, 24, 200, 2**20])
def test_everything_arrives_as_it_was(stage: int) -> None:
    lane = Slow()
    offload = Offload(lane, stage=stage)
    hosts = [offload.take(map_) for map_ in MAPS]
    offload.finish()
    for map_, host in zip(MAPS, hosts, strict=True):
        assert host.dtype == map_.dtype
        assert torch.equal(host, map_)
        assert not map_.numel() or host.data_ptr() != map_.data_ptr()
    assert hosts[2].is_contiguous(memory_format=torch.channels_last)
    assert lane.stages == 2


def test_one_copy_runs_while_the_other_is_emptied() -> None:
    lane = Slow()
    offload = Offload(lane, stage=8)
    offload.take(torch.arange(4.0))
    assert lane.log == ["begin 0", "begin 1"], "nothing is waited for while a buffer is free"
    host = offload.take(torch.arange(3.0))
    assert lane.log[2:] == ["end 0", "begin 2", "end 1", "begin 3"]
    assert not torch.equal(host, torch.arange(3.0)), "not there before it was waited for"
    offload.finish()
    assert lane.log[6:] == ["end 2", "end 3"]
    assert torch.equal(host, torch.arange(3.0))
    offload.finish()
    assert len(lane.log) == 8


@pytest.mark.parametrize("technique", [Activations(layers=("stem", "body")), GradCAM(layers=("body",))])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_on_the_host_there_is_nothing_to_do(technique: Activations | GradCAM, batch_size: int | None) -> None:
    model, inputs = build("cnn"), noise(2, 3, 17, 23)
    plain, offloaded = (
        explain(model, inputs, technique, execution=Execution(batch_size=batch_size, offload=offload))
        for offload in (False, True)
    )
    assert "offload" not in plain.provenance
    assert offloaded.provenance["offload"] == "none: the model is on the host"
    assert all(torch.equal(plain.maps[name], map_) for name, map_ in offloaded.maps.items())
