"""Attributors that are wrong on purpose must be caught by the comparison that the good ones pass."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import (
    Activations,
    Attributor,
    FilterVisualization,
    GradCAM,
    NonFiniteError,
    Occlusion,
    Run,
    Technique,
    compare,
    registry,
)
from attribution.agreement import all_hold
from attribution.technique import Maps
from attribution.techniques.filter_visualization import FIRST_STEP
from tests.conftest import build, noise

Compute = Callable[[Any, Run[Any]], Maps]

TECHNIQUES: dict[str, Technique] = {
    "activations": Activations(layers=("stem", "body")),
    "grad_cam": GradCAM(layers=("stem", "body")),
    "occlusion": Occlusion(window=7, stride=5),
    "filter_visualization": FilterVisualization.notebook(layer="body", channels=(0, 3), steps=12, size=(17, 23)),
}


def altered(technique: str, change: Callable[[Tensor], Tensor]) -> Compute:
    """The hooks backend, its maps changed at the end."""

    def compute(self: Attributor[Any], run: Run[Any]) -> Maps:
        good = registry.get(technique, "hooks")(self.model, self.technique, self.execution)
        maps = good.compute(run)
        return {name: change(map_) for name, map_ in maps.items()}

    return compute


def one_value(map_: Tensor) -> Tensor:
    map_ = map_.clone()
    largest = map_[0].abs().argmax()
    map_[0].view(-1)[largest] *= 1.01
    return map_


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "a tenth of a percent too large": lambda map_: map_ * 1.001,
    "shifted by a pixel": lambda map_: map_.roll(1, dims=-1),
    "upside down": lambda map_: map_.flip(-2),
    "sign flipped": lambda map_: -map_,
    "images mixed up": lambda map_: map_.roll(1, dims=0),
    "normalised": lambda map_: map_ / map_.abs().max(),
    "one value a percent off": one_value,
    "rounded to bfloat16": lambda map_: map_.bfloat16().to(map_.dtype),
    "zero": torch.zeros_like,
    "one row short": lambda map_: map_[..., :-1, :],
}


def hooked(self: Attributor[Any], run: Run[Any], names: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and layer outputs with graph, by bare hooks that store what the network goes on with a copy of."""
    caught: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: object, args: object, output: Tensor) -> Tensor:
            caught[name] = output if output.requires_grad else output.detach().requires_grad_()
            return caught[name].clone()

        return hook

    modules = dict(run.model.named_modules())
    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        return run.forward(run.inputs), caught
    finally:
        for handle in handles:
            handle.remove()


def cam(combine: Callable[[Tensor, Tensor], Tensor], *, pick: Callable[[Tensor], Tensor] = lambda t: t) -> Compute:
    """Grad-CAM from scratch: ``combine`` makes a map (N, h, w) of an activation and its gradient."""

    def compute(self: Attributor[Any], run: Run[Any]) -> Maps:
        names = run.technique.layers
        logits, caught = hooked(self, run, names)
        run.scores(logits)
        scores = logits.gather(1, pick(run.settled[1]))
        parts = [
            torch.autograd.grad(scores[:, t].sum(), [caught[name] for name in names], retain_graph=True)
            for t in range(scores.shape[1])
        ]
        return {
            name: torch.stack([combine(caught[name].detach(), part[index]) for part in parts], dim=1)
            for index, name in enumerate(names)
        }

    return compute


def weights(g: Tensor) -> Tensor:
    return g.mean(dim=(2, 3), keepdim=True)


def stored_without_clone(self: Attributor[Any], run: Run[Any]) -> Maps:
    caught: dict[str, Tensor] = {}
    modules = dict(run.model.named_modules())
    handles = [
        modules[name].register_forward_hook(
            lambda module, args, output, name=name: caught.__setitem__(name, output.detach())
        )
        for name in run.technique.layers
    ]
    with torch.no_grad():
        run.model(run.inputs.tensor.clone())
    for handle in handles:
        handle.remove()
    return caught


def occlude(
    *,
    skip: int | None = None,
    mean: bool = True,
    cut: bool = True,
    baseline: float = 0.0,
    score: Callable[[Tensor], Tensor] = lambda logits: logits.softmax(dim=1),
    last_channel_too: bool = True,
) -> Compute:
    """Occlusion from scratch, with one thing to go wrong."""

    def compute(self: Attributor[Any], run: Run[Any]) -> Maps:
        x = run.inputs.tensor
        with torch.no_grad():
            logits = run.forward(x)
            run.scores(logits)
            target = run.settled[1]
            clean = score(logits).gather(1, target)
            total = torch.zeros(*target.shape, *x.shape[2:], dtype=x.dtype)
            count = torch.zeros(x.shape[2:], dtype=x.dtype)
            windows = run.technique.lattice(*x.shape[2:]).windows
            for index, ((top, bottom), (left, right)) in enumerate(windows):
                if index == skip:
                    continue
                if not cut:
                    top, left = bottom - run.technique.size[0], right - run.technique.size[1]
                covered = x.clone()
                covered[:, slice(None) if last_channel_too else slice(0, 2), top:bottom, left:right] = baseline
                delta = clean - score(run.forward(covered)).gather(1, target)
                total[..., top:bottom, left:right] += delta[..., None, None]
                count[top:bottom, left:right] += 1
        return {"input": total / count.clamp(min=1) if mean else total}

    return compute


