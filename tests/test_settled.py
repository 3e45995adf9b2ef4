"""What calls inside of ``prepared`` settle once: no answer may go stale by it."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    Attribution,
    Attributor,
    Execution,
    GradCAM,
    InputError,
    ModelError,
    NonFiniteError,
    Saliency,
    TargetError,
    Technique,
    explain,
    explain_many,
    prepared,
    register,
    registry,
)
from attribution import calls as answering
from attribution.isolation.known import known
from attribution.registry import unregister
from attribution.run import Run
from attribution.technique import Maps
from attribution.testing import guard, small_residual
from tests.conftest import noise

X = noise(1, 3, 17, 23)
TECHNIQUES: list[Technique] = [
    Activations(layers=("body",)),
    Activations(layers=("stem", "body"), reduce="mean"),
    GradCAM(layers=("body",)),
    Saliency(),
]


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each call that used what an earlier one had settled."""
    found: list[object] = []
    plain = answering._again

    def noted(*given: Any) -> Attribution | None:
        answer = plain(*given)
        if answer is not None:
            found.append(given)
        return answer

    monkeypatch.setattr(answering, "_again", noted)
    return found


def _asked(technique: Technique) -> dict[str, Any]:
    return {"target": 1} if technique.needs_target else {}


def _same(a: Attribution, b: Attribution) -> None:
    assert a.maps.keys() == b.maps.keys()
    for name in a.maps:
        assert torch.equal(a.maps[name], b.maps[name])
        assert torch.equal(a.raw[name], b.raw[name])
    assert a.provenance == b.provenance
    assert list(a.provenance) == list(b.provenance)
    assert (a.technique, a.backend, a.computes_in) == (b.technique, b.backend, b.computes_in)
    for one, other in ((a.target, b.target), (a.scores, b.scores)):
        assert (one is None) is (other is None)
        assert one is None or other is None or torch.equal(one, other)
    assert a.extras.keys() == b.extras.keys()


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda each: each.name)
def test_a_repeated_call_answers_as_the_first(technique: Technique, backend: str, again: list[object]) -> None:
    model, x, other = small_residual(), X.clone(), noise(1, 3, 17, 23, seed=5)
    plain = [explain(model, each, technique, backend=backend, **_asked(technique)) for each in (x, other)]
    with guard(model), prepared(model):
        found = [explain(model, each, technique, backend=backend, **_asked(technique)) for each in (x, other, x)]
        equal = copy.deepcopy(technique)  # another object that asks the same
        found.append(explain(model, other, equal, backend=backend, **_asked(technique)))
    assert len(again) == 3
    for one, expected in zip(found, (*plain, *plain), strict=True):
        _same(one, expected)
    assert torch.equal(x, X)


def test_changed_values_are_seen(again: list[object]) -> None:
    model, technique = small_residual(), GradCAM(layers=("body",))
    with prepared(model), torch.no_grad():
        explain(model, X, technique, target=1)
        for change in (lambda each: each.mul_(1.25), lambda each: each.data.mul_(0.5), _with_other_memory):
            for tensor in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
                change(tensor)
            found = explain(model, X, technique, target=1)
            _same(found, explain(copy.deepcopy(model), X, technique, target=1))
    assert len(again) == 3


def _with_other_memory(tensor: Tensor) -> None:
    tensor.data = tensor.data.clone() + 0.01


@pytest.mark.parametrize(
    "other",
    [
        {"inputs": noise(1, 3, 19, 15)},
        {"inputs": noise(2, 3, 17, 23)},
        {"inputs": X.contiguous(memory_format=torch.channels_last)},
        {"technique": GradCAM(layers=("stem",))},
        {"technique": Activations(layers=("body",))},
        {"target": 2},
        {"target": None},
        {"target": [1]},
        {"target": "all"},
        {"execution": Execution(autocast=torch.bfloat16)},
        {"backend": "captum"},
    ],
    ids=str,
)
def test_another_question_is_another(other: dict[str, Any]) -> None:
    model = small_residual()
    asked: dict[str, Any] = {"inputs": X, "technique": GradCAM(layers=("body",)), "target": 1}
    changed = asked | other
    if not changed["technique"].needs_target:
        del changed["target"]
    plain = explain(model, **changed)
    with prepared(model):
        for _ in range(2):
            explain(model, **asked)
            _same(explain(model, **changed), plain)


