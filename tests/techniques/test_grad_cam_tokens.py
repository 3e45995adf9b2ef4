"""Grad-CAM of token models: the grid is inferred from shapes, or stated, and both backends read it alike."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer

from attribution import Attribution, GradCAM, InputError, LayerError, compare, explain, load
from attribution.techniques.cam.tokens import Grid
from tests.conftest import noise

BACKENDS = ["hooks", "captum"]


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Weights large enough for a signal."""
    source = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = build().eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source) * (0.3 if parameter.ndim > 1 else 1))
    return model


def vit() -> nn.Module:
    """torchvision's ViT: 1 class token and 4 × 4 patches."""
    return seeded(
        partial(
            VisionTransformer,
            image_size=16,
            patch_size=4,
            num_layers=2,
            num_heads=2,
            hidden_dim=6,
            mlp_dim=8,
            num_classes=3,
        )
    )


def swin() -> nn.Module:
    """torchvision's Swin: channels last, 4-pixel patches, halved once."""
    options: dict[str, Any] = {"num_heads": [1, 2], "window_size": [2, 2], "mlp_ratio": 1.5, "num_classes": 3}
    return seeded(lambda: SwinTransformer([4, 4], embed_dim=24, depths=[1, 1], **options))


class Patches(nn.Module):
    """A small token model whose class and register tokens come first, for images of any size."""

    def __init__(self, leading: int) -> None:
        super().__init__()
        self.leading = nn.Parameter(torch.zeros(1, leading, 6))
        self.embed = nn.Conv2d(3, 6, 4, stride=4)
        self.block = nn.Linear(6, 6)
        self.mix, self.head = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 3)

    def tokens(self, x: Tensor) -> Tensor:
        grid = self.embed(x).flatten(2).mT
        return self.block(torch.cat([self.leading.expand(len(x), -1, -1), grid], dim=1).tanh())  # type: ignore[no-any-return]

    def tail(self, a: Tensor) -> Tensor:
        return self.head(self.mix(a, a, a)[0].tanh().mean(1))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.tokens(x))


def caught(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, args, output: kept.append(output.clone()))
    with torch.no_grad():
        model(x)
    handle.remove()
    return kept[0]


def by_differences(tail: Callable[[Tensor], Tensor], a: Tensor, spots: list[list[tuple[int, ...]]]) -> Tensor:
    """Grad-CAM of one image (1, …, D) by central differences: (K, h, w). ``spots``: where on ``a`` the grid lies."""
    h, w, step = len(spots), len(spots[0]), 1e-5
    cams = torch.zeros(tail(a).shape[1], h, w, dtype=a.dtype)
    for k in range(a.shape[-1]):
        change = torch.zeros_like(a)
        for row in spots:
            for spot in row:
                change[(0, *spot, k)] = step
        alpha = (tail(a + change) - tail(a - change))[0] / (2 * step) / (h * w)
        for i in range(h):
            for j in range(w):
                cams[:, i, j] += alpha * a[(0, *spots[i][j], k)]
    return cams


def sequence(leading: int, h: int, w: int) -> list[list[tuple[int, ...]]]:
    return [[(leading + i * w + j,) for j in range(w)] for i in range(h)]


def grid(h: int, w: int) -> list[list[tuple[int, ...]]]:
    return [[(i, j) for j in range(w)] for i in range(h)]


def vit_tail(model: Any, x: Tensor) -> Callable[[Tensor], Tensor]:
    """From the last block's first norm on; the block's input is what that norm was given."""
    block = model.encoder.layers[1]
    before: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda module, args: before.append(args[0].detach()))
    model(x)
    handle.remove()

    def tail(a: Tensor) -> Tensor:
        y = block.self_attention(a, a, a, need_weights=False)[0] + before[0]
        y = y + block.mlp(block.ln_2(y))
        return model.heads(model.encoder.ln(y)[:, 0])  # type: ignore[no-any-return]

    return tail


