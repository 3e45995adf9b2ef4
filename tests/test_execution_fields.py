"""The fields of ``Execution``: what they may be, how many images they let go together, and a device's budget."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attribution import InputError
from attribution.running.execution import Execution


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": True},
        {"batch_size": 1.5},
        {"memory_budget": 0},
        {"autocast": torch.float32},
        {"autocast": "bfloat16"},
    ],
    ids=str,
)
def test_fields_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"Execution\.{next(iter(wrong))} is .*; give "):
        Execution(**wrong)


def test_what_went_to_the_target_says_where() -> None:
    with pytest.raises(InputError, match=r"no output any more.*target=ClassScore\(…, output='logits'\)"):
        Execution(output="logits")  # type: ignore[arg-type]


def test_chunk_sizes() -> None:
    assert Execution(memory_budget=100).chunk(30, 10) == 3
    assert Execution(memory_budget=100).chunk(1000, 10) == 1
    assert Execution(memory_budget=100).chunk(0, 10) == 10
    assert Execution(batch_size=4).chunk(10**12, 10) == 4
    assert Execution(batch_size=40).chunk(1, 10) == 10


@pytest.mark.parametrize("total", [80 * 2**30, 6 * 2**30, None])
def test_the_default_budget_is_a_fixed_part_of_a_devices_memory(
    total: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(get_device_properties=lambda device: SimpleNamespace(total_memory=total))
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    there = Execution(batch_size=3).on(torch.device("cuda", 1))
    assert there.batch_size == 3
    assert there.budget == (2**30 if total is None else total // 8)
    assert Execution(memory_budget=7).on(torch.device("cuda")).memory_budget == 7
    assert Execution().on(torch.device("cpu")).budget == 2**30
    assert Execution().budget == 2**30
    assert Execution(memory_budget=7).budget == 7
