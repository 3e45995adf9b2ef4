"""Guided backpropagation and deconvolution of what torch makes of a model, and of what it hides."""

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from attribution import GuidedBackprop, ModelError, explain
from tests.models.kinds import quiet
from tests.techniques.gradient.cases import noise
from tests.techniques.gradient.rectified import (
    CHANNELS,
    MODULES,
    RULE,
    RULES,
    TARGETS,
    Net,
    Rule,
    X,
    by_mode,
    off,
    written_out,
)

DYNAMIC: Any = torch.export.Dim.DYNAMIC


@RULE
@pytest.mark.parametrize("how", ["traced", "symbolic", "exported"])
def test_graphs_of_torch(how: str, rule: Rule) -> None:
    plain = nn.Sequential(nn.Conv2d(CHANNELS, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)).double().eval()
    with quiet():
        model: Any = {
            "traced": lambda: torch.jit.trace(plain, X),
            "symbolic": lambda: fx.symbolic_trace(plain),
            "exported": lambda: torch.export.export(plain, (X,), dynamic_shapes=({0: DYNAMIC},)).module(),
        }[how]()
    expected = explain(plain, X, RULES[rule], target=1).map
    for _ in range(3):
        assert off(explain(model, X, RULES[rule], target=1).map, expected) < 1e-12
    if how != "symbolic":
        with pytest.raises(ModelError, match="ReLU"):
            explain(model, X, RULES[rule], backend="captum", target=1)


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.net, self.reentrant = Net(MODULES["modules"]), reentrant

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.net, x, use_reentrant=self.reentrant)


@RULE
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's, where gradients are off
def test_checkpoints(rule: Rule) -> None:
    found = explain(Checkpointed(reentrant=False), X, RULES[rule], target=TARGETS).map
    assert off(found, written_out((rule, rule))) < 1e-12
    for backend in ("hooks", "captum"):
        with pytest.raises(ModelError, match=r"use_reentrant=False|where gradients are off"):
            explain(Checkpointed(reentrant=True), X, RULES[rule], backend=backend, target=TARGETS)


def test_scripts_that_may_hide_a_rectifier_are_refused() -> None:
    plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).double().eval()
    with quiet():
        model, head = torch.jit.script(plain), torch.jit.script(nn.Linear(3, 3).double())
        for _ in range(3):
            model(noise(2, 4).requires_grad_())
        with pytest.raises(ModelError, match=r"hidden.*torch\.jit"):
            explain(model, noise(2, 4), GuidedBackprop(), target=1)
    assert explain(nn.Sequential(plain, head), noise(2, 4), GuidedBackprop(), target=1).provenance["rectifiers"] == 1


@RULE
def test_inside_of_torch_s_own_blocks(rule: Rule) -> None:
    """Attention runs its own functions with every mode off, and a recurrent layer has its ReLUs inside."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2)
        block = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
        model = nn.Sequential(block, nn.Flatten(), nn.Linear(30, 3)).double().eval()
        rnn: Any = nn.RNN(6, 4, nonlinearity="relu", batch_first=True).double().eval()
    x = noise(2, 5, 6)
    assert off(explain(model, x, RULES[rule], target=1).map[:, 0], by_mode(model, x, 1, rule)) < 1e-12

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = rnn

        def forward(self, x: Tensor) -> Any:
            return self.rnn(x)[0][:, -1]

    class Unrolled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(len(x), 4)
            for step in x.unbind(1):
                h = F.relu(
                    F.linear(step, rnn.weight_ih_l0, rnn.bias_ih_l0) + F.linear(h, rnn.weight_hh_l0, rnn.bias_hh_l0)
                )
            return h

    assert off(explain(Last(), x, RULES[rule], target=1).map[:, 0], by_mode(Unrolled(), x, 1, rule)) < 1e-12
