"""The provenance says how tensors were read that are not explained."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Inputs, Saliency, explain

FEATURES = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))


class Shifted(nn.Module):
    """Logits of features, moved by the sum of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, table: Tensor, scale: int = 1) -> Tensor:
        return self.head(x) + scale * table.float().sum()  # type: ignore[no-any-return]


GIVEN = {
    "as many rows as examples": ((FEATURES, torch.arange(2)), "1: a row for each example"),
    "the same, named a constant": (
        Inputs.of((FEATURES, torch.arange(2)), axes={1: ""}),
        "1: the same for all examples",
    ),
    "another number of rows": ((FEATURES, torch.arange(3)), "1: the same for all examples"),
    "by keyword, with a number": (
        {"x": FEATURES, "table": torch.arange(3), "scale": 2},
        "table: the same for all examples",
    ),
}


@pytest.mark.parametrize(("given", "said"), GIVEN.values(), ids=GIVEN)
def test_what_goes_beside_is_told(given: Any, said: str) -> None:
    assert explain(Shifted(), given, Saliency(), target=1).provenance["inputs beside"] == said


@pytest.mark.parametrize("given", [FEATURES, {"input": FEATURES}])
def test_nothing_is_told_of_nothing(given: Any) -> None:
    assert "inputs beside" not in explain(nn.Linear(4, 3), given, Saliency(), target=1).provenance


def test_a_constant_leaves_the_scores_of_the_batch() -> None:
    model = Shifted()
    given = Inputs.of((FEATURES, torch.arange(2)), axes={1: ""})
    scores = explain(model, given, Saliency(), target=1).scores
    assert scores is not None
    assert torch.allclose(scores[:, 0], model(FEATURES, torch.arange(2))[:, 1])
