"""Inputs that cannot be used are refused before any work, in words that say how to mend them."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from attribution import (
    Activations,
    Execution,
    GradCAM,
    InputError,
    ModelError,
    NonFiniteError,
    Occlusion,
    Saliency,
    explain,
)
from attribution.errors import AttributionError
from tests.conftest import build, logit, noise

GOOD = noise(2, 3, 17, 23)


def with_value(value: float) -> Tensor:
    inputs = GOOD.clone()
    inputs[1, 2, 3, 4] = value
    return inputs


BAD: dict[str, tuple[Any, type[AttributionError], str]] = {
    "none": (None, InputError, r"builtins\.NoneType; give a torch\.Tensor of shape \(N, C, H, W\)"),
    "numpy": (np.zeros((1, 3, 17, 23)), InputError, r"numpy\.ndarray; .*torch\.from_numpy"),
    "a photo": (Image.new("RGB", (23, 17)), InputError, r"PIL\.Image\.Image; .*: what your transform makes of it"),
    "one image": (GOOD[0], InputError, r"shape \(3, 17, 23\); expected \(N, C, H, W\); .*inputs\[None\]"),
    "one row": (GOOD[0, 0, 0], InputError, r"shape \(23,\); expected \(N, C, H, W\)"),
    "six axes": (GOOD[None, None], InputError, r"shape \(1, 1, 2, 3, 17, 23\); expected \(N, C, H, W\)"),
    "no image": (GOOD[:0], InputError, "an axis is empty"),
    "no pixel": (GOOD[..., :0], InputError, "an axis is empty"),
    "bytes": (torch.zeros(1, 3, 17, 23, dtype=torch.uint8), InputError, r"torch\.uint8; give floats"),
    "complex": (GOOD.to(torch.complex64), InputError, "give floats"),
    "double": (
        GOOD.double(),
        InputError,
        r"torch\.float64, the model is torch\.float32; use inputs\.to\(torch\.float32\)",
    ),
    "elsewhere": (GOOD.to("meta"), InputError, r"on meta, the model on cpu; use inputs\.to\('cpu'\)"),
    "nan": (with_value(float("nan")), NonFiniteError, r"nan at \(n, c, y, x\) = \(1, 2, 3, 4\)"),
    "infinity": (with_value(float("-inf")), NonFiniteError, r"-inf at \(n, c, y, x\) = \(1, 2, 3, 4\)"),
}


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("case", BAD)
def test_refused(case: str, backend: str) -> None:
    inputs, error, says = BAD[case]
    calls: list[None] = []
    model = build("cnn")
    model.register_forward_hook(lambda *args: calls.append(None))
    for technique in (GradCAM(), Activations(), Occlusion(window=5, stride=5)):
        with pytest.raises(error, match=says):
            explain(model, inputs, technique, backend=backend)
    assert not calls, "the model ran before the inputs were checked"


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_features_are_for_the_model_to_refuse(backend: str) -> None:
    """It may lay them out as images itself."""
    for technique in (GradCAM(layers=("body",)), Activations(layers=("body",))):
        with pytest.raises(ModelError, match=r"failed on inputs of shape \(1, 23\), torch\.float32: Expected 3D"):
            explain(build("cnn"), GOOD[0, 0], technique, backend=backend)
    model = nn.Sequential(nn.Unflatten(1, (3, 4, 5)), nn.Conv2d(3, 4, 3), nn.ReLU())
    found = explain(model, noise(2, 60), Activations(layers=("1",)), backend=backend).map
    assert torch.equal(found, model[1](noise(2, 60).view(2, 3, 4, 5)).detach())


def test_large_finite_values_are_no_infinity() -> None:
    inputs = torch.full((1, 3, 17, 23), 3e38)
    result = explain(nn.Sequential(nn.Identity()), inputs, Activations(layers=("0",)))
    assert torch.equal(result.map, inputs)


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_a_model_that_fails_is_told_with_the_shape(backend: str) -> None:
    wrong = noise(2, 4, 17, 23)
    for technique in (
        GradCAM(),
        GradCAM(layers=("body",)),
        Activations(layers=("body",)),
        Occlusion(window=5, stride=5),
    ):
        with pytest.raises(
            ModelError, match=r"the model failed on inputs of shape \(\d, 4, 17, 23\), torch\.float32: Given"
        ):
            explain(build("cnn"), wrong, technique, backend=backend)


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_a_single_output_has_no_probability(backend: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 1))
    inputs = noise(1, 3, 4, 4)
    with pytest.raises(
        ModelError, match=r"softmax is always 1; explain ClassScore\(of='sigmoid'\).* else ClassScore\(of='logit'\)"
    ):
        explain(model, inputs, Occlusion(window=2, stride=2), backend=backend)
    found = explain(model, inputs, Occlusion(window=2, stride=2), target=logit(0), backend=backend)
    with torch.no_grad():
        covered = inputs.clone()
        covered[..., :2, :2] = 0
        assert torch.allclose(found.map[0, 0, 0, 0], (model(inputs) - model(covered))[0, 0], rtol=1e-4)


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_logits_that_are_not_finite(backend: str) -> None:
    model = build("cnn")
    with torch.no_grad():
        model.head[2].bias[1] = float("inf")  # type: ignore[index, union-attr]
    for technique in (GradCAM(layers=("body",)), Occlusion(window=9, stride=9)):
        with pytest.raises(NonFiniteError, match="classes asked about hold NaN or infinity on the clean inputs"):
            explain(model, GOOD, technique, backend=backend, target=1)
    assert explain(model, GOOD, Activations(layers=("body",)), backend=backend).map.isfinite().all()


def test_autocast_takes_the_models_inputs() -> None:
    assert explain(build("cnn"), GOOD, GradCAM(), execution=Execution(autocast=torch.bfloat16)).map.isfinite().all()


PARAMETERS: list[tuple[type, dict[str, Any], str]] = [
    (Occlusion, {"window": 0}, "window is 0; give an int of at least 1"),
    (Occlusion, {"window": 2.0}, "window"),
    (Occlusion, {"window": True}, "window"),
    (Occlusion, {"window": (4, 4, 4)}, r"stride \(20, 20, 20\) is larger than the window \(4, 4, 4\)"),
    (Occlusion, {"window": "40"}, "window"),
    (Occlusion, {"stride": -1}, "stride is -1"),
    (Occlusion, {"window": (4, 9), "stride": (5, 9)}, "larger than the window"),
    (Occlusion, {"baseline": float("nan")}, "baseline is nan"),
    (Occlusion, {"baseline": "0"}, "baseline"),
    (Occlusion, {"baseline": ()}, "baseline is empty"),
    (Occlusion, {"baseline": (0.0, True)}, "baseline"),
    (Occlusion, {"score": "logit"}, r"no score any more.*target=ClassScore\(…, of='logit'\)"),
    (Occlusion, {"border": "wrap"}, "border is 'wrap'"),
    (GradCAM, {"relu": 1}, "relu is 1; give True or False"),
    (GradCAM, {"upsample": None}, "upsample is None"),
]


@pytest.mark.parametrize(("technique", "fields", "says"), PARAMETERS, ids=str)
def test_parameters_are_checked_when_the_technique_is_made(technique: type, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=rf"{technique.__name__}.*{says}"):
        technique(**fields)


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_parameters_that_do_not_fit_the_image(backend: str) -> None:
    with pytest.raises(InputError, match=r"window \(18, 5\) is larger than the image \(17, 23\)"):
        explain(build("cnn"), GOOD, Occlusion(window=(18, 5), stride=5), backend=backend)
    with pytest.raises(InputError, match="baseline has 2 values for 3 channels of 'input'; give one, or 3"):
        explain(build("cnn"), GOOD, Occlusion(window=5, stride=5, baseline=(0.0, 1.0)), backend=backend)


def test_equal_questions_are_equal() -> None:
    assert Occlusion(window=[40, 40], stride=20) == Occlusion(window=(40, 40))  # type: ignore[arg-type]
    assert hash(Occlusion(baseline=[0, 1, 2])) == hash(Occlusion(baseline=(0.0, 1.0, 2.0)))  # type: ignore[arg-type]


FORMS: list[tuple[str, Callable[[Tensor], Tensor], str]] = [
    ("coo", lambda x: x.to_sparse(), "of layout torch.sparse_coo; expected a dense tensor"),
    ("csr", lambda x: x[0, 0].to_sparse_csr(), "use inputs.to_dense()"),
    ("mkldnn", lambda x: x.to_mkldnn(), "use inputs.to_dense()"),
    ("nested", lambda x: torch.nested.nested_tensor([x[0], x[1][:, :9]]), "nested"),
    ("jagged", lambda x: torch.nested.nested_tensor([x[0, 0], x[1, 0, :9]], layout=torch.jagged), "to one size"),
    ("masked", lambda x: torch.masked.masked_tensor(x, x > 0), "masked tensor"),
    ("meta", lambda x: x.to("meta"), "use inputs.to('cpu')"),
]


@pytest.mark.filterwarnings("ignore:.*(prototype|beta|sparse csr|Sparse CSR).*:UserWarning")
@pytest.mark.parametrize(("make", "says"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])
@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_tensors_of_other_forms_are_refused(make: Callable[[Tensor], Tensor], says: str, backend: str) -> None:
    for technique in (GradCAM(layers=("body",)), Occlusion(window=5, stride=3), Activations(layers=("body",))):
        with pytest.raises(InputError, match=re.escape(says)):
            explain(build("cnn"), make(noise(2, 3, 17, 23)), technique, backend=backend)


def test_a_model_without_weights_is_shown_values_too() -> None:
    with pytest.raises(InputError, match="meta device, where tensors have no values"):
        explain(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), GOOD.to("meta"), Occlusion(window=5, stride=3))


def test_a_model_of_several_arguments_is_told_to_be_given_all() -> None:
    class Pair(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a - b).mean((2, 3))

    with pytest.raises(ModelError, match=r"missing 1 required positional argument: 'b'; give all that the model takes"):
        explain(Pair(), GOOD, Saliency(), target=1)
    assert explain(Pair(), (GOOD, GOOD.flip(3)), Saliency(), target=1).maps["input.1"].shape == (2, 1, 17, 23)
