"""torch-lucent's ``render_vis``."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from attribution import Attribution, Attributor, FilterVisualization, registry
from attribution.agreement import Agreement, agree
from attribution.techniques.filter_visualization import FIRST_STEP
from attribution.techniques.parameters import pair
from benchmarks.cases import Case
from benchmarks.peers.peer import Check, Contestant, Peer, largest, no_numpy, own, tolerance
from benchmarks.peers.tap import tapped
from benchmarks.rows import subject_of

_ALONE = "ours one filter at a time, as kernels for larger batches round otherwise, and a ReLU near 0 then flips"

TIMED = 4
"""Filters that are rendered one after the other; the time is scaled to those asked for."""

Parameters = Callable[[], tuple[list[Tensor], Callable[[], Tensor]]]


class Normalised(torch.optim.Optimizer):
    """The step rule of `FilterVisualization` for one image: x ← x − step_size · g / (std(g) + 1e-8), g of a loss."""

    def __init__(self, parameters: list[Tensor], step_size: float) -> None:
        super().__init__(parameters, {"step_size": step_size})

    def step(self, closure: Any = None) -> Any:  # the base class is overloaded on the closure
        loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for image in group["params"]:
                    image.sub_(group["step_size"] * image.grad / (image.grad.std() + 1e-8))
        return loss


@dataclass(frozen=True, kw_only=True)
class Lucent(Peer):
    """One filter at a time, no random transforms, as many steps as ours.

    default: pixels behind its sigmoid and its normalisation, its Adam. tuned: parameters frozen, so that no weight
    gradient is formed, and with our start image and step rule, so that the pictures can be compared.

    It leaves a hook on every module at each call and never removes one: each call gets a structural copy of the
    peer's own model, with the same weights. Making that copy is within the time.
    """

    name: str = "torch-lucent"
    package: str = "torch-lucent"

    def missing(self) -> str | None:
        """It is an old library: its import may fail."""
        reason = super().missing()
        if reason:
            return reason
        try:
            _library()
        except (ImportError, AttributeError, RuntimeError) as error:
            return f"lucent cannot be imported: {type(error).__name__}: {error}"
        return None

    def refuses(self, case: Case, device: str) -> str | None:
        """It returns numpy arrays, and puts what it makes on CUDA wherever there is one."""
        if device == "cpu" and torch.cuda.is_available():
            return "lucent always takes CUDA where there is one"
        if torch.device(device).type not in ("cpu", "cuda"):
            return "lucent knows CUDA and the CPU only"
        return no_numpy(case)

    def enter(self, case: Case, device: str, *, sweep: bool) -> Contestant:
        """Images (K, 3, H, W), K at most `TIMED`."""
        technique = _technique(case)
        model = own(subject_of(case, device)[0]).requires_grad_(self.tier == "default")
        channels = technique.channels[:TIMED]

        def call() -> Tensor:
            rendered = [self._render(model, technique, channel, (technique.steps,)) for channel in channels]
            return torch.cat([images[0] for images in rendered])

        return Contestant(call, model, scale=len(technique.channels) / len(channels))

    def check(self, case: Case, device: str, answer: Tensor, ours: Attribution) -> Check:
        """default: the objective rises. tuned: the image after one step, and the final objective."""
        technique, model = _technique(case), subject_of(case, device)[0]
        return (
            self._risen(technique, model, answer)
            if self.tier == "default"
            else self._same(technique, model, answer, ours, case)
        )

    def _risen(self, technique: FilterVisualization, model: nn.Module, answer: Tensor) -> Check:
        agreements, words = [], []
        for channel, image in zip(technique.channels, answer, strict=False):
            start = _valid(self._parameters(technique, model, channel)[1]())
            first, gradient = objective(model, technique.layer, channel, start, behind=True)
            last, _ = objective(model, technique.layer, channel, _valid(image[None]), behind=True)
            dead = not gradient.any() and first == last
            words.append(f"{channel}: {'dead' if dead else f'{first:.2g} → {last:.2g}'}")
            name = f"channel {channel} · objective from {first:.3g} to {last:.3g}"
            scale = 0.0 if dead else max(abs(first), abs(last))
            agreements.append(Agreement(name, max(0.0, first - last), scale, 0.0, dead, dead or last > first))
        return Check(
            agreements,
            "the mean activation of the channel rises, unless its gradient is zero",
            "torch-lucent climbs with Adam on pixels behind a sigmoid: its images are not ours and are not compared. "
            f"Mean activation by channel of {technique.layer}, behind the next module where that works in place: "
            + ", ".join(words),
        )

    def _same(
        self, technique: FilterVisualization, model: nn.Module, answer: Tensor, ours: Attribution, case: Case
    ) -> Check:
        starts, copies, allowed = technique.start(model), own(model).requires_grad_(False), tolerance(ours)
        direct, explained, overwritten = [], [], False
        for index, channel in enumerate(technique.channels[: len(answer)]):
            theirs = self._render(copies, technique, channel, (1,))[0][0]
            alone = ours if len(technique.channels) == 1 else _alone(model, technique, channel)
            first, name = alone.raw[FIRST_STEP][0], f"channel {channel} · first step"
            before, after = (
                climbed(model, technique, channel, starts[index : index + 1], behind=behind)[0]
                for behind in (False, True)
            )
            overwritten |= not torch.equal(before, after)
            last = torch.tensor(objective(model, technique.layer, channel, answer[index : index + 1])[0])
            direct += [
                agree(name, first, theirs, relative=allowed),
                agree(f"channel {channel} · final objective", alone.extras["objective"][-1, 0], last, relative=1e-2),
            ]
            explained += [agree(name, after, theirs, relative=allowed), agree(name, before, first, relative=allowed)]
        if not overwritten:
            return Check(
                direct, "images after one step within the dtype's tolerance, final objectives within 1 %; " + _ALONE
            )
        return Check(
            explained,
            "images after one step, within the dtype's tolerance; " + _ALONE,
            f"{case.model}: the module after {technique.layer} works in place: torch-lucent climbs the mean behind it; "
            f"its first step is off by {largest(direct[::2]):.0%} of the maximum, and agrees once ours climbs that too",
        )

    def _parameters(
        self, technique: FilterVisualization, model: nn.Module, channel: int
    ) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """What is optimised, and the image made of it."""
        if self.tier == "default":
            height, width = pair("FilterVisualization", "size", technique.size)
            device = next(model.parameters()).device
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(channel)
                made: tuple[list[Tensor], Callable[[], Tensor]] = _library().param.image(width, h=height, fft=False)
            return made
        index = technique.channels.index(channel)
        image = technique.start(model)[index : index + 1].clone().requires_grad_()
        return [image], lambda: image

    def _render(
        self, model: nn.Module, technique: FilterVisualization, channel: int, thresholds: tuple[int, ...]
    ) -> list[Tensor]:
        """The images (1, 3, H, W) at the thresholds."""
        library = _library()
        device = next(model.parameters()).device
        model.zero_grad()
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        optimizer = None if self.tier == "default" else lambda images: Normalised(images, technique.step_size)
        images = library.render.render_vis(
            copy.deepcopy(model, shared),
            library.objectives.channel(technique.layer.replace(".", "_"), channel),
            param_f=lambda: self._parameters(technique, model, channel),
            optimizer=optimizer,
            transforms=[],
            thresholds=thresholds,
            preprocess=self.tier == "default",
            progress=False,
            show_image=False,
            fixed_image_size=pair("FilterVisualization", "size", technique.size),
        )
        return [torch.from_numpy(image).permute(0, 3, 1, 2).to(device) for image in images]


def objective(
    model: nn.Module, layer: str, channel: int, image: Tensor, *, behind: bool = False
) -> tuple[float, Tensor]:
    """A channel's mean activation for (1, C, H, W), and its gradient.

    Args:
        model: Runs whole.
        layer: Whose output.
        channel: Of that output.
        image: In model-input units.
        behind: Of what the next module makes of the output in place.
    """
    image = image.detach().clone().requires_grad_()
    with torch.enable_grad(), tapped(model.get_submodule(layer)) as caught:
        model(image)
        value = caught[behind][:, channel].mean()
        (gradient,) = torch.autograd.grad(value, image)
    return float(value.detach()), gradient


def climbed(model: nn.Module, technique: FilterVisualization, channel: int, start: Tensor, *, behind: bool) -> Tensor:
    """The image (1, C, H, W) after one step."""
    _, gradient = objective(model, technique.layer, channel, start, behind=behind)
    return start + technique.step_size * gradient / (gradient.std() + 1e-8)


def _valid(image: Tensor) -> Tensor:
    """From 0…1 to model-input units, as lucent normalises."""
    mean, std = (image.new_tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return ((image - mean) / std).detach()


def _alone(model: nn.Module, technique: FilterVisualization, channel: int) -> Attribution:
    """Our answer for one filter in a batch of its own."""
    one = replace(technique, channels=(channel,))
    attributor: Attributor[FilterVisualization] = registry.get(one, "hooks")(model, one)
    return attributor.attribute()


def _technique(case: Case) -> FilterVisualization:
    technique = case.technique
    assert isinstance(technique, FilterVisualization)
    return technique


def _library() -> Any:
    with warnings.catch_warnings():
        # kornia 0.4.1, which lucent pins, scripts functions while it is imported
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
        import_module("lucent.optvis.render")
        return import_module("lucent.optvis")
