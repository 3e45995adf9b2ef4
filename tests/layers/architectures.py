"""Published architectures and where a practitioner would look: the last block before whatever reads the features.

Reviewed by hand against each model's structure; nothing here was written by the rule under test.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import nn

Tokens = str | tuple[int, int, int]

TORCHVISION: dict[str, str | tuple[str, Tokens]] = {
    "alexnet": "features.10",
    "vgg11": "features.18",
    "vgg13": "features.22",
    "vgg16": "features.28",
    "vgg16_bn": "features.41",
    "vgg19": "features.34",
    "resnet18": "layer4",
    "resnet34": "layer4",
    "resnet50": "layer4",
    "resnet101": "layer4",
    "resnext50_32x4d": "layer4",
    "wide_resnet50_2": "layer4",
    "squeezenet1_0": "features.12",
    "squeezenet1_1": "features.12",
    "densenet121": "features",
    "densenet161": "features",
    "mobilenet_v2": "features",
    "mobilenet_v3_small": "features",
    "mobilenet_v3_large": "features",
    "googlenet": "inception5b",
    "inception_v3": "Mixed_7c",
    "shufflenet_v2_x1_0": "conv5",
    "mnasnet0_5": "layers",
    "mnasnet1_3": "layers",
    "regnet_x_400mf": "trunk_output",
    "regnet_y_400mf": "trunk_output",
    "efficientnet_b0": "features",
    "efficientnet_b7": "features",
    "efficientnet_v2_s": "features",
    "convnext_tiny": "features",
    "convnext_large": "features",
    "maxvit_t": "blocks.3",
    "vit_b_16": ("encoder.layers.encoder_layer_11.ln_1", (1, 14, 14)),
    "swin_t": ("features.7.1.norm1", "channels_last"),
    "swin_v2_b": ("features.7.1.norm1", "channels_last"),
    # per pixel: the backbone's end, where the resolution is lowest
    "fcn_resnet50": "backbone.layer4",
    "deeplabv3_resnet50": "backbone.layer4",
    "deeplabv3_mobilenet_v3_large": "backbone.16",
    "lraspp_mobilenet_v3_large": "backbone.16",
    # detectors: before the pyramid
    "fasterrcnn_resnet50_fpn": "backbone.body.layer4",
    "maskrcnn_resnet50_fpn": "backbone.body.layer4",
    "retinanet_resnet50_fpn": "backbone.body.layer4",
    "retinanet_resnet50_fpn_v2": "backbone.body.layer4",
    "fcos_resnet50_fpn": "backbone.body.layer4",
}

TIMM: dict[str, str | tuple[str, Tokens]] = {
    "resnet50": "layer4",
    "resnet50_clip": "stages",
    "resnetv2_50": "norm",
    "resnest50d": "layer4",
    "res2net50_26w_4s": "layer4",
    "senet154": "layer4",
    "skresnet18": "layer4",
    "nf_resnet50": "stages",
    "dm_nfnet_f0": "final_conv",
    "regnety_016": "s4",
    "vgg16": "features.28",
    "densenet121": "features",
    "rdnet_tiny": "dense_stages",
    "inception_v3": "Mixed_7c",
    "inception_v4": "features",
    "inception_resnet_v2": "conv2d_7b",
    "xception41": "blocks",
    "legacy_xception": "bn4",
    "efficientnet_b0": "bn2",
    "tf_efficientnetv2_s": "bn2",
    "mobilenetv2_100": "bn2",
    "mobilenetv3_large_100": "blocks",
    "mobilenetv4_conv_small": "blocks",
    "mnasnet_100": "bn2",
    "ghostnet_100": "blocks",
    "ghostnetv2_100": "blocks",
    "lcnet_050": "blocks",
    "rexnet_100": "features",
    "hrnet_w18": "final_layer",
    "dla34": "level5",
    "dpn68": "features.conv5_bn_ac",
    "selecsls42b": "head",
    "vovnet39a": "stages",
    "cspdarknet53": "stages",
    "pnasnet5large": "cell_11",
    "nasnetalarge": "cell_17",
    "tresnet_m": "body",
    "convnext_tiny": "stages",
    "convmixer_768_32": "blocks",
    "inception_next_tiny": "stages",
    "repvgg_a0": "stages",
    "gernet_m": "final_conv",
    "hgnet_tiny": "stages",
    "starnet_s1": "norm",
    "fasternet_t0": "stages",
    "repvit_m1": "stages",
    # convolutions and attention, in grids
    "halonet26t": "stages",
    "botnet26t_256": "stages",
    "visformer_tiny": "norm",
    "coatnet_0_rw_224": "norm",
    "maxvit_tiny_tf_224": "stages",
    "mobilevit_s": "final_conv",
    "edgenext_small": "stages",
    "fastvit_t8": "final_conv",
    "efficientformer_l1": "stages.3.blocks.2",
    "efficientvit_b0": "head.in_conv",
    "efficientvit_m0": "stages",
    "levit_conv_128s": "stages",
    "poolformer_s12": "stages",
    "caformer_s18": "stages",
    "swiftformer_xs": "norm",
    "focalnet_tiny_srf": "norm",
    "gcvit_tiny": "stages",
    "davit_tiny": "stages",
    "pvt_v2_b0": "stages",
    "nextvit_small": "norm",
    "nest_tiny": "levels",
    "tiny_vit_5m_224": "stages",
    # tokens
    "vit_base_patch16_224": ("blocks.11.norm1", (1, 14, 14)),
    "vit_small_r26_s32_224": ("blocks.11.norm1", (1, 7, 7)),
    "deit_base_distilled_patch16_224": ("blocks.11.norm1", (2, 14, 14)),
    "beit_base_patch16_224": ("blocks.11.norm1", (1, 14, 14)),
    "vit_small_patch14_dinov2": ("blocks.11.norm1", (1, 37, 37)),
    "vit_small_patch14_reg4_dinov2": ("blocks.11.norm1", (5, 37, 37)),
    "eva02_tiny_patch14_224": ("blocks.11.norm1", (1, 16, 16)),
    "cait_s24_224": ("blocks_token_only.1.norm1", (1, 14, 14)),
    "swin_tiny_patch4_window7_224": ("layers.3.blocks.1.norm1", "channels_last"),
    "mambaout_tiny": ("stages.3.blocks.2.norm", "channels_last"),
    "sequencer2d_s": ("stages.3.blocks.2.norm1", "channels_last"),
    "levit_192": ("stages", (0, 4, 4)),
    "vitamin_small_224": ("blocks.13.norm1", (0, 14, 14)),
    "mixer_b16_224": ("blocks.11.norm1", (0, 14, 14)),
    "resmlp_12_224": ("blocks.11", (0, 14, 14)),
    "twins_svt_small": ("blocks.3.3.norm1", (0, 7, 7)),
    "xcit_nano_12_p16_224": ("cls_attn_blocks.1.norm1", (1, 14, 14)),
    "mvitv2_tiny": ("stages.3.blocks.1.norm1", (0, 7, 7)),
}

_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
_HEADS = {"num_attention_heads": [1, 1, 1, 1]}
_VIT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 16, "image_size": 64}
_SWIN = {"embed_dim": 8, "depths": [1, 1, 2, 2], "num_heads": [1, 1, 2, 2], "window_size": 2, "image_size": 64}

TRANSFORMERS: dict[str, tuple[dict[str, Any], str | tuple[str, Tokens]]] = {
    "ResNet": ({**_STAGES, "embedding_size": 8}, "resnet.encoder.stages.3"),
    "RegNet": ({**_STAGES, "embedding_size": 8, "groups_width": 8}, "regnet.encoder.stages.3"),
    "ConvNext": (_STAGES, "convnext.encoder.stages.3"),
    "ConvNextV2": (_STAGES, "convnextv2.encoder.stages.3"),
    "MobileNetV1": ({"depth_multiplier": 0.25}, "mobilenet_v1.layer.25"),
    "MobileNetV2": ({"depth_multiplier": 0.35}, "mobilenet_v2.conv_1x1"),
    "EfficientNet": (
        {"width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640},
        "efficientnet.encoder.top_bn",
    ),
    "Bit": ({**_STAGES, "hidden_sizes": [16, 24, 32, 64], "embedding_size": 8, "num_groups": 4}, "bit.norm"),
    "PoolFormer": (_STAGES, "norm"),
    "MobileViT": (
        {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 12, 16, 24, 32, 40, 64], "image_size": 64},
        "mobilevit.conv_1x1_exp",
    ),
    "MobileViTV2": ({"width_multiplier": 0.25, "image_size": 64}, "mobilevitv2.encoder.layer.4"),
    "SwiftFormer": ({"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 64}, "norm"),
    "ViT": (_VIT, ("vit.layers.2.layernorm_before", (1, 4, 4))),
    "DeiT": (_VIT, ("deit.layers.2.layernorm_before", (2, 4, 4))),
    "Beit": (_VIT, ("beit.layers.2.layernorm_before", (1, 4, 4))),
    "Dinov2": (_VIT, ("dinov2.encoder.layer.2.norm1", (1, 4, 4))),
    "Swin": (_SWIN, ("swin.encoder.layers.3.blocks.1.layernorm_before", (0, 2, 2))),
    "Swinv2": (_SWIN, ("swinv2.encoder.layers.3.blocks.1.layernorm_before", (0, 2, 2))),
    "Pvt": ({**_STAGES, **_HEADS, "image_size": 64}, ("pvt.encoder.block.3.0.layer_norm_1", (1, 2, 2))),
}

SEGMENTATION: dict[tuple[str, str], str] = {
    ("Unet", "resnet18"): "encoder.layer4",
    ("Unet", "mobilenet_v2"): "encoder.features.18",
    ("Unet", "efficientnet-b0"): "encoder._blocks.15",
    ("UnetPlusPlus", "resnet18"): "encoder.layer4",
    ("Linknet", "resnet18"): "encoder.layer4",
    ("MAnet", "mobilenet_v2"): "encoder.features.18",
    ("FPN", "resnet18"): "encoder.layer4",
    ("PAN", "resnet18"): "encoder.layer4",
    ("PSPNet", "resnet18"): "encoder.layer2",
    ("DeepLabV3", "efficientnet-b0"): "encoder._blocks.15",
    ("DeepLabV3Plus", "mobilenet_v2"): "encoder.features.18",
    ("UPerNet", "resnet18"): "encoder.layer4",
    ("Segformer", "mit_b0"): "encoder.norm4",
}


@dataclass(frozen=True)
class Case:
    """An architecture, the size of the image (``None``: timm's own), and the layer; of tokens with how they lie."""

    name: str
    build: Callable[[], nn.Module]
    size: int | None
    expected: str | tuple[str, Tokens]
    device: str = "meta"


def _torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model

    small = {"min_size": 64, "max_size": 64} if "fpn" in name else {}
    trunk = {"weights_backbone": None} if name.startswith(("fcn", "deep", "lraspp")) or "fpn" in name else {}
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return get_model(name, weights=None, **small, **trunk, **quick)  # type: ignore[no-any-return]


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


def timm_size(name: str) -> int:
    """Of the images that the model was made for."""
    import timm

    settings: Any = timm.get_pretrained_cfg(name)
    return int(settings.input_size[-1])


def _transformers(name: str, config: dict[str, Any]) -> nn.Module:
    import transformers

    settings = getattr(transformers, f"{name}Config")(num_labels=7, **config)
    return getattr(transformers, f"{name}ForImageClassification")(settings)  # type: ignore[no-any-return]


def _segmentation(name: str, encoder: str) -> nn.Module:
    import segmentation_models_pytorch as smp

    return getattr(smp, name)(encoder, encoder_weights=None, classes=6)  # type: ignore[no-any-return]


def cases() -> dict[str, list[Case]]:
    """Every case of the tables, by library."""
    return {
        "torchvision": [
            Case(n, partial(_torchvision, n), 64 if "fpn" in n else 299 if n == "inception_v3" else 224, layer)
            for n, layer in TORCHVISION.items()
        ],
        "timm": [Case(n, partial(_timm, n), None, layer) for n, layer in TIMM.items()],
        "transformers": [
            Case(n, partial(_transformers, n, config), 64, layer, "cpu") for n, (config, layer) in TRANSFORMERS.items()
        ],
        "segmentation_models_pytorch": [
            Case(f"{n}-{encoder}", partial(_segmentation, n, encoder), 128, layer)
            for (n, encoder), layer in SEGMENTATION.items()
        ],
    }


def bare(build: Callable[[], nn.Module], device: str) -> nn.Module:
    """The model in eval mode; on the meta device without values, which no builder needs to draw then."""
    if device != "meta":
        return build().eval()
    try:
        with torch.device("meta"):
            return build().eval()
    except (RuntimeError, NotImplementedError):  # a constructor that computes with small tensors
        names = ("kaiming_normal_", "kaiming_uniform_", "xavier_uniform_", "trunc_normal_", "normal_", "uniform_")
        missing: Any = lambda tensor, *args, **options: tensor  # noqa: E731  # in place of an initialisation
        with mock.patch.multiple(nn.init, **dict.fromkeys(names, missing)):
            return build().to("meta").eval()
