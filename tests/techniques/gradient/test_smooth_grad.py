"""SmoothGrad by both backends, held to plain loops in float64; its noise, and what Captum's own would be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, InputError, ModelError, SmoothGrad, ValueScore, explain, load
from attribution.techniques.gradient.smooth_grad import Statistic
from attribution_captum.gradients import CaptumSmoothGrad
from attribution_hooks.gradient.smooth_grad import HooksSmoothGrad
from attribution_hooks.gradient.sums import GradientSums
from tests.conftest import BACKENDS
from tests.techniques.gradient import oracle
from tests.techniques.gradient.cases import NAMES, Case, cases, noise
from tests.techniques.gradient.oracle import Formula, maps, off
from tests.techniques.gradient.test_family import CAPTUM, CORE, HOOKS, file_lines

SAMPLES, NOISE, SEED = 4, 0.3, 11
STATISTICS: tuple[Statistic, ...] = ("mean", "squared", "variance")
STATISTIC = pytest.mark.parametrize("statistic", STATISTICS)


def asked(statistic: Statistic = "mean", **fields: Any) -> SmoothGrad:
    return SmoothGrad(**{"samples": SAMPLES, "noise": NOISE, "seed": SEED, "statistic": statistic, **fields})


def noisy_gradients(case: Case, n: int, t: int, seed: int = SEED, absolute: float | None = None) -> list[list[Tensor]]:
    """By sample, the gradients of the explained inputs, each (1, …)."""
    source, found = torch.Generator().manual_seed(seed), []
    for _ in range(SAMPLES):
        shown = []
        for x in oracle.row(case, n):
            if x.is_floating_point():
                z = torch.randn(x.shape[1:], generator=source, dtype=torch.float64)
                size = (x.max() - x.min()).item() * NOISE if absolute is None else absolute
                shown.append(x + size * z)
            else:
                shown.append(x)
        found.append(oracle.gradients(case, n, t, tuple(shown)))
    return found


def mean(values: list[Tensor]) -> Tensor:
    total = torch.zeros_like(values[0])
    for value in values:
        total += value
    return total / len(values)


def variance(values: list[Tensor]) -> Tensor:
    return mean([(value - mean(values)) ** 2 for value in values])


def squared(values: list[Tensor]) -> Tensor:
    return mean([value * value for value in values])


BY_HAND: dict[Statistic, Callable[[list[Tensor]], Tensor]] = {"mean": mean, "squared": squared, "variance": variance}


def loop(statistic: Callable[[list[Tensor]], Tensor], **noise: Any) -> Formula:
    def formula(case: Case, n: int, t: int) -> list[Tensor]:
        return [statistic(list(values)) for values in zip(*noisy_gradients(case, n, t, **noise), strict=True)]

    return formula


@BACKENDS
@STATISTIC
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_both_backends_are_the_loops(name: str, batch: int, statistic: Statistic, backend: str) -> None:
    case = cases(batch)[name]
    before = [tensor.clone() for tensor in case.inputs]
    result = explain(case.model, case.given, asked(statistic), backend=backend, target=case.target)
    assert result.scores is not None
    expected = maps(case, loop(BY_HAND[statistic]), result.scores.shape[1])
    assert off(dict(result.raw), expected) <= 1e-10
    assert statistic == "mean" or all((map_ >= 0).all() for map_ in result.raw.values())
    assert all(torch.equal(*pair) for pair in zip(before, case.inputs, strict=True))


@BACKENDS
@STATISTIC
@pytest.mark.parametrize("execution", [Execution(batch_size=2), Execution(batch_size=5), Execution(memory_budget=1)])
@pytest.mark.parametrize("name", ["two", "region", "callable", "similarity"])
def test_chunks(name: str, execution: Execution, statistic: Statistic, backend: str) -> None:
    """Parts that begin and end within the examples of a sample, with masks, metadata and references of each example."""
    case = cases(3)[name]
    result = explain(case.model, case.given, asked(statistic), backend=backend, target=case.target, execution=execution)
    assert result.scores is not None
    assert off(dict(result.raw), maps(case, loop(BY_HAND[statistic]), result.scores.shape[1])) <= 1e-10


# What the comparisons above must see: each a way to be a little wrong.


def sample_variance(values: list[Tensor]) -> Tensor:
    return variance(values) * len(values) / (len(values) - 1)


def of_absolute_values(values: list[Tensor]) -> Tensor:
    return mean([value.abs() for value in values])


def without_the_first(values: list[Tensor]) -> Tensor:
    return mean(values[1:])


@BACKENDS
@pytest.mark.parametrize("name", ["image", "two", "region"])
@pytest.mark.parametrize(
    ("statistic", "mutant"),
    [
        ("mean", loop(of_absolute_values)),
        ("mean", loop(without_the_first)),
        ("mean", loop(mean, seed=SEED + 1)),
        ("mean", loop(mean, absolute=NOISE)),
        ("squared", loop(lambda values: mean(values) ** 2)),
        ("variance", loop(sample_variance)),
        ("variance", loop(squared)),
    ],
)
def test_wrong_ones_are_seen(mutant: Formula, statistic: Statistic, name: str, backend: str) -> None:
    case = cases(3)[name]
    result = explain(case.model, case.given, asked(statistic), backend=backend, target=case.target)
    assert result.scores is not None
    assert off(dict(result.raw), maps(case, mutant, result.scores.shape[1])) > 1e-3


class Quadratic(nn.Module):
    """S = Σ a x² / 2, whose gradient a x has the mean a x and the variance (a σ)² under noise."""

    def forward(self, x: Tensor) -> Tensor:
        return (self.a(x) * x * x).flatten(1).sum(dim=1, keepdim=True) / 2

    @staticmethod
    def a(x: Tensor) -> Tensor:
        return torch.arange(1, x[0].numel() + 1, dtype=x.dtype).view_as(x[0]) / x[0].numel()


@BACKENDS
def test_of_a_quadratic_score_mean_and_variance_are_known(backend: str) -> None:
    x = noise(2, 3, 4, 5)
    size = (0.1 * (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))).view(2, 1, 1, 1)
    mean, spread = (
        explain(Quadratic(), x, SmoothGrad(samples=4000, noise=0.1, statistic=each), backend=backend,
                target=ValueScore()).map[:, 0]
        for each in ("mean", "variance")
    )  # fmt: skip
    a = Quadratic.a(x)
    assert ((mean - a * x).abs() / (a * size)).max() < 5 / 4000**0.5
    assert (spread / (a * size) ** 2 - 1).abs().max() < 5 * (2 / 4000) ** 0.5


class Steep(nn.Module):
    """A large slope, and a little curvature."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 5e-5 * x.square()).flatten(1).sum(dim=1, keepdim=True)