def swin_tail(model: Any, after: int) -> Callable[[Tensor], Tensor]:
    def tail(a: Tensor) -> Tensor:
        for stage in model.features[after + 1 :]:
            a = stage(a)
        return model.head(model.norm(a).mean((1, 2)))  # type: ignore[no-any-return]

    return tail


Case = tuple[nn.Module, str, Tensor, Callable[[Tensor], Callable[[Tensor], Tensor]], list[list[tuple[int, ...]]], str]


def case(name: str) -> Case:
    """(model, layer, inputs, image → tail, where the grid lies, what is inferred)."""
    if name == "vit":
        model, x = vit(), noise(2, 3, 16, 16, dtype=torch.float64)
        layer = "encoder.layers.encoder_layer_1.ln_1"
        return model, layer, x, partial(vit_tail, model), sequence(1, 4, 4), "(N, 1 + 4·4, D)"
    if name.startswith("swin"):
        after, size = (1, (4, 6)) if name == "swin, first stage" else (3, (2, 3))
        model, x = swin(), noise(2, 3, 16, 24, dtype=torch.float64)
        return model, f"features.{after}", x, lambda image: swin_tail(model, after), grid(*size), "(N, h, w, D)"
    leading = int(name.split()[0])
    patches = seeded(lambda: Patches(leading))
    x = noise(2, 3, 12, 20, dtype=torch.float64)
    told = f"(N, {leading} + 3·5, D)"
    return patches, "block", x, lambda image: patches.tail, sequence(leading, 3, 5), told  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["vit", "swin, first stage", "swin, last stage", "0 tokens", "1 token", "5 tokens"])
