"""The sums of RISE in float32: by products of float32 where those are exact, else by products of float64."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import RISE, ClassScore, explain
from attribution.running import precision
from attribution.testing import small_cnn
from attribution_hooks.perturbation import rise as hooks
from tests.conftest import noise

X = noise(3, 3, 17, 23, dtype=torch.float32) * torch.tensor([1.0, 0.02, 0.2]).view(3, 1, 1, 1)
SEVERAL = ClassScore("all", of="logit")


def maps(model: Any, x: Tensor, **fields: Any) -> tuple[Tensor, Tensor]:
    result = explain(model, x, RISE(masks=200, cells=4, **fields), target=SEVERAL)
    return result.map, result.extras["standard_error"]


def off(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> float:
    """The largest difference, as a part of the largest value."""
    return max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, (w.double() for w in wanted), strict=True)
    )


@pytest.fixture
def flag() -> Iterator[Callable[[str], None]]:
    """Sets how a CPU may round the factors of float32 products."""
    backend: Any = torch.backends.mkldnn
    matmul = backend.matmul
    before = matmul.fp32_precision
    yield lambda value: setattr(matmul, "fp32_precision", value)
    matmul.fp32_precision = before


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("error", [None, 0.0697])
def test_they_are_those_of_float64(error: float | None, rounded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where some of the examples need no more masks."""
    wanted = maps(small_cnn().double(), X.double(), error=error)
    monkeypatch.setattr(hooks, "exact", lambda device: not rounded)
    found = explain(small_cnn(), X, RISE(masks=200, cells=4, error=error), target=SEVERAL)
    assert off((found.map, found.extras["standard_error"]), wanted) < 1e-5
    if error is not None:
        assert len(found.extras["masks"].unique()) > 1, "all of them stopped at once, or none"


def test_products_of_rounded_factors_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, plain = maps(small_cnn().double(), X.double()), Tensor.addmm_

    def rounded(self: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return plain(self, a.bfloat16().to(self), b.bfloat16().to(self))

    monkeypatch.setattr(Tensor, "addmm_", rounded)
    assert off(maps(small_cnn(), X), wanted) > 1e-4


def test_where_torch_may_round_factors_float64_multiplies(
    flag: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = torch.device("cpu")
    assert precision.exact(host)
    assert not precision.exact(torch.device("cuda"))
    for value, exact in (("bf16", False), ("tf32", False), ("ieee", True)):
        flag(value)
        assert precision.exact(host) is exact
    flag("bf16")
    monkeypatch.setattr(Tensor, "addmm_", None)  # nobody calls it
    maps(small_cnn(), X)
