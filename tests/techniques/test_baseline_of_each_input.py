"""One baseline for each explained input, by name or index: values of both backends against loops, files, refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import ClassScore, Execution, InputError, IntegratedGradients, Occlusion, explain, load
from attribution.cli.parameters import technique as typed
from attribution.inputs.inputs import Inputs
from tests.conftest import BACKENDS, noise
from tests.techniques.cam.nets import seeded

IMAGE, TABLE = noise(3, 2, 4, 5, dtype=torch.float64), noise(3, 4, dtype=torch.float64, seed=1)
ROWS = noise(3, 2, 4, 5, dtype=torch.float64, seed=2)
"""A baseline for each example."""


class Beside(nn.Module):
    """An image and a table that multiply one another."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.table, self.head = nn.Conv2d(2, 3, 2), nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        a = self.conv(image).tanh().sum((2, 3)) * self.table(table).sigmoid()
        return self.head(a + a * a)  # type: ignore[no-any-return]


BASELINES: list[tuple[Any, Any]] = [(0.25, -0.5), ((0.5, -1.0), (0.0, 1.0, 2.0, -1.0)), (ROWS, TABLE[1:2] * 0.5)]


def filled(baseline: Any, x: Tensor) -> Tensor:
    if isinstance(baseline, tuple):
        return torch.tensor(baseline, dtype=x.dtype).view(1, -1, *[1] * (x.ndim - 2)).expand_as(x)
    return torch.as_tensor(baseline, dtype=x.dtype).expand_as(x)


def integrated(model: nn.Module, starts: list[Tensor], steps: int) -> list[Tensor]:
    """Σ over midpoints of the gradient of each example, one at a time, times the way."""
    maps = [torch.zeros_like(IMAGE), torch.zeros_like(TABLE)]
    for n in range(3):
        ends, begins = [IMAGE[n : n + 1], TABLE[n : n + 1]], [start[n : n + 1] for start in starts]
        for k in range(steps):
            at = [b + (k + 0.5) / steps * (x - b) for x, b in zip(ends, begins, strict=True)]
            leaves = [each.clone().requires_grad_() for each in at]
            gradients = torch.autograd.grad(model(*leaves)[0, 1], leaves)
            for map_, g, x, b in zip(maps, gradients, ends, begins, strict=True):
                map_[n : n + 1] += g * (x - b) / steps
    return maps


def covered(model: nn.Module, starts: list[Tensor]) -> list[Tensor]:
    """Windows of one place, each covered alone."""
    maps = [torch.zeros(3, 4, 5, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)]
    with torch.no_grad():
        clean = model(IMAGE, TABLE)[:, 1]
        for i in range(4):
            for j in range(5):
                shown = IMAGE.clone()
                shown[:, :, i, j] = starts[0][:, :, i, j]
                maps[0][:, i, j] = clean - model(shown, TABLE)[:, 1]
            shown = TABLE.clone()
            shown[:, i] = starts[1][:, i]
            maps[1][:, i] = clean - model(IMAGE, shown)[:, 1]
    return maps


@BACKENDS
@pytest.mark.parametrize("pair", BASELINES, ids=["numbers", "per channel", "tensors"])
@pytest.mark.parametrize("by_name", [True, False])
def test_as_by_a_loop(by_name: bool, pair: tuple[Any, Any], backend: str) -> None:
    model = seeded(Beside)
    names: tuple[Any, Any] = ("image", "table") if by_name else (0, 1)
    given: Any = {"image": IMAGE, "table": TABLE} if by_name else (IMAGE, TABLE)
    baseline, starts = dict(zip(names, pair, strict=True)), [filled(pair[0], IMAGE), filled(pair[1], TABLE)]
    keys = [f"input.{name}" for name in names]
    ig = IntegratedGradients(steps=3, rule="riemann_middle", baseline=baseline)
    found = explain(model, given, ig, target=1, backend=backend).maps
    for key, expected in zip(keys, integrated(model, starts, 3), strict=True):
        assert (found[key][:, 0] - expected).abs().max() <= 1e-6 * expected.abs().max()
    windows = Occlusion(window=1, stride=1, baseline=baseline)
    score = ClassScore(1, of="logit")
    for execution in (Execution(), Execution(batch_size=2)):
        told = explain(model, given, windows, target=score, backend=backend, execution=execution).maps
        for key, expected in zip(keys, covered(model, starts), strict=True):
            assert (told[key][:, 0] - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("kind", [IntegratedGradients, Occlusion])
def test_of_value(kind: Any, tmp_path: Path) -> None:
    """Equal whatever the order and the way of naming; a file and the command line keep it."""
    fields: dict[str, Any] = {"steps": 2} if kind is IntegratedGradients else {"window": 1, "stride": 1}
    one = kind(baseline={"image": ROWS, "table": 0}, **fields)
    same = kind(baseline={"input.table": 0.0, "input.image": ROWS.clone()}, **fields)
    other = kind(baseline={"image": ROWS + 1, "table": 0}, **fields)
    assert one == same != other
    assert len({one, same, other}) == 2
    result = explain(seeded(Beside), {"image": IMAGE, "table": TABLE}, one, target=1)
    assert load(result.save(tmp_path / "a.safetensors")).technique == one
    assert typed(kind, ["baseline={image=0.5, table=[0, 1]}"], ()) == kind(baseline={"image": 0.5, "table": (0.0, 1.0)})


@BACKENDS
@pytest.mark.parametrize("kind", [IntegratedGradients, Occlusion])
@pytest.mark.parametrize("given", [("image",), ("age", "image", "table")])
def test_inputs_without_one_and_others_are_refused(given: tuple[str, ...], kind: Any, backend: str) -> None:
    baseline, names = dict.fromkeys(given, 0.0), ", ".join(map(repr, given))
    fields: dict[str, Any] = {} if kind is IntegratedGradients else {"window": 1, "stride": 1}
    with pytest.raises(InputError, match=rf"baseline is for {names}; explained are 'image', 'table'"):
        explain(
            seeded(Beside),
            {"image": IMAGE, "table": TABLE},
            kind(baseline=baseline, **fields),
            target=1,
            backend=backend,
        )


@pytest.mark.parametrize("kind", [IntegratedGradients, Occlusion])
@pytest.mark.parametrize("baseline", [{}, {"a": "nothing"}, {"a": {"b": 0.0}}, {"0": 1.0, 0: 2.0}, {True: 0.0}])
def test_fields(baseline: Any, kind: Any) -> None:
    with pytest.raises(InputError, match=r"\.baseline"):
        kind(baseline=baseline)


@pytest.mark.parametrize("kind", [IntegratedGradients, Occlusion])
def test_rows_of_each_belong_to_the_examples_of_a_part(kind: Any) -> None:
    inputs = Inputs.of({"image": IMAGE, "table": TABLE})
    whole = kind(baseline={"image": ROWS, "table": TABLE[1:2]})
    assert whole.rows(slice(1, 3), inputs) == kind(baseline={"image": ROWS[1:3], "table": TABLE[1:2]})
    assert whole.rows(slice(0, 1), inputs) == kind(baseline={"image": ROWS[:1], "table": TABLE[1:2]})
    assert kind(baseline=ROWS).rows(slice(1, 3), Inputs.of(IMAGE)) == kind(baseline=ROWS[1:3])
    assert kind(baseline=ROWS[0]).rows(slice(1, 3), Inputs.of(IMAGE)) == kind(baseline=ROWS[0])
