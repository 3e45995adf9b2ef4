"""Numbers of the host on their way to a device: from page-locked memory where the device reads that by itself."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attribution.running.upload import upload


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of tensors, for devices that this machine does not have."""
    calls: list[str] = []

    def pin_memory(tensor: Tensor) -> Tensor:
        calls.append("pin_memory")
        return tensor

    def to(tensor: Tensor, what: Any, *, non_blocking: bool = False) -> Tensor:
        if isinstance(what, torch.device):
            calls.append(f"to {what}{', no waiting' * non_blocking}")
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(Tensor, "to", to)
    return calls


NUMBERS = [torch.arange(6), np.arange(6).reshape(2, 3).T]


@pytest.mark.parametrize("numbers", NUMBERS, ids=["tensor", "array"])
@pytest.mark.parametrize("name", ["cpu", "meta", "mps", "mps:0"])
def test_a_device_without_memory_of_its_own_is_sent_nothing_page_locked(
    asked: list[str], name: str, numbers: Any
) -> None:
    upload(numbers, torch.device(name))
    assert asked == [f"to {name}"]


@pytest.mark.parametrize("numbers", NUMBERS, ids=["tensor", "array"])
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_copies_from_page_locked_memory(asked: list[str], name: str, numbers: Any) -> None:
    upload(numbers, torch.device(name))
    assert asked == ["pin_memory", f"to {name}, no waiting"]


@pytest.mark.parametrize("numbers", NUMBERS, ids=["tensor", "array"])
def test_the_numbers_arrive_in_their_form_and_in_the_dtype_that_is_asked_for(numbers: Any) -> None:
    expected = torch.as_tensor(np.asarray(numbers).copy())
    for device in (None, torch.device("cpu")):
        assert torch.equal(upload(numbers, device), expected)
        assert torch.equal(upload(numbers, device, torch.float64), expected.double())
        assert upload(numbers, device, torch.float64).dtype == torch.float64
