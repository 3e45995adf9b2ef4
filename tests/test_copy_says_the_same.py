"""A copy is run only where it says what the model says; code past it runs the model itself, and writes nothing."""

import collections
import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor

from attribution import Activations, FilterVisualization, GradCAM, ModelError, Occlusion, Technique, explain, proof
from attribution.execution import Execution
from attribution.testing import guard
from tests.conftest import noise

X = noise(3, 3, 9, 11)
BACKENDS = pytest.mark.parametrize("backend", ["hooks", "captum"])


class Net(nn.Module):
    """Its middle part may be replaced by anything that uses its norm."""

    def __init__(self) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(3)
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source))
            self.norm.get_buffer("running_mean").copy_(torch.randn(4, generator=source))

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.middle(self.conv(x)).relu().mean((2, 3)))  # type: ignore[no-any-return]


def exact(model: nn.Module, x: Tensor = X) -> Tensor:
    """The model's own answer in eval mode, which leaves its mode as it was."""
    modes = [(module, module.training) for module in model.modules()]
    with torch.no_grad():
        found: Tensor = model.eval()(x)
    for module, mode in modes:
        module.training = mode
    return found


class Using:
    """An object that is called, and says that it is its own copy."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Any:
        return self.module(x)

    def __deepcopy__(self, memo: object) -> "Using":
        return self


class Slots:
    __slots__ = ("module",)

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: object) -> "Slots":
        return self

    def apply(self, x: Tensor) -> Any:
        return self.module(x)


def by(norm: nn.Module, x: Tensor) -> Any:
    return norm(x)


def with_default(model: Net) -> Callable[[Tensor], Any]:
    def function(x: Tensor, norm: nn.Module = model.norm) -> Any:
        return norm(x)

    return function


def with_keyword(model: Net) -> Callable[[Tensor], Any]:
    def function(x: Tensor, *, norm: nn.Module = model.norm) -> Any:
        return norm(x)

    return function


def with_attribute(model: Net) -> Callable[[Tensor], Any]:
    def function(x: Tensor) -> Any:
        return function.norm(x)  # type: ignore[attr-defined]

    function.norm = model.norm  # type: ignore[attr-defined]
    return function


def twice_removed(model: Net) -> Callable[[Tensor], Any]:
    def inner(x: Tensor) -> Any:
        return model.norm(x)

    def outer(x: Tensor) -> Any:
        return inner(x)

    return lambda x: outer(x)


GLOBAL: dict[str, Any] = {}


def over_a_global(model: Net) -> Callable[[Tensor], Any]:
    GLOBAL["norm"] = model.norm
    return lambda x: GLOBAL["norm"](x)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    GLOBAL.clear()


def in_a_generator(model: Net) -> Callable[[Tensor], Any]:
    steps = [lambda x: model.norm(x)]
    return lambda x: next(step(x) for step in steps)


def weakly(model: Net) -> Callable[[Tensor], Any]:
    reference = weakref.ref(model)
    return lambda x: reference().norm(x)  # type: ignore[union-attr]


def by_weak_method(model: Net) -> Callable[[Tensor], Any]:
    method = weakref.WeakMethod(model.norm.__call__)
    return lambda x: method()(x)  # type: ignore[misc]


FUNCTIONS: dict[str, Callable[[Net], Callable[[Tensor], Any]]] = {
    "closure": lambda m: lambda x: m.norm(x),
    "default": with_default,
    "keyword default": with_keyword,
    "attribute of a function": with_attribute,
    "partial": lambda m: functools.partial(lambda norm, x: norm(x), m.norm),  # the one that a copy takes along
    "partial of a function": lambda m: functools.partial(lambda f, x: f(x), lambda x: m.norm(x)),
    "keyword of a partial": lambda m: functools.partial(lambda x, use: use(x), use=lambda x: m.norm(x)),
    "function over functions": twice_removed,
    "global": over_a_global,
    "generator": in_a_generator,
    "object": lambda m: Using(m.norm),
    "method of an object with slots": lambda m: Slots(m.norm).apply,
    "weak reference": weakly,
    "weak method": by_weak_method,
    "bound method in a closure": lambda m: (lambda f: lambda x: f(x))(m.norm.__call__),
    "cached": lambda m: functools.lru_cache(maxsize=None)(lambda x: m.norm(x)),
}
HOLDERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "attribute": (lambda f: f, lambda held: held),
    "list": (lambda f: [f], lambda held: held[0]),
    "dict of tuples": (lambda f: {"norm": (f, 1)}, lambda held: held["norm"][0]),
    "deque": (lambda f: collections.deque([f]), lambda held: held[0]),
    "set": (lambda f: {f}, lambda held: next(iter(held))),
}


class Held(Net):
    def __init__(self, function: str, holder: str) -> None:
        super().__init__()
        put, self.take = HOLDERS[holder]
        self.held = put(FUNCTIONS[function](self))

    def middle(self, x: Tensor) -> Tensor:
        return self.take(self.held)(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("function", "holder"),
    [(name, "attribute") for name in FUNCTIONS] + [("closure", name) for name in HOLDERS if name != "attribute"],
)
@BACKENDS
def test_functions_over_the_models_modules(function: str, holder: str, backend: str) -> None:
    model = Held(function, holder).train()
    expected = exact(model)
    for technique in (GradCAM(layers=("conv",)), Occlusion(window=5, stride=4, score="logit")):
        with guard(model, X):
            result = explain(model, X, technique, backend=backend, target=1)
        assert result.scores is not None
        assert torch.allclose(result.scores[:, 0], expected[:, 1])
        assert result.provenance["isolation"] == ("shadow" if function == "partial" else "guarded")
    norm = explain(model, X, Activations(layers=("norm",)), backend=backend)
    assert norm.map.shape == (3, 4, 7, 9), "the norm that runs is the one that is named"


def hook_with_another(model: Net) -> None:
    model.conv.register_forward_hook(lambda module, args, output: model.norm(output))


def pre_hook_with_another(model: Net) -> None:
    model.fc.register_forward_pre_hook(lambda module, args: (model.norm(args[0][:, :4, None, None]).flatten(1),))


@pytest.mark.parametrize("add", [hook_with_another, pre_hook_with_another])
@BACKENDS
def test_hooks_that_use_another_module(add: Callable[[Net], None], backend: str) -> None:
    model = Net().train()
    add(model)
    expected = exact(model)
    with guard(model, X):
        result = explain(model, X, Occlusion(window=5, stride=4, score="logit"), backend=backend, target=1)
    assert result.scores is not None
    assert torch.allclose(result.scores[:, 0], expected[:, 1])
    assert result.provenance["isolation"] == "guarded"


def test_a_module_that_nobody_registered_gets_its_buffers_back() -> None:
    """It keeps its mode, as after ``model.eval()``, but what it writes is given back."""
    outside = nn.BatchNorm2d(4).train()

    class Beside(Net):
        def middle(self, x: Tensor) -> Tensor:
            return outside(x)  # type: ignore[no-any-return]

    model = Beside().eval()
    before = [buffer.clone() for buffer in outside.buffers()]
    for _ in range(2):
        result = explain(model, X, GradCAM(layers=("conv",)), target=1)
        assert result.provenance["isolation"] == "guarded"
    assert all(map(torch.equal, before, outside.buffers()))


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
        result = explain(model, X, question, backend=backend, target=1, execution=Execution(output="logits"))
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
    assert proof.same(model, Net().eval(), [], X[:1]) is None


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
