"""Techniques by forwards alone, beside other libraries: ``uv run --group peers python -m benchmarks.forwards``.

Prints a table of ratios of interleaved runs in one process, on an idle machine. A part at a time, of one net, takes
less than five minutes: ``python -m benchmarks.forwards rise-5 --nets resnet50``. Ablation-CAM and Score-CAM take that
at ``--pixels 64`` only, since the others make hundreds of forwards in each call. ``--device cuda`` measures on a GPU,
without TF32.
"""

import argparse
from collections.abc import Callable
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models

from attribution import RISE, AblationCAM, ClassScore, FeatureAblation, Occlusion, ScoreCAM, explain, zoo
from benchmarks.clock import interval, timed
from benchmarks.counters import peak_bytes
from benchmarks.devices import on_host
from benchmarks.families import family
from benchmarks.models import healthy
from benchmarks.peers.peer import own

CLASS = 7


PARTS = ("ablation", "score", "rise-5", "rise-1000", "rise-loop", "segments", "memory", "occlusion")


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser()
    asked.add_argument("parts", nargs="*", choices=PARTS, default=[*PARTS])
    asked.add_argument("--pixels", type=int, default=224)
    asked.add_argument("--pairs", type=int, default=3)
    asked.add_argument("--masks", type=int, default=128)
    asked.add_argument("--nets", nargs="*", default=["resnet50"])
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--device", default="cpu")
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    x = torch.randn(1, 3, given.pixels, given.pixels, generator=torch.Generator().manual_seed(0)).to(given.device)
    where = f"{given.threads} threads" if on_host(given.device) else given.device
    setting = f"{given.pixels} px, random weights, {where}, torch {torch.__version__}"
    print(f"{setting}, medians of {given.pairs} pairs\n")
    print("| question | beside | times as fast | 95 % |\n|---|---|---|---|", flush=True)
    for part in given.parts:
        if part in ("segments", "memory"):
            segments(given) if part == "segments" else memory()
            continue
        for name in given.nets:
            named = {"ablation": ablation, "score": score, "occlusion": occlusion}
            named.get(part, partial(rise, part))(name, x, given)


def ablation(name: str, x: Tensor, given: argparse.Namespace) -> None:
    """The closed form beside forwards for each channel."""
    model, question = net(name).to(x.device), AblationCAM(layers=("layer4",))
    for peer, call in (("pytorch-grad-cam", cam(model, x, "AblationCAM")), ("Captum", ablated(model, x))):
        ours = partial(explain, model, x, question, target=CLASS)
        row(f"Ablation-CAM, {name}", peer, ours, call, given)


def score(name: str, x: Tensor, given: argparse.Namespace) -> None:
    """Ten targets from the same forwards."""
    model, ten = net(name).to(x.device), [[CLASS + 131 * t % 1000 for t in range(10)]]
    call, ours = cam(model, x, "ScoreCAM"), partial(explain, model, x, ScoreCAM(layers=("layer4",)), target=ten)
    row(f"Score-CAM, {name}, 10 targets", "pytorch-grad-cam, 1 target × 10", ours, call, given, times=10)


def rise(part: str, name: str, x: Tensor, given: argparse.Namespace) -> None:
    """One target beside many, and beside a plain loop over batches of masked images."""
    model, masked = net(name).to(x.device), RISE(masks=given.masks)
    one = partial(explain, model, x, masked, target=CLASS)
    if part == "rise-loop":
        row(f"RISE, {name}, {given.masks} masks, 1 target", "a plain batched loop", one,
            partial(loop, model, x, given.masks, batch=16 if on_host(given.device) else 64), given)  # fmt: skip
        return
    count = int(part.removeprefix("rise-"))
    more = partial(explain, model, x, masked, target=[[*range(count)]])
    row(f"RISE, {name}, {given.masks} masks, 1 target", f"{count} targets", one, more, given)


