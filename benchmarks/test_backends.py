"""One row per case and backend: agreement first, then counts, then time."""

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cases import Case
from benchmarks.clock import Race, timed
from benchmarks.conftest import ROUNDS
from benchmarks.rows import REFERENCE, Settled, row


def test_backend(
    benchmark: BenchmarkFixture, case: Case, backend: str, settled: Settled, race_of: Callable[..., Race], size: str
) -> None:
    disagreement = settled.disagreement(backend)
    if disagreement:
        pytest.fail(f"{case.group}: the backends disagree, so nothing is timed\n{disagreement}", pytrace=False)
    found = row(settled, backend)
    assert found["counts"]["parameter_gradients"] == 0
    call, scale = settled.call(backend)
    if backend != REFERENCE and REFERENCE in settled.answers and size != "families":
        other, other_scale = settled.call(REFERENCE)
        found["race"] = race_of(call, other, scale=scale, other_scale=other_scale).as_dict()
    benchmark.group = case.group
    benchmark.extra_info.update(found)
    rounds = 1 if case.question.stand_in else ROUNDS[size]
    benchmark.pedantic(lambda: timed(call, settled.device), rounds=rounds, iterations=1, warmup_rounds=0)
