"""Progress bars say whose work they count, in what, and are full at the end."""

from typing import Any

import pytest
import torch
import tqdm.auto
from torch import Tensor, nn

from attribution import Execution, FilterVisualization, Occlusion, Technique, explain
from attribution_hooks.incremental import differences as incremental
from attribution_hooks.incremental.engine import Engine
from tests.conftest import build, noise


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every bar that was shown; their counts stay when they are closed."""
    shown: list[Any] = []

    class Bar(tqdm.auto.tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            shown.append(self)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    return shown


QUESTIONS: dict[str, tuple[Technique, dict[str, str]]] = {
    "occlusion": (Occlusion(window=5, stride=3), {"hooks": "window", "captum": "forward"}),
    "filters": (
        FilterVisualization(layer="body", channels=(0, 1, 2), steps=2, size=(17, 23)),
        {"hooks": "step", "captum": "step"},
    ),
}
EXECUTIONS = {
    "at_once": Execution(progress=True),
    "dense": Execution(progress=True, incremental=False),
    "two": Execution(progress=True, batch_size=2),
    "single": Execution(progress=True, memory_budget=1),
}


ASKED = [("occlusion", target) for target in ([[1]] * 3, [[1, 2]] * 3, "all", None)] + [("filters", None)]


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize(("name", "target"), ASKED, ids=str)
def test_a_bar_is_full_at_the_end(name: str, backend: str, execution: str, target: Any, bars: list[Any]) -> None:
    technique, units = QUESTIONS[name]
    inputs = noise(3, 3, 17, 23) if technique.needs_inputs else None
    explain(build("cnn"), inputs, technique, backend=backend, target=target, execution=EXECUTIONS[execution])
    ((n, total, words, unit),) = [(bar.n, bar.total, bar.desc, bar.unit) for bar in bars]
    assert n == total > 0
    assert unit == units[backend]
    assert words.startswith(f"{technique.name}.{backend}, {unit}s")


def test_windows_that_are_halved_are_counted_once(bars: list[Any]) -> None:
    class Small(nn.Module):
        """Has room for three images at once."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 3:
                raise torch.OutOfMemoryError("no room")
            found: Tensor = self.body(x).mean((2, 3))
            return found

    technique, inputs = Occlusion(window=5, stride=3), noise(1, 3, 17, 23)
    result = explain(Small(), inputs, technique, execution=Execution(progress=True, incremental=False), target=1)
    assert result.provenance["windows_per_forward"] in (2, 3)
    assert [(bar.n, bar.total) for bar in bars] == [(35, 35)]


def test_an_engine_that_gives_up_closes_its_bar_and_the_next_one_begins_another(
    bars: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incremental, "LEAST_GAIN", 0.0)
    ran = Engine.run
    calls = iter(range(10_000))

    def fail_late(self: Any, *arguments: Any) -> Any:
        if next(calls) == 2:
            raise RuntimeError("the engine fails in the middle")
        return ran(self, *arguments)

    monkeypatch.setattr(Engine, "run", fail_late)
    execution = Execution(progress=True, batch_size=3)
    result = explain(build("cnn"), noise(1, 3, 17, 23), Occlusion(window=5, stride=3), execution=execution, target=1)
    assert result.provenance["engine"] == "dense"
    first, second = bars
    assert first.disable  # closed
    assert 0 < first.n < first.total
    assert (second.n, second.total) == (35, 35)
