"""The simulated device is as strict as a GPU, and counts what it is asked for."""

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import noise
from tests.simulated_device.counted import counted
from tests.simulated_device.device import memory_limit, tf32


def at(index: int, *shape: int) -> Tensor:
    return noise(*shape).to(f"sim:{index}")


def test_it_computes_what_the_host_computes() -> None:
    x, layer = noise(2, 3, 9, 9), nn.Conv2d(3, 4, 3)
    expected = layer(x).relu().mean((2, 3))
    assert torch.equal(layer.to("sim:1")(x.to("sim:1")).relu().mean((2, 3)).cpu(), expected)


def test_devices_do_not_mix() -> None:
    with pytest.raises(RuntimeError, match="found at least two devices, sim:0 and sim:1"):
        at(0, 2, 2) + at(1, 2, 2)
    with pytest.raises(RuntimeError, match="found at least two devices, sim:0 and cpu"):
        at(0, 2, 2) + noise(2, 2)
    assert torch.equal((at(0, 2, 2) + torch.tensor(1.0)).cpu(), noise(2, 2) + 1)  # one number is taken along


def test_generators_belong_to_their_device() -> None:
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device="sim:0", generator=torch.Generator())
    draws = [torch.randn(3, device="sim:1", generator=torch.Generator("sim:1").manual_seed(1)) for _ in range(2)]
    assert torch.equal(draws[0].cpu(), draws[1].cpu())


def test_launches_and_waits_are_counted_with_the_line_that_asked() -> None:
    x = at(1, 4, 4)
    with counted() as seen:
        y = (x.T + 1)[1:].relu()
        y.sum().item()
        y[y > 0]
    assert dict(seen.operations) == {"add": 1, "relu": 1, "sum": 1, "gt": 1, "nonzero": 1, "index": 1}
    assert {(what, line.split(":")[0]) for what, line in seen.lines} == {
        ("item", "simulated_device/test_device.py"),
        ("nonzero", "simulated_device/test_device.py"),
    }
    assert (seen.launches, seen.waits) == (6, 2)
    with counted() as seen:
        y.cpu()
        noise(3).to("sim:1")
    assert (seen.launches, seen.waits, dict(seen.copies)) == (0, 2, {"to host": 1, "to device": 1})


def test_what_autograds_own_threads_launch_is_counted_too() -> None:
    x = at(1, 4, 4).requires_grad_()
    y = x.relu().sum()
    with counted() as seen:
        y.backward()
    assert seen.operations["threshold_backward"] == 1
    assert seen.launch_lines["autograd"] == seen.launches - 1  # the seed is made by the thread that asks


def test_memory_ends_where_it_is_told_to() -> None:
    with memory_limit(2**10), pytest.raises(torch.OutOfMemoryError):
        torch.zeros(2**10, device="sim:0")
    torch.zeros(2**10, device="sim:0")


def test_a_copy_arrives_when_its_own_stream_is_waited_for() -> None:
    x, host = at(1, 3), torch.empty(3, pin_memory=True)
    side, other = torch.sim.Stream("sim:1"), torch.sim.Stream("sim:1")  # type: ignore[attr-defined]
    with torch.sim.stream(side):  # type: ignore[attr-defined]
        host.copy_(x, non_blocking=True)
    done = side.record_event()
    assert host.isnan().all()
    other.synchronize()
    torch.sim.synchronize("sim:0")  # type: ignore[attr-defined]
    assert host.isnan().all()
    done.synchronize()
    assert torch.equal(host, noise(3))


def test_what_has_no_deterministic_kernel_on_cuda_raises() -> None:
    x = at(0, 1, 2, 7, 7).requires_grad_()
    y = nn.functional.adaptive_avg_pool2d(x, 3).sum()
    torch._C._set_deterministic_algorithms(True)  # as torch.use_deterministic_algorithms, without its compiler
    try:
        with pytest.raises(RuntimeError, match="_adaptive_avg_pool2d_backward on sim does not have a deterministic"):
            y.backward()
    finally:
        torch._C._set_deterministic_algorithms(False)


def test_tf32_rounds_to_ten_bits() -> None:
    x, layer = noise(1, 8, 9, 9), nn.Conv2d(8, 8, 3)
    exact = layer(x)
    layer, x = layer.to("sim"), x.to("sim")
    with tf32():
        off = (layer(x).cpu() - exact).abs().max() / exact.abs().max()
    assert 2**-16 < off < 2**-10
    assert torch.equal(layer(x).cpu(), exact)