def ascent(
    *,
    sign: float = 1.0,
    change: Callable[[Tensor], Tensor] = lambda g: g,
    neighbour: bool = False,
    start: float = 1.0,
) -> Compute:
    """Filter visualisation from scratch, with one thing to go wrong in the gradient, the channel or the start."""

    def compute(self: Attributor[Any], run: Run[Any]) -> Maps:
        def gradient(images: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
            torch.set_grad_enabled(True)
            images = images.detach().requires_grad_()
            module = dict(run.model.named_modules())[run.technique.layer]
            caught: list[Tensor] = []
            handle = module.register_forward_hook(lambda module, args, output: caught.append(output.clone()))
            run.model(images.clone())
            handle.remove()
            objective = run.technique.objective(caught[0], channels + 1 if neighbour else channels)
            (g,) = torch.autograd.grad(objective.sum(), images)
            return objective.detach(), sign * change(g)

        raw, extras = run.technique.ascend(
            run.inputs.tensor * start, gradient, batch_size=len(run.inputs), advance=lambda: None
        )
        run.extras.update(extras)
        return dict(raw)

    return compute


HAND_WRITTEN: dict[str, tuple[str, Compute]] = {
    "gradients not averaged": ("grad_cam", cam(lambda a, g: (g * a).sum(1))),
    "ReLU before the channel sum": ("grad_cam", cam(lambda a, g: (weights(g) * a).relu().sum(1))),
    "ReLU in the raw map": ("grad_cam", cam(lambda a, g: (weights(g) * a).sum(1).relu())),
    "activation after the ReLU": ("grad_cam", cam(lambda a, g: (weights(g) * a.relu()).sum(1))),
    "weights rectified": ("grad_cam", cam(lambda a, g: (weights(g).relu() * a).sum(1))),
    "gradient summed over channels": ("grad_cam", cam(lambda a, g: (weights(g).mean(1, True) * a).sum(1))),
    "batch averaged": ("grad_cam", cam(lambda a, g: (weights(g).mean(0, True) * a).sum(1))),
    "another class": ("grad_cam", cam(lambda a, g: (weights(g) * a).sum(1), pick=lambda t: (t + 1) % 5)),
    "stored without a copy": ("activations", stored_without_clone),
    "first window left out": ("occlusion", occlude(skip=0)),
    "last window left out": ("occlusion", occlude(skip=11)),
    "overlaps summed": ("occlusion", occlude(mean=False)),
    "last windows shifted back": ("occlusion", occlude(cut=False)),
    "baseline slightly off": ("occlusion", occlude(baseline=0.01)),
    "logits instead of probabilities": ("occlusion", occlude(score=lambda logits: logits)),
    "log of the probability": ("occlusion", occlude(score=lambda logits: logits.log_softmax(dim=1))),
    "one channel not covered": ("occlusion", occlude(last_channel_too=False)),
    "descent": ("filter_visualization", ascent(sign=-1.0)),
    "sign of the gradient": ("filter_visualization", ascent(change=torch.sign)),
    "a neighbour's channel": ("filter_visualization", ascent(neighbour=True)),
    "another start": ("filter_visualization", ascent(start=1.0001)),
    "std over the batch": ("filter_visualization", ascent(change=lambda g: g / g.std() * g[0].std() + g.mean())),
}

TWINS: dict[str, Compute] = {
    "grad_cam": cam(lambda a, g: (weights(g) * a).sum(1)),
    "occlusion": occlude(),
    "filter_visualization": ascent(),
    **{f"{name}, altered": altered(name, lambda map_: map_) for name in TECHNIQUES},
}


def verdict(registered: Any, technique: str, compute: Compute, dtype: torch.dtype, model: str) -> bool:
    """Whether the comparison with every good backend holds, each on its own."""
    cls = type(
        "Stranger",
        (Attributor,),
        {"technique_type": type(TECHNIQUES[technique]), "backend": "stranger", "compute": compute},
    )
    registered(cls)
    inputs = None if technique == "filter_visualization" else noise(2, 3, 17, 23, dtype=dtype)
    target = None if technique in ("activations", "filter_visualization") else [[3, 1], [0, 2]]
    found = compare(build(model, dtype), inputs, TECHNIQUES[technique], target=target).agreements
    verdicts = {pair: all_hold(pairs) for pair, pairs in found.items()}
    assert verdicts.pop(("captum", "hooks"))
    assert len(verdicts) == 2
    assert len({*verdicts.values()}) == 1, "the good backends do not agree about the stranger"
    return verdicts["hooks", "stranger"]


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@DTYPES
@pytest.mark.parametrize("name", TWINS)
def test_the_right_computation_passes(registered: Any, model_name: str, name: str, dtype: torch.dtype) -> None:
    assert verdict(registered, name.split(",")[0], TWINS[name], dtype, model_name)


@DTYPES
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_altered_maps_are_caught(registered: Any, technique: str, change: str, dtype: torch.dtype) -> None:
    assert not verdict(registered, technique, altered(technique, CHANGES[change]), dtype, "cnn")


@DTYPES
@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_wrong_computations_are_caught(registered: Any, model_name: str, name: str, dtype: torch.dtype) -> None:
    technique, compute = HAND_WRITTEN[name]
    assert not verdict(registered, technique, compute, dtype, model_name)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_nan_is_refused_before_it_can_be_compared(registered: Any, technique: str) -> None:
    with pytest.raises(NonFiniteError, match=rf"{technique}\.stranger: 100\.0% of map"):
        verdict(registered, technique, altered(technique, lambda map_: map_ * float("nan")), torch.float32, "cnn")


def test_the_last_image_is_caught_by_its_objective(registered: Any) -> None:
    """Later images are not compared; that ascent went on after the first step shows in the objective."""

    def stops_early(self: Any, run: Run[Any]) -> Maps:
        maps = TWINS["filter_visualization"](self, run)
        run.extras["objective"] = run.extras["objective"].clone()
        run.extras["objective"][-1] = run.extras["objective"][1]
        return {**maps, run.technique.layer: maps[FIRST_STEP]}

    assert not verdict(registered, "filter_visualization", stops_early, torch.float32, "cnn")
