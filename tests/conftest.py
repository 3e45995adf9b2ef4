"""What several test files share."""

import gc
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Attributor, ClassScore, registry
from attribution.testing import small_cnn, small_depthwise, small_residual
from tests.simulated_device.option import prepare
from tests.whole_groups import WholeGroups

BACKENDS = pytest.mark.parametrize("backend", ["hooks", "captum"])
MODELS = {"cnn": small_cnn, "residual": small_residual, "depthwise": small_depthwise}


def pytest_configure(config: pytest.Config) -> None:
    """Small models gain nothing from threads, and on busy cores lose a factor of ten by them."""
    torch.set_num_threads(1)
    prepare(config)
    config.pluginmanager.register(WholeGroups(), "whole groups")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests first where processes share them: at the end, one would leave the other processes idle."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """What is imported and collected by now stays: without it, each ``gc.collect()`` of a test takes a tenth."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """At its end a process looks for leaks, and finds all that is still frozen."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> Iterator[str]:
    """Where the tests marked ``device`` run; TF32 is off, since they hold float32 against float32's tolerance."""
    name: str = pytestconfig.getoption("--device")
    # by the older interface: after the current one, torch's compiler can no longer read it
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield name
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(params=list(MODELS))
def model_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def registered() -> Iterator[Any]:
    """``registry.register`` for the length of one test."""
    known: list[type[Attributor[Any]]] = []

    def register(cls: type[Attributor[Any]]) -> type[Attributor[Any]]:
        known.append(registry.register(cls))
        return cls

    yield register
    for cls in known:
        registry.unregister(cls)


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals act, here and in processes started here, also where pytest began with them ignored, as under nohup."""
    plain = signal.SIG_DFL
    taken: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: plain, signal.SIGTERM: plain}
    before = {number: signal.signal(number, handler) for number, handler in taken.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def logit(target: Any) -> ClassScore:
    """Classes by their logits, also for techniques that explain probabilities where nothing is said."""
    return ClassScore(target, of="logit")


def build(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    return MODELS[name](dtype=dtype)
