"""GradientSHAP by both backends, held to plain loops in float64; its draws, its gap, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Execution,
    GradientSHAP,
    InputError,
    IntegratedGradients,
    ModelError,
    ValueScore,
    compare,
    explain,
    load,
)
from attribution_captum.gradient_shap import CaptumGradientSHAP
from attribution_hooks.gradient.gradient_shap import HooksGradientSHAP
from attribution_hooks.gradient.sums import GradientSums
from tests.conftest import BACKENDS
from tests.techniques.gradient import oracle
from tests.techniques.gradient.cases import NAMES, Case, cases, noise
from tests.techniques.gradient.oracle import Formula, maps, off
from tests.techniques.gradient.test_family import CORE, HOOKS, file_lines

SAMPLES, NOISE, SEED, ROWS = 4, 0.3, 11, 5


def baselines(case: Case, rows: int = ROWS) -> Any:
    """So many for each explained input; of the second one for all."""
    found = {}
    for n, k in enumerate(case.explained):
        found[str(k)] = noise(rows if n == 0 else 1, *case.inputs[k].shape[1:], seed=20 + k)
    return found if len(found) > 1 else found[str(case.explained[0])]


def asked(case: Case, **fields: Any) -> GradientSHAP:
    return GradientSHAP(**{"baselines": baselines(case), "samples": SAMPLES, "noise": NOISE, "seed": SEED, **fields})


def drawn(seed: int, samples: int) -> tuple[list[tuple[float, int]], torch.Generator]:
    """Places and rows, and the generator of the noise, as the page says."""
    source = torch.Generator().manual_seed(seed)
    beside = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=source)))
    found = []
    for _ in range(samples):
        at = torch.rand((), generator=source, dtype=torch.float64).item()
        found.append((at, int(torch.randint(ROWS, (), generator=source))))
    return found, beside


def loop(*, seed: int = SEED, weighed: bool = True, shift: int = 0, clean: bool = False, end: bool = False) -> Formula:
    """The formula; what stands behind ``seed`` are ways to be a little wrong."""

    def formula(case: Case, n: int, t: int) -> list[Tensor]:
        x, given = oracle.row(case, n), baselines(case)
        starts = given if isinstance(given, dict) else {str(case.explained[0]): given}
        places, beside = drawn(seed, SAMPLES)
        total = [torch.zeros_like(x[place]) for place in case.explained]
        for at, row in places:
            shown, ways = list(x), []
            for place in case.explained:
                z = torch.randn(x[place].shape[1:], generator=beside, dtype=torch.float64)
                noisy = x[place] + NOISE * (x[place].max() - x[place].min()) * z
                start = starts[str(place)]
                b = start[(row + shift) % len(start)][None]
                ways.append((x[place] if clean else noisy) - b)
                shown[place] = noisy if end else b + at * (noisy - b)
            for index, gradient in enumerate(oracle.gradients(case, n, t, tuple(shown))):
                total[index] += (ways[index] if weighed else 1.0) * gradient / SAMPLES
        return total

    return formula


@BACKENDS
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_both_backends_are_the_loops(name: str, batch: int, backend: str) -> None:
    case = cases(batch)[name]
    before = [tensor.clone() for tensor in case.inputs]
    result = explain(case.model, case.given, asked(case), backend=backend, target=case.target)
    assert result.scores is not None
    assert off(dict(result.raw), maps(case, loop(), result.scores.shape[1])) <= 1e-10
    assert all(torch.equal(*pair) for pair in zip(before, case.inputs, strict=True))


@BACKENDS
@pytest.mark.parametrize("execution", [Execution(batch_size=2), Execution(batch_size=5), Execution(memory_budget=1)])
@pytest.mark.parametrize("name", ["two", "region", "callable"])
def test_chunks(name: str, execution: Execution, backend: str) -> None:
    case = cases(3)[name]
    result = explain(case.model, case.given, asked(case), backend=backend, target=case.target, execution=execution)
    assert result.scores is not None
    assert off(dict(result.raw), maps(case, loop(), result.scores.shape[1])) <= 1e-10


@BACKENDS
@pytest.mark.parametrize("name", ["image", "two"])
@pytest.mark.parametrize(
    "mutant", [{"seed": SEED + 1}, {"weighed": False}, {"shift": 1}, {"clean": True}, {"end": True}], ids=str
)
def test_wrong_ones_are_seen(mutant: dict[str, Any], name: str, backend: str) -> None:
    case = cases(3)[name]
    result = explain(case.model, case.given, asked(case), backend=backend, target=case.target)
    assert result.scores is not None
    assert off(dict(result.raw), maps(case, loop(**mutant), result.scores.shape[1])) > 1e-3


class Cubes(nn.Module):
    """Each row by itself, so that no kernel sums it otherwise in another batch."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.pow(3).flatten(1).sum(dim=1), x.sin().flatten(1).sum(dim=1)], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunks_and_neighbours_change_no_bit(dtype: torch.dtype) -> None:
    x = noise(3, 2, 5, 4, dtype=dtype)
    question = GradientSHAP(baselines=noise(4, 2, 5, 4, seed=3), samples=7, noise=0.2, seed=SEED)
    whole = explain(Cubes(), x, question, target="all").map
    for size in (1, 2, 3, 4, 8, 20):
        part = explain(Cubes(), x, question, target="all", execution=Execution(batch_size=size))
        assert torch.equal(part.map, whole), f"batch_size={size}"
    alone = torch.cat([explain(Cubes(), x[n : n + 1], question, target="all").map for n in range(3)])
    assert torch.equal(alone, whole)


