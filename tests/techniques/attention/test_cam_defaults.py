"""The layer that CAMs take of a transformer by default: whose places are the image's, and have a gradient."""

from typing import Any

import pytest
import torch
from torch import nn

from attribution import Activations, ClassScore, GradCAM, LayerCAM, compare, explain
from attribution.techniques.cam.reading import grid
from tests.draw import some
from tests.techniques.attention.nets import CASES, OTHERS, images, net

EVERY_CASE = CASES | OTHERS
LAYERS = {
    "torchvision ViT": "encoder.layers.encoder_layer_2.ln_1",
    "torchvision Swin": "features.3.1.norm1",
    "timm ViT": "blocks.2.norm1",
    "timm ViT, registers and mean": "blocks.2.norm1",
    "timm ViT, pooling": "blocks.2.norm1",
    "timm DeiT": "blocks.2.norm1",
    "timm DINOv2": "blocks.2.norm1",
    "timm EVA": "blocks.2.norm1",
    "timm BEiT": "blocks.2.norm1",
    "timm Swin": "layers.1.blocks.1.norm1",
    "timm CaiT": "blocks_token_only.1.norm1",
    "timm MaxViT": "norm",
    "Hugging Face ViT": "vit.layers.2.layernorm_before",
    "Hugging Face DeiT": "deit.layers.2.layernorm_before",
    "Hugging Face DINOv2": "dinov2.encoder.layer.2.norm1",
    "Hugging Face DINOv2, registers": "dinov2_with_registers.encoder.layer.2.norm1",
    "Hugging Face Swin": "swin.encoder.layers.1.blocks.1.layernorm_before",
    "Hugging Face CLIP": "encoder.layers.2.layer_norm1",
    "Hugging Face SigLIP": "encoder.layers.2.layer_norm1",
    "torchvision SwinV2": "features.3.1.norm1",
    "torchvision MaxViT": "blocks.1",
    "timm PVT": "stages",
    "timm CoAtNet": "norm",
    "timm ConvNeXt": "stages",
    "Hugging Face BEiT": "beit.layers.2.layernorm_before",
}
EVERY = pytest.mark.parametrize("name", some([pytest.param(name, id=name) for name in LAYERS], 0.25))


def asked(name: str) -> ClassScore:
    return ClassScore([[1, 3], [4, 0]], output=EVERY_CASE[name].output)


@pytest.mark.parametrize("name", LAYERS)
def test_a_map_of_every_place_comes_without_a_layer_named(name: str) -> None:
    found = explain(net(name), images(name), GradCAM(relu=False), target=asked(name))
    (layer,) = found.raw
    assert layer == LAYERS[name]
    assert found.map.shape == (2, 2, *EVERY_CASE[name].size)
    assert "zero everywhere" not in found.provenance
    raw = found.raw[layer].flatten(2).abs()
    assert raw.shape[2] > 3
    assert (raw > 1e-6 * raw.amax(dim=2, keepdim=True)).float().mean() > 0.95, "every place has a gradient"


@EVERY
def test_both_backends_take_it(name: str) -> None:
    for technique in (GradCAM(), LayerCAM()):
        assert compare(net(name), images(name), technique, target=asked(name)).holds


@EVERY
def test_its_places_are_the_images(name: str) -> None:
    """Without attention between them, which is put out of action, a patch changes its own place alone."""
    model, x = net(name), images(name, 1)
    for key, parameter in model.named_parameters():
        if any(part in key for part in ("proj.", "out_proj", "o_proj", "attention.output", "q_proj", "mlp")):
            with torch.no_grad():
                parameter.mul_(1e-3 if "bias" not in key else 1)
    technique: Any = explain(model, x, GradCAM(), target=ClassScore(1, output=EVERY_CASE[name].output)).technique
    (layer,) = technique.layers
    shape = tuple(explain(model, x, Activations(layers=(layer,))).map.shape)
    reading = grid("GradCAM", technique.tokens, layer, shape, nn.Identity(), _inputs(x))
    h, w = reading.places
    height, width = x.shape[2] // h, x.shape[3] // w
    for i, j in ((0, 0), (h - 1, 0), (h // 2, w - 1)):
        other = x.clone()
        other[..., i * height : (i + 1) * height, j * width : (j + 1) * width] += 3.0
        maps = [reading.map(explain(model, each, Activations(layers=(layer,))).map) for each in (x, other)]
        change = (maps[0] - maps[1]).abs().sum(dim=1)[0]
        assert divmod(int(change.argmax()), w) == (i, j)


def _inputs(x: torch.Tensor) -> Any:
    from attribution import Inputs

    return Inputs.of(x)
