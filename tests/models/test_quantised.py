"""Quantised models: occlusion from the definition, layers that give floats, and why the rest has no answer."""

import pytest
import torch

from attribution import Activations, ModelError, Occlusion
from attribution.running.execution import Execution
from attribution.testing import guard, small_cnn
from tests.models.kinds import (
    GRADIENTS,
    INPUTS,
    PAIRS,
    TECHNIQUES,
    Build,
    ask,
    difference,
    dynamically_quantised,
    expected,
    statically_quantised,
)
from tests.oracles.forwards import occlusions

OCCLUSION = Occlusion(window=9, stride=7)
SCORED = [pair for pair in GRADIENTS if TECHNIQUES[pair[0]].needs_target]
"""Those whose gradient begins at the score, and passes the quantised head."""


@pytest.mark.filterwarnings("ignore:quantized.*autograd kernel was not registered")
@pytest.mark.parametrize("build", [dynamically_quantised, statically_quantised], ids=lambda build: build.__name__)
def test_quantised(build: Build) -> None:
    """Dynamic quantisation scales by the whole batch, so that its windows go one by one."""
    model, image = build(), INPUTS[:1]
    wanted = occlusions(model, image, OCCLUSION)[0, 1]
    assert wanted.abs().max() > 0.01
    for pair in (pair for pair in PAIRS if pair[0] == "occlusion"):
        with guard(model, image):
            found = [
                ask(pair, model, image, technique=OCCLUSION, execution=Execution(batch_size=size)) for size in (1, None)
            ]
        assert all((answer.map[0, 0] - wanted).abs().max() <= 1e-5 for answer in found)
        assert ("rows" in found[1].provenance) is (build is dynamically_quantised)
    for pair in PAIRS:
        if pair in SCORED or (pair in GRADIENTS and build is statically_quantised):
            with (
                guard(model, INPUTS),
                pytest.raises(ModelError, match=r"model is quantised: no gradient passes torch\.ao"),
            ):
                ask(pair, model)


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[0] in ("activations", "filter_visualization")])
def test_float_layers_of_a_quantised_model(pair: tuple[str, str]) -> None:
    found = ask(pair, dynamically_quantised())
    assert not difference(found, expected(small_cnn, pair))


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[0] == "activations"])
def test_integer_layers_have_no_map(pair: tuple[str, str]) -> None:
    model = statically_quantised()
    with pytest.raises(ModelError, match=r"gives integers .*name a layer that gives floats"):
        ask(pair, model)
    with torch.no_grad():
        assert torch.equal(ask(pair, model, technique=Activations(layers=("leave",))).map, model(INPUTS))
