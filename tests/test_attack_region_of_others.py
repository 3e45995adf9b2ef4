"""A region that was predicted for some images is asked of no others."""

import pytest
import torch
from torch import nn

from attribution import DifferenceScore, RegionScore, Saliency, TargetError, explain
from tests.conftest import noise

X = noise(3, 2, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("examples", [1, 2])
def test_a_predicted_region_belongs_to_its_images(examples: int, difference: bool) -> None:
    torch.manual_seed(0)
    model, asked = nn.Conv2d(2, 3, 3, padding=1).double().eval(), RegionScore(1)
    score = explain(model, X[:examples], Saliency(), target=asked).score
    assert isinstance(score, RegionScore)
    asked_again = DifferenceScore(score, RegionScore(0, torch.ones(6, 6))) if difference else score
    assert explain(model, X[:examples], Saliency(), target=asked_again).scores is not None
    with pytest.raises(TargetError, match="predicted for"):
        explain(model, X, Saliency(), target=asked_again)