def test_the_grid_is_inferred_and_the_maps_are_right(name: str) -> None:
    model, layer, x, tail_of, spots, told = case(name)
    activation = caught(model, layer, x)
    with torch.no_grad():
        exact = torch.stack(
            [by_differences(tail_of(x[n : n + 1]), activation[n : n + 1], spots) for n in range(len(x))]
        )
    size = exact.abs().max()
    assert size > 1e-4, "a map without signal proves nothing"
    verdict = compare(model, x, GradCAM(layers=(layer,)), backends=tuple(BACKENDS), target="all")
    assert verdict.holds
    for result in verdict.attributions.values():
        assert result.raw[layer].shape == exact.shape
        assert (result.raw[layer] - exact).abs().max() <= 1e-6 * size
        assert (result.raw[layer].mT.reshape(exact.shape) - exact).abs().max() > 1e-3 * size, "columns are not rows"
        assert result.provenance[f"tokens {layer}"] == f"{told}, inferred"
        assert result.map.shape == (2, 3, *x.shape[2:])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stated_grid_is_taken_and_a_wrong_one_is_another_map(backend: str) -> None:
    model, layer, x, *_ = case("1 token")
    maps: dict[Any, Attribution] = {
        tokens: explain(model, x, GradCAM(layers=(layer,), tokens=tokens), target=0, backend=backend)
        for tokens in (None, (1, 3, 5), (1, 5, 3))
    }
    assert torch.equal(maps[None].map, maps[1, 3, 5].map)
    assert maps[1, 5, 3].raw[layer].shape == (2, 1, 5, 3)
    assert not torch.allclose(maps[1, 5, 3].map, maps[None].map)
    assert f"tokens {layer}" not in maps[1, 3, 5].provenance


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ((2, 3, 5), r"shape \(\d, 16, 6\), but tokens=\(2, 3, 5\) means \(N, 17, D\)"),
        ("channels_last", r"means \(N, h, w, D\)"),
        ("channels_first", r"means \(N, D, h, w\)"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(backend: str, tokens: Any, words: str) -> None:
    model, layer, x, *_ = case("1 token")
    with pytest.raises(LayerError, match=words):
        explain(model, x, GradCAM(layers=(layer,), tokens=tokens), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tokens_without_a_grid_are_refused(backend: str) -> None:
    model, x = seeded(lambda: Patches(12)), noise(2, 3, 4, 4, dtype=torch.float64)  # 12 + 1·1: one patch is no grid
    with pytest.raises(LayerError, match=r"gives shape \(\d, 13, 6\).*GradCAM\(tokens=\(leading, h, w\)\)"):
        explain(model, x, GradCAM(layers=("block",)), backend=backend)


class Square(nn.Module):
    """(N, 8, 8, 8) from 8 × 8 pixels, whichever axis the channels are on."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last
        self.embed, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 3)
        self.block, self.act = nn.Linear(8, 8) if last else nn.Conv2d(8, 8, 1), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        a = self.embed(x)
        a = self.act(self.block(a.movedim(1, -1) if self.last else a))
        return self.head(a.mean((1, 2) if self.last else (2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shape_of_two_readings_is_refused_only_where_channels_may_be_last(backend: str) -> None:
    x = noise(1, 3, 8, 8, dtype=torch.float64)
    convolutional, ambiguous = seeded(lambda: Square(False)), seeded(lambda: Square(True))
    result = explain(convolutional, x, GradCAM(layers=("block",)), target=0, backend=backend)
    assert "tokens block" not in result.provenance
    with pytest.raises(LayerError, match=r"may be \(N, D, h, w\) or \(N, h, w, D\).*GradCAM\(tokens="):
        explain(ambiguous, x, GradCAM(layers=("act",)), target=0, backend=backend)
    first, last, told = (
        explain(ambiguous, x, GradCAM(layers=("block",), tokens=tokens), target=0, backend=backend).map
        for tokens in ("channels_first", "channels_last", None)
    )
    assert torch.equal(told, last)  # a linear layer says itself on which axis it computes
    exact = by_differences(
        lambda a: ambiguous.head(a.tanh().mean((1, 2))),  # type: ignore[operator]
        caught(ambiguous, "block", x),
        grid(8, 8),
    )[:1]
    assert torch.allclose(last[0], exact.relu(), atol=1e-6 * exact.abs().max().item())
    assert not torch.allclose(first[0], exact.relu(), atol=1e-3 * exact.abs().max().item())


@pytest.mark.parametrize(
    "tokens",
    [
        "grid",
        (1,),
        (1, 2, 3, 4, 5),
        (-1, 2, 2),
        (1, 0, 2),
        (1, 2.0, 2),
        (True, 2, 2),
        3,
        ["a", 1, 2],
        ("channels_last", 1, 2),
        ("sequence_first", 1),
    ],
)
def test_fields(tokens: Any) -> None:
    with pytest.raises(InputError, match=r"GradCAM\.tokens is"):
        GradCAM(tokens=tokens)


def test_the_field_is_saved_and_read(tmp_path: Any) -> None:
    model, layer, x, *_ = case("1 token")
    technique = GradCAM(layers=(layer,), tokens=[1, 3, 5])  # type: ignore[arg-type]  # lists, as from a file
    assert technique.tokens == (1, 3, 5)
    path = explain(model, x, technique, target=0).save(tmp_path / "map.safetensors")
    assert load(path).technique == technique


def test_there_and_back() -> None:
    tensor = noise(2, 3, 11, 6)
    for form in (Grid("channels_first", 0, (11, 6)), Grid("channels_last", 0, (3, 11))):
        assert torch.equal(form.unmap(form.map(tensor), tensor), tensor)
    form = Grid("sequence", 5, (2, 3))
    assert torch.equal(form.unmap(form.map(tensor), tensor), tensor)
    assert torch.equal(form.unmap(form.map(tensor) * 2, tensor)[..., :5, :], tensor[..., :5, :])
    assert torch.equal(form.map(tensor)[1, 0, :, 1, 2], tensor[1, 0, 5 + 1 * 3 + 2])
