"""Layers at a size at which only the rest of the model fails: they can be asked about, by every backend."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, FilterVisualization, GradCAM, LayerError, ModelError, Occlusion, compare, explain
from attribution.layers import activation_layers, graph_bytes, peak_bytes, run_once, survey
from tests.conftest import BACKENDS, noise


class Fixed(nn.Module):
    """A linear layer on the flattened features of images of 16 × 24."""

    def __init__(self, ran: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True)
        self.body, self.pool = nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.AvgPool2d(4)
        self.head, self.after = nn.Linear(8 * 2 * 3, 5), nn.Linear(5, 5)
        self.ran = ran

    def forward(self, x: Tensor) -> Tensor:
        self.ran()
        x = self.body(self.relu(self.stem(x)))
        return self.after(self.head(self.pool(x).flatten(1)))  # type: ignore[no-any-return]


@pytest.fixture
def model() -> Fixed:
    torch.manual_seed(0)
    return Fixed().double().eval()


OTHER = noise(3, 3, 33, 21, dtype=torch.float64)


@BACKENDS
@pytest.mark.parametrize("images", [1, 3])
def test_activations(model: Fixed, backend: str, images: int) -> None:
    inputs = OTHER[:images]
    result = explain(model, inputs, Activations(layers=("stem", "body", "pool")), backend=backend)
    stem = model.stem(inputs)
    body = model.body(stem.relu())
    for name, expected in {"stem": stem, "body": body, "pool": model.pool(body)}.items():
        torch.testing.assert_close(result.maps[name], expected.detach(), rtol=1e-12, atol=1e-12)
    means = explain(model, inputs, Activations(layers=("body",), reduce="mean"), backend=backend).map
    torch.testing.assert_close(means, body.detach().mean(dim=(2, 3)), rtol=1e-12, atol=1e-12)


@BACKENDS
def test_activations_by_default(model: Fixed, backend: str) -> None:
    assert [*explain(model, OTHER, Activations(), backend=backend).maps] == ["relu", "body", "pool"]
    assert activation_layers(model, OTHER) == ("relu", "body", "pool")


@BACKENDS
def test_filters(model: Fixed, backend: str) -> None:
    asked = FilterVisualization.notebook(layer="body", channels=(1, 4), steps=1, size=(33, 21))
    result = explain(model, None, asked, backend=backend)
    start = asked.start(model).requires_grad_()
    objective = model.body(model.stem(start).relu()).mean(dim=(2, 3)).gather(1, torch.tensor([[1], [4]])).squeeze(1)
    (g,) = torch.autograd.grad(objective.sum(), start)
    step = 0.05 * g / (g.flatten(1).std(dim=1).view(-1, 1, 1, 1) + 1e-8)
    torch.testing.assert_close(result.extras["objective"][0], objective.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.map, (start + step).detach(), rtol=1e-10, atol=1e-10)


def test_the_backends_agree(model: Fixed) -> None:
    assert compare(model, OTHER, Activations(layers=("body",))).holds
    assert compare(model, None, FilterVisualization(layer="stem", channels=(0, 5), steps=2, size=(33, 21))).holds


@BACKENDS
@pytest.mark.parametrize(
    "technique",
    [
        GradCAM(),
        GradCAM(layers=("body",)),
        Occlusion(window=9, stride=9),
        Activations(layers=("body", "after")),
        Activations(layers=("head",)),
    ],
    ids=repr,
)
def test_what_needs_the_rest_is_told_why_it_fails(model: Fixed, technique: Any, backend: str) -> None:
    for _ in range(2):
        with pytest.raises(ModelError, match=r"inputs of shape \((1|3), 3, 33, 21\), torch.float64: .*shapes") as told:
            explain(model, OTHER, technique, backend=backend)
        assert isinstance(told.value.__cause__, RuntimeError)


@BACKENDS
def test_filters_of_what_is_not_reached(model: Fixed, backend: str) -> None:
    for layer in ("after", "logits"):
        with pytest.raises(ModelError, match=r"inputs of shape .*33, 21"):
            explain(model, None, FilterVisualization(layer=layer, channels=(0,), size=(33, 21)), backend=backend)


@BACKENDS
def test_a_model_that_fails_before_any_grid(backend: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    for technique in (GradCAM(), Activations()):
        with pytest.raises(ModelError, match="inputs of shape"):
            explain(model, noise(1, 3, 5, 7), technique, backend=backend)
        with pytest.raises(LayerError, match="Sequential"):
            explain(model, noise(1, 3, 2, 2), technique, backend=backend)


def test_the_survey_keeps_what_ran(model: Fixed) -> None:
    stops = survey(model, OTHER)
    assert [stop.name for stop in stops] == ["stem", "relu", "body", "pool"]
    assert stops.failure is not None
    assert stops.outputs == ()
    assert run_once(model, OTHER, ["stem", "body"])
    assert not run_once(model, OTHER, ["body", "after"])
    assert graph_bytes(model, OTHER) == 8 * (2 * 6 * 33 * 21 + 8 * 17 * 11 + 8 * 4 * 2)
    assert peak_bytes(model, OTHER) == 2 * 8 * 6 * 33 * 21
    fits = survey(model, OTHER[:, :, :16].repeat(1, 1, 1, 2)[..., :24])
    assert fits.failure is None
    assert fits.outputs == ((1, 5),)
    assert [stop.name for stop in fits][-2:] == ["head", "after"]


def test_the_model_runs_no_more_often_than_it_must() -> None:
    """First the proofs of the copy (it fails) and about rows (alone twice, three images twice), the survey, the answer;
    then a copy that is not proved yet is asked for once more, and the answer.
    """
    ran: list[None] = []
    model = Fixed(lambda: ran.append(None)).eval()
    ask = lambda: explain(model, OTHER.float(), Activations(layers=("body",)))  # noqa: E731  # a thunk
    ask()
    first = len(ran)
    ask()
    assert (first, len(ran) - first) == (7, 2)


def test_what_failed_once_may_work_later() -> None:
    works: list[None] = []

    def fail() -> None:
        if not works:
            raise RuntimeError("not yet")

    model = Fixed(fail).eval()
    inputs = noise(1, 3, 16, 24)
    for backend in ("hooks", "captum"):
        works.clear()
        with pytest.raises(ModelError, match="not yet"):
            explain(model, inputs, GradCAM(layers=("body",)), backend=backend)
        with pytest.raises(ModelError, match="not yet"):
            explain(model, inputs, GradCAM(), backend=backend)
        works.append(None)
        assert [*explain(model, inputs, GradCAM(), backend=backend).maps] == ["body"]
