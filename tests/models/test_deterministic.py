"""Deterministic kernels where some operations have none, as on CUDA: what the library does goes without them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    Attribution,
    Execution,
    FilterVisualization,
    GradCAM,
    ModelError,
    Occlusion,
    Technique,
    explain,
)
from attribution.run import medians
from attribution.techniques.filter_visualization import transforms
from attribution.techniques.filter_visualization.resampling import Resampling
from attribution.testing import guard
from tests.cases import TECHNIQUES, by_backends, given
from tests.conftest import BACKENDS, build, noise
from tests.nondeterministic import AsOnCuda

X = noise(3, 3, 17, 23)
QUESTIONS: dict[str, tuple[Technique, Execution]] = {
    **{name: (each, Execution(deterministic=True)) for name, each in TECHNIQUES.items()},
    "every layer": (Activations(), Execution(deterministic=True)),
    "two layers": (GradCAM(layers=("stem", "body")), Execution(deterministic=True)),
    "dense occlusion": (Occlusion(window=5, stride=3), Execution(deterministic=True, incremental=False)),
    "a neuron": (
        FilterVisualization(layer="stem", channels=(1,), neuron="center", steps=3, size=19, tv=0.1),
        Execution(deterministic=True),
    ),
}


PLAIN = Execution()


def ask(
    technique: Technique, backend: str, execution: Execution = PLAIN, model: nn.Module | None = None
) -> Attribution:
    """About every class."""
    inputs, target = given(technique, X, "all")
    asked: Any = {"target": target, "backend": backend, "execution": execution}
    return explain(model or build("residual"), inputs, technique, **asked)


@by_backends("name", QUESTIONS)
def test_the_library_needs_no_operation_without_a_deterministic_kernel(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    technique, execution = QUESTIONS[name]
    plain = ask(technique, backend)
    monkeypatch.setattr(transforms, "resampled", Resampling.apply)  # as on a device
    with AsOnCuda():
        found = ask(technique, backend, execution)
    for key, map_ in plain.raw.items():
        size = map_.abs().max()
        if isinstance(technique, Occlusion):
            size = size + plain.extras["largest_score"].max()
        assert size > 0
        within = 1e-2 if key == "body" and isinstance(technique, FilterVisualization) else 1e-5
        assert (found.raw[key] - map_).abs().max() <= within * size, key


class Pooled(nn.Module):
    """As AlexNet and VGG: the grid is pooled to one of more than a single place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool, self.head = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.stem(x)).flatten(1))  # type: ignore[no-any-return]


@BACKENDS
def test_an_operation_of_the_model_without_one_is_named_and_so_is_the_way_out(backend: str) -> None:
    model = Pooled().eval()
    said = (
        r"^torch has no deterministic _adaptive_avg_pool2d_backward_cuda, which this model needs, .*"
        r"Execution\(deterministic=True\) .* leave both off.* nn\.AvgPool2d of a fixed size"
    )
    for technique in (GradCAM(layers=("stem",)), FilterVisualization(layer="head", channels=(1,), steps=2, size=12)):
        with AsOnCuda(), guard(model), pytest.raises(ModelError, match=said):
            ask(technique, backend, Execution(deterministic=True), model)
    with AsOnCuda():
        explain(model, X, GradCAM(layers=("stem",)), backend=backend)
        explain(model, X, Occlusion(window=5, stride=3), backend=backend, execution=Execution(deterministic=True))


@BACKENDS
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "cumsum_cuda_kernel does not have a deterministic implementation, but you set",
            "deterministic cumsum",
        ),
        (
            "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or … but this "
            "operation is not deterministic because it uses CuBLAS and you have CUDA >= 10.2. To enable deterministic "
            "behavior in this case, you must set an environment variable before running your PyTorch application: "
            "CUBLAS_WORKSPACE_CONFIG=:4096:8",
            "started with CUBLAS_WORKSPACE_CONFIG=:4096:8 in its environment",
        ),
    ],
)
def test_a_forward_that_needs_one_says_the_same(text: str, said: str, backend: str) -> None:
    class Refusing(Pooled):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError(text)

    with pytest.raises(ModelError, match=said):
        explain(Refusing().eval(), X, Occlusion(window=5, stride=3), backend=backend)


@pytest.mark.parametrize("columns", [1, 2, 7, 8])
def test_medians_are_the_same_by_either_way(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = noise(6, columns)
    rows[1, 0], rows[2, -1], rows[3] = torch.nan, torch.inf, torch.nan
    plain = medians(rows)
    assert torch.equal(plain[0], rows[0].sort().values[(columns - 1) // 2])
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert torch.equal(medians(rows).nan_to_num(99.0), plain.nan_to_num(99.0))
