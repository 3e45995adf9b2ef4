"""How a technique is run does not change what it finds."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    Attribution,
    ClassScore,
    FilterVisualization,
    GradCAM,
    ModelError,
    Occlusion,
    Technique,
    compare,
    explain,
)
from attribution.agreement import agree
from attribution.isolation.torch_modes import set_modes
from attribution.isolation.undo import undoing
from attribution.running.execution import Execution
from attribution.techniques.gradient.family import AveragedGradient
from attribution.techniques.perturbation.family import ScoreDifference
from tests.cases import OF_INPUTS, PAIRS, by_backends, given
from tests.conftest import BACKENDS, build, noise

TECHNIQUES: dict[str, Technique] = {
    **OF_INPUTS,
    "occlusion-logit": Occlusion(window=9, stride=4, border="drop"),
}
INPUTS = noise(3, 3, 17, 23)


def ask(
    technique: Technique,
    backend: str,
    execution: Execution = Execution(),
    model: nn.Module | None = None,
    output: str | int | None = None,
) -> Attribution:
    of: Any = "logit" if technique == TECHNIQUES["occlusion-logit"] else None
    score = ClassScore([[3, 1], [0, 4], [2, 2]], of=of, output=output)
    inputs, target = given(technique, INPUTS, score)
    return explain(model or build("cnn"), inputs, technique, backend=backend, target=target, execution=execution)


def same(a: Attribution, b: Attribution, relative: float = 1e-5) -> None:
    assert a.raw.keys() == b.raw.keys()
    size = 0.0 if a.scores is None else a.scores.abs().max().item()
    for layer, map_ in a.raw.items():
        room = relative * size if isinstance(a.technique, ScoreDifference) else 0.0
        pair = agree(layer, map_, b.raw[layer], relative=relative, absolute=room)
        assert pair.holds, pair
        assert pair.scale > 0
    for x, y in ((a.target, b.target), (a.scores, b.scores)):
        assert (x is None) == (y is None)
        assert x is None or y is None or torch.allclose(x.double(), y.double(), rtol=relative, atol=relative)


@cache
def undivided(name: str, backend: str) -> Attribution:
    return ask(TECHNIQUES[name], backend)


@by_backends("name", TECHNIQUES)
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 1000])
def test_chunks(name: str, batch_size: int, backend: str) -> None:
    whole = undivided(name, backend)
    parts = ask(TECHNIQUES[name], backend, Execution(batch_size=batch_size))
    same(whole, parts)
    if whole.target is not None:
        assert parts.target is not None
        assert parts.target.tolist() == [[3, 1], [0, 4], [2, 2]]


@BACKENDS
def test_predictions_and_all_classes_in_chunks(backend: str) -> None:
    for target in (None, "all"):
        whole, parts = (
            explain(
                build("residual"),
                INPUTS,
                GradCAM(layers=("body",)),
                backend=backend,
                target=target,
                execution=Execution(batch_size=size),
            )
            for size in (None, 2)
        )
        same(whole, parts)


@BACKENDS
def test_the_same_chunk_gives_the_same_bits(backend: str) -> None:
    for technique in (each for each in TECHNIQUES.values() if (each.name, backend) in PAIRS):
        a, b = (ask(technique, backend, Execution(batch_size=2)) for _ in range(2))
        assert all(torch.equal(a.maps[layer], b.maps[layer]) for layer in a.maps)


def sizes_of(technique: Technique, backend: str, execution: Execution) -> list[int]:
    """The batch of every forward through the model's first layer."""
    model, sizes = build("cnn"), []
    ask(technique, backend, execution, model)
    model.get_submodule("stem").register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    ask(technique, backend, execution, model)
    return sizes


@pytest.mark.parametrize(
    ("name", "backend", "batch_size", "most"),
    [
        ("activations", "hooks", 2, 2),
        ("activations", "captum", 2, 2),
        ("grad_cam", "hooks", 1, 1),
        ("grad_cam", "captum", 1, 1),
        ("occlusion", "hooks", 5, 5),
        ("occlusion", "captum", 5, 15),
    ],
)
def test_no_forward_is_larger_than_asked(name: str, backend: str, batch_size: int, most: int) -> None:
    sizes = sizes_of(TECHNIQUES[name], backend, Execution(batch_size=batch_size))
    assert max(sizes) == most


def test_one_forward_serves_all_layers_and_targets() -> None:
    """The hooks backend. A new hook makes three things necessary before: the proof of the copy (two), the survey
    (one) and the proof about rows (one, and twice three images).
    """
    for name in ("grad_cam", "activations"):
        assert sizes_of(TECHNIQUES[name], "hooks", Execution()) == [1, 1, 1, 1, 3, 3, 3], name


@BACKENDS
def test_a_small_memory_budget_makes_small_chunks(backend: str) -> None:
    technique = TECHNIQUES["occlusion"]
    roomy, tight = (ask(technique, backend, Execution(memory_budget=budget)) for budget in (2**30, 1))
    assert tight.provenance["windows_per_forward"] == 1
    assert int(roomy.provenance["windows_per_forward"]) > 1
    same(roomy, tight)


@BACKENDS
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_filters_in_chunks(backend: str, batch_size: int) -> None:
    technique = FilterVisualization(layer="body", channels=(4, 0, 7), steps=3, size=(17, 23))
    model = build("cnn", torch.float64)
    whole, parts = (
        explain(model, None, technique, backend=backend, execution=Execution(batch_size=size))
        for size in (None, batch_size)
    )
    same(whole, parts, 1e-10)
    assert torch.allclose(whole.extras["objective"], parts.extras["objective"], rtol=1e-10)


