"""What the incremental engine is held to."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from attribution import Attribution, ClassScore, Occlusion, explain
from attribution.running.execution import Execution
from tests.conftest import noise
from tests.oracles import forwards

SIZE = (17, 19)
WINDOWS = Occlusion(window=(4, 5), stride=(3, 2), baseline=-1.0)
"""At every border, some cut, none square."""

LOGITS = ClassScore("all", of="logit")


class Net(nn.Module):
    """``body(self, x)`` on named layers, then one linear layer on all that it gives."""

    def __init__(self, body: Callable[[Any, Tensor], Tensor], layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.body = body
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.head = nn.LazyLinear(4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self, x).flatten(1))
        return logits


def net(
    body: Callable[[Any, Tensor], Tensor],
    layers: Callable[[], dict[str, nn.Module]],
    *,
    shape: tuple[int, ...] = (3, *SIZE),
    dtype: torch.dtype = torch.float64,
) -> Net:
    """Eval mode; batch norms have seeded statistics and weights of both signs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net(body, layers())
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.1, 2)
                if norm.affine:
                    nn.init.normal_(norm.weight)
                    nn.init.normal_(norm.bias)
        model.to(dtype).eval()
        with torch.no_grad():
            model(torch.zeros(1, *shape, dtype=dtype))
        for name, layer in list(model.named_children()):
            if any(map(is_lazy, layer.parameters())):
                delattr(model, name)  # of no use to this body
    return model


def ask(
    model: nn.Module,
    x: Tensor,
    technique: Occlusion = WINDOWS,
    execution: Execution = Execution(),
    *,
    score: ClassScore = LOGITS,
) -> Attribution:
    return explain(model, x, technique, target=score, execution=execution)


def error(
    model: nn.Module, result: Attribution, x: Tensor, technique: Occlusion = WINDOWS, *, of: str = "logit"
) -> float:
    """Largest difference from the plain forwards, as a part of the largest value."""
    truth = forwards.occlusions(model, x, technique, of)
    assert truth.abs().max() > 1e-6
    return ((result.maps["input"].double() - truth).abs().max() / truth.abs().max()).item()


def image(n: int = 1, channels: int = 3, size: tuple[int, int] = SIZE, dtype: torch.dtype = torch.float64) -> Tensor:
    return noise(n, channels, *size, dtype=dtype)
