"""Where a GPU multiplies float32 in TF32, the fast ways are still taken, and what is wrong is still found out.

The CPU computes as such a GPU would. With the flags off, the bounds are those of the CPU.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import FilterVisualization, GradCAM, ModelError, Occlusion, Technique, compare, explain
from attribution.agreement import relative_tolerance
from attribution_hooks.incremental import differences as incremental
from tests.backends.closed_forms import FEW, FOOLING, SIZE, TRUE, Net, engine
from tests.backends.last_convolution import AROUND, Around, net
from tests.backends.occlusion.truth import image
from tests.backends.occlusion.unseen import UNSEEN, OnlyBesideAMask
from tests.cases import COMPARED, OF_RECTIFIERS, given
from tests.conftest import MODELS, build, logit, noise
from tests.draw import pairwise
from tests.tf32 import as_on_a_gpu, rounded

TF32 = (("convolution",), ("matmul",), ("convolution", "matmul"))
KINDS = pytest.mark.parametrize("kinds", TF32, ids="+".join)
QUESTIONS: dict[str, Technique] = {
    **COMPARED,
    "grad_cam": GradCAM(layers=("stem", "body")),
    "occlusion": Occlusion(window=7, stride=5),
    "filter_visualization": FilterVisualization(layer="body", channels=(0, 2), steps=3, size=(17, 23)),
}


def test_rounding_keeps_ten_digits_behind_the_point() -> None:
    x = torch.tensor([1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, -1 - 1.01 * 2**-11, 2**-20 * (1 + 2**-11 + 2**-20)])
    assert rounded(x).tolist() == [1 + 2**-10, 1.0, 1 + 2**-9, -1 - 2**-10, 2**-20 * (1 + 2**-10)]


@pairwise(name=[*QUESTIONS], kinds={"+".join(kinds): kinds for kinds in TF32}, model_name=[*MODELS])
def test_backends_agree_and_the_record_says_what_was_on(name: str, kinds: tuple[str, ...], model_name: str) -> None:
    technique, model = QUESTIONS[name], build(model_name)
    inputs, target = given(technique, noise(3, 3, 17, 23), logit("all"))
    asked: dict[str, Any] = {"target": target}
    if name in OF_RECTIFIERS and model_name == "depthwise":
        with pytest.raises(ModelError, match="ReLU6 ran"):
            compare(model, inputs, technique, **asked)
        return
    exact = explain(model, inputs, technique, **asked)
    with as_on_a_gpu(*kinds) as mode:
        found = compare(model, inputs, technique, **asked)
    assert found.holds, found.table()
    for answer in found.attributions.values():
        assert answer.computes_in == torch.float16
        said = str(answer.provenance["float32 products"])
        assert [f"{kind} {'tf32' if kind in kinds else 'ieee'}" in said for kind in ("convolution", "matmul")]
        assert "rows" not in answer.provenance
        assert "backward" not in answer.provenance
        for key, map_ in answer.raw.items():
            off = (map_ - exact.raw[key]).abs().max() / exact.raw[key].abs().max()
            assert off <= 0.1
            if mode.products and "convolution" in kinds and name == "activations":
                assert off > 1e-5, "TF32 changed nothing"
    if name == "occlusion":
        assert found.attributions["hooks"].provenance["engine"] == "incremental"


@pytest.mark.parametrize("model", ["residual", "depthwise"])
def test_tiles_would_be_refused_by_the_bound_of_float32(model: str) -> None:
    technique = QUESTIONS["occlusion"]
    with as_on_a_gpu("convolution", known=False):
        found = explain(build(model), noise(3, 3, 17, 23), technique, target=logit(1))
    assert found.provenance["engine"] == "dense"


@pytest.mark.parametrize("kinds", [(), ("convolution",)], ids=["ieee", "tf32"])
@pytest.mark.parametrize(
    "wrong", [net for net in UNSEEN if net is not OnlyBesideAMask], ids=lambda build: build.__name__
)
def test_a_wrong_trace_is_found_out(wrong: Any, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one that is wrong by a ten-thousandth, which float32 rounds away."""
    monkeypatch.setattr(incremental, "LEAST_GAIN", 0.0)
    technique = Occlusion(window=(5, 6), stride=(4, 3), baseline=-3.0)
    with as_on_a_gpu(*kinds):
        found = explain(wrong().float(), image(1).float(), technique, target=logit(1))
    assert found.provenance["engine"] == "dense"


@KINDS
@pytest.mark.usefixtures("two_are_many")
@pytest.mark.parametrize("name", TRUE)
def test_the_closed_form_is_taken(name: str, kinds: tuple[str, ...]) -> None:
    model, x = Net(TRUE[name], torch.float32), noise(3, 3, *SIZE)
    with as_on_a_gpu(*kinds):
        found, by = engine(model, x, FEW)
    assert by == "closed form"
    exact, _ = engine(model, x, FEW)
    assert (found - exact).abs().max() <= relative_tolerance(torch.float16) * exact.abs().max()


@pytest.mark.usefixtures("two_are_many")
def test_it_would_be_refused_by_the_bound_of_float32() -> None:
    with as_on_a_gpu("matmul", known=False):
        assert engine(Net(TRUE["1 × 1 convolution, pool"], torch.float32), noise(3, 3, *SIZE), FEW)[1] == "backward"


@pytest.mark.usefixtures("two_are_many")
@pytest.mark.parametrize("kinds", [(), ("convolution",), ("matmul", "convolution")], ids=["ieee", "tf32", "both"])
@pytest.mark.parametrize("name", FOOLING)
def test_a_wrong_closed_form_is_found_out(name: str, kinds: tuple[str, ...]) -> None:
    """But for logits that are off by a thousandth, which TF32 itself may do to a product of matrices."""
    with as_on_a_gpu(*kinds):
        _, by = engine(Net(FOOLING[name], torch.float32), noise(3, 3, *SIZE), FEW)
    assert by == ("closed form" if name == "logits scaled" and "matmul" in kinds else "backward")


def _ascended(model: nn.Module, layer: str) -> Any:
    technique = FilterVisualization.notebook(layer=layer, channels=(0, 2), steps=3, size=(14, 17))
    return compare(model, None, technique)


@pytest.mark.parametrize("options", [{"kernel_size": 3}, {"kernel_size": 1}, {"kernel_size": 3, "groups": 2}], ids=str)
def test_the_last_convolution_is_left_out(options: dict[str, Any], calls: list[Tensor]) -> None:
    with as_on_a_gpu("convolution"):
        assert _ascended(net(**options), "3").holds
        assert len(calls) == 2
    with as_on_a_gpu("convolution", known=False):
        _ascended(net(**options), "3")
    assert len(calls) == 2, "the bound of float32 would serve"


@pytest.mark.parametrize("kinds", [(), ("convolution",)], ids=["ieee", "tf32"])
@pytest.mark.parametrize("name", AROUND)
def test_what_a_model_does_around_it_counts(name: str, kinds: tuple[str, ...], calls: list[Tensor]) -> None:
    with as_on_a_gpu(*kinds):
        _ascended(Around(AROUND[name]), "conv")
    assert not calls
