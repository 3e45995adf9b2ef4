"""Token occlusion against a plain loop over the model's own blocks, in float64, and by hidden keys."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution import (
    ClassScore,
    Execution,
    InputError,
    LayerError,
    Occlusion,
    TokenOcclusion,
    compare,
    explain,
)
from attribution.testing import guard
from tests.draw import some
from tests.techniques.attention.nets import CASES, images, net

COUNT, TARGETS = 3, [[1, 3], [0, 2], [4, 1]]
Array = np.ndarray[Any, Any]


def _torchvision(model: Any, x: Tensor, pick: Callable[[Tensor], Tensor]) -> Tensor:
    x = model._process_input(x)
    x = torch.cat([model.class_token.expand(len(x), -1, -1), x], dim=1) + model.encoder.pos_embedding
    x = pick(x)
    for block in model.encoder.layers:
        x = block(x)
    return model.heads(model.encoder.ln(x)[:, 0])  # type: ignore[no-any-return]


def _timm(model: Any, x: Tensor, pick: Callable[[Tensor], Tensor]) -> Tensor:
    x = model.norm_pre(model._pos_embed(model.patch_embed(x)))
    x = pick(x)
    for block in model.blocks:
        x = block(x)
    return model.forward_head(model.norm(x))  # type: ignore[no-any-return]


def _eva(model: Any, x: Tensor, pick: Callable[[Tensor], Tensor]) -> Tensor:
    x, positions = model._pos_embed(model.patch_embed(x))
    leading = x.shape[1] - positions.shape[0]
    both = torch.cat([positions.new_zeros(leading, positions.shape[1]), positions])
    x, both = pick(x), pick(both[None])[0]
    for block in model.blocks:
        x = block(x, rope=both[leading:])
    return model.forward_head(model.norm(x))  # type: ignore[no-any-return]


def _huggingface(name: str, norm: str = "layernorm", layers: str = "layers") -> Any:
    def logits(model: Any, x: Tensor, pick: Callable[[Tensor], Tensor]) -> Tensor:
        body = getattr(model, name)
        x = pick(body.embeddings(x))
        for block in getattr(body.encoder if hasattr(body, "encoder") else body, layers):
            found = block(x)
            x = found if isinstance(found, Tensor) else found[0]
        x = getattr(body, norm)(x)
        if name.startswith("dinov2"):
            leading = 1 if name == "dinov2" else 5
            return model.classifier(torch.cat([x[:, 0], x[:, leading:].mean(dim=1)], dim=1))  # type: ignore[no-any-return]
        return model.classifier(x[:, 0])  # type: ignore[no-any-return]

    return logits


LOGITS: dict[str, Any] = {
    "torchvision ViT": _torchvision,
    "timm ViT": _timm,
    "timm ViT, mean": _timm,
    "timm ViT, pooling": _timm,
    "timm DINOv2": _timm,
    "timm EVA, rotary": _eva,
    "Hugging Face ViT": _huggingface("vit"),
    "Hugging Face DINOv2": _huggingface("dinov2", layers="layer"),
}
ALONE = ["timm DeiT", "timm EVA", "timm ViT, registers and mean", "Hugging Face DeiT", "Hugging Face DINOv2, registers",
         "Hugging Face SigLIP"]  # fmt: skip
"""Of these the two backends are held against each other only."""


def expected(
    name: str, window: tuple[int, int], stride: tuple[int, int], *, shift: int = 0, zero: bool = False
) -> Array:
    """The mean loss of the logits over the windows that hold each token, one window and one image at a time."""
    model, x, tokens = net(name), images(name, COUNT), CASES[name].tokens
    assert tokens is not None
    leading, h, w = tokens
    with torch.no_grad():
        clean = LOGITS[name](model, x, lambda tokens: tokens)
    total, times = np.zeros((COUNT, 2, h, w)), np.zeros((h, w))
    starts = [[*range(0, size - wide, step), *([size - wide] if (size - wide) % step == 0 else [])]
              for size, wide, step in zip((h, w), window, stride, strict=True)]  # fmt: skip
    for size, wide, step, found in zip((h, w), window, stride, starts, strict=True):
        if (size - wide) % step:
            found.append(found[-1] + step)
    for i in starts[0]:
        for j in starts[1]:
            inside = [(r, c) for r in range(i, min(i + window[0], h)) for c in range(j, min(j + window[1], w))]
            gone = {(leading + shift + r * w + c) % (leading + h * w) for r, c in inside}
            kept = [index for index in range(leading + h * w) if index not in gone]

            def pick(tokens: Tensor, kept: list[int] = kept, gone: set[int] = gone) -> Tensor:
                if zero:
                    return tokens.index_fill(1, torch.tensor(sorted(gone)), 0.0)
                return torch.stack([tokens[:, index] for index in kept], dim=1)

            with torch.no_grad():
                short = LOGITS[name](model, x, pick)
            for n in range(COUNT):
                for t, target in enumerate(TARGETS[n]):
                    for r, c in inside:
                        total[n, t, r, c] += float(clean[n, target] - short[n, target])
            for r, c in inside:
                times[r, c] += 1
    return total / times


def asked(name: str, technique: TokenOcclusion, backend: str = "hooks", **how: Any) -> Any:
    score = ClassScore(torch.tensor(TARGETS), of="logit", output=CASES[name].output)
    return explain(net(name), images(name, COUNT), technique, backend=backend, target=score, **how)


def off(found: Tensor, wanted: Array) -> float:
    assert found.shape == wanted.shape
    return float((found - torch.from_numpy(wanted)).abs().max() / found.abs().max())


@pytest.mark.parametrize("name", LOGITS)
def test_it_is_the_loss_without_the_tokens(name: str) -> None:
    window, stride = ((2, 2), (1, 2)) if name in ("timm ViT", "timm EVA, rotary") else ((2, 3), (2, 2))
    (raw,) = asked(name, TokenOcclusion(window=window, stride=stride)).raw.values()
    assert off(raw, expected(name, window, stride)) < 1e-10
    assert off(raw, expected(name, window, stride, shift=1)) > 1e-3, "another token is left out"
    assert off(raw, expected(name, window, stride, zero=True)) > 1e-3, "tokens of zeros are no missing tokens"


@pytest.mark.parametrize("name", some([pytest.param(name, id=name) for name in [*LOGITS, *ALONE]], 0.4))
def test_hidden_keys_say_the_same(name: str) -> None:
    score = ClassScore(torch.tensor(TARGETS), output=CASES[name].output)
    both = compare(net(name), images(name, COUNT), TokenOcclusion(window=(2, 3), stride=2), target=score)
    assert [*both.attributions] == ["captum", "hooks"]
    assert both.holds


@pytest.mark.parametrize("name", ["torchvision Swin", "timm Swin", "timm MaxViT", "timm CaiT", "Hugging Face Swin"])
def test_what_has_no_such_sequence_is_refused(name: str) -> None:
    with pytest.raises(LayerError, match=r"in windows of|changed between their softmax|different sizes"):
        explain(net(name), images(name), TokenOcclusion(), target=ClassScore(1, output=CASES[name].output))


def test_positions_inside_of_blocks_are_refused() -> None:
    """BEiT's attention adds a bias for each pair of places: hidden keys can be asked, shorter sequences cannot."""
    with pytest.raises(LayerError, match=r"takes all 16 tokens or none|knows in which order"):
        asked("timm BEiT", TokenOcclusion())
    (raw,) = asked("timm BEiT", TokenOcclusion(window=2), "captum").raw.values()
    assert raw.shape == (COUNT, 2, 3, 5)


