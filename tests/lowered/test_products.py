"""Convolutions as products of matrices against those of float64, and where torch's own stay."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attribution import Execution
from attribution.lowered import products
from attribution.lowered.convolutions import Packed
from attribution.lowered.products import Winograd, held, product
from attribution_hooks.incremental import differences, graph
from tests.backends.occlusion.truth import Net, ask, error, net
from tests.conftest import noise

NONE = (0, 0)


def wide(channels: int, *size: int, kernels: int = 5, side: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Images in channels last, weights and a bias."""
    x = noise(*size[:1], channels, *size[1:], dtype=torch.float32, seed=1)
    weight = noise(kernels, channels, side, side, dtype=torch.float32, seed=2)
    return x.contiguous(memory_format=torch.channels_last), weight, noise(kernels, dtype=torch.float32, seed=3)


def off(found: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, **how: Any) -> float:
    """How far from float64, as a part of the largest value."""
    exact = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), **how)
    assert (found.shape, found.dtype) == (exact.shape, torch.float32)
    return float((found - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("size", [(1, 15, 17), (3, 12, 14), (3, 13, 16), (40, 4, 3), (1, 24, 40)])
@pytest.mark.parametrize("biased", [True, False])
def test_blocks_are_the_convolution(size: tuple[int, ...], biased: bool) -> None:
    x, weight, bias = wide(19, *size)
    given = x.clone()
    found = Winograd(weight, bias if biased else None)(x, NONE, NONE)
    assert off(found, x, weight, bias if biased else None) < 1e-6
    assert torch.equal(x, given)
    assert found.stride(1) == 1


@pytest.mark.parametrize(("before", "after"), [((1, 1), (1, 1)), ((0, 2), (1, 0)), ((3, 0), (0, 1))])
def test_zeros_lie_around(before: tuple[int, int], after: tuple[int, int]) -> None:
    x, weight, bias = wide(7, 3, 12, 15)
    padded = F.pad(x, (before[1], after[1], before[0], after[0]))
    assert off(Winograd(weight, bias)(x, before, after), padded, weight, bias) < 1e-6
    moved = F.pad(x, (after[1], before[1], after[0], before[0]))
    assert before == after or off(Winograd(weight, bias)(x, before, after), moved, weight, bias) > 1e-2


def test_few_blocks_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = wide(7, 1, 6, 7)
    assert torch.equal(Winograd(weight, bias)(x, NONE, NONE), F.conv2d(x, weight, bias))
    monkeypatch.setattr(products, "FEWEST", 0)
    assert off(Winograd(weight, bias)(x, NONE, NONE), x, weight, bias) < 1e-6


def test_rounding_is_less_than_torchs() -> None:
    x, weight, bias = wide(512, 2, 14, 14, kernels=64)
    assert off(Winograd(weight, bias)(x, NONE, NONE), x, weight, bias) < 2 * off(
        F.conv2d(x, weight, bias), x, weight, bias
    )


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_no_number_is_made_of_what_is_none(number: float) -> None:
    x, weight, bias = wide(7, 3, 16, 17)
    x[1, 2, 8, 9] = number
    found = Winograd(weight, bias)(x, NONE, NONE)
    reached = ~F.conv2d(x, weight, bias).isfinite()
    assert reached.any()
    assert not found[reached].isfinite().any()
    assert found[0].isfinite().all()
    assert found[2].isfinite().all()


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize("padding", [0, 1])
def test_single_pixels_are_rows_of_a_product(
    stride: tuple[int, int], padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "LARGE", 0)
    x, weight, bias = wide(9, 3, 11, 14, side=1)
    found = product(weight, bias, stride, (1, 1), 1)
    assert found is not None
    sides = (padding, padding)
    assert off(found(x, sides, sides), x, weight, bias, stride=stride, padding=padding) < 1e-6
    assert off(found(x.contiguous(), sides, sides), x, weight, bias, stride=stride, padding=padding) < 1e-6


def _weight(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("weight", "stride", "dilation", "groups"),
    [
        (_weight(256, 255, 3, 3), (1, 1), (1, 1), 1),
        (_weight(255, 256, 3, 3), (1, 1), (1, 1), 1),
        (_weight(256, 256, 3, 3), (2, 1), (1, 1), 1),
        (_weight(256, 256, 3, 3), (1, 1), (1, 2), 1),
        (_weight(256, 256, 3, 3), (1, 1), (1, 1), 2),
        (_weight(256, 256, 3, 5), (1, 1), (1, 1), 1),
        (_weight(256, 256, 3, 3, dtype=torch.float64), (1, 1), (1, 1), 1),
        (_weight(511, 512, 1, 1), (1, 1), (1, 1), 1),
        (_weight(512, 512, 1, 1, dtype=torch.bfloat16), (1, 1), (1, 1), 1),
    ],
)
def test_the_others_stay_torchs(weight: Tensor, stride: Any, dilation: Any, groups: int) -> None:
    assert product(weight, None, stride, dilation, groups) is None


def test_flags_that_round_factors_leave_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = _weight(256, 256, 3, 3)
    assert product(weight, None, (1, 1), (1, 1), 1) is not None
    monkeypatch.setattr(products, "exact", lambda device: False)
    assert product(weight, None, (1, 1), (1, 1), 1) is None


def _late(self: Any, x: Tensor) -> Tensor:
    y = self.norm(self.first(x)).relu()
    given: Tensor = self.point(self.last(y).relu() + y)
    return given


def _trunk() -> Net:
    def layers() -> dict[str, nn.Module]:
        return {
            "first": nn.Conv2d(3, 8, 3, padding=1, bias=False),
            "norm": nn.BatchNorm2d(8),
            "last": nn.Conv2d(8, 8, 3, padding=1),
            "point": nn.Conv2d(8, 6, 1, stride=2),
        }

    return net(_late, layers, dtype=torch.float32)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products from the first channel on."""
    for name in ("LARGE", "WIDE", "FEWEST"):
        monkeypatch.setattr(products, name, 1)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("images", [1, 3])
def test_occlusion_by_products_is_that_of_full_forwards(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, ...]] = []
    right = Winograd.__call__

    def counted(self: Winograd, x: Tensor, *sides: Any) -> Tensor:
        taken.append(tuple(x.shape))
        return right(self, x, *sides)

    monkeypatch.setattr(Winograd, "__call__", counted)
    model, x = _trunk(), noise(images, 3, 17, 19, dtype=torch.float32)
    result = ask(model, x)
    assert result.provenance["engine"] == "incremental"
    assert len(taken) > 4
    assert error(model.double(), result, x.double()) < 1e-5


@pytest.mark.usefixtures("narrow")
def test_wrong_sums_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = products._kernels
    monkeypatch.setattr(products, "_kernels", lambda: right() * torch.linspace(1, 1.001, 16)[:, None])
    model, x = _trunk(), noise(1, 3, 17, 19, dtype=torch.float32)
    result = ask(model, x)
    assert result.provenance["engine"] == "dense"
    assert result.provenance["reason"] == differences.CLEAN
    assert error(model.double(), result, x.double()) < 1e-5


@pytest.mark.usefixtures("narrow")
def test_a_budget_that_has_no_room_for_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = _trunk(), noise(1, 3, 17, 19, dtype=torch.float32)
    assert held(model.modules()) == (3 * 8 + 8 * 8) * 16 * 4
    made: list[bool] = []
    right = graph.build

    def built(*args: Any, products: bool) -> Any:
        made.append(products)
        return right(*args, products=products)

    monkeypatch.setattr(differences, "build", built)
    for budget in (8 * held(model.modules()), 8 * held(model.modules()) - 8):
        ask(model, x, execution=Execution(memory_budget=budget))
    assert made == [True, False]


@pytest.mark.parametrize(
    ("kernels", "stride", "groups", "taken"),
    [(512, 1, 1, True), (511, 1, 1, False), (512, 2, 1, False), (512, 1, 2, False)],
)
def test_images_get_a_product_where_it_is_faster_than_a_packed_convolution(
    kernels: int, stride: int, groups: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = nn.Conv2d(256 * groups, kernels * groups, 3, stride=stride, padding=1, groups=groups).eval()
    ran: list[int] = []
    own = Winograd.__call__

    def call(self: Winograd, *given: Any) -> Tensor:
        ran.append(1)
        return own(self, *given)

    monkeypatch.setattr(Winograd, "__call__", call)
    with torch.no_grad():
        x, packed = noise(3, 256 * groups, 15, 18), Packed.of(module)
        how: Any = {"stride": stride, "padding": 1, "groups": groups}
        assert off(packed(x), x, module.weight, module.bias, **how) < 5e-6
        assert len(ran) == taken
        other = noise(*packed(x).shape, seed=5)
        assert off(packed.plus(x, other) - other, x, module.weight, module.bias, **how) < 5e-6
        assert bool(held([module], outputs=products.WIDEST)) is taken
        if taken:  # a product whose zeros lie elsewhere would be seen
            packed._padding = (0, 0)
            assert packed(x).shape != F.conv2d(x, module.weight, module.bias, padding=1).shape
