"""On an accelerator launches are weighed against what tiles save; the answer can be overruled."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torchvision import models

from attribution import Execution, InputError, Occlusion, explain
from attribution.lowered.tracing import trace
from attribution.testing import small_cnn
from attribution_hooks.incremental import differences as incremental
from attribution_hooks.incremental import launches
from attribution_hooks.incremental.graph import Known, Program, build
from attribution_hooks.incremental.numbers import Readings
from attribution_hooks.incremental.plan import Plan
from attribution_hooks.incremental.proof import Proof
from tests.conftest import noise

Planned = tuple[Program, Plan, list[Readings]]
TECHNIQUE = Occlusion(window=5, stride=3)


@pytest.fixture(scope="module")
def planned() -> Planned:
    with torch.device("meta"), torch.no_grad():
        model = models.resnet18().eval()
        program, _, _ = build(model, trace(model), torch.empty(1, 3, 224, 224))
    return program, *Known().planned(program, Occlusion(window=40, stride=20).lattice(224, 224))


def weighed(planned: Planned, images: int, dtype: torch.dtype = torch.float32) -> str | None:
    return launches.too_many(*planned, images=images, size=130, chunk=130, dtype=dtype)


def test_few_images_are_not_worth_the_launches_and_many_are(planned: Planned) -> None:
    said = weighed(planned, 1)
    assert said is not None
    assert "more launches" in said
    assert "incremental='always'" in said
    assert weighed(planned, 64) is None


def test_faster_arithmetic_leaves_less_to_save(planned: Planned) -> None:
    """The smallest number of images that is worth it."""
    least = [
        next(n for n in range(1, 2000) if weighed(planned, n, dtype) is None)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert 1 < least[0] < least[1]


def test_the_numbers_decide(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "SECONDS", 0.0)
    assert weighed(planned, 1) is None
    monkeypatch.setattr(launches, "SECONDS", 1.0)
    assert weighed(planned, 64) is not None


def test_what_a_proof_and_clean_maps_take_is_not_saved(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that save two of 121 full forwards save nothing: the model is asked about two more."""
    program, plan, readings = planned
    monkeypatch.setattr(launches, "SECONDS", 0.0)
    near: Any = SimpleNamespace(lattice=plan.lattice, dense=121 * 100, executed=118 * 100)
    assert launches.too_many(
        program,
        near,
        readings,
        images=1,
        size=130,
        chunk=130,
        dtype=torch.float32,
    )


def test_always_takes_tiles_that_gain_nothing() -> None:
    model, x = small_cnn(), noise(1, 3, 17, 23)
    whole = Occlusion(window=17, stride=17)
    plain = explain(model, x, whole, target=0)
    assert plain.provenance["engine"] == "dense"
    assert "would save too little" in str(plain.provenance["reason"])
    forced = explain(model, x, whole, target=0, execution=Execution(incremental="always"))
    assert forced.provenance["engine"] == "incremental"
    assert "reason" not in forced.provenance
    assert (forced.map - plain.map).abs().max() <= 1e-5 * forced.extras["largest_score"].max()
    assert explain(model, x, whole, target=0).provenance["engine"] == "dense"  # it decides for its own call


def test_always_is_not_believed_without_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Proof, "agrees", lambda *_: torch.tensor(False))
    result = explain(small_cnn(), noise(1, 3, 17, 23), TECHNIQUE, target=0, execution=Execution(incremental="always"))
    assert (result.provenance["engine"], result.provenance["reason"]) == ("dense", incremental.COVERED)


@pytest.mark.parametrize("value", ["Always", "yes", 2, None])
def test_another_word_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"Execution\.incremental is .*; give True or False, or 'always'"):
        Execution(incremental=value)