def test_another_dtype_of_the_model_is_told() -> None:
    model, technique = small_residual(), Activations(layers=("body",))
    with prepared(model):
        explain(model, X, technique)
        with torch.no_grad():
            for parameter in model.parameters():  # as ``model.half()`` does; it replaces buffers
                parameter.data = parameter.data.double()
        with pytest.raises(InputError, match=r"use inputs\.to\(torch\.float64\)"):
            explain(model, X, technique)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_again(value: float, again: list[object]) -> None:
    model, technique = small_residual(), Activations(layers=("body",))
    bad = X.clone()
    bad[0, 1, 2, 3] = value
    with prepared(model):
        explain(model, X, technique)
        with pytest.raises(NonFiniteError, match=r"\(0, 1, 2, 3\)"):
            explain(model, bad, technique)
        with torch.no_grad():
            next(model.parameters()).fill_(value)
        with pytest.raises(NonFiniteError, match="map 'body'"):
            explain(model, X, technique)
        with torch.no_grad():
            next(model.parameters()).fill_(0.1)
        explain(model, X, technique)
    assert len(again) == 1


class Writing(nn.Module):
    """Writes into what it is given, draws random numbers, switches flags, and fails where it is told to."""

    calls: Tensor
    limit: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 3), nn.ReLU()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("limit", torch.tensor(1e9))

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.5)
        self.calls.add_(1)
        if self.calls > self.limit:
            raise ValueError("too often")
        self.stem.weight.requires_grad_(False)
        y: Tensor = self.body(self.stem(x + 0 * torch.rand(1)))
        return y.mean((2, 3))


def test_inputs_flags_buffers_and_random_numbers_are_as_found(again: list[object]) -> None:
    model, x, technique = Writing().eval(), X.clone(), Activations(layers=("body",))
    plain = explain(model, x, technique)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with guard(model), prepared(model), torch.inference_mode():
        for _ in range(3):
            _same(explain(model, x, technique), plain)
            assert torch.equal(x, X)
            assert model.stem.weight.requires_grad
            assert not model.calls
            assert torch.is_inference_mode_enabled()
            assert torch.equal(torch.get_rng_state(), state)
    assert len(again) == 2


def test_an_error_of_the_forward_is_typed_and_leaves_the_copy_good(again: list[object]) -> None:
    model, technique = Writing().eval(), Activations(layers=("body",))
    with prepared(model):
        plain = explain(model, X, technique)
        model.get_buffer("limit").fill_(-1)
        with pytest.raises(ModelError, match="too often"):
            explain(model, X, technique)
        model.get_buffer("limit").fill_(1e9)
        _same(explain(model, X, technique), plain)
    assert len(again) == 1


def test_answers_are_nobody_elses(again: list[object]) -> None:
    model, x = nn.Sequential(nn.Identity(), nn.Conv2d(3, 2, 3)).eval(), X.clone()
    technique = Activations(layers=("0",))
    with prepared(model):
        explain(model, x, technique)
        found = explain(model, x, technique)
        found.map.zero_()
        assert torch.equal(x, X)
        assert torch.equal(explain(model, x, technique).map, X)
    assert len(again) == 2


class Times(Attributor[Activations]):
    """The inputs so many times, by one of two classes of one name."""

    technique_type, backend, by = Activations, "times", 2.0

    def compute(self, run: Run[Activations]) -> Maps:
        """Without the model."""
        return {"input": self.by * run.inputs.tensor}


class Thrice(Times):
    """Another class of the same name."""

    by = 3.0


def _taken_back(technique: Technique) -> tuple[Tensor, Tensor]:
    """The answers of two classes that are registered by one name, one after the other, inside of one block."""
    found = []
    model, asked = small_residual(), Execution()
    with prepared(model):
        for cls in (Times, Thrice):
            register(cls)
            try:
                found += [explain(model, X, technique, backend="times", execution=asked).map for _ in range(2)]
            finally:
                unregister(cls)
    assert torch.equal(found[0], found[1])
    return found[1], found[3]


