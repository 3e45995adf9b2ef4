"""Integers and bools that a model takes: covered by integers, asked for activations; of them there is no gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    RISE,
    Activations,
    ClassScore,
    Execution,
    GradCAM,
    InputError,
    Inputs,
    IntegratedGradients,
    Occlusion,
    Saliency,
    ScoreCAM,
    compare,
    explain,
)
from attribution.testing import guard
from tests.conftest import BACKENDS, logit

WORDS, BLANK = 11, 3
Mix = Callable[[Tensor], Tensor]


def same(y: Tensor) -> Tensor:
    return y


def centred(y: Tensor) -> Tensor:
    """By the whole batch, where there is one."""
    return y - y.mean(0) / 2 if len(y) > 1 else y


class Text(nn.Module):
    """Token ids (N, L); it fails on ids that there are not."""

    def __init__(self, mix: Mix = same) -> None:
        super().__init__()
        self.embed, self.head, self.mix = nn.Embedding(WORDS, 6), nn.Linear(6, 4), mix

    def forward(self, ids: Tensor) -> Tensor:
        seen = self.embed(ids)
        return self.head(self.mix((seen * seen.roll(1, 1)).tanh().mean(1)))  # type: ignore[no-any-return]


def text(mix: Mix = same) -> Text:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Text(mix).double().eval()


def ids(examples: int) -> Tensor:
    return torch.randint(0, WORDS, (examples, 7), generator=torch.Generator().manual_seed(2))


def by_hand(model: nn.Module, x: Tensor, window: int, cover: int, classes: int = 4) -> Tensor:
    """(N, K, L): the mean over the windows of stride 1 that cover a place, one example and one window at a time."""
    found = torch.zeros(len(x), classes, x.shape[1], dtype=torch.float64)
    with torch.no_grad():
        for n in range(len(x)):
            clean, times = model(x[n : n + 1])[0], [0] * x.shape[1]
            for first in range(x.shape[1] - window + 1):
                covered = x[n : n + 1].clone()
                covered[0, first : first + window] = cover
                delta = clean - model(covered)[0]
                for place in range(first, first + window):
                    found[n, :, place] += delta
                    times[place] += 1
            found[n] /= torch.tensor(times)
    return found


@BACKENDS
@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("mix", [same, centred])
@pytest.mark.parametrize("window", [1, 3])
def test_tokens_are_covered_by_a_token(window: int, mix: Mix, examples: int, backend: str) -> None:
    model, x = text(mix), ids(examples)
    wanted = by_hand(model, x, window, BLANK)
    asked = Occlusion(window=window, stride=1, baseline=BLANK)
    given = Inputs.of({"ids": x}, axes={"ids": "n f"})
    within = 1e-12 if backend == "hooks" else 1e-6  # Captum folds in float32
    for size in (None, 2):
        with guard(model, x):
            result = explain(
                model, given, asked, backend=backend, target=logit("all"), execution=Execution(batch_size=size)
            )
        assert (result.map - wanted).abs().max() <= within * wanted.abs().max()
        assert ("rows" in result.provenance) is (mix is centred)
    assert (by_hand(model, x, window, 0) - wanted).abs().max() > 1e-3, "another token covers otherwise"
    assert compare(model, Inputs.of((x,), axes={0: "n f"}), asked, target=logit(1)).holds


class Pixels(nn.Module):
    """Bytes (N, 3, H, W) and a switch for each of five features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)

    def forward(self, image: Tensor, on: Tensor) -> Tensor:
        seen = self.conv(image.double() / 255).tanh().mean((2, 3))
        return seen * self.head(on.double())  # type: ignore[no-any-return]


@BACKENDS
def test_bytes_and_bools(backend: str) -> None:
    source = torch.Generator().manual_seed(5)
    image = torch.randint(0, 256, (2, 3, 9, 13), generator=source).to(torch.uint8)
    on = torch.rand(2, 5, generator=source) > 0.4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Pixels().double().eval()
    given = Inputs.of((image, on), axes={0: "n c h w", 1: "n f"})
    covered = Occlusion(window=(4, 5), stride=(4, 5), baseline=(200, 0, 9), input=0)
    found = explain(model, given, covered, backend=backend, target=logit(2)).maps["input.0"]
    with torch.no_grad():
        clean = model(image, on)[:, 2]
        dark = image.clone()
        dark[:, :, 4:8, 5:10] = torch.tensor([200, 0, 9], dtype=torch.uint8)[:, None, None]
        wanted = clean - model(dark, on)[:, 2]
        off = on.clone()
        off[:, 3] = False
        switched = clean - model(image, off)[:, 2]
    assert (found[:, 0, 5, 7] - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    switches = Occlusion(window=1, stride=1, input=1)
    found = explain(model, given, switches, backend=backend, target=logit(2)).maps["input.1"]
    assert (found[:, 0, 3] - switched).abs().max() <= 1e-6 * wanted.abs().max()
    assert on[:, 3].any(), "nothing was switched off"
    assert found[~on[:, None]].abs().max() == 0


@BACKENDS
def test_activations(backend: str) -> None:
    model, x = text(), ids(2)
    given = Inputs.of((x,), axes={0: "n f"})
    found = explain(model, given, Activations(layers=("embed", "head")), backend=backend)
    assert torch.equal(found.maps["embed"], model.embed(x))
    assert torch.allclose(found.maps["head"], model(x), rtol=1e-12)


REFUSED: dict[str, tuple[Callable[[], Any], Callable[[Tensor], Any], str]] = {
    "alone": (lambda: Occlusion(window=1, stride=1), lambda x: x, r"Inputs.of\(\(ids,\), axes"),
    "saliency": (lambda: Saliency(), lambda x: Inputs.of((x,), axes={0: "n f"}), "saliency explains floats"),
    "path": (lambda: IntegratedGradients(), lambda x: Inputs.of((x,), axes={0: "n f"}), "explains floats"),
    "cam": (lambda: GradCAM(layers=("embed",)), lambda x: Inputs.of((x,), axes={0: "n f"}), "explains floats"),
    "fraction": (
        lambda: Occlusion(window=1, stride=1, baseline=0.5),
        lambda x: Inputs.of((x,), axes={0: "n f"}),
        "baseline is 0.5.*torch.int64",
    ),
    "fractions": (
        lambda: Occlusion(window=1, stride=1, baseline=torch.full((1, 7), 0.5)),
        lambda x: Inputs.of((x,), axes={0: "n f"}),
        "baseline is of torch.float32",
    ),
    "too large": (
        lambda: Occlusion(window=1, stride=1, baseline=300),
        lambda x: Inputs.of((x.to(torch.uint8),), axes={0: "n f"}),
        "baseline is 300",
    ),
    "blur": (
        lambda: Occlusion(window=1, stride=1, baseline="blur"),
        lambda x: Inputs.of((x,), axes={0: "n f"}),
        "'blur'",
    ),
}


@BACKENDS
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, backend: str) -> None:
    technique, given, told = REFUSED[name]
    with pytest.raises(InputError, match=told):
        explain(text(), given(ids(2)), technique(), backend=backend, target=ClassScore(1, of="logit"))


@pytest.mark.parametrize("technique", [RISE(masks=4, cells=2), ScoreCAM(layers=("embed",))], ids=lambda each: each.name)
def test_what_fades_inputs_refuses_integers(technique: Any) -> None:
    with pytest.raises(InputError, match=f"{technique.name} explains floats"):
        explain(text(), Inputs.of((ids(2),), axes={0: "n f"}), technique, target=1)
