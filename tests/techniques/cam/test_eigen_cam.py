"""Eigen-CAM against a power iteration in plain loops, on activations made by hand, and what it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, EigenCAM, LayerError, TargetError, compare, explain
from attribution.agreement import all_hold
from attribution.testing import small_cnn
from tests.conftest import BACKENDS, noise
from tests.techniques.cam.nets import CASES
from tests.techniques.cam.test_any_layer import agree

FORMS = [form for form, case in CASES.items() if case.places]
SHARES = "explained_variance_ratio"


def component(rows: list[list[float]], *, centred: bool) -> tuple[list[float], float]:
    """The map of one example from its channels, and the first share; v is found by 4,000 products with B Bᵀ."""
    if centred:
        rows = [[value - sum(row) / len(row) for value in row] for row in rows]
    gram = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]
    v, size = [1.0 + 0.1 * k for k in range(len(rows))], 0.0
    for _ in range(4000):
        v = [sum(entry * x for entry, x in zip(line, v, strict=True)) for line in gram]
        size = sum(x * x for x in v) ** 0.5
        v = [x / size for x in v]
    if sum(v) < 0:
        v = [-x for x in v]
    total = sum(gram[k][k] for k in range(len(rows)))
    return [sum(v[k] * rows[k][p] for k in range(len(rows))) for p in range(len(rows[0]))], size / total


def by_loops(form: str, model: nn.Module, x: Tensor, *, centred: bool = True) -> tuple[Tensor, Tensor]:
    case, maps, shares = CASES[form], [], []
    for n in range(len(x)):
        activation = explain(model, x[n : n + 1], Activations(layers=(case.layer,))).map
        if "sequence first" in form:
            activation = activation.transpose(0, 1)  # as the layer itself gave it
        map_, share = component(case.values(activation).tolist(), centred=centred)
        maps.append(torch.tensor(map_, dtype=torch.float64).reshape(1, *case.places))
        shares.append(share)
    return torch.stack(maps), torch.tensor(shares, dtype=torch.float64)


@BACKENDS
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_of_every_form(form: str, examples: int, centred: bool, backend: str) -> None:
    case = CASES[form]
    model, x = case.model(), case.inputs(examples)
    result = explain(model, x, EigenCAM(layers=(case.layer,), centred=centred), backend=backend)
    wanted, shares = by_loops(form, model, x, centred=centred)
    found = result.raw[case.layer]
    assert agree(found, wanted)
    assert torch.allclose(result.extras[f"{SHARES} {case.layer}"][:, 0], shares, rtol=1e-10)
    other, _ = by_loops(form, model, x, centred=not centred)
    assert not agree(found, other), "the other matrix is another map"
    assert not agree(-found, wanted), "the other sign is another map"
    if examples > 1:
        assert not agree(found.roll(1, 0), wanted)
    places = x.shape[2:] if len(case.places) == x.ndim - 2 else case.places
    assert result.map.shape == (examples, 1, *places)
    assert (result.map >= 0).all()
    assert result.provenance.get(f"tokens {case.layer}", "") == case.told
    assert (result.target, result.scores, result.score) == (None, None, None)


class Given(nn.Module):
    """A layer that gives what the input says: (N, D, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Identity(), nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x + 0).mean((1, 2, 3))[:, None])  # type: ignore[no-any-return]


def ask(activation: Tensor, backend: str, **fields: Any) -> Any:
    model = Given().to(activation.dtype).eval()
    return explain(
        model, activation, EigenCAM(layers=("layer",), upsample=False, relu=False, **fields), backend=backend
    )


def outer(channels: list[float], map_: Tensor) -> Tensor:
    return torch.tensor(channels, dtype=torch.float64)[:, None, None] * map_


@BACKENDS
@pytest.mark.parametrize("size", [(5, 7), (1, 2)])
def test_of_one_pattern_the_map_is_that_pattern(size: tuple[int, int], backend: str) -> None:
    """Fewer places than channels, and more; an offset of each channel counts nothing."""
    map_, offset = noise(*size, dtype=torch.float64), noise(3, 1, 1, dtype=torch.float64, seed=1)
    for channels in ([2.0, -0.5, 1.0], [-2.0, 0.5, -1.0]):
        result = ask((outer(channels, map_) + offset)[None], backend)
        wanted = (map_ - map_.mean()) * (5.25**0.5) * (1 if sum(channels) > 0 else -1)
        assert torch.allclose(result.map[0, 0], wanted, rtol=1e-12, atol=1e-12)
        assert torch.allclose(result.extras[f"{SHARES} layer"], torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    whole = ask(outer([2.0, -0.5, 1.0], map_)[None], backend, centred=False).map[0, 0]
    assert torch.allclose(whole, map_ * 5.25**0.5, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 5, 3, 4), (4, 13, 3, 4)])