@BACKENDS
def test_no_global_generator_is_asked_and_none_is_moved(backend: str) -> None:
    """Captum asks numpy's and torch's, and both are given back."""
    case, found = cases(2)["image"], []
    for seed in (0, 1):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # the very generator that Captum asks
        before, state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
        found.append(explain(case.model, case.given, asked(case), backend=backend, target=case.target).map)
        assert torch.equal(torch.get_rng_state(), before)
        assert str(np.random.get_state()) == str(state)  # noqa: NPY002
    assert torch.equal(*found)


def test_places_and_rows_are_the_same_whatever_the_noise_and_longer_ones_begin_alike() -> None:
    from attribution import Inputs

    x = noise(2, 3, 4)

    def places(**fields: Any) -> list[tuple[float, int]]:
        question = GradientSHAP(**{"baselines": noise(ROWS, 3, 4), "samples": 6, "seed": SEED, **fields})
        return [(path.at, path.row) for path in question.paths(Inputs.of(x))]

    assert places() == places(noise=0.5) == places(samples=30)[:6] == drawn(SEED, 6)[0]
    assert places() != places(seed=0)
    many = places(samples=4000)
    assert abs(np.mean([at for at, _ in many]) - 0.5) < 5 * (1 / 12 / 4000) ** 0.5
    counts = np.bincount([row for _, row in many], minlength=ROWS)
    assert abs(counts - 4000 / ROWS).max() < 5 * (4000 / ROWS) ** 0.5