class Wrapped(nn.Module):
    """Its logits are one item of what it returns."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.net, self.kind = build("cnn"), kind

    def forward(self, x: Tensor) -> Any:
        logits = self.net(x)
        if self.kind == "plain":
            return logits
        if self.kind in ("dict", "names"):
            return {"aux": -logits, "logits" if self.kind == "dict" else "scores": logits}
        return (-logits, logits) if self.kind == "tuple" else [-logits, logits]


@BACKENDS
@pytest.mark.parametrize(("kind", "item"), [("dict", "logits"), ("dict", None), ("tuple", 1), ("list", -1)])
@pytest.mark.parametrize("name", ["grad_cam", "occlusion"])
def test_logits_inside_an_output(name: str, kind: str, item: str | int | None, backend: str) -> None:
    technique = GradCAM(layers=("net.stem", "net.body")) if name == "grad_cam" else TECHNIQUES[name]
    found = ask(technique, backend, model=Wrapped(kind), output=item)
    expected = ask(TECHNIQUES[name], backend)
    for layer, map_ in expected.raw.items():
        assert torch.equal(found.raw[layer if layer == "input" else f"net.{layer}"], map_)


@BACKENDS
def test_techniques_without_a_target_take_any_output(backend: str) -> None:
    for kind in ("dict", "names", "tuple", "list"):
        assert compare(Wrapped(kind), INPUTS, Activations(layers=("net.body",))).holds
    technique = FilterVisualization(layer="net.body", channels=(0,), steps=1, size=(17, 23))
    assert explain(Wrapped("dict"), None, technique, backend=backend).map.isfinite().all()


@BACKENDS
@pytest.mark.parametrize(
    ("kind", "item", "says"),
    [
        ("names", None, r"returns a dict with keys \['aux', 'scores'\]; name the tensor in it by output=… of a score"),
        ("tuple", None, r"returns a tuple of 2; .* target=ClassScore\(output=0\)"),
        ("dict", "logit", r"output is 'logit', but the model returns a dict with keys \['aux', 'logits'\]"),
        ("dict", 0, r"output is 0, but the model returns a dict"),
        ("tuple", 2, r"output is 2, but the model returns a tuple of 2"),
        ("tuple", "logits", r"output is 'logits', but the model returns a tuple of 2"),
        ("plain", 1, r"output=1 asks for an entry of a tensor \(\d+, 5\).*, whose rows are examples"),
    ],
)
def test_logits_that_are_not_there(backend: str, kind: str, item: str | int | None, says: str) -> None:
    for technique in (GradCAM(layers=("net.body",)), TECHNIQUES["occlusion"]):
        with pytest.raises(ModelError, match=says):
            ask(technique, backend, model=Wrapped(kind), output=item)


@by_backends("name", TECHNIQUES)
def test_autocast_runs_and_stays_near(name: str, backend: str) -> None:
    exact = ask(TECHNIQUES[name], backend)
    coarse = ask(TECHNIQUES[name], backend, Execution(autocast=torch.bfloat16))
    assert coarse.computes_in == torch.bfloat16
    # A value that ReLU turns over by rounding changes the gradients behind it: measured up to 0.27 of the largest.
    same(exact, coarse, 0.3 if isinstance(exact.technique, AveragedGradient) else 0.05)
    assert any(not torch.equal(exact.raw[layer], coarse.raw[layer]) for layer in exact.raw), "autocast did nothing"
    assert all(map_.dtype == torch.float32 for map_ in coarse.maps.values())


@by_backends("name", TECHNIQUES)
def test_bfloat16_models(name: str, backend: str) -> None:
    inputs, technique = INPUTS.bfloat16(), TECHNIQUES[name]
    target = 1 if technique.needs_target else None
    coarse = explain(build("cnn", torch.bfloat16), inputs, technique, backend=backend, target=target)
    exact = explain(build("cnn"), INPUTS, technique, backend=backend, target=target)
    assert all(map_.dtype == torch.float32 for map_ in coarse.maps.values())
    for layer, map_ in exact.maps.items():
        assert (coarse.maps[layer] - map_).abs().max() <= 0.1 * (map_.abs().max() + 1)


@BACKENDS
def test_a_bar_is_drawn_when_asked(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    technique = FilterVisualization(layer="body", channels=(0,), steps=3, size=(17, 23))
    windows = {"hooks": "window", "captum": "forward"}
    for question, unit in ((TECHNIQUES["occlusion"], windows[backend]), (technique, "step")):
        quiet = ask(question, backend)
        assert capsys.readouterr().err == ""
        loud = ask(question, backend, Execution(progress=True, batch_size=4))
        assert unit in capsys.readouterr().err
        same(quiet, loud)


@pytest.mark.parametrize("kind", ["cuda", "cpu", "meta"])
def test_the_callers_autocast_of_the_host_is_off_wherever_the_model_lies(kind: str) -> None:
    """The host works for a model on a device, too: it makes the noise that filters start from."""
    with torch.autocast("cpu", torch.bfloat16):
        with undoing() as undo:
            set_modes(undo, Execution(), torch.device(kind))
            assert not torch.is_autocast_enabled("cpu")
            assert (noise(4, 4) @ noise(4, 4)).dtype == torch.float32
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_cache_enabled()


@BACKENDS
def test_a_backend_is_given_the_budget_of_the_device(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []
    plain = Execution.chunk

    def noting(self: Execution, *args: Any, **kwargs: Any) -> int:
        seen.append(self.memory_budget)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Execution, "chunk", noting)
    monkeypatch.setattr(Execution, "on", lambda self, device: replace(self, memory_budget=12345678))
    for technique in (each for each in TECHNIQUES.values() if (each.name, backend) in PAIRS):
        ask(technique, backend)
    assert {*seen} == {12345678}
