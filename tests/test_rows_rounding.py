"""What the rounding of other kernels may do to a row of a batch, and what it may not."""

import pytest
import torch
from torch import Tensor, nn

from attribution import Inputs
from attribution.isolation import rows
from attribution.running.execution import Execution
from attribution.running.guards import Guards
from tests.conftest import noise

X = noise(2, 3, 9, 11)
CLASSES = 4000
"""So many that of some class all images' logits are all but zero."""


class OtherKernels(nn.Module):
    """Its logits are rounded to ``bits`` more where several images go together, each by the size of its row."""

    def __init__(self, bits: float, *, share: float = 0.0) -> None:
        super().__init__()
        self.share, self.off = share, 2.0**-bits
        self.weight = nn.Parameter(noise(CLASSES, 12, seed=1))

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.adaptive_avg_pool2d(x, 2).flatten(1).clamp(-2, 2)
        logits: Tensor = (y - self.share * y.mean(0)) @ self.weight.T
        size = logits.detach().abs().mean(dim=1, keepdim=True)
        other: Tensor = logits + self.off * size * torch.linspace(-1, 1, CLASSES)
        return logits if len(x) == 1 else other


def verdict(model: nn.Module) -> str | None:
    return rows.mixing(model.eval(), Inputs.of(X), Execution(), Guards(), anew=True, together=5)


def test_tf32_is_rounding_where_it_is_on_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict(OtherKernels(10)) == rows.MIXED
    monkeypatch.setattr(rows, "tf32", lambda inputs: torch.float16)
    assert verdict(OtherKernels(10)) is None
    assert verdict(OtherKernels(10, share=0.5)) == rows.MIXED


def test_flags_that_change_between_calls_are_looked_at_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model = OtherKernels(10).eval()
    asked = [rows.mixing(model, Inputs.of(X), Execution(), Guards(), anew=False, together=5)]
    monkeypatch.setattr(rows, "tf32", lambda inputs: torch.float16)
    asked.append(rows.mixing(model, Inputs.of(X), Execution(), Guards(), anew=False, together=5))
    assert asked == [rows.MIXED, None]


@pytest.mark.parametrize(("bits", "near"), [(14, True), (11, False)])
def test_a_column_near_zero_is_rounded_as_the_others_are(bits: float, near: bool) -> None:
    one = OtherKernels(bits)
    alone, among = one(X[:1])[0], one(X)[0]
    allowed = rows._rough(torch.maximum(alone.abs(), among.abs()), torch.float32)
    assert bool(((alone - among).abs() <= allowed).all()) is near
    assert (verdict(one) is None) is near
