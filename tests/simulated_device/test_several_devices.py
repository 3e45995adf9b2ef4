"""A model on two devices, or one that gives its logits back to the host, says what it says on the host."""

from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import Attribution, Execution, FilterVisualization, GradCAM, ModelError, Occlusion, Technique, explain
from attribution.testing import small_residual
from tests.cases import OF_RECTIFIERS, TECHNIQUES, by_backends
from tests.conftest import noise
from tests.simulated_device.device import COUNT
from tests.simulated_device.models import Drawing, Returning, Split

LAYOUTS = {
    "two devices": lambda: Split("sim:0", "sim:1"),
    "the second device first": lambda: Split("sim:1", "sim:0"),
    "a device, then the host": lambda: Split("sim:1", "cpu"),
    "the host, then a device": lambda: Split("cpu", "sim:1"),
    "the head elsewhere": lambda: Split("sim:1", "sim:1", "sim:0"),
    "logits on the host": lambda: Returning("sim:1", "sim:1"),
    "two devices, logits on the host": lambda: Returning("sim:0", "sim:1"),
}
FILTERS: dict[str, Any] = {"channels": (0, 2), "steps": 3, "size": 16}
QUESTIONS: dict[str, tuple[Technique, Any, Execution]] = {
    **{name: (each, 1 if each.needs_target else None, Execution()) for name, each in TECHNIQUES.items()},
    "grad_cam of one class": (GradCAM(layers=("stem", "body")), 1, Execution()),
    "grad_cam of several classes": (GradCAM(layers=("stem", "body")), [[1, 3], [0, 2]], Execution()),
    "grad_cam of all classes": (GradCAM(layers=("body",)), "all", Execution()),
    "occlusion": (Occlusion(window=5, stride=3), [[1, 3], [0, 2]], Execution(incremental="always")),
    "feature_ablation": (TECHNIQUES["feature_ablation"], 1, Execution(incremental="always")),
    "occlusion, dense": (Occlusion(window=5, stride=3), [[1, 3], [0, 2]], Execution(incremental=False)),
    "filters": (FilterVisualization(layer="body", **FILTERS), None, Execution()),
    "filters of neurons": (FilterVisualization(layer="body", neuron=(2, 2), **FILTERS), None, Execution()),
    "filters of classes": (FilterVisualization(layer="logits", **FILTERS), None, Execution()),
}


def ask(model: torch.nn.Module, question: str, backend: str, **execution: Any) -> Attribution:
    technique, target, how = QUESTIONS[question]
    inputs = noise(2, 3, 17, 23).to(next(model.parameters()).device) if technique.needs_inputs else None
    how = Execution(incremental=how.incremental, **execution)
    return explain(model, inputs, technique, backend=backend, target=target, execution=how)


def tensors(answer: Attribution) -> dict[str, Tensor]:
    held = {"target": answer.target, "scores": answer.scores}
    return {
        **{f"map {key}": map_ for key, map_ in answer.maps.items()},
        **{f"raw {key}": map_ for key, map_ in answer.raw.items()},
        **{f"extra {key}": extra for key, extra in answer.extras.items()},
        **{key: tensor for key, tensor in held.items() if tensor is not None},
    }


@by_backends("question", QUESTIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_answer_is_the_hosts_and_lies_where_the_images_do(layout: str, question: str, backend: str) -> None:
    model = LAYOUTS[layout]().eval()
    if (QUESTIONS[question][0].name in OF_RECTIFIERS) and backend == "captum":
        with pytest.raises(ModelError, match=r"nn\.ReLU modules only"):
            ask(model, question, backend)
        return
    expected, found = ask(Split("cpu", "cpu").eval(), question, backend), ask(model, question, backend)
    assert found.provenance.get("engine") == expected.provenance.get("engine")
    assert found.provenance.get("engine body") == expected.provenance.get("engine body")
    wanted = tensors(expected)
    for name, tensor in tensors(found).items():
        assert tensor.device == next(model.parameters()).device, name
        torch.testing.assert_close(tensor.cpu(), wanted[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("question", ["activations", "grad_cam of one class", "occlusion"])
@pytest.mark.parametrize("layout", ["two devices", "the host, then a device", "a device, then the host"])
def test_offloaded_maps_are_there_whatever_device_they_come_from(layout: str, question: str, backend: str) -> None:
    model = LAYOUTS[layout]().eval()
    found = ask(model, question, backend, offload=True, batch_size=1 if question == "activations" else None)
    assert found.provenance["offload"] == "page-locked, two buffers"
    wanted = tensors(ask(Split("cpu", "cpu").eval(), question, backend))
    for name, tensor in tensors(found).items():
        if name.startswith(("map", "raw")):
            assert tensor.device.type == "cpu"
            torch.testing.assert_close(tensor, wanted[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("question", ["activations", "grad_cam of several classes", "occlusion", "filters"])
def test_the_random_numbers_of_every_device_are_given_back(question: str, backend: str) -> None:
    model = Drawing("sim:0", "sim:1").eval()
    module: Any = torch.get_device_module("sim")
    before = module.get_rng_state_all()
    ask(model, question, backend)
    assert len(before) == COUNT
    assert all(torch.equal(*pair) for pair in zip(module.get_rng_state_all(), before, strict=True))


def test_dense_occlusion_draws_what_it_would_have_drawn_had_nothing_else_been_tried() -> None:
    tried, at_once = (
        ask(Drawing("sim:0", "sim:1").eval(), name, "hooks") for name in ("occlusion", "occlusion, dense")
    )
    assert tried.provenance["reason"] == "the traced model gives other logits than the model"
    assert torch.equal(tried.map, at_once.map)


def test_a_known_model_whose_data_moved_in_place_answers_from_where_it_lies() -> None:
    """Each tensor stays the same object, with the same shape and dtype, so that only its device tells of the move."""
    model, x = small_residual().to("sim:0"), noise(2, 3, 17, 23)
    expected = explain(model, x.to("sim:0"), GradCAM(layers=("body",)), target=1)
    before = [*model.parameters(), *model.buffers()]
    for tensor in before:
        tensor.data = tensor.data.to("sim:1")
    assert all(a is b for a, b in zip(before, [*model.parameters(), *model.buffers()], strict=True))
    found = explain(model, x.to("sim:1"), GradCAM(layers=("body",)), target=1)
    assert found.map.device == torch.device("sim:1")
    assert torch.equal(found.map.cpu(), expected.map.cpu())
