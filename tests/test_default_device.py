"""The default device of the process is the caller's: it changes no answer, and no place where something is made."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from attribution import (
    Activations,
    DifferenceScore,
    FilterVisualization,
    GradCAM,
    Occlusion,
    Technique,
    TokenOcclusion,
    compare,
    explain,
    load,
    registry,
    zoo,
)
from attribution.comparison.rounding import judge_all, shaken, shaken_model
from tests.cases import COMPARED, OF_ATTENTION, SOME_PAIRS, TECHNIQUES, by_backends, given, placed
from tests.conftest import build, noise
from tests.techniques.attention.nets import images, net

QUESTIONS: dict[str, Technique] = {
    **TECHNIQUES,
    "means": Activations(layers=("body",), reduce="mean"),
    "grad_cam of the last layer": GradCAM(),
    "occlusion by a colour": Occlusion(window=(9, 7), stride=5, baseline=(0.5, 0.0, -1.0)),
    "pixels": FilterVisualization(
        layer="body", channels=(0, 2), steps=2, size=(17, 23), parametrization="pixel", tv=0.1, l2=0.1, neuron="center"
    ),
    "logits": FilterVisualization(layer="logits", channels=(0, 2), steps=2, size=(17, 23)),
}


@contextmanager
def default(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


WAYS: dict[str, Callable[[str], AbstractContextManager[Any]]] = {"set": default, "with": torch.device}


@pytest.mark.parametrize("way", WAYS)
@by_backends("name", QUESTIONS)
def test_the_map_is_the_same(name: str, backend: str, way: str) -> None:
    technique = QUESTIONS[name]
    inputs, target = given(technique, noise(3, 3, 17, 23), [[3, 1]] * 3)
    question: dict[str, Any] = {"backend": backend, "target": target}
    expected = explain(build("cnn"), inputs, technique, **question)
    models = build("cnn"), build("cnn")
    with WAYS[way]("meta"):
        for model in models * 2:
            found = explain(model, inputs, technique, **question)
            for key, map_ in expected.maps.items():
                assert torch.equal(found.maps[key], map_)
            assert found.provenance == expected.provenance
        if backend == "hooks":  # one figure: the others show the same
            found.figure()


@pytest.mark.parametrize("pair", OF_ATTENTION, ids=".".join)
def test_transformers_are_asked_the_same(pair: tuple[str, str]) -> None:
    name, backend = pair
    technique = {"token_occlusion": TokenOcclusion(window=2)}.get(name) or registry.technique(name)()
    model, x = net("timm ViT"), images("timm ViT", 2)
    target = DifferenceScore(1, 3) if technique.needs_target else None
    expected = explain(model, x, technique, backend=backend, target=target)
    with default("meta"):
        found = explain(model, x, technique, backend=backend, target=target)
    for key, map_ in expected.maps.items():
        assert torch.equal(found.maps[key], map_)
    assert found.provenance == expected.provenance


@pytest.mark.parametrize("name", COMPARED)
def test_backends_are_compared_and_files_read(name: str, tmp_path: Path) -> None:
    technique = QUESTIONS[name]
    (inputs, _), model = given(technique, noise(2, 3, 17, 23)), build("cnn")
    with default("meta"):
        answer = compare(model, inputs, technique)
        assert answer.holds
        result = answer.attributions["hooks"]
        again = load(result.save(tmp_path / "a.safetensors"))
    for key, map_ in result.maps.items():
        assert torch.equal(again.maps[key], map_)


class Noting(nn.Module):
    """Notes the default device of each forward."""

    seen: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.net = build("cnn")

    def forward(self, x: Tensor) -> Tensor:
        Noting.seen.add(torch.get_default_device().type)
        return self.net(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("pair", SOME_PAIRS)
def test_the_model_runs_with_the_callers(pair: tuple[str, str]) -> None:
    technique, model = placed(TECHNIQUES[pair[0]], {"stem": "net.stem", "body": "net.body"}), Noting()
    inputs, target = given(technique, noise(2, 3, 17, 23))
    explain(model, inputs, technique, backend=pair[1], target=target)
    Noting.seen.clear()
    with default("meta"):
        explain(model, inputs, technique, backend=pair[1], target=target)
    assert Noting.seen == {"meta"}


def test_rounding_is_judged() -> None:
    model, inputs, technique = build("cnn"), noise(1, 3, 17, 23), GradCAM(layers=("body",))
    double = build("cnn").double()
    with default("meta"):
        twin = shaken_model(model, torch.float32, seed=1)
        near = shaken(inputs, torch.float32, torch.Generator().manual_seed(1))
        oracle = explain(double, inputs.double(), technique, target=1)
        verdicts = judge_all(
            explain(model, inputs, technique, target=1), oracle, [explain(twin, near, technique, target=1)]
        )
    assert {verdict.verdict for verdict in verdicts} == {"rounding"}


def test_models_are_loaded_onto_the_cpu(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from torch import nn\nmake = lambda: nn.Conv2d(3, 4, 3)\n")
    with default("meta"):
        loaded = zoo.load(f"{tmp_path / 'mine.py'}:make")
        inputs = loaded.inputs(Image.new("RGB", (300, 260), (9, 200, 3)), stretch=True)
        seen = loaded.picture(inputs)
    assert {p.device.type for p in loaded.model.parameters()} == {"cpu"}
    np.testing.assert_allclose(seen[0, 0, 0] * 255, [9, 200, 3], atol=1e-3)