def test_a_class_that_was_taken_back_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    technique = Activations(layers=("body",))
    twice, thrice = _taken_back(technique)
    assert torch.equal(twice, 2 * X)
    assert torch.equal(thrice, 3 * X)
    monkeypatch.setattr(registry, "lasting", lambda attributor: True)  # a mutant: the name means the first class
    assert torch.equal(_taken_back(technique)[1], 2 * X)


def test_who_is_asked_apart_is_not_asked_by_explain() -> None:
    """An attributor that the user made may be of any class and hold anything."""
    model, technique, execution = small_residual(), Activations(layers=("body",)), Execution()
    plain = explain(model, X, technique)
    with prepared(model):
        for _ in range(2):
            mine = Times(model, technique, execution)
            mine.backend = "hooks"  # type: ignore[misc]
            assert torch.equal(mine.attribute(X).map, 2 * X)
            _same(explain(model, X, technique, execution=execution), plain)


def test_equal_targets_of_another_type_are_read_anew() -> None:
    model, technique = small_residual(), Saliency()
    with prepared(model):
        explain(model, X, technique, target=1)
        with pytest.raises(TargetError):
            explain(model, X, technique, target=True)
        with pytest.raises(InputError, match="give an instance"):
            explain(model, X, Saliency)  # type: ignore[arg-type]
        with pytest.raises(ModelError, match=r"give a torch\.nn\.Module"):
            explain("model", X, technique, target=1)  # type: ignore[arg-type]


def _mode_after(technique: Technique, *, on: bool) -> list[bool]:
    model, found = small_residual(), []
    with prepared(model), torch.set_grad_enabled(on):
        for _ in range(3):
            explain(model, X, technique, **_asked(technique))
            found.append(torch.is_grad_enabled())
    return found


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda each: each.name)
def test_the_gradient_mode_is_as_found(technique: Technique, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _mode_after(technique, on=True) == [True] * 3
    assert _mode_after(technique, on=False) == [False] * 3
    monkeypatch.setattr(answering, "leave", lambda *noted: None)
    assert _mode_after(technique, on=True) == [False] * 3  # a mutant: nobody gave the mode back


def test_gradients_follow_activations_in_one_call() -> None:
    model = small_residual()
    asked = {"first": Activations(layers=("body",)), "then": GradCAM(layers=("body",)), "last": Saliency()}
    found = explain_many(model, X, asked, target=1)
    for name, technique in asked.items():
        expected = explain(model, X, technique, **_asked(technique))
        assert torch.equal(found[name].map, expected.map)
        assert found[name].map.any()


def test_nothing_is_settled_outside_in_another_thread_or_by_a_copy_that_was_interrupted(again: list[object]) -> None:
    model, technique = small_residual(), Activations(layers=("body",))
    for _ in range(2):
        explain(model, X, technique)
    with prepared(model):
        thread = threading.Thread(target=lambda: [explain(model, X, technique) for _ in range(2)])
        thread.start()
        thread.join()
        assert not again
        explain(model, X, technique)
        shadow = known.shadows[model]
        shadow.busy = True  # as an interrupt leaves it
        explain(model, X, technique)
        assert not again
        for _ in range(2):  # of the next copy
            explain(model, X, technique)
        assert len(again) == 1
    explain(model, X, technique)
    assert len(again) == 1


def _stale(model: nn.Module) -> Callable[[], None]:
    """A mutant: the copy's buffers are not brought up to date."""
    twins = known.shadows[model].twins
    plain = twins.refresh

    def restore() -> None:
        twins.refresh = plain  # type: ignore[method-assign]

    twins.refresh = lambda *, graph=False: None  # type: ignore[method-assign]
    return restore


def test_a_copy_that_is_not_refreshed_would_be_found() -> None:
    model, technique = small_residual(), Activations(layers=("body",))
    buffer = next(each for each in model.buffers() if each.is_floating_point())
    with prepared(model):
        plain = explain(model, X, technique)
        restore = _stale(model)
        buffer.data.add_(0.5)
        assert torch.equal(explain(model, X, technique).map, plain.map)
        restore()
        assert not torch.equal(explain(model, X, technique).map, plain.map)
