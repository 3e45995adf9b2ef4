"""Layers whose first axis is not that of the images: refused by name, never taken for a batch, by every backend."""

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, GradCAM, LayerError, explain
from tests.conftest import build, noise


class Parts(nn.Module):
    """Shows its layers a batch in parts of two images."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build("cnn")

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.inner(part) for part in x.split(2)])


class Windows(nn.Module):
    """Folds four windows of each image into the batch, as shifted-window transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.inside = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        n, d, h, w = x.shape
        folded = x.view(n, d, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5).reshape(4 * n, d, h // 2, w // 2)
        logits: Tensor = self.head(self.inside(folded).view(n, 4, d, -1).mean(dim=(1, 3)))
        return logits


TECHNIQUES = [Activations, GradCAM]


@pytest.mark.parametrize("backend", ["hooks", "captum"])
@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("images", [1, 3])
def test_windows_in_the_batch_are_no_images(technique: type[Activations | GradCAM], images: int, backend: str) -> None:
    with pytest.raises(LayerError, match=r"'inside' gives shape \((4|12), 4, 7, 9\) for [13] image"):
        explain(Windows().eval(), noise(images, 3, 14, 18), technique(layers=("inside",)), backend=backend)


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_the_layer_around_the_windows_serves(backend: str) -> None:
    model, inputs = Windows().eval(), noise(3, 3, 14, 18)
    result = explain(model, inputs, Activations(layers=("stem",)), backend=backend)
    torch.testing.assert_close(result.map, model.stem(inputs).detach(), rtol=0, atol=0)


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("layer", ["inner.stem", "inner.body"])
def test_a_batch_shown_in_parts_counts_as_runs_of_the_layer(technique: type[Activations | GradCAM], layer: str) -> None:
    model = Parts().eval()
    with pytest.raises(LayerError, match=rf"'{layer}' runs 2 times in one forward; say which run: '{layer}#0'"):
        explain(model, noise(3, 3, 17, 23), technique(layers=(layer,)))


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_one_run_of_a_batch_in_parts_is_no_map_of_all_images(technique: type[Activations | GradCAM]) -> None:
    with pytest.raises(LayerError, match=r"'inner.body#0' gives shape \(2, 8, 6, 9\) for 3 images"):
        explain(Parts().eval(), noise(3, 3, 17, 23), technique(layers=("inner.body#0",)))


@pytest.mark.parametrize("layer", ["inner.stem", "inner.body"])
def test_by_captum_a_batch_in_parts_is_refused_too(layer: str) -> None:
    with pytest.raises(LayerError, match=rf"'{layer}' gives shape .* for 3 images"):
        explain(Parts().eval(), noise(3, 3, 17, 23), Activations(layers=(layer,)), backend="captum")
