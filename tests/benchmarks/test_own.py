"""The benchmarks, asked of a model of one's own."""

from pathlib import Path

import pytest
import torch

from attribution import explain
from attribution.errors import ModelError
from benchmarks.cases import cases
from benchmarks.models import MODELS, inputs_of, model_of
from benchmarks.peers import entries
from tests.cli.conftest import MODEL


@pytest.fixture
def spec(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MODEL)
    return f"{tmp_path / 'mine.py'}:make"


def test_every_question_can_be_asked(spec: str) -> None:
    found = cases("smoke", "cpu", model=spec)
    assert [case.question.label.split(",")[0].split()[0] for case in found] == [
        "activations", "grad_cam", "grad_cam", "integrated_gradients", "occlusion",
    ]  # fmt: skip
    subject = MODELS[spec]
    assert subject.classes == 5
    assert len({*subject.three}) == 3
    for case in found:
        model = model_of(case.model, "cpu", torch.float32)
        x = inputs_of(case.batch, case.question.pixels, "cpu", torch.float32)
        for name, map_ in explain(model, x, case.technique, target=case.target()).maps.items():
            assert map_.shape[0] == 1, name
            assert torch.isfinite(map_).all()
    assert all(case.model == spec for case, _ in entries("smoke", "cpu", None, spec))
    assert [case.technique.name for case in cases("smoke", "cpu", "occlusion", spec)] == ["occlusion"]
    assert spec not in {case.model for case in cases("full", "cpu")}


def test_what_cannot_be_asked_is_told(tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text(
        MODEL.replace("model=small_cnn()", "model=torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1))")
    )
    with pytest.raises(ModelError, match="gives no matrix of logits"):
        cases("smoke", "cpu", model=f"{tmp_path / 'flat.py'}:make")
