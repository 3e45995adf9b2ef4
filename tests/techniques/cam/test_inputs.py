"""CAMs of models that take several inputs: two images, an image and metadata, by position and by keyword."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, LayerCAM, LayerError, explain
from attribution.inputs.inputs import Inputs
from attribution.techniques.cam.family import CAM
from tests.conftest import BACKENDS, noise
from tests.techniques.cam import loops
from tests.techniques.cam.nets import CLASSES, seeded
from tests.techniques.cam.test_any_layer import BOTH, TECHNIQUES, agree

Call = Callable[[nn.Module, int], Any]
A, B = noise(3, 3, 7, 9, dtype=torch.float64), noise(3, 3, 8, 10, dtype=torch.float64, seed=1)
AGES = torch.tensor([3, 1, 2])
TABLE = noise(3, 4, dtype=torch.float64, seed=2)


class Siamese(nn.Module):
    """Its body runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 5, 3), nn.Linear(10, CLASSES)

    def embedded(self, x: Tensor) -> Tensor:
        a = self.body(x)
        return (a.tanh() + a * a.roll(1, -1)).mean((2, 3))  # type: ignore[no-any-return]

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return self.head(torch.cat([self.embedded(one), self.embedded(other)], dim=1).tanh())  # type: ignore[no-any-return]


class Beside(nn.Module):
    """An image, a table of floats and a number for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.table = nn.Conv2d(3, 5, 3), nn.Linear(4, 5)
        self.ages, self.head = nn.Embedding(5, 5), nn.Linear(5, CLASSES)

    def forward(self, table: Tensor, image: Tensor, ages: Tensor, scale: float = 1.0) -> Tensor:
        a = self.body(image) * self.table(table).sigmoid()[..., None, None] * scale
        return self.head((a.tanh() + a * a.roll(1, -1)).mean((2, 3)) + self.ages(ages))  # type: ignore[no-any-return]


def exact(technique: str, model: nn.Module, call: Call, layer: str, run: int = 0) -> Tensor:
    rows = []
    for n in range(3):
        activation, found = loops.gradients(
            lambda n=n: call(model, n),  # type: ignore[misc]
            model.get_submodule(layer),
            lambda output: [output[0, 2], output[0, 4]],  # type: ignore[index]
            run,
        )
        values = (lambda a: a[0][:, None]) if activation.ndim == 2 else (lambda a: a[0].flatten(1))
        rows.append(loops.cam(loops.FORMULAS[technique], values, tuple(activation.shape[2:]), activation, found))
    return torch.stack(rows)


def ask(technique: str, model: nn.Module, inputs: Any, layers: tuple[str, ...], backend: str) -> Any:
    question: CAM = TECHNIQUES[technique](layers=layers, relu=False)
    return explain(model, inputs, question, target=[[2, 4]] * 3, backend=backend)


@BOTH
def test_each_run_of_a_siamese_net(technique: str) -> None:
    model = seeded(Siamese)
    call: Call = lambda model, n: model(A[n : n + 1], B[n : n + 1])  # noqa: E731  # a thunk
    result = ask(technique, model, (A, B), ("body#0", "body#1"), "hooks")
    one, other = (exact(technique, model, call, "body", run) for run in (0, 1))
    assert agree(result.raw["body#0"], one)
    assert agree(result.raw["body#1"], other)
    assert result.raw["body#0"].shape[2:] != result.raw["body#1"].shape[2:], "runs mixed up are seen"
    assert result.maps["body#1"].shape == (3, 2, *A.shape[2:]), "as large as the first input with places"


def test_captum_cannot_tell_the_runs_apart_and_says_so() -> None:
    with pytest.raises(LayerError, match=r"'#'.*use backend='hooks'"):
        ask("grad_cam", seeded(Siamese), (A, B), ("body#0",), "captum")


def by_position(model: nn.Module, n: int) -> Any:
    return model(TABLE[n : n + 1], A[n : n + 1], AGES[n : n + 1])


@BOTH
@BACKENDS
@pytest.mark.parametrize("layer", ["body", "table"])
def test_an_image_beside_a_table_and_ages(layer: str, backend: str, technique: str) -> None:
    model = seeded(Beside)
    result = ask(technique, model, (TABLE, A, AGES), (layer,), backend)
    wanted = exact(technique, model, by_position, layer)
    assert agree(result.raw[layer], wanted)
    shuffled = exact(technique, model, lambda model, n: model(TABLE[n - 1][None], A[n][None], AGES[n][None]), layer)
    assert not agree(result.raw[layer], shuffled), "the row of another example is seen"
    assert result.map.shape[2:] == (A.shape[2:] if layer == "body" else ())


@BOTH
@BACKENDS
def test_a_call_by_keyword(backend: str, technique: str) -> None:
    model, inputs = seeded(Beside), {"image": A, "ages": AGES, "table": TABLE, "scale": 1.5}
    result = ask(technique, model, inputs, ("body",), backend)
    call: Call = lambda model, n: model(TABLE[n][None], A[n][None], AGES[n][None], scale=1.5)  # noqa: E731  # a thunk
    assert agree(result.raw["body"], exact(technique, model, call, "body"))
    assert not agree(result.raw["body"], exact(technique, model, by_position, "body")), "the scale is seen"


@BACKENDS
def test_a_part_of_a_batch_keeps_its_rows(backend: str) -> None:
    model, question = seeded(Beside), LayerCAM(layers=("body",))
    inputs = Inputs.of((TABLE, A, AGES), axes={"0": "n"})
    whole = explain(model, inputs, question, target=2, backend=backend)
    parts = explain(model, inputs, question, target=2, backend=backend, execution=Execution(batch_size=2))
    assert torch.allclose(whole.map, parts.map, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(whole.map, parts.map.roll(1, 0), rtol=1e-3)
