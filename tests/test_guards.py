"""What is not finite is told in the same words wherever it lies: at once on the host, by one look elsewhere."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, Attribution, GradCAM, NonFiniteError, Occlusion, Technique, explain
from attribution.errors import AttributionError
from attribution.running import guards
from attribution.running.guards import Guards
from tests.conftest import build, noise

X = noise(2, 3, 17, 23)
SAME = ("isolation", "engine body", "rows")
"""What is found out about a model, and kept."""

TECHNIQUES = {
    "activations": (Activations(layers=("stem", "body")), None),
    "grad_cam": (GradCAM(layers=("body",)), 1),
    "occlusion": (Occlusion(window=9, stride=9), 1),
}


def bad(value: float) -> Tensor:
    inputs = X.clone()
    inputs[1, 2, 3, 4] = value
    return inputs


def lost(model: nn.Module) -> None:
    with torch.no_grad():
        model.get_submodule("head.2").bias[1] = float("inf")  # type: ignore[operator]


def overflowing(model: nn.Module) -> None:
    with torch.no_grad():
        model.get_submodule("stem").weight[0] = 1e38  # type: ignore[operator]


def said(model: nn.Module, inputs: Tensor, name: str, backend: str) -> tuple[type, str]:
    technique, target = TECHNIQUES[name]
    with pytest.raises(AttributionError) as raised:
        explain(model, inputs, technique, target=target, backend=backend)
    return type(raised.value), re.sub(
        r"[\d.]+% of", "a part of", str(raised.value)
    )  # which values overflow is rounding


@pytest.mark.device
@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("name", TECHNIQUES)
def test_bad_values_are_told_as_on_the_host_and_leave_nothing_behind(name: str, backend: str, device: str) -> None:
    technique, target = TECHNIQUES[name]

    def ask(model: nn.Module, inputs: Tensor) -> Attribution:
        return explain(model, inputs, technique, target=target, backend=backend)

    for known in (False, True):  # a question that was asked before, of which more is known
        here, there = build("cnn"), build("cnn").to(device)
        for value in (float("nan"), float("-inf")):
            if known:
                ask(there, X.to(device))
            error = said(there, bad(value).to(device), name, backend)
            assert error == said(here, bad(value), name, backend)
            assert error[0] is NonFiniteError
            assert f"{value} at (n, c, y, x) = (1, 2, 3, 4)" in error[1]
        found, wanted = ask(there, X.to(device)), ask(here, X)
        for layer, map_ in wanted.maps.items():
            assert (found.maps[layer].cpu() - map_).abs().max() <= 1e-5 * map_.abs().max()
        assert [(key, found.provenance.get(key)) for key in SAME] == [(key, wanted.provenance.get(key)) for key in SAME]


@pytest.mark.device
@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("spoil", [lost, overflowing])
@pytest.mark.parametrize("name", TECHNIQUES)
def test_what_the_model_makes_of_good_inputs(name: str, spoil: Any, backend: str, device: str) -> None:
    here, there = build("cnn"), build("cnn").to(device)
    technique, target = TECHNIQUES[name]
    explain(there, X.to(device), technique, target=target, backend=backend)
    spoil(here), spoil(there)
    if name == "activations" and spoil is lost:
        assert explain(there, X.to(device), technique, backend=backend).maps["body"].isfinite().all()
        return
    assert said(there, X.to(device), name, backend) == said(here, X, name, backend)


class Strict(nn.Module):
    """Fails on bad values itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build("cnn")

    def forward(self, x: Tensor) -> Tensor:
        if not bool(x.isfinite().all()):
            raise ValueError("bad values")
        return self.net(x)  # type: ignore[no-any-return]


@pytest.mark.device
@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("technique", [GradCAM(), Activations(), Activations(layers=("net.body",))], ids=str)
def test_a_model_that_fails_on_bad_values_is_not_blamed(technique: Technique, backend: str, device: str) -> None:
    model = Strict().to(device)
    for value in (float("nan"), float("inf")):
        with pytest.raises(NonFiniteError, match=rf"inputs hold {value} at"):  # before anything is known of the model
            explain(model, bad(value).to(device), technique, backend=backend)
        found = explain(model, X.to(device), technique, backend=backend)
        wanted = explain(Strict(), X, technique, backend=backend)
        assert [(key, found.provenance.get(key)) for key in SAME] == [(key, wanted.provenance.get(key)) for key in SAME]
        assert list(found.maps) == list(wanted.maps)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Guards:
    """Looks that are put off, without a device on which they must be."""
    monkeypatch.setattr(guards, "_measurable", lambda tensor: tensor.is_floating_point())
    return Guards(late=True)


def test_one_look_tells_the_first_that_is_not_finite(late: Guards, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    plain = guards._read

    def read(tensors: Sequence[Tensor]) -> list[list[float]]:
        reads.append(len(tensors))
        return plain(tensors)

    monkeypatch.setattr(guards, "_read", read)
    nan, infinity = torch.tensor([1, float("nan")]), torch.tensor([float("-inf")], dtype=torch.float64)
    for order, first in (((X, infinity, nan), "1"), ((nan, X, infinity), "0"), ((X, X, X, nan), "3")):
        for index, tensor in enumerate(order):
            late.finite(tensor, lambda index=index: NonFiniteError(str(index)))  # type: ignore[misc]
        late.measure()
        with pytest.raises(NonFiniteError, match=f"^{first}$"):
            late.settle()
        assert late.settle() == []
    late.finite(X, lambda: NonFiniteError("X"))
    assert late.settle([torch.tensor([[2.0, 3.0]]), torch.tensor(0.0)]) == [[2, 3], [0]]
    assert reads == [3, 0, 3, 0, 4, 0, 3]


def test_values_that_are_large_are_no_infinity(late: Guards) -> None:
    for dtype in (torch.float16, torch.float32, torch.float64):
        late.finite(torch.full((9, 9), torch.finfo(dtype).max, dtype=dtype), lambda: NonFiniteError("large"))
        late.finite(torch.full((9, 9), -torch.finfo(dtype).max, dtype=dtype), lambda: NonFiniteError("large"))
    late.settle()


def test_on_the_host_a_look_comes_at_once() -> None:
    with pytest.raises(NonFiniteError, match="now"):
        Guards().finite(bad(float("nan")), lambda: NonFiniteError("now"))
    with pytest.raises(NonFiniteError, match="now"):
        Guards(late=True).finite(bad(float("nan")), lambda: NonFiniteError("now"))


def test_what_is_not_finite_goes_before_what_it_led_to(late: Guards) -> None:
    late.finite(X, lambda: NonFiniteError("X"))
    assert late.broken() is None
    late.finite(bad(float("inf")), lambda: NonFiniteError("bad"))
    assert "bad" in str(late.broken())
    assert late.broken() is None
