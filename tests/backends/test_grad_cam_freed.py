"""No graph, and nothing that a graph holds, outlives a run of Grad-CAM."""

import gc
import weakref
from typing import Any

import pytest
from torch import Tensor, nn
from torch.autograd import Function

from attribution import GradCAM, explain
from tests.conftest import build, noise

pytestmark = pytest.mark.usefixtures("two_are_many")
TARGETS = [[0, 3, 1], [4, 1, 2]]
INPUTS = noise(2, 3, 17, 23)


class Token:
    """Lives as long as the graph that holds it."""


class Marked(Function):
    """The identity, whose node in the graph can be watched."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: list["weakref.ref[Token]"]) -> Tensor:
        ctx.token = Token()
        seen.append(weakref.ref(ctx.token))
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g, None


class Watched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = build("cnn")
        self.seen: Any = (lambda found: lambda: found)([])  # a function, so that copies of the model share the list

    def forward(self, x: Tensor) -> Tensor:
        return self.net.head(Marked.apply(self.net.body(self.net.pool(self.net.stem(x))), self.seen()))  # type: ignore[no-any-return, operator]


@pytest.mark.parametrize(
    ("target", "layers", "engine"),
    [
        (1, ("net.stem", "net.body"), "backward"),
        (TARGETS, ("net.stem", "net.body"), "backward"),
        ("all", ("net.stem",), "backward"),
        ("all", ("net.body",), "closed form"),
    ],
    ids=["one", "several", "all", "closed form"],
)
def test_no_graph_outlives_the_run(target: Any, layers: tuple[str, ...], engine: str) -> None:
    model = Watched()
    gc.collect()
    gc.disable()
    try:
        kept = model(INPUTS)
        assert model.seen()[0]() is not None, "a kept graph would be seen"
        del kept
        result = explain(model, INPUTS, GradCAM(layers=layers), target=target)
        assert len(model.seen()) >= 2
        assert not any(token() is not None for token in model.seen())
    finally:
        gc.enable()
    assert result.provenance[f"engine {layers[0]}"] == engine
    tensors = (*result.maps.values(), *result.raw.values(), result.scores, result.target)
    assert all(t is not None and t.grad_fn is None and not t.requires_grad for t in tensors)
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in result.raw.values()), "a view keeps more alive"
    assert all(parameter.grad is None for parameter in model.parameters())
