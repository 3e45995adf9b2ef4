"""Several gradient techniques from one pass: those whose backward is another one keep theirs."""

from typing import Any

import pytest
import torch

from attribution import Deconvolution, GradientSHAP, GuidedBackprop, InputXGradient, Saliency, explain, explain_many
from attribution.testing import small_cnn
from tests.conftest import BACKENDS
from tests.techniques.gradient.cases import noise

ASKED: dict[str, Any] = {
    "plain": Saliency(channels="none", absolute=False),
    "product": InputXGradient(),
    "guided": GuidedBackprop(),
    "summed": GuidedBackprop(channels="sum"),
    "drawn": Deconvolution(),
    "shap": GradientSHAP(samples=3),
    "of one channel": GradientSHAP(samples=3, channels="max"),
}


@BACKENDS
@pytest.mark.parametrize("order", [1, -1])
def test_rules_do_not_meet(backend: str, order: int) -> None:
    model, x, target = small_cnn(dtype=torch.float64), noise(2, 3, 9, 11), [[1, 3], [0, 2]]
    names = [*ASKED][::order]
    found = explain_many(model, x, {name: ASKED[name] for name in names}, backend=backend, target=target)
    for name, technique in ASKED.items():
        alone = explain(model, x, technique, backend=backend, target=target)
        assert torch.equal(found[name].map, alone.map), name
        assert found[name].provenance.get("rectifiers") == alone.provenance.get("rectifiers"), name
        assert found[name].extras.keys() == alone.extras.keys()
    assert not torch.equal(found["plain"].map, found["guided"].map)
    assert not torch.equal(found["drawn"].map, found["guided"].map)
