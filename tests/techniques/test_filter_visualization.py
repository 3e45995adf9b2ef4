"""Filter visualisation as the user meets it: it ascends, tells the dead from the living, and minds its own channel."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attribution import FilterVisualization, InputError, LayerError, ModelError, compare, explain, zoo
from attribution.running.execution import Execution
from attribution.techniques.filter_visualization import DEAD, DIVERGED, FIRST_STEP, OK
from attribution.testing import small_cnn
from tests.conftest import BACKENDS, build, noise

SIZE = (17, 23)


@BACKENDS
def test_the_objective_rises_for_every_channel(model_name: str, backend: str) -> None:
    model = build(model_name)
    count = {"cnn": 8, "residual": 6, "depthwise": 6}[model_name]
    technique = FilterVisualization.notebook(layer="body", channels=tuple(range(count)), steps=30, size=SIZE)
    result = explain(model, None, technique, backend=backend)
    objective = result.extras["objective"]
    assert objective.shape == (31, count)
    assert result.extras["status"].tolist() == [OK] * count
    assert (objective[-1] > objective[0] + 0.1).all()
    assert isinstance(model, nn.Sequential)
    shown = model[:4](result.map.clone())
    measured = shown.mean(dim=(2, 3)).diagonal()
    assert torch.allclose(measured, objective[-1], rtol=1e-5), "the objective is not that of the image"


@BACKENDS
@pytest.mark.parametrize("make", [FilterVisualization, FilterVisualization.notebook], ids=["default", "notebook"])
def test_the_objective_rises_in_the_bundled_model(backend: str, make: Callable[..., FilterVisualization]) -> None:
    model = zoo.load("bundled:squeezenet1_1").model
    technique = make(layer="features.6.expand3x3", channels=(0, 4, 8, 12), steps=12, size=48)
    result = explain(model, None, technique, backend=backend)
    objective, status = result.extras["objective"], result.extras["status"]
    alive = status == OK
    assert alive.sum() >= 3
    assert (objective[-1] > objective[0])[alive].all()
    assert ((objective[-1] - objective[0])[alive] > 0.5 * objective[0].abs()[alive]).all()


def partly_dead() -> nn.Module:
    """Channel 0 of the body lives, 1 has no weights, 2 never passes its ReLU."""
    model = build("cnn")
    assert isinstance(model, nn.Sequential)
    body = model.body
    assert isinstance(body, nn.Conv2d)
    assert body.bias is not None
    with torch.no_grad():
        body.weight[1] = 0
        body.bias[2] = -100
    return model


@BACKENDS
@pytest.mark.parametrize("make", [FilterVisualization, FilterVisualization.notebook], ids=["default", "notebook"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dead_channels_are_told(backend: str, dtype: torch.dtype, make: Callable[..., FilterVisualization]) -> None:
    model = partly_dead().to(dtype)
    technique = make(layer="body_relu", channels=(0, 1, 2), steps=4, size=SIZE, noise=1.0)
    result = explain(model, None, technique, backend=backend)
    assert result.extras["status"].tolist() == [OK, DEAD, DEAD]
    assert not result.map[1:].any(), "a dead channel's noise would pass for a pattern"
    assert not torch.equal(result.map[0], technique.start(model)[0])
    objective = result.extras["objective"]
    assert torch.equal(objective[:, 1:], objective[:1, 1:].expand(5, -1)), "nothing was climbed"
    assert result.map.isfinite().all()


@BACKENDS
@pytest.mark.parametrize("step_size", [1e37, 3e37, 1e38, 1e39])
def test_divergence_is_told_and_the_image_is_finite(backend: str, step_size: float) -> None:
    technique = FilterVisualization.notebook(layer="body", channels=(0, 1, 2), steps=20, step_size=step_size, size=SIZE)
    result = explain(build("cnn"), None, technique, backend=backend)
    status, objective = result.extras["status"], result.extras["objective"]
    assert result.map.isfinite().all()
    assert DIVERGED in status.tolist()
    assert (status[~objective.isfinite().all(dim=0)] == DIVERGED).all(), "an infinite objective is no success"


@BACKENDS
def test_huge_but_finite_steps_stay_what_they_are(backend: str) -> None:
    technique = FilterVisualization.notebook(layer="body", channels=(0, 1), steps=3, step_size=1e30, size=SIZE)
    result = explain(build("cnn"), None, technique, backend=backend)
    assert result.map.isfinite().all()
    assert result.extras["objective"].isfinite().all()


def alone_and_together(
    model: nn.Module, backend: str, execution: Execution = Execution()
) -> tuple[list[Tensor], list[Tensor]]:
    def ask(channels: tuple[int, ...], execution: Execution) -> list[Tensor]:
        technique = FilterVisualization(layer="body", channels=channels, steps=20, size=SIZE)
        result = explain(model, None, technique, backend=backend, execution=execution)
        return [result.raw[FIRST_STEP], result.extras["objective"][-1]]

    singles = [ask((channel,), Execution()) for channel in (4, 1, 3)]
    return [torch.cat(parts) for parts in zip(*singles, strict=True)], ask((4, 1, 3), execution)


@BACKENDS
@pytest.mark.parametrize("batch_size", [None, 1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)], ids=str)
def test_a_channel_does_not_see_its_neighbours(
    model_name: str, backend: str, batch_size: int | None, dtype: torch.dtype, tolerance: float
) -> None:
    execution = Execution(batch_size=batch_size)
    (first, final), (first_together, final_together) = alone_and_together(build(model_name, dtype), backend, execution)
    assert (first - first_together).abs().max() <= tolerance * first.abs().max()
    assert ((final - final_together).abs() <= 0.01 * final.abs()).all()


def test_the_start_does_not_depend_on_dtype_or_neighbours() -> None:
    ask = {"layer": "body", "size": SIZE, "seed": 3}
    single = build("cnn")
    double = build("cnn", torch.float64)
    alone = FilterVisualization(**ask, channels=(5,)).start(single)  # type: ignore[arg-type]
    together = FilterVisualization(**ask, channels=(2, 5)).start(single)  # type: ignore[arg-type]
    assert torch.equal(alone[0], together[1])
    assert torch.equal(FilterVisualization(**ask, channels=(5,)).start(double), alone.double())  # type: ignore[arg-type]


@BACKENDS
def test_both_backends_start_from_the_same_noise(backend: str) -> None:
    model = partly_dead()
    technique = FilterVisualization(layer="body_relu", channels=(1,), steps=1, size=SIZE)
    raw = explain(model, None, technique, backend=backend).raw
    assert torch.equal(raw[FIRST_STEP], technique.start(model)), "a dead channel makes no step"


@BACKENDS
def test_inputs_are_refused(backend: str) -> None:
    technique = FilterVisualization(layer="body", channels=(0,))
    with pytest.raises(InputError, match="makes its own inputs"):
        explain(build("cnn"), noise(1, 3, 17, 23), technique, backend=backend)


@BACKENDS
def test_a_channel_that_does_not_exist_is_refused(backend: str) -> None:
    technique = FilterVisualization(layer="body", channels=(0, 8), size=16, steps=1)
    with pytest.raises(LayerError, match=r"no channel 8; channels are counted from 0 to 7"):
        explain(build("cnn"), None, technique, backend=backend)
    with pytest.raises(LayerError, match=r"no channel 8"):
        explain(build("cnn"), None, technique, backend=backend, execution=Execution(batch_size=1))


def test_channels_of_the_image_come_from_the_first_convolution() -> None:
    model = nn.Sequential(nn.Conv2d(5, 2, 3), nn.ReLU())
    technique = FilterVisualization(layer="0", channels=(0,), steps=1, size=(6, 8))
    assert explain(model, None, technique).map.shape == (1, 5, 6, 8)
    with pytest.raises(ModelError, match="in_channels"):
        explain(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), None, FilterVisualization(layer="1", channels=(0,)))
    technique = FilterVisualization(layer="1", channels=(0,), in_channels=1, size=(6, 8), steps=1)
    assert explain(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), None, technique).map.shape == (1, 1, 6, 8)


def test_backends_that_saw_only_dead_channels_have_proved_nothing() -> None:
    model = small_cnn()
    body = model.get_submodule("body")
    assert isinstance(body, torch.nn.Conv2d)
    with torch.no_grad():
        body.weight[:2] = 0.0
    both_dead = compare(model, None, FilterVisualization(layer="body", channels=(0, 1), steps=2, size=16))
    assert not both_dead.holds
    one_alive = compare(model, None, FilterVisualization(layer="body", channels=(0, 2), steps=2, size=16))
    assert one_alive.holds
    (pairs,) = one_alive.agreements.values()
    assert [pair.degenerate for pair in pairs if "first step" in pair.name] == [True, False]


def test_the_start_does_not_depend_on_the_default_dtype() -> None:
    technique = FilterVisualization(layer="body", channels=(0, 1), size=16)
    before = technique.start(small_cnn())
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(technique.start(small_cnn()), before)
    finally:
        torch.set_default_dtype(torch.float32)