def test_no_sign_of_a_decomposition_reaches_the_map(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """LAPACK's vectors, turned round: row 16 of other libraries' faults."""
    activation = noise(*shape, dtype=torch.float64)
    before = {backend: ask(activation, backend).map for backend in ("hooks", "captum")}
    eigh, svd = torch.linalg.eigh, torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "eigh", lambda a: (eigh(a)[0], -eigh(a)[1]))
    monkeypatch.setattr(torch.linalg, "svd", lambda a, **k: [x if x.ndim == 1 else -x for x in svd(a, **k)])
    for backend, map_ in before.items():
        assert torch.allclose(ask(activation, backend).map, map_, rtol=1e-12)
        mean = activation.mean(1, keepdim=True) - activation.mean((1, 2, 3), keepdim=True)
        assert ((map_ * mean).sum((1, 2, 3)) > 0).all(), "the map goes with the mean activation"


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_where_the_mean_activation_is_flat_the_largest_place_is_positive(dtype: torch.dtype, backend: str) -> None:
    """As behind a layer norm without weights, whose mean over channels is rounding."""
    norm = nn.functional.layer_norm(noise(6, 3, 4, 8, dtype=dtype), (8,)).movedim(-1, 1)
    map_ = ask(norm, backend).map.flatten(1)
    assert (map_.max(1).values > -map_.min(1).values).all()
    assert torch.allclose(ask(-norm, backend).map.flatten(1), map_, rtol=1e-3, atol=1e-5)


@BACKENDS
def test_a_layer_that_does_not_vary_has_a_map_of_zeros(backend: str) -> None:
    flat = noise(2, 4, 1, 1, dtype=torch.float64).expand(2, 4, 3, 5)
    result = ask(flat, backend)
    assert (result.map.abs() <= 1e-14).all()
    assert (ask(torch.zeros(1, 4, 3, 5), backend).extras[f"{SHARES} layer"] == 0).all()
    assert "image 0" in str(ask(torch.zeros(1, 4, 3, 5), backend).provenance["zero everywhere"])


def test_agreement_allows_for_a_second_component_that_is_near() -> None:
    """A hundredth apart in size: a hundred times the tolerance. As large: nothing is decided, and nothing agrees."""
    model, x = small_cnn(), noise(1, 3, 17, 23)
    both = compare(model, x, EigenCAM(layers=("body",))).attributions
    a, b = both["hooks"], both["captum"]

    def off(by: float, second: float) -> bool:
        shares = {f"{SHARES} body": torch.tensor([[0.5, second]])}
        shifted = a.raw["body"] + by * a.raw["body"].abs().max()
        return all_hold(
            a.technique.agreement(replace(a, extras=shares), replace(b, raw={"body": shifted}, extras=shares))
        )

    for second, factor in ((0.0, 1), (0.495, 100), (0.5, 1e4)):
        assert off(0.8e-5 * factor, second)
        assert not off(1.3e-5 * factor, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_backends_agree_in_every_dtype(dtype: torch.dtype) -> None:
    x = noise(3, 3, 17, 23, dtype=dtype)
    both = compare(small_cnn(dtype=dtype), x, EigenCAM(layers=("stem", "body")))
    assert both.holds, both.table()
    exact = explain(small_cnn(dtype=dtype).double(), x.double(), EigenCAM(layers=("stem", "body")))
    for answer in both.attributions.values():
        assert all_hold(answer.technique.agreement(answer, exact))
        assert answer.raw["body"].dtype == torch.float32


@BACKENDS
@pytest.mark.parametrize("form", ["vectors", "vectors of an image"])
def test_a_layer_without_places_is_refused(form: str, backend: str) -> None:
    case = CASES[form]
    with pytest.raises(LayerError, match=r"EigenCAM needs places over which channels vary"):
        explain(case.model(), case.inputs(2), EigenCAM(layers=(case.layer,)), backend=backend)


@BACKENDS
def test_a_target_is_refused(backend: str) -> None:
    with pytest.raises(TargetError, match="eigen_cam explains no score"):
        explain(small_cnn(), noise(1, 3, 17, 23), EigenCAM(layers=("body",)), backend=backend, target=3)


class Fails(nn.Module):
    """Whose rest takes no image of this size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))  # type: ignore[no-any-return]


class InParts(nn.Module):
    """Shows its layer a batch in parts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(part) for part in x.split(1)]).mean((2, 3))


@BACKENDS
def test_what_fails_behind_the_layer_is_no_matter(backend: str) -> None:
    model = Fails().eval()
    x = noise(2, 3, 9, 7)
    map_ = explain(model, x, EigenCAM(layers=("conv",), upsample=False), backend=backend).map
    alone = explain(nn.Sequential(model.conv), x, EigenCAM(layers=("0",), upsample=False), backend=backend).map
    assert torch.allclose(map_, alone)
    with pytest.raises(LayerError):
        explain(InParts().eval(), x, EigenCAM(layers=("conv",)), backend=backend)


@BACKENDS
def test_more_channels_than_places_and_more_places_than_channels_are_one_map(backend: str) -> None:
    """Zero channels, or a place twice over, change no other place but by the mean they share."""
    activation = noise(1, 5, 3, 4, dtype=torch.float64)
    wide = torch.cat([activation, activation.new_zeros(1, 20, 3, 4)], dim=1)
    assert torch.allclose(ask(wide, backend).map, ask(activation, backend).map, rtol=1e-11)
    assert not torch.allclose(ask(wide[:, 1:], backend).map, ask(activation, backend).map, rtol=1e-2)