@BACKENDS
def test_a_linear_model_is_complete_but_for_the_noise(backend: str) -> None:
    """S(x) - mean S(b) over the baselines that were drawn, to the last digit; by hand."""
    x, weight, rows = noise(3, 4), noise(4, seed=5), noise(ROWS, 4, seed=6)

    class Linear(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ weight[:, None] + 2

    asked: dict[str, Any] = {"backend": backend, "target": ValueScore()}
    found = explain(Linear(), x, GradientSHAP(baselines=rows, samples=9, seed=SEED), **asked)
    mean = torch.stack([rows[row] for _, row in drawn(SEED, 9)[0]]).mean(dim=0)
    assert torch.allclose(found.map[:, 0], (x - mean) * weight, rtol=0, atol=1e-12)
    assert found.extras["gap"].shape == (3, 1)
    assert found.extras["gap"].abs().max() < 1e-12
    assert found.extras["relative_gap"].abs().max() < 1e-11
    noisy = explain(Linear(), x, GradientSHAP(baselines=rows, samples=9, seed=SEED, noise=0.2), **asked)
    assert noisy.extras["gap"].abs().max() > 1e-3


@BACKENDS
@pytest.mark.parametrize("name", ["image", "two", "region"])
def test_the_gap_is_what_is_missing(name: str, backend: str) -> None:
    case = cases(3)[name]
    result = explain(case.model, case.given, asked(case), backend=backend, target=case.target)
    given, places = baselines(case), drawn(SEED, SAMPLES)[0]
    starts = given if isinstance(given, dict) else {str(case.explained[0]): given}
    for n in range(3):
        x = oracle.row(case, n)
        for t in range(result.extras["gap"].shape[1]):
            ends = []
            for _, row in places:
                shown = list(x)
                for k in case.explained:
                    shown[k] = starts[str(k)][row % len(starts[str(k)])][None]
                ends.append(oracle.score(case, n, t, tuple(shown)))
            change = oracle.score(case, n, t, x) - torch.stack(ends).mean()
            gap = sum(map_[n, t].sum() for map_ in result.maps.values()) - change
            assert result.extras["gap"][n, t].item() == pytest.approx(float(gap), rel=1e-6, abs=1e-12)
            assert result.extras["relative_gap"][n, t].item() == pytest.approx(float(gap / change.abs()), rel=1e-6)


def test_many_samples_are_integrated_gradients() -> None:
    """From one baseline, without noise; the error is that of a mean of so many."""
    case = cases(2)["image"]
    exact = explain(case.model, case.given, IntegratedGradients(steps=400, baseline=0.25), target=case.target).map
    few, many = (
        explain(case.model, case.given, GradientSHAP(baselines=0.25, samples=count), target=case.target)
        for count in (30, 3000)
    )
    assert (many.map - exact).abs().max() < 0.03 * exact.abs().max() < (few.map - exact).abs().max()
    assert many.extras["relative_gap"].abs().max() < few.extras["relative_gap"].abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_agree_in_other_dtypes(dtype: torch.dtype) -> None:
    case = cases(3)["image"]
    assert compare(case.model.to(dtype), case.given.to(dtype), asked(case), target=case.target).holds


def test_channels_figures_files_and_equality(tmp_path: Path) -> None:
    case = cases(2)["image"]
    kept = explain(case.model, case.given, asked(case), target=case.target).map
    for channels in ("sum", "max"):
        question = asked(case, channels=channels)
        result = explain(case.model, case.given, question, target=case.target)
        wanted = kept.sum(2) if channels == "sum" else kept.gather(2, kept.abs().argmax(2, keepdim=True))[:, :, 0]
        assert torch.allclose(result.map, wanted, rtol=0, atol=1e-14)
        read = load(result.save(tmp_path / f"{channels}.safetensors"))
        assert read.technique == question
        assert torch.equal(read.map, result.map)
        assert read.extras.keys() == result.extras.keys()
    assert asked(case) == asked(case)
    assert len({asked(case), asked(case, seed=0), asked(case, baselines=0.0), asked(case, noise=0.0)}) == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [("samples", 0), ("noise", -0.1), ("noise", float("nan")), ("seed", -1), ("seed", 0.5), ("channels", "mean"),
     ("baselines", "zero"), ("baselines", float("inf")), ("baselines", {})],
)  # fmt: skip
def test_wrong_fields_are_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"GradientSHAP.{field}"):
        GradientSHAP(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [noise(4, 3, 7, 9), noise(4, 2, 7, 10), (1.0, 2.0), noise(3, 7, 9), {"a": 1.0},
     {"0": noise(4, 3, 7, 10), "1": noise(3, 6)}],
    ids=range(6),
)  # fmt: skip
def test_baselines_that_do_not_fit_are_refused(wrong: object) -> None:
    case = cases(2)["two" if isinstance(wrong, dict) else "image"]
    with pytest.raises(InputError, match="baselines"):
        explain(case.model, case.given, GradientSHAP(baselines=wrong), target=0)  # type: ignore[arg-type]


@BACKENDS
def test_no_gradient_is_an_error(backend: str) -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().square()

    with pytest.raises(ModelError, match="gradient"):
        explain(Cut(), noise(2, 4), GradientSHAP(samples=2), backend=backend, target=1)


def test_known_disagreement_captum_draws_of_global_generators() -> None:
    """Captum 0.9.0 takes its places from numpy's: torch's seed alone does not repeat an answer."""
    import captum.attr

    case, found = cases(2)["features"], []
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.default_generator.manual_seed(0)
            np.random.seed(seed)  # noqa: NPY002
            method = captum.attr.GradientShap(case.model)
            found.append(method.attribute(case.inputs[0], torch.zeros_like(case.inputs[0]), target=2))
    np.random.set_state(state)  # noqa: NPY002
    assert (found[0] - found[1]).abs().max() > 0.01 * found[0].abs().max()


def test_they_are_short_and_the_backends_share_no_computation() -> None:
    for name in ("gradient_shap", "guided_backprop", "deconvolution", "guided_grad_cam"):
        assert file_lines(CORE / f"{name}.py") <= 40, name
        assert file_lines(HOOKS / f"{name}.py") <= 25, name
    assert issubclass(HooksGradientSHAP, GradientSums)
    assert not issubclass(CaptumGradientSHAP, GradientSums)
