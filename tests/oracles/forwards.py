"""Occlusion of any torch model: each window one plain forward of the model itself, one image at a time."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from attribution import Occlusion
from tests.oracles.formulas import occlusion
from tests.oracles.net import Array


def occlusions(model: nn.Module, inputs: Tensor, technique: Occlusion, of: str = "logit") -> Tensor:
    """(N, K, H, W) in float64, of logits or probabilities; the forwards run in the dtype of ``inputs``."""
    baseline = technique.baseline if isinstance(technique.baseline, tuple) else (technique.baseline,) * inputs.shape[1]
    score = scorer(model, inputs.dtype, of)
    maps = [
        occlusion(
            score, image, window=technique.size, stride=technique.step, baseline=baseline, border=technique.border
        )
        for image in inputs.double().numpy()
    ]
    return torch.from_numpy(np.stack(maps))


def scorer(model: nn.Module, dtype: torch.dtype, of: str) -> Callable[[Array], Array]:
    def score(image: Array) -> Array:
        with torch.no_grad():
            logits: Tensor = model(torch.tensor(image, dtype=dtype)[None])
            found = {"logit": logits, "probability": logits.softmax(dim=1)}[of]
        return np.asarray(found[0].double().numpy())

    return score
