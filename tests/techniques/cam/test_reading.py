"""Which axis of a layer is what: read from shapes and modules, stated, or refused; the same by both backends."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import GradCAM, InputError, LayerCAM, LayerError, explain
from attribution.techniques.cam.tokens import Grid
from tests.conftest import BACKENDS, noise
from tests.techniques.cam.nets import CASES, CLASSES, Mixer, Tokens, seeded


class Nested(nn.Module):
    """A net of another input: its layers keep their names behind ``net.``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class Steps(nn.Module):
    """(N, C, T) through a linear layer over channels, (N, T, D); ``first``: (T, N, D)."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.body, self.head = nn.Linear(3, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        a = self.body(x.permute(2, 0, 1) if self.first else x.mT)
        return self.head((a.tanh() + a * a).mean(0 if self.first else 1))  # type: ignore[no-any-return]


class Swung(nn.Module):
    """(N, d, h, w, D), as in video Swin: a norm over the last of five axes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Conv3d(3, 8, 2, stride=2), nn.LayerNorm(8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm(self.embed(x).movedim(1, -1))
        return self.head((a.tanh() + a * a).mean((1, 2, 3)))  # type: ignore[no-any-return]


class Windows(nn.Module):
    """(N · windows, 4, D) inside, as in shifted-window transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Conv2d(3, 6, 2, stride=2), nn.LayerNorm(6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        grid = self.embed(x)
        n, d, h, w = grid.shape
        windows = grid.reshape(n, d, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, d)
        return self.head(self.norm(windows).tanh().reshape(n, -1, d).mean(1))  # type: ignore[no-any-return]


def raw(model: nn.Module, x: Tensor, layer: str, backend: str = "hooks", tokens: Any = None) -> Tensor:
    return explain(model, x, LayerCAM(layers=(layer,), tokens=tokens), target=1, backend=backend).raw[layer]


@BACKENDS
def test_as_many_examples_as_tokens_are_told_apart_by_what_one_example_gives(backend: str) -> None:
    """7 tokens, 7 images: the shape alone has two readings."""
    for form in ("tokens", "tokens, sequence first"):
        case = CASES[form]
        model, x = case.model(), case.inputs(7)
        together = raw(model, x, "norm", backend)
        alone = torch.cat([raw(model, x[n : n + 1], "norm", backend) for n in range(7)])
        assert torch.allclose(together, alone, rtol=1e-9, atol=1e-12)
        assert not torch.allclose(together.roll(1, 0), alone, rtol=1e-3), "images mixed up are seen"


class Pair(nn.Module):
    """A layer that gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = Tokens(1, True)
        self.tokens.norm = Both(6)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        net = self.tokens
        tokens = torch.cat([net.leading.expand(len(x), -1, -1), net.embed(x).flatten(2).mT], dim=1)
        a = net.norm(tokens.transpose(0, 1))[0]
        return net.head((a.tanh() + a * a).mean(0))  # type: ignore[no-any-return]


class Both(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.norm(x) * 1.5, x


def test_of_items_of_a_tuple_one_example_tells_too() -> None:
    model, layer = seeded(Pair), "tokens.norm[0]"
    x = noise(7, 3, 8, 12, dtype=torch.float64)
    told = raw(model, x, layer, tokens=("sequence_first", 1, 2, 3))
    apart = torch.cat([raw(model, x[:3], layer), raw(model, x[3:], layer)])
    assert torch.allclose(told, apart, rtol=1e-9, atol=1e-12)
    assert torch.equal(raw(model, x, layer), told)
    assert not torch.allclose(raw(model, x, layer, tokens=(1, 2, 3)), told, rtol=1e-3)


@BACKENDS
@pytest.mark.parametrize("examples", [1, 3, 4])
def test_windows_are_no_sequence(backend: str, examples: int) -> None:
    """Also where there are as many images as tokens in a window."""
    x = noise(examples, 3, 8, 12, dtype=torch.float64)
    with pytest.raises(LayerError, match="its first axis is not that of the images"):
        raw(seeded(Windows), x, "norm", backend)


@BACKENDS
@pytest.mark.parametrize(
    ("form", "tokens"),
    [
        ("tokens", (1, 2, 3)),
        ("tokens, sequence first", ("sequence_first", 1, 2, 3)),
        ("flattened grid", ("channels_first", 2, 3)),
        ("series", "channels_first"),
        ("series", ("channels_first", 8)),
        ("volume", "channels_first"),
        ("vectors", "channels_first"),
    ],
)
def test_what_is_stated_is_what_is_inferred(form: str, tokens: Any, backend: str) -> None:
    case = CASES[form]
    model, x = case.model(), case.inputs(2)
    assert torch.equal(raw(model, x, case.layer, backend, tokens), raw(model, x, case.layer, backend))
    result = explain(model, x, LayerCAM(layers=(case.layer,), tokens=tokens), target=1, backend=backend)
    assert f"tokens {case.layer}" not in result.provenance


@BACKENDS
@pytest.mark.parametrize(
    ("form", "tokens", "words"),
    [
        ("tokens", ("sequence_first", 1, 2, 3), r"\(\d, 7, 6\), but tokens=.* means \(7, N, D\)"),
        ("tokens, sequence first", (1, 2, 3), r"\(7, \d, 6\), but tokens=\(1, 2, 3\) means \(N, 7, D\)"),
        ("flattened grid", ("channels_first", 2, 4), r"means \(N, D, 8\)"),
        ("series", ("channels_first", 7), r"means \(N, D, 7\)"),
        ("volume", (0, 3, 4), r"means \(N, 12, D\)"),
        ("vectors", "channels_last", r"means \(N, h, w, D\)"),
    ],
)
def test_what_does_not_fit_is_refused(form: str, tokens: Any, words: str, backend: str) -> None:
    case = CASES[form]
    with pytest.raises(LayerError, match=words):
        raw(case.model(), case.inputs(2), case.layer, backend, tokens)


@BACKENDS
def test_steps_of_a_linear_layer_are_axis_1_of_series_too(backend: str) -> None:
    """As `Activations` reads them; an assertion held them to be channels before."""
    x = noise(2, 3, 9, dtype=torch.float64)
    model = seeded(partial(Steps, False))
    inferred = raw(model, x, "body", backend)
    assert inferred.shape == (2, 1, 9)
    assert raw(model, x, "body", backend, "channels_first").shape == (2, 1, 5), "5 channels, read as places"
    last = raw(model, x, "body", backend, "channels_last")
    assert torch.equal(inferred, last)
    assert torch.equal(last, raw(model, x, "body", backend, (0, 9)))
    first = raw(seeded(partial(Steps, True)), x, "body", backend)
    assert first.shape == (2, 1, 9), "9 steps of 2 examples: no other reading"
    assert torch.allclose(first, last, rtol=1e-9, atol=1e-12)
    assert explain(model, x, LayerCAM(layers=("body",), tokens="channels_last"), target=1).map.shape == (2, 1, 9)


@BACKENDS
def test_channels_are_not_read_as_patches(backend: str) -> None:
    """16 channels would be 4 × 4 patches of the image, and places are 3 × 3."""

    class Odd(Mixer):
        def __init__(self) -> None:
            super().__init__(16)
            self.mix = nn.Linear(9, 9)

    model, x = seeded(Odd), noise(2, 3, 12, 12, dtype=torch.float64)
    result = explain(model, x, GradCAM(layers=("flat",)), target=1, backend=backend)
    assert result.raw["flat"].shape == (2, 1, 3, 3)
    assert result.provenance["tokens flat"] == "(N, D, 3·3), inferred"
    on_the_grid = explain(model, x, GradCAM(layers=("conv",)), target=1, backend=backend)
    assert torch.allclose(result.raw["flat"], on_the_grid.raw["conv"], rtol=1e-9, atol=1e-12)


@BACKENDS
def test_both_readings_of_a_grid_and_of_tokens_are_refused(backend: str) -> None:
    """As many channels as patches, and a norm over the last axis."""

    class Both(Mixer):
        def __init__(self) -> None:
            super().__init__(6)
            self.norm = nn.LayerNorm(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.flat(self.conv(x))).tanh().mean(2))  # type: ignore[no-any-return]

    x = noise(2, 3, 8, 12, dtype=torch.float64)
    with pytest.raises(LayerError, match=r"may be \(N, D, 2·3\) or \(N, 0 \+ 2·3, D\).*LayerCAM\(tokens="):
        raw(seeded(Both), x, "norm", backend)


@BACKENDS
def test_volumes_with_channels_last_are_seen_by_their_norm(backend: str) -> None:
    model, x = seeded(Swung), noise(2, 3, 4, 6, 8, dtype=torch.float64)
    result = explain(model, x, LayerCAM(layers=("norm",)), target=1, backend=backend)
    assert result.raw["norm"].shape == (2, 1, 2, 3, 4)
    assert result.map.shape == (2, 1, 4, 6, 8)
    assert result.provenance["tokens norm"] == "(N, d, h, w, D), inferred"
    assert explain(model, x, LayerCAM(layers=("embed",)), target=1, backend=backend).raw["embed"].shape[2:] == (2, 3, 4)


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("form", ["series", "volume", "vectors"])
def test_only_images_have_a_default_layer(form: str, backend: str) -> None:
    case = CASES[form]
    with pytest.raises(LayerError, match=r"no default layer; name one, e\.g\. LayerCAM\(layers="):
        explain(case.model(), case.inputs(2), LayerCAM(), target=1, backend=backend)


def test_there_and_back() -> None:
    tensor = noise(2, 3, 6, 6)
    forms = [
        Grid("channels_first", 0, (6, 6)),
        Grid("channels_last", 0, (3, 6)),
        Grid("flattened", 0, (2, 3)),
        Grid("sequence", 2, (2, 2)),
        Grid("sequence_first", 1, (2,)),
        Grid("sequence_first", 1, (1, 2)),
    ]
    for form in forms:
        assert torch.equal(form.unmap(form.map(tensor), tensor), tensor)
        assert form.map(tensor).shape[-len(form.places) :] == form.places
        doubled = form.unmap(form.map(tensor) * 2, tensor)
        assert not torch.equal(doubled, tensor)
    assert torch.equal(Grid("sequence_first", 1, (2,)).map(tensor)[1, 4, :, 1], tensor[1, 2, 4])
    assert torch.equal(Grid("flattened", 0, (2, 3)).map(tensor)[..., 1, 2], tensor[..., 5])
    assert torch.equal(Grid("channels_first", 0, ()).mean(tensor), tensor)


@pytest.mark.parametrize("tokens", [("sequence_first",), ("channels_first",), ("channels_first", 0), ("rows", 1, 2)])
def test_fields(tokens: Any) -> None:
    with pytest.raises(InputError, match=r"LayerCAM\.tokens is"):
        LayerCAM(tokens=tokens)