class Ordered(nn.Module):
    """A convolution along the sequence: what follows the block knows the order of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.along = net("timm ViT"), nn.Conv1d(16, 16, 3, padding=1).double()
        self.net.get_submodule("norm").register_forward_hook(self._mixed)

    def _mixed(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return self.along(output.mT).mT  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def test_a_network_that_reads_an_order_is_refused() -> None:
    with pytest.raises(LayerError, match="knows in which order"):
        explain(Ordered().eval(), images("timm ViT"), TokenOcclusion(), target=1)


class Near(nn.Module):
    """A block in which each token gathers most from its neighbours along the sequence, as ALiBi has it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, place = self.mix(x), torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        away = -(place[:, None] - place).abs()[None]
        return nn.functional.scaled_dot_product_attention(q, q, x, attn_mask=away).tanh()


class Distances(nn.Module):
    """To tokens in reverse order the others are as far away as before."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.blocks = nn.Conv2d(3, 16, 16, stride=16), nn.Sequential(Near(), Near())
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.patch(x).flatten(2).mT).mean(dim=1))
        return out


def test_a_network_that_knows_distances_is_refused() -> None:
    with pytest.raises(LayerError, match="knows in which order"):
        explain(Distances().double().eval(), images("timm ViT"), TokenOcclusion(window=2), target=1)


class Around(nn.Module):
    """Blocks as vit-pytorch writes them: what goes around an attention is added outside of every module."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 16, 16, stride=16), nn.Linear(16, 5)
        self.layers = nn.ModuleList(nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).mT
        for attention in self.layers:
            x = attention(x, x, x)[0] + x
        out: Tensor = self.head(x.mean(dim=1))
        return out


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_a_residual_connection_outside_of_modules_is_named(backend: str) -> None:
    model = Around().double().eval()
    with pytest.raises(LayerError, match=r"residual connection (is )?outside of it"):
        explain(model, images("timm ViT"), TokenOcclusion(window=2), target=1, backend=backend)