@torch.inference_mode()
def loop(model: nn.Module, x: Tensor, masks: int, cells: int = 7, batch: int = 16) -> Tensor:
    """RISE as its authors' code has it: all masks are made, then batches of masked images, then one product."""
    source, side = torch.Generator().manual_seed(0), x.shape[-1]
    size = -(-side // cells)
    bits = (torch.rand(masks, 1, cells, cells, generator=source) < 0.5).float()
    large = nn.functional.interpolate(bits, size=(cells + 1) * size, mode="bilinear", align_corners=False)
    at = torch.randint(size, (masks, 2), generator=source).tolist()
    made = torch.stack([m[:, i : i + side, j : j + side] for m, (i, j) in zip(large, at, strict=True)]).to(x.device)
    scores = torch.cat([model(x * part).softmax(1)[:, CLASS] for part in made.split(batch)])
    return (scores @ made.flatten(1)).view(side, side) / masks / 0.5


def memory() -> None:
    """Bytes at most for RISE with few and with many masks, on a small net."""
    model, x = family("squeezenet1_1"), torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for masks in (500, 8000):
        call = partial(explain, model, x, RISE(masks=masks), target=CLASS)
        call()
        peak = (peak_bytes(call, "cpu") or 0) / 2**20
        print(f"| RISE, squeezenet1_1, 64 px, {masks} masks | {peak:.1f} MiB at most | | |", flush=True)


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
    mask = torch.arange(seen[0].shape[1], device=x.device).view(1, -1, 1, 1).expand_as(seen[0])
    return lambda: method.attribute(x, layer_mask=mask, target=CLASS, perturbations_per_eval=16)


def segments(given: argparse.Namespace) -> None:
    """VGG16 on superpixels of a photo, beside Captum at its best batch."""
    attr: Any = import_module("captum.attr")
    loaded, model = zoo.load("bundled:squeezenet1_1"), net("vgg16").to(given.device)
    x = loaded.inputs(zoo.sample_photo("coffee")).to(given.device)
    labels = FeatureAblation(segments="slic").labels(x)
    question, mask = FeatureAblation(segments=labels), labels[:, None].expand(-1, 3, -1, -1)
    method = attr.FeatureAblation(model)

    def theirs(size: int) -> None:
        with torch.inference_mode():
            method.attribute(x, feature_mask=mask, target=CLASS, perturbations_per_eval=size)

    best = best_of(theirs, given.device)
    target = ClassScore(CLASS, of="logit")
    row(f"FeatureAblation, vgg16, {int(labels.max()) + 1} segments, 224 px", f"Captum, {best} per forward",
        partial(explain, model, x, question, target=target), partial(theirs, best), given)  # fmt: skip


def occlusion(name: str, x: Tensor, given: argparse.Namespace) -> None:
    """Windows of 40 pixels by 20, beside Captum at the batch that is best for windows of 56."""
    model = healthy(name).to(x.device)
    method = import_module("captum.attr").Occlusion(model)

    def theirs(size: int, window: int = 40, stride: int = 20) -> None:
        shape, step = (3, window, window), (3, stride, stride)
        with torch.inference_mode():
            method.attribute(x, shape, strides=step, target=CLASS, perturbations_per_eval=size)

    best = best_of(partial(theirs, window=56, stride=56), given.device)
    ours = partial(explain, model, x, Occlusion(window=40, stride=20), target=ClassScore(CLASS, of="logit"))
    row(f"Occlusion 40/20, {name}", f"Captum, {best} windows per forward", ours, partial(theirs, best), given)


def best_of(call: Callable[[int], object], device: str) -> int:
    """The rows per forward that take the least."""
    sizes = (1, 8, 16) if on_host(device) else (16, 64, 128)
    return min(sizes, key=lambda size: timed(partial(call, size), device))


def row(
    what: str,
    beside: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    given: argparse.Namespace,
    *,
    times: int = 1,
) -> None:
    """Print how many times as long theirs takes; each pair in the other order."""
    ours()
    ratios = []
    for pair in range(given.pairs):
        first, second = (timed(call, given.device) for call in ((theirs, ours) if pair % 2 else (ours, theirs)))
        ratios.append(times * (first / second if pair % 2 else second / first))
    low, high = interval(np.array(ratios))
    print(f"| {what} | {beside} | {median(ratios):.3g} | {low:.3g} to {high:.3g} |", flush=True)


if __name__ == "__main__":
    main()
