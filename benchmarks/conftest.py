"""Options and fixtures of the benchmark suite; ``--device`` is defined in ``attribution.testing.options``."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from attribution import registry
from benchmarks.cases import Case, cases
from benchmarks.clock import DEVICE_WORTH, LONG, WORTH, Race, length, race, timed
from benchmarks.models import missing
from benchmarks.peers import left_out
from benchmarks.rows import Settled, settle, subject_of
from tests.simulated_device.option import prepare

PAIRS = {"smoke": 2, "full": 7}
SWEPT = ("full", "device")
"""Sizes in which a contestant runs at its best setting, which is looked for."""

_STANDING = pytest.StashKey[frozenset[str]]()

ROUNDS = {"smoke": 2, "full": 1, "families": 1, "device": 1}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--size``, ``--technique``, ``--model``, ``--budget``, ``--tf32`` and ``--rows``."""
    parser.addoption("--size", default="smoke", choices=[*ROUNDS], help="which cases run (default: smoke)")
    parser.addoption("--technique", default=None, help="only this technique")
    parser.addoption("--model", default=None, help="only this model: FILE.py:FUNCTION, torchvision:NAME, …")
    parser.addoption("--budget", type=float, default=None, help="seconds after which no further case begins")
    parser.addoption("--rows", type=Path, default=None, help="add each row there as a line of JSON when it is done")
    parser.addoption("--tf32", action="store_true", help="allow TF32 on CUDA (default: off)")


def pytest_configure(config: pytest.Config) -> None:
    """Set what all rows depend on."""
    prepare(config)
    allowed = bool(config.getoption("--tf32", default=False))
    torch.backends.cudnn.allow_tf32 = allowed  # by the older interface, which torch's compiler reads
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.benchmark = False
    if (path := config.getoption("--rows", default=None)) is None:
        return
    config.stash[_STANDING] = _names(path)
    if not config.stash[_STANDING]:
        machine = config.hook.pytest_benchmark_generate_machine_info(config=config)
        machine = {key: value for key, value in machine.items() if key not in ("node", "release")}
        head = {"machine_info": machine, "datetime": datetime.now().astimezone().isoformat()}
        path.write_text(json.dumps(head) + "\n")


def _names(path: Path) -> frozenset[str]:
    """The tests whose rows stand in a file that ``--rows`` wrote."""
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    return frozenset(json.loads(line)["name"] for line in lines)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case and installed backend."""
    if "case" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    found = [c for c in cases(*_asked(option)) if not missing(c.model)]
    pairs = [(case, backend) for case in found for backend in registry.backends(case.technique.name)]
    metafunc.parametrize(
        ("case", "backend"),
        pairs,
        ids=[f"{case.group} · {backend}".replace(" · ", "/").replace("×", "x") for case, backend in pairs],
    )


def _asked(option: Callable[[str], Any]) -> tuple[Any, ...]:
    """The arguments of `cases`."""
    return option("--size"), option("--device"), option("--technique"), option("--model")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which models are left out, and why."""
    option = config.getoption
    models = {case.model for case in cases(*_asked(option))}
    asked = _asked(option)
    return [f"left out: {name}: {reason}" for name in sorted(models) if (reason := missing(name))] + left_out(*asked)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Leave the name of the machine out of committed results."""
    machine_info.pop("node", None)


@pytest.fixture(scope="session")
def started() -> float:
    """When the session began."""
    return time.monotonic()


@pytest.fixture(autouse=True)
def within_budget(pytestconfig: pytest.Config, started: float) -> None:
    """Begin no case once the budget is spent."""
    budget = pytestconfig.getoption("--budget")
    if budget is not None and time.monotonic() - started > budget:
        pytest.skip(f"the budget of {budget:g} s is spent")


@pytest.fixture(autouse=True)
def missing_there(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> None:
    """Measure no row that stands in the file of ``--rows``: a run that was cut goes on."""
    if request.node.name in pytestconfig.stash.get(_STANDING, frozenset()):
        pytest.skip("its row stands in the file already")


@pytest.fixture(autouse=True)
def kept(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Iterator[None]:
    """Append the row to ``--rows`` at once: a run that is cut keeps what it has measured."""
    yield
    path, benchmark = pytestconfig.getoption("--rows"), request.node.funcargs.get("benchmark")
    if path is None or benchmark is None or benchmark.stats is None:
        return
    row = {
        "name": request.node.name,
        "group": benchmark.group,
        "extra_info": benchmark.extra_info,
        "stats": {"median": benchmark.stats.stats.median},
    }
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """As torch names it."""
    return str(pytestconfig.getoption("--device"))


@pytest.fixture(scope="session")
def size(pytestconfig: pytest.Config) -> str:
    """One of `benchmarks.cases.Size`."""
    return str(pytestconfig.getoption("--size"))


@pytest.fixture(scope="session")
def settled_by_case() -> dict[str, Settled]:
    """The last case that was settled; its rows follow each other."""
    return {}


@pytest.fixture
def settled(case: Case, device: str, size: str, settled_by_case: dict[str, Settled]) -> Settled:
    """The case, answered by every backend once."""
    if case.group not in settled_by_case:
        settled_by_case.clear()
        settled_by_case[case.group] = settle(case, device, sweep=size in SWEPT)
    return settled_by_case[case.group]


def pairs_of(case: Case, size: str, seconds: float = 1.0) -> dict[str, int]:
    """How many pairs a race gets; families and devices differ so much that it goes by the seconds of a call."""
    if size in ("families", "device"):
        return length(seconds, worth=WORTH if size == "families" else DEVICE_WORTH)
    return LONG if size == "full" and case.question.stand_in else {"pairs": PAIRS[size]}


@pytest.fixture
def race_of(case: Case, device: str, size: str) -> Callable[..., Race]:
    """Race two calls of a case with a bare forward as canary."""
    model, inputs = subject_of(case, device)
    if inputs is None:
        inputs = torch.zeros(1, 3, 128, 128, device=device, dtype=getattr(torch, case.dtype))
    one = inputs[:1]

    def canary() -> None:
        with torch.inference_mode():
            model(one)

    def run(call: Callable[[], object], other: Callable[[], object], scale: float, other_scale: float) -> Race:
        seconds = max(timed(call, device), timed(other, device)) if size == "device" else 1.0
        return race(
            call,
            other,
            canary=canary,
            device=device,
            against="captum",
            scale=scale,
            other_scale=other_scale,
            **pairs_of(case, size, seconds),
        )

    return run