@pytest.mark.parametrize(
    ("technique", "error", "text"),
    [
        ({"window": 4}, InputError, r"windows of 4 by steps of 1, and the grid \(3, 5\)"),
        ({"window": (2, 2, 2)}, InputError, r"the grid \(3, 5\)"),
        ({"window": 2, "stride": 3}, InputError, r"stride \(3, 3\) is larger than the window"),
        ({"tokens": (1, 4, 4)}, LayerError, "makes? no grid|is another number|different sizes|attends to"),
    ],
)
def test_what_does_not_fit_is_refused(technique: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        asked("timm ViT", TokenOcclusion(**technique))


@pytest.mark.parametrize(("field", "value"), [("window", 0), ("stride", 1.5), ("upsample", 2), ("tokens", 3)])
def test_wrong_fields_are_refused(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"TokenOcclusion\.{field}"):
        TokenOcclusion(**{field: value})


def test_all_tokens_may_go_only_where_a_leading_one_stays() -> None:
    with pytest.raises(InputError, match="none would be left"):
        asked("timm ViT, mean", TokenOcclusion(window=(3, 5)))
    assert asked("timm ViT", TokenOcclusion(window=(3, 5))).map.shape == (COUNT, 2, 48, 80)


def test_batches_change_nothing_and_nothing_is_left() -> None:
    model, whole = net("timm ViT"), asked("timm ViT", TokenOcclusion(window=2))
    with guard(model):
        explain(model, images("timm ViT", COUNT), TokenOcclusion(window=2), target=1)
    for size in (1, 4):
        part = asked("timm ViT", TokenOcclusion(window=2), execution=Execution(batch_size=size))
        assert torch.allclose(part.raw["input"], whole.raw["input"], atol=1e-12)


def test_it_is_another_number_than_that_of_covered_pixels() -> None:
    tokens = asked("timm ViT", TokenOcclusion(window=1, upsample=False)).map
    score = ClassScore(torch.tensor(TARGETS), of="logit")
    pixels = explain(net("timm ViT"), images("timm ViT", COUNT), Occlusion(window=16, stride=16), target=score)
    assert (pixels.map[..., ::16, ::16] - tokens).abs().max() > 0.05 * tokens.abs().max()


SEEN: list[tuple[int, int]] = []
"""Rows and tokens of every run of the second block."""


def test_sequences_are_shorter_by_the_window() -> None:
    model = net("timm ViT")
    model.get_submodule("blocks.1").register_forward_hook(lambda module, args, output: SEEN.append(output.shape[:2]))
    explain(model, images("timm ViT", COUNT), TokenOcclusion(window=2, stride=2), target=1)
    SEEN.clear()
    explain(model, images("timm ViT", COUNT), TokenOcclusion(window=2, stride=2), target=1)
    windows = {16 - 4: 2 * COUNT, 16 - 2: 3 * COUNT, 16 - 1: COUNT}  # (3, 5) places: 2 x 3 windows, cut at the border
    assert sum(rows for rows, tokens in SEEN if tokens == 16) == COUNT + 1, "the inputs, and one in another order"
    assert {tokens: sum(rows for rows, other in SEEN if other == tokens) for tokens in windows} == windows
