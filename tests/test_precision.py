"""TF32 is read by torch's current interface, which answers whoever set what by which."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attribution import explain
from attribution.running import precision
from attribution.techniques import GradCAM
from tests.conftest import build, noise
from tests.float32_flags import SETTINGS


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, object]]:
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    command = [sys.executable, "-m", "tests.float32_flags"]
    root = Path(__file__).parent.parent
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    return json.loads(answer.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("setting", SETTINGS)
def test_flags_are_read_whoever_set_them(setting: str, found: dict[str, dict[str, object]]) -> None:
    """And an answer comes, with the tolerance and the record that go with them."""
    _, convolution, matmul = SETTINGS[setting]
    seen = found[setting]
    assert isinstance(seen, dict), seen
    if convolution is None:
        convolution = "convolution tf32" in str(seen["told"])
    dtypes = {True: "torch.float16", False: "None"}
    assert [seen[key] for key in ("convolution", "matmul", "either")] == [
        dtypes[convolution],
        dtypes[matmul],
        dtypes[convolution or matmul],
    ]
    assert seen["computes_in"] == ("torch.float16" if convolution or matmul else "torch.float32")
    words = ["tf32" if allowed else "ieee" for allowed in (convolution, matmul)]
    assert str(seen["record"]).startswith(f"convolution {words[0]}, matmul {words[1]}, recurrent ")
    assert seen["record"] == seen["told"]


def test_the_record_tells_recurrent_products_from_convolutions(found: dict[str, dict[str, object]]) -> None:
    assert found["recurrent ieee"]["record"] == "convolution tf32, matmul ieee, recurrent ieee"
    assert str(found["convolutions ieee"]["record"]).startswith("convolution ieee, matmul ieee, recurrent tf32")


def test_a_cpu_and_other_dtypes_know_no_tf32() -> None:
    double: Any = SimpleNamespace(dtype=torch.float64, device=torch.device("cuda"))
    assert precision.tf32(torch.empty(1)) is None
    assert precision.tf32(double, "convolution") is None
    assert precision.told(torch.device("cpu")) is None
    answer = explain(build("cnn"), noise(1, 3, 17, 23), GradCAM(layers=("body",)), target=3)
    assert answer.computes_in is torch.float32
    assert "float32 products" not in answer.provenance
