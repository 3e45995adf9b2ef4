"""Filter visualisation by gradient ascent: which pattern excites this filter most?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from attribution.agreement import Agreement, agree, relative_tolerance
from attribution.errors import InputError, LayerError, ModelError
from attribution.technique import Comparable, Kind, Maps, Technique, paired_maps
from attribution.techniques.fields import integer, layer_names, pair

FIRST_STEP = "first_step"
"""Key of the raw maps that holds the images after one step, which is where two backends are compared."""

OK, DEAD, DIVERGED = 0, 1, 2

Gradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images (B, C, H, W), channels (B,)) → objective (B,) and its gradient (B, C, H, W), image by image."""


@dataclass(frozen=True, kw_only=True)
class FilterVisualization(Technique):
    r"""The image that gradient ascent finds for a channel's mean activation.

    objective = mean over i, j of A[channel, i, j];  x ← x + step_size · g / (std(g) + 1e-8), g = ∂objective / ∂x,
    std unbiased over each image; x₀ = noise · standard normal, one generator per (seed, channel).

    Sign and unit: **ascent**, so the objective rises; images are in model-input units (after normalisation), neither
    clipped nor scaled. Maps are (K, C, H, W), one image per channel asked for; ``extras["objective"]`` is
    (steps + 1, K), ``extras["status"]`` (K,) is 0 ok, 1 dead (the gradient is zero at the start), 2 diverged (the
    image is the last finite one).

    Args:
        layer: One layer, named as in `Activations`.
        channels: Which of its channels, each once, ≥ 0.
        steps: ≥ 1.
        step_size: > 0, in model-input units.
        size: Height and width of the images in pixels.
        noise: Standard deviation of the start, ≥ 0, in model-input units.
        seed: ≥ 0.
        in_channels: C; ``None``: that of the first convolution.

    Raises:
        InputError: A field is out of range, or inputs were given: the technique makes its own.
        LayerError: When run: the layer does not exist, or has no such channel.

    Source: D. Erhan et al., *Visualizing Higher-Layer Features of a Deep Network*, 2009; normalised steps as in
    A. Mordvintsev et al., *DeepDream*, 2015. Departs from the papers: no regulariser, a fixed number of steps.
    """

    name: ClassVar[str] = "filter_visualization"
    kind: ClassVar[Kind] = "image"
    needs_target: ClassVar[bool] = False
    needs_inputs: ClassVar[bool] = False
    batch_of: ClassVar[Literal["images", "windows", "filters"]] = "filters"

    layer: str
    channels: tuple[int, ...]
    steps: int = 60
    step_size: float = 0.05
    size: int | tuple[int, int] = 128
    noise: float = 0.1
    seed: int = 0
    in_channels: int | None = None

    def __post_init__(self) -> None:
        owner = "FilterVisualization"
        layer_names(owner, (self.layer,))
        if isinstance(self.channels, str) or not isinstance(self.channels, Sequence) or not self.channels:
            raise InputError(f"{owner}.channels is {self.channels!r}; give at least one channel: channels=(0, 4)")
        channels = tuple(integer(owner, "channels", channel, least=0) for channel in self.channels)
        if len(set(channels)) < len(channels):
            raise InputError(f"{owner}.channels names a channel twice: {channels}")
        object.__setattr__(self, "channels", channels)
        integer(owner, "steps", self.steps, least=1)
        integer(owner, "seed", self.seed, least=0)
        size = pair(owner, "size", self.size)
        object.__setattr__(self, "size", size[0] if size[0] == size[1] else size)
        if self.in_channels is not None:
            integer(owner, "in_channels", self.in_channels, least=1)
        for name, least in (("step_size", "above 0"), ("noise", "of at least 0")):
            value = getattr(self, name)
            fits = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0
            if not fits or (name == "step_size" and value == 0):
                raise InputError(f"{owner}.{name} is {value!r}; give a finite number {least}")
            object.__setattr__(self, name, float(value))

    def start(self, model: nn.Module) -> Tensor:
        """The start images (K, C, H, W), in the dtype and on the device of the model's parameters."""
        parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        shape = (self.in_channels or _first_channels(model), *pair("FilterVisualization", "size", self.size))
        images = []
        for channel in self.channels:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + channel) % 2**63)
            images.append(self.noise * torch.randn(shape, generator=generator, dtype=torch.float32))
        return torch.stack(images).to(parameter.device, parameter.dtype)

    def objective(self, activation: Tensor, channels: Tensor) -> Tensor:
        """Each image's own channel, averaged over space: (B, D, …) and (B,) → (B,).

        Raises:
            LayerError: The layer has no such channel.
        """
        if activation.ndim < 2 or max(self.channels) >= activation.shape[1]:
            raise LayerError(
                f"layer {self.layer!r} gives {tuple(activation.shape)}: it has no channel {max(self.channels)}; "
                f"channels are counted from 0 to {activation.shape[1] - 1 if activation.ndim > 1 else 0}"
            )
        own = activation[torch.arange(len(channels), device=activation.device), channels]
        return own.reshape(len(channels), -1).mean(dim=1)

    def ascend(
        self, start: Tensor, gradient: Gradient, *, batch_size: int, advance: Callable[[], None]
    ) -> tuple[Maps, dict[str, Tensor]]:
        """The step rule, for any source of gradients: raw maps and extras from start images.

        Args:
            start: (K, C, H, W).
            gradient: What a backend computes.
            batch_size: Filters per forward.
            advance: Called after each step of each batch.
        """
        channels = torch.tensor(self.channels, device=start.device)
        parts = list(zip(start.split(batch_size), channels.split(batch_size), strict=True))
        done = [self._ascend(images, channels, gradient, advance) for images, channels in parts]
        finals, firsts, histories, statuses = zip(*done, strict=True)
        extras = {"objective": torch.cat(histories, dim=1), "status": torch.cat(statuses)}
        return {self.layer: torch.cat(finals), FIRST_STEP: torch.cat(firsts)}, extras

    def _ascend(
        self, images: Tensor, channels: Tensor, gradient: Gradient, advance: Callable[[], None]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images, first, history = images.clone(), images, []
        status = torch.full((len(images),), OK, dtype=torch.int8, device=images.device)
        for step in range(self.steps):
            objective, g = gradient(images, channels)
            history.append(objective.detach())
            if step == 0:
                status = status.masked_fill((g == 0).flatten(1).all(dim=1), DEAD)
            spread = g.flatten(1).std(dim=1).reshape(-1, 1, 1, 1)
            moved = images + self.step_size * g / (spread + 1e-8)
            finite = moved.flatten(1).isfinite().all(dim=1) & objective.isfinite()
            status = status.masked_fill(~finite & (status != DEAD), DIVERGED)
            images = torch.where((status == OK).reshape(-1, 1, 1, 1), moved, images)
            if step == 0:
                first = images
            advance()
        history.append(gradient(images, channels)[0].detach())
        status = status.masked_fill(~history[-1].isfinite(), DIVERGED)
        return images, first, torch.stack(history), status

    def finish(self, raw: Maps, inputs: Tensor) -> Maps:
        """The final images."""
        return {self.layer: raw[self.layer]}

    def agreement(self, a: Comparable, b: Comparable) -> list[Agreement]:
        """The images after one step (1e-6 in float32, 1e-10 in float64), and the final objectives within 1 %.

        Later images are not compared: 60 float32 steps spread rounding to tens of percent. A channel that is dead on
        both sides proves nothing: its image is the start that both share.
        """
        pieces = paired_maps(a, b, by_target=False, only=FIRST_STEP)
        pairs = [
            agree(name, x, y, relative=relative_tolerance(dtype) / (10 if dtype == torch.float32 else 1))
            for name, x, y, dtype in pieces
        ]
        finals = [side.extras.get("objective", torch.empty(1, 0))[-1] for side in (a, b)]
        if len(pairs) != len(self.channels) or finals[0].shape != finals[1].shape:
            return [*pairs, agree("final objective", *finals, relative=0.0)]
        dead = (_dead(a, len(pairs)) & _dead(b, len(pairs))).tolist()
        names = [f"{self.layer} · channel {channel}" for channel in self.channels]
        steps = [replace(pair, name=f"{name} · first step") for name, pair in zip(names, pairs, strict=True)]
        ends = [
            agree(f"{name} · final objective", x, y, relative=1e-2) for name, x, y in zip(names, *finals, strict=True)
        ]
        return [replace(p, degenerate=p.degenerate or d) for p, d in zip([*steps, *ends], [*dead, *dead], strict=True)]

    @classmethod
    def example(cls) -> Self:
        """Two filters of the small models, three steps."""
        return cls(layer="body", channels=(0, 2), steps=3, size=(17, 23))


def _dead(result: Comparable, channels: int) -> Tensor:
    status = result.extras.get("status", torch.zeros(channels, dtype=torch.int8))
    return status.cpu() == DEAD


def _first_channels(model: nn.Module) -> int:
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return module.in_channels
    raise ModelError("the model has no convolution to tell how many input channels it takes; give in_channels=…")
