"""A copy is run only where it says what the model says; code past it runs the model itself, and writes nothing."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor

from attribution import Activations, FilterVisualization, GradCAM, Inputs, ModelError, Technique, explain
from attribution.isolation import proof
from attribution.testing import guard
from tests.conftest import BACKENDS, noise
from tests.middle import Net, X, exact


def test_globals_of_the_same_name_as_an_attribute_are_not_meant() -> None:
    result = explain(Named().eval(), X, GradCAM(layers=("conv",)), target=1)
    assert result.provenance["isolation"] == "shadow"


norm = nn.BatchNorm2d(4)
"""A global with the name of an attribute."""


class Named(Net):
    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x)  # type: ignore[no-any-return]


class Reset(Net):
    """What is pickled starts afresh."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = 5.0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "temperature": 1.0}

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.temperature


class SetAnew(Net):
    scale = 2.0

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class Reduced(Net):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def __reduce__(self) -> Any:
        return Reduced, ()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class Attached(Net):
    """Fails where it is not attached to a trainer, and a copy is not."""

    def __init__(self) -> None:
        super().__init__()
        self.trainer: Any = object()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "trainer": None}

    def forward(self, x: Tensor) -> Tensor:
        if self.trainer is None:
            raise RuntimeError("not attached to a trainer")
        return super().forward(x)


class Part:
    """A plain object that copies as something else."""

    factor = 3.0

    def __deepcopy__(self, memo: object) -> "Part":
        part = Part()
        part.factor = 1.0
        return part


class WithPart(Net):
    def __init__(self) -> None:
        super().__init__()
        self.part = Part()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.part.factor


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "getstate": Reset,
    "setstate": SetAnew,
    "reduce": lambda: Reduced(2.0),
    "attached": Attached,
    "an object's deepcopy": WithPart,
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("train", [False, True])
@BACKENDS
def test_a_copy_that_says_something_else_is_not_used(name: str, train: bool, backend: str) -> None:
    model = OTHERS[name]().train(train)
    expected = exact(model)
    for _ in range(2):
        with guard(model, X):
            result = explain(model, X, GradCAM(layers=("conv",)), backend=backend, target=1)
        assert result.scores is not None
        assert torch.allclose(result.scores[:, 0], expected[:, 1])
        assert result.provenance["isolation"] == "guarded"
    filters = explain(model, None, FilterVisualization(layer="conv", channels=(0,), steps=1, size=9), backend=backend)
    assert filters.provenance["isolation"] == "guarded"


class Dropping(Net):
    def middle(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


@pytest.mark.parametrize("train", [False, True])
@BACKENDS
def test_a_graph_module_with_two_graphs(train: bool, backend: str) -> None:
    model = create_feature_extractor(Dropping(), {"fc": "logits"}).eval()
    with torch.no_grad():
        expected = model(X)["logits"]
    model.train(train)
    question = GradCAM(layers=("conv",))
    with guard(model, X):
        result = explain(model, X, question, backend=backend, target=1)
    assert result.scores is not None
    assert torch.allclose(result.scores[:, 0], expected[:, 1])
    assert result.provenance["isolation"] == ("copy" if train else "shadow")


def count_of_the_model(model: Net, train: bool) -> int:
    """How often the user's model itself ran in three calls."""
    seen: list[int] = []
    model.train(train)
    own = id(model)
    model.register_forward_pre_hook(lambda module, args: seen.append(id(module)))
    for _ in range(3):
        explain(model, X, GradCAM(layers=("conv",)), target=1)
    return seen.count(own)


def test_a_copy_is_proved_once() -> None:
    assert count_of_the_model(Net(), train=False) == 1


def test_a_model_in_train_mode_is_not_run_for_its_copy() -> None:
    assert count_of_the_model(Net(), train=True) == 0


def test_a_model_that_draws_is_proved_from_the_same_numbers() -> None:
    class Drawing(Net):
        def middle(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x)

    model = Drawing().eval()
    state = torch.get_rng_state()
    result = explain(model, X, Activations(layers=("conv",)))
    assert result.provenance["isolation"] == "shadow"
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_never_repeats_itself_is_no_verdict() -> None:
    ticks = iter(range(10**6))

    class Ticking(Net):
        def middle(self, x: Tensor) -> Tensor:
            return x + next(ticks)

    assert explain(Ticking().eval(), X, Activations(layers=("conv",))).provenance["isolation"] == "shadow"


def test_a_model_whose_rest_fails_at_this_size() -> None:
    """Nothing is compared, and the layer is had all the same."""

    class Fixed(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(x).flatten(1)[:, : 4 * (x.shape[2] == 5)])  # type: ignore[no-any-return]

    model = Fixed().eval()
    with pytest.raises(ModelError, match="shape"):
        explain(model, X, GradCAM(layers=("conv",)), target=1)
    assert proof.same(model, Net().eval(), [], Inputs.of(X[:1])) is None


def test_no_thread_sees_the_proof() -> None:
    """Eight threads ask one model for the first time at once."""
    model, found = Net().eval(), list[Tensor]()
    expected = exact(model)

    def work() -> None:
        scores = explain(model, X, GradCAM(layers=("conv",)), target=1).scores
        assert scores is not None
        found.append(scores[:, 0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(torch.allclose(scores, expected[:, 1]) for scores in found)


A, B = noise(2, 5), noise(2, 5, seed=1)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (A, A.clone(), True),
        (A, A * (1 + 1e-6), True),
        (A, A * 1.001, False),
        (A, A[:1], False),
        (A, A.double(), False),
        ({"x": A, "y": [B]}, {"x": A, "y": [B]}, True),
        ({"x": A, "y": [B]}, {"x": A, "y": [A]}, False),
        ((A, 1.0), (A, 2.0), False),
        (A / 0, A / 0, True),
        (A / 0, -A / 0, False),
        (A.bfloat16(), A.bfloat16() * 1.5, False),
        (A > 0, A > 0, True),
        (A > 0, A < 0, False),
    ],
)
def test_outputs_are_compared_tensor_by_tensor(a: Any, b: Any, same: bool) -> None:
    assert proof.equal(a, b) is same


def test_a_technique_names_its_layers() -> None:
    questions: list[Technique] = [Activations(layers=("conv",)), GradCAM(layers=("conv",))]
    filters = FilterVisualization(layer="conv", channels=(0,), size=9)
    assert all(question.named(Net()) == ("conv",) for question in [*questions, filters])
    assert FilterVisualization(layer="logits", channels=(0,), size=9).named(Net()) == ()