def test_a_small_variance_beside_a_large_mean_is_no_rounding_by_hooks() -> None:
    """The difference of two float32 means of 1 would be rounding at 1e-7; the variance here is 1e-8."""
    x, question = noise(1, 3, 4, 5), asked("variance", samples=50)
    exact = explain(Steep(), x, question, target=ValueScore()).map
    found = explain(Steep(), x.float(), question, target=ValueScore()).map
    assert exact.max() < 1e-7
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 0.02 * exact.max()
    rough = explain(Steep(), x.float(), question, backend="captum", target=ValueScore()).map
    assert (rough - exact).abs().max() > 0.5 * exact.max(), "Captum takes the difference in a wider dtype by now"


def test_figures_files_and_equality(tmp_path: Path) -> None:
    case = cases(2)["image"]
    for statistic in STATISTICS:
        question = asked(statistic, channels="max")
        result = explain(case.model, case.given, question, target=case.target)
        assert result.map.shape == (2, 2, 7, 10)
        assert question.signed == (statistic == "mean")
        read = load(result.save(tmp_path / f"{statistic}.safetensors"))
        assert read.technique == question
        assert torch.equal(read.map, result.map)
    assert len({asked(each) for each in STATISTICS} | {asked(seed=0), asked()}) == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [("samples", 0), ("noise", -0.1), ("noise", float("nan")), ("statistic", "median"), ("seed", -1), ("seed", 0.5),
     ("channels", "mean")],
)  # fmt: skip
def test_wrong_fields_are_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"SmoothGrad.{field}"):
        SmoothGrad(**{field: value})  # type: ignore[arg-type]


@BACKENDS
def test_no_gradient_is_an_error(backend: str) -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().square()

    with pytest.raises(ModelError, match="gradient"):
        explain(Cut(), noise(2, 4), asked(), backend=backend, target=1)


def test_it_is_short_and_the_backends_share_no_computation() -> None:
    assert file_lines(CORE / "smooth_grad.py") <= 40
    assert file_lines(HOOKS / "smooth_grad.py") <= 25
    assert issubclass(HooksSmoothGrad, GradientSums)
    assert not issubclass(CaptumSmoothGrad, GradientSums)
    assert "attribution_hooks" not in CAPTUM.read_text(encoding="utf-8")
