"""Techniques by forwards alone, beside other libraries: ``uv run --group peers python -m benchmarks.forwards``.

Prints a table of ratios of interleaved runs in one process. ``--pixels 224 --pairs 5`` on an idle machine.
"""

import argparse
from collections.abc import Callable
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from attribution import RISE, AblationCAM, ClassScore, FeatureAblation, ScoreCAM, explain, zoo
from benchmarks.clock import timed
from benchmarks.peers.peer import own

CLASS = 7


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--pixels", type=int, default=224)
    asked.add_argument("--pairs", type=int, default=3)
    given = asked.parse_args()
    torch.set_num_threads(1)
    x = torch.randn(1, 3, given.pixels, given.pixels, generator=torch.Generator().manual_seed(0))
    print(f"{given.pixels} px, random weights, one thread, torch {torch.__version__}, medians of {given.pairs} pairs\n")
    print("| question | beside | times as fast |\n|---|---|---|", flush=True)
    for name in ("resnet18", "resnet50"):
        model, question = net(name), AblationCAM(layers=("layer4",))
        for peer, call in (("pytorch-grad-cam", cam(model, x, "AblationCAM")), ("Captum", ablated(model, x))):
            row(
                f"Ablation-CAM, {name}",
                peer,
                partial(explain, model, x, question, target=CLASS),
                call,
                given.pairs,
            )
    model = net("resnet18")
    ten = [[CLASS + 131 * t % 1000 for t in range(10)]]
    call, ours = cam(model, x, "ScoreCAM"), partial(explain, model, x, ScoreCAM(layers=("layer4",)), target=ten)
    row("Score-CAM, resnet18, 10 targets", "pytorch-grad-cam, 1 target × 10", ours, call, given.pairs, times=10)
    masked = RISE(masks=320)
    for count in (5, 1000):
        many = [[*range(count)]]
        one, more = (partial(explain, model, x, masked, target=target) for target in (CLASS, many))
        row("RISE, resnet18, 1 target", f"{count} targets", one, more, given.pairs)
    segments(given.pairs)


def net(name: str) -> nn.Module:
    """With random weights, the same in every run."""
    torch.manual_seed(0)
    return models.get_model(name).eval()  # type: ignore[no-any-return]


def cam(model: nn.Module, x: Tensor, name: str) -> Callable[[], object]:
    """pytorch-grad-cam's, of one target, on a model of its own: its hooks would rule our fast ways out."""
    model = own(model)
    library, targets = import_module("pytorch_grad_cam"), import_module("pytorch_grad_cam.utils.model_targets")
    method = getattr(library, name)(model=model, target_layers=[model.get_submodule("layer4")])
    return lambda: method(input_tensor=x, targets=[targets.ClassifierOutputTarget(CLASS)])


def ablated(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """Captum's ``LayerFeatureAblation``, a feature for each channel, 16 at once."""
    method = import_module("captum.attr").LayerFeatureAblation(model, model.get_submodule("layer4"))
    seen: list[Tensor] = []
    handle = model.get_submodule("layer4").register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        model(x)
    handle.remove()
    mask = torch.arange(seen[0].shape[1]).view(1, -1, 1, 1).expand_as(seen[0])
    return lambda: method.attribute(x, layer_mask=mask, target=CLASS, perturbations_per_eval=16)


def segments(pairs: int) -> None:
    """VGG16 on superpixels of a photo, beside Captum at its best batch."""
    attr: Any = import_module("captum.attr")
    loaded, model = zoo.load("bundled:squeezenet1_1"), net("vgg16")
    x = loaded.inputs(zoo.sample_photo("coffee"))
    labels = FeatureAblation(segments="slic").labels(x)
    question, mask = FeatureAblation(segments=labels), labels[:, None].expand(-1, 3, -1, -1)
    best = []
    for size in (1, 8, 16):

        def call(size: int = size) -> None:
            with torch.inference_mode():
                attr.FeatureAblation(model).attribute(x, feature_mask=mask, target=CLASS, perturbations_per_eval=size)

        best.append((timed(call, "cpu"), call))
    theirs = min(best, key=lambda each: each[0])[1]
    target = ClassScore(CLASS, of="logit")
    row(f"FeatureAblation, vgg16, {int(labels.max()) + 1} segments, 224 px", "Captum at its best batch",
        partial(explain, model, x, question, target=target), theirs, pairs)  # fmt: skip


def row(
    what: str, beside: str, ours: Callable[[], object], theirs: Callable[[], object], pairs: int, *, times: int = 1
) -> None:
    """Print how many times as long theirs takes."""
    ours()
    ratios = [times * timed(theirs, "cpu") / timed(ours, "cpu") for _ in range(pairs)]
    print(f"| {what} | {beside} | {median(ratios):.3g} |", flush=True)


if __name__ == "__main__":
    main()
