"""Tiny transformers of three libraries, with random weights that matter, and what is known of each."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

VIT = {"img_size": (48, 80), "patch_size": 16, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 5}
HF: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 16, "image_size": 64,
    "intermediate_size": 32, "num_labels": 5,
}  # fmt: skip
SWIN: dict[str, Any] = {
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [2, 2],
    "window_size": 2,
    "image_size": 64,
    "num_labels": 5,
}


@dataclass(frozen=True)
class Case:
    """A model, and what is known of it.

    Attributes:
        build: The model.
        size: Of the images.
        maps: How many attentions run.
        tokens: How its tokens lie; ``None``: in windows, or changed on the way.
        query: Whose row is shown.
        output: Which item of the output are the logits.
    """

    build: Callable[[], nn.Module]
    size: tuple[int, int]
    maps: int
    tokens: tuple[int, ...] | None
    query: int | str | None = 0
    output: str | None = None


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from timm.models import beit, deit, eva, vision_transformer

        kinds: Any = {
            "vit": vision_transformer.VisionTransformer,
            "deit": deit.VisionTransformerDistilled,
            "eva": eva.Eva,
            "beit": beit.Beit,
        }
        given = {**VIT, **options}
        fused = given.pop("fused", True)
        model: nn.Module = kinds[name](**given)
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = fused
        return model

    return build


def _made(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        model: nn.Module = timm.create_model(name, num_classes=5, **options)
        return model

    return build


def _torchvision(kind: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from torchvision.models import MaxVit, SwinTransformer, VisionTransformer
        from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

        if kind == "vit":
            return VisionTransformer(64, 16, 3, 2, 16, 32, num_classes=5)  # type: ignore[no-any-return]
        if kind == "maxvit":
            return MaxVit((64, 64), 8, 2, [8, 16], [1, 1], 8, 0.0, num_classes=5)  # type: ignore[no-any-return]
        if kind == "swin v2":
            kinds = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
            return SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=5, **kinds)  # type: ignore[no-any-return]
        return SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=5)  # type: ignore[no-any-return]

    return build


def _huggingface(name: str, kind: str = "sdpa", head: str = "ForImageClassification", **options: Any) -> Any:
    def build() -> nn.Module:
        import transformers

        config = getattr(transformers, f"{name}Config")(**({} if name == "Swin" else HF), **options)
        config._attn_implementation = kind
        model: nn.Module = getattr(transformers, f"{name}{head}")(config)
        return model

    return build


LOGITS, POOLED = "logits", "pooler_output"
CASES: dict[str, Case] = {
    "torchvision ViT": Case(_torchvision("vit"), (64, 64), 3, (1, 4, 4)),
    "torchvision Swin": Case(_torchvision("swin"), (64, 64), 4, None),
    "timm ViT": Case(_timm("vit"), (48, 80), 3, (1, 3, 5)),
    "timm ViT, written out": Case(_timm("vit", fused=False), (48, 80), 3, (1, 3, 5)),
    "timm ViT, any size": Case(_timm("vit", img_size=64, dynamic_img_size=True), (48, 80), 3, (1, 3, 5)),
    "timm ViT, mean": Case(
        _timm("vit", global_pool="avg", class_token=False), (48, 80), 3, (0, 3, 5), "mean"
    ),
    "timm ViT, registers and mean": Case(
        _timm("vit", global_pool="avg", class_token=False, reg_tokens=4), (48, 80), 3, (4, 3, 5), "mean"
    ),
    "timm ViT, class token and mean": Case(_timm("vit", global_pool="avg"), (48, 80), 3, (1, 3, 5), "mean"),
    "timm ViT, pooling": Case(_timm("vit", global_pool="map", class_token=False), (48, 80), 4, (0, 3, 5)),
    "timm DeiT": Case(_timm("deit"), (48, 80), 3, (2, 3, 5)),
    "timm DINOv2": Case(_timm("vit", reg_tokens=4, init_values=1.0), (48, 80), 3, (5, 3, 5)),
    "timm EVA": Case(_timm("eva"), (48, 80), 3, (1, 3, 5), "mean"),
    "timm EVA, rotary": Case(_timm("eva", use_rot_pos_emb=True), (48, 80), 3, (1, 3, 5), "mean"),
    "timm BEiT": Case(_timm("beit", use_rel_pos_bias=True), (48, 80), 3, (1, 3, 5), "mean"),
    "timm BEiT, class token": Case(_timm("beit", global_pool="token"), (48, 80), 3, (1, 3, 5)),
    "timm Swin": Case(
        _made("swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=8, depths=(2, 2), num_heads=(2, 2)),
        (64, 64), 4, None,
    ),
    "timm MaxViT": Case(_made("maxvit_rmlp_pico_rw_256", img_size=64), (64, 64), 22, None),
    "timm CaiT": Case(_made("cait_xxs24_224", img_size=64, depth=2), (64, 64), 2, None),
    "Hugging Face ViT": Case(_huggingface("ViT"), (64, 64), 3, (1, 4, 4), output=LOGITS),
    "Hugging Face ViT, eager": Case(_huggingface("ViT", "eager"), (64, 64), 3, (1, 4, 4), output=LOGITS),
    "Hugging Face DeiT": Case(_huggingface("DeiT"), (64, 64), 3, (2, 4, 4), output=LOGITS),
    "Hugging Face DINOv2": Case(_huggingface("Dinov2"), (64, 64), 3, (1, 4, 4), output=LOGITS),
    "Hugging Face DINOv2, registers": Case(
        _huggingface("Dinov2WithRegisters"), (64, 64), 3, (5, 4, 4), output=LOGITS
    ),
    "Hugging Face Swin": Case(_huggingface("Swin", **SWIN), (64, 64), 4, None, output=LOGITS),
    "Hugging Face Swin, eager": Case(_huggingface("Swin", "eager", **SWIN), (64, 64), 4, None, output=LOGITS),
    "Hugging Face CLIP": Case(_huggingface("CLIPVision", head="Model"), (64, 64), 3, (1, 4, 4), output=POOLED),
    "Hugging Face SigLIP": Case(_huggingface("SiglipVision", head="Model"), (64, 64), 4, (0, 4, 4), output=POOLED),
    "Hugging Face SigLIP, eager": Case(
        _huggingface("SiglipVision", "eager", "Model"), (64, 64), 4, (0, 4, 4), output=POOLED
    ),
}  # fmt: skip
OTHERS: dict[str, Case] = {
    "torchvision SwinV2": Case(_torchvision("swin v2"), (64, 64), 4, None),
    "torchvision MaxViT": Case(_torchvision("maxvit"), (64, 64), 4, None),
    "timm PVT": Case(_made("pvt_v2_b0"), (64, 96), 8, None),
    "timm CoAtNet": Case(_made("coatnet_pico_rw_224", img_size=64), (64, 64), 7, None),
    "timm ConvNeXt": Case(_made("convnext_atto"), (64, 96), 0, None),
    "Hugging Face BEiT": Case(_huggingface("Beit"), (64, 64), 3, (1, 4, 4), "mean", output=LOGITS),
}  # fmt: skip
"""Of which the default layer of CAMs is asked."""
WHOLE = {name: case for name, case in CASES.items() if case.tokens is not None}
"""Those whose attention is over the whole image."""


def net(name: str, dtype: torch.dtype = torch.float64, *, drawn: bool = True) -> nn.Module:
    """A case's model in eval mode; weights, which libraries start near zero, are drawn anew: attention matters then."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's constructors
        torch.manual_seed(7)
        model = (CASES | OTHERS)[name].build()
        for key, parameter in model.named_parameters() if drawn else ():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=(0.7 if "qkv" in key or "quer" in key or "q_proj" in key else 1.4)
                                / parameter[0].numel() ** 0.5)  # fmt: skip
            elif key.endswith("bias"):
                nn.init.normal_(parameter, std=0.3)
    return model.to(dtype).eval()


def images(name: str, count: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, *(CASES | OTHERS)[name].size, generator=generator, dtype=torch.float64).to(dtype)


def logits(name: str, output: Any) -> Tensor:
    key = (CASES | OTHERS)[name].output
    found: Tensor = output if key is None else output[key]
    return found
