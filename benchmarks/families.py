"""One net of every torchvision family, with random weights whose signal neither dies nor explodes."""

from typing import Any

import torch
from torch import nn

NETS = (
    "alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "googlenet",
    "inception_v3", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5",
    "efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "swin_t", "vit_b_16",
)  # fmt: skip

_SIDE = 128
_NO_BATCH_NORM = ("swin_t", "vit_b_16", "convnext_tiny")


def family(name: str) -> nn.Module:
    """A torchvision architecture, eval mode: variance 2 / fan-in before rectifiers, batch norm statistics from noise.

    Nets without batch norm keep the variance by themselves: transformers, and ConvNeXt with its layer scale at 1,
    where torchvision's start would silence every block.
    """
    from torchvision import models

    more: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        more = {"aux_logits": False, "init_weights": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = models.get_model(name, weights=None, **more)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
            elif isinstance(module, nn.Conv2d) and name not in _NO_BATCH_NORM:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = None
            elif type(module).__name__ == "CNBlock":
                nn.init.ones_(module.layer_scale)  # type: ignore[arg-type]
        if name not in _NO_BATCH_NORM:
            with torch.no_grad():
                model.train()(torch.randn(8, 3, _SIDE, _SIDE))
    return model.eval()
