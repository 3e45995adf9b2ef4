"""``FilterVisualization``: its parameters, its start, its rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from attribution import numbers
from attribution.agreement import Agreement, agree, relative_tolerance
from attribution.errors import InputError, ModelError
from attribution.inputs.inputs import Inputs
from attribution.isolation.torch_modes import autocast_as_now, without_autocast
from attribution.running.upload import upload
from attribution.technique import Comparable, Kind, Maps, Technique, paired_maps
from attribution.techniques.filter_visualization import objectives
from attribution.techniques.filter_visualization.objectives import LOGITS
from attribution.techniques.filter_visualization.optimisation import DEAD, Gradient, climb
from attribution.techniques.filter_visualization.parametrization import Fourier, Parametrization, Pixels
from attribution.techniques.filter_visualization.transforms import Transforms, generator
from attribution.techniques.parameters import choice, integer, layer_names, pair, real

FIRST_STEP = "first_step"
"""Key of the raw maps that holds the images after one step, which is where two backends are compared."""

_OWNER = "FilterVisualization"


@dataclass(frozen=True, kw_only=True)
class FilterVisualization(Technique):
    r"""The image that gradient ascent finds for a channel, a neuron or a class.

    objective = mean over i, j of A[channel, i, j], or A[channel, neuron]; ascended in the parameters of the image:
    its pixels or its spectrum, each image by itself.

    Sign and unit: **ascent**, so the objective rises; images are in model-input units (after normalisation). Maps are
    (K, C, H, W), one image per channel asked for. ``extras["objective"]`` is (steps + 1, K): of the moved image that
    each step saw, last of the final image as it is. ``extras["status"]`` (K,) is 0 ok, 1 dead (no gradient at the
    start, nor from three others with up to 27 times the noise; its map is zero, so that nothing passes for a
    pattern), 2 diverged (stopped; the image is the last finite one).

    Args:
        layer: One layer, named as in `Activations`; ``"logits"``: the model's output, whose channels are the classes.
        channels: Which of its channels, each once, ≥ 0.
        neuron: Excite one position of the map: (row, column), or ``"center"``; ``None``: the mean over all.
        parametrization: ``"fourier"``: amplitudes fall as 1 / frequency and colours are decorrelated, as in photos,
            and values stay within ± 2.5 spreads. ``"pixel"``: the values themselves, without limit.
        optimizer: ``"adam"`` (β 0.9, 0.999), or ``"normalized"``: x ← x + step_size · g / (std(g) + 1e-8), std
            unbiased over each image.
        steps: ≥ 1.
        step_size: > 0, in spreads for pixels, in standard deviations of a coefficient for a spectrum.
        size: Height and width of the images in pixels.
        spread: Standard deviation of photos in model-input units, > 0: the unit of ``step_size`` and ``noise``.
            ``None``: 1, which fits normalised inputs; ``inputs.std()`` of a photo where values are larger.
        noise: Standard deviation of the start, ≥ 0, in spreads. One generator per (seed, channel).
        jitter: Every step shifts each image by up to this many pixels, ≥ 0,
        scale: scales it by up to this part, in [0, 1),
        rotate: and turns it by up to this many degrees, ≥ 0; all three drawn per (seed, channel).
        tv: Weight of total variation, ≥ 0.
        l2: Weight of the squared values, ≥ 0. At weight 1 a pixel one spread off the mean is drawn back as hard as the
            objective pushes a typical pixel.
        seed: ≥ 0.
        in_channels: C; ``None``: that of the first convolution.

    Raises:
        InputError: A field is out of range, or inputs were given: the technique makes its own.
        LayerError: When run: the layer does not exist, or has no such channel or neuron.

    Source: D. Erhan et al., *Visualizing Higher-Layer Features of a Deep Network*, 2009; spectrum, colours and
    transforms as in C. Olah, A. Mordvintsev, L. Schubert, *Feature Visualization*, Distill 2017; colour axes of
    Y. Ohta et al., 1980; normalised steps as in A. Mordvintsev et al., *DeepDream*, 2015.
    """

    name: ClassVar[str] = "filter_visualization"
    kind: ClassVar[Kind] = "image"
    needs_target: ClassVar[bool] = False
    needs_inputs: ClassVar[bool] = False
    batch_of: ClassVar[Literal["images", "windows", "filters"]] = "filters"

    layer: str
    channels: tuple[int, ...]
    neuron: tuple[int, int] | Literal["center"] | None = None
    parametrization: Literal["fourier", "pixel"] = "fourier"
    optimizer: Literal["adam", "normalized"] = "adam"
    steps: int = 64
    step_size: float = 0.05
    size: int | tuple[int, int] = 128
    spread: float | None = None
    noise: float = 0.1
    jitter: int = 8
    scale: float = 0.05
    rotate: float = 5.0
    tv: float = 0.0
    l2: float = 0.0
    seed: int = 0
    in_channels: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", *layer_names(_OWNER, (self.layer,)))
        given = numbers.items(self.channels)
        if not given:
            raise InputError(f"{_OWNER}.channels is {self.channels!r}; give at least one channel: channels=(0, 4)")
        channels = tuple(integer(_OWNER, "channels", channel, least=0) for channel in given)
        if len(set(channels)) < len(channels):
            raise InputError(f"{_OWNER}.channels names a channel twice: {channels}")
        object.__setattr__(self, "channels", channels)
        if self.neuron is not None and not (isinstance(self.neuron, str) and self.neuron == "center"):
            if numbers.items(self.neuron) is None:
                raise InputError(f"{_OWNER}.neuron is {self.neuron!r}; give (row, column), 'center' or None")
            object.__setattr__(self, "neuron", pair(_OWNER, "neuron", self.neuron, least=0))
        for name, choices in (("parametrization", ("fourier", "pixel")), ("optimizer", ("adam", "normalized"))):
            object.__setattr__(self, name, choice(_OWNER, name, getattr(self, name), choices))
        for name, least in (("steps", 1), ("seed", 0), ("jitter", 0)):
            object.__setattr__(self, name, integer(_OWNER, name, getattr(self, name), least=least))
        size = pair(_OWNER, "size", self.size)
        object.__setattr__(self, "size", size[0] if size[0] == size[1] else size)
        if self.in_channels is not None:
            object.__setattr__(self, "in_channels", integer(_OWNER, "in_channels", self.in_channels, least=1))
        for name in ("step_size", "noise", "tv", "l2", "rotate"):
            object.__setattr__(self, name, real(_OWNER, name, getattr(self, name), zero=name != "step_size"))
        object.__setattr__(self, "scale", real(_OWNER, "scale", self.scale, zero=True, below=1.0))
        if self.spread is not None:
            object.__setattr__(self, "spread", real(_OWNER, "spread", self.spread, zero=False))

    @classmethod
    def notebook(
        cls,
        *,
        layer: str,
        channels: Sequence[int],
        steps: int = 60,
        step_size: float = 0.05,
        size: int | tuple[int, int] = 128,
        noise: float = 0.1,
        seed: int = 0,
        in_channels: int | None = None,
    ) -> Self:
        """The plain ascent of 2015's notebooks: pixels, normalised steps, nothing that smooths.

        x ← x + step_size · g / (std(g) + 1e-8) from x₀ = noise · standard normal, all in model-input units. The
        notebook that this project began with minimised the mean by mistake; here it rises.
        """
        return cls(
            layer=layer,
            channels=channels,  # type: ignore[arg-type]  # becomes a tuple, or is refused
            parametrization="pixel",
            optimizer="normalized",
            steps=steps,
            step_size=step_size,
            size=size,
            noise=noise,
            jitter=0,
            scale=0.0,
            rotate=0.0,
            seed=seed,
            in_channels=in_channels,
        )

    @property
    def unit(self) -> float:
        """The spread, filled in."""
        return 1.0 if self.spread is None else self.spread

    @property
    def transforms(self) -> Transforms:
        """How each step moves the images."""
        return Transforms(self.jitter, self.scale, self.rotate)

    def space(self, like: Tensor) -> Parametrization:
        """What is optimised, on the device of ``like``, in its dtype or float32 if that is finer."""
        if self.parametrization == "pixel":
            return Pixels(self.unit)
        dtype = torch.promote_types(like.dtype, torch.float32)
        return Fourier(pair(_OWNER, "size", self.size), self.unit, dtype, like.device)

    def of_logits(self, model: nn.Module) -> bool:
        """Whether ``layer`` means the model's own output, rather than a module of that name."""
        return self.layer == LOGITS and LOGITS not in dict(model.named_modules())

    def named(self, model: nn.Module) -> tuple[str, ...]:
        """The layer, where it is one."""
        return () if self.of_logits(model) else (self.layer,)

    def start(self, model: nn.Module) -> Tensor:
        """The start images (K, C, H, W), in the dtype and on the device of the model's parameters."""
        parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0, device="cpu"))
        shape = (1, self.in_channels or _first_channels(model), *pair(_OWNER, "size", self.size))
        like = torch.empty(shape, dtype=parameter.dtype, device=parameter.device)
        return self.noise_images(like, self.channels, attempt=0)

    def noise_images(self, like: Tensor, channels: Sequence[int], attempt: int) -> Tensor:
        """Noise for each channel, three times as strong at each further attempt: as ``like``, (len(channels), …)."""
        host = torch.empty(0, dtype=torch.float32, device="cpu")
        space, (depth, height, width) = self.space(host), like.shape[1:]
        shape = space.shape((depth, height, width))
        drawn = [
            torch.randn(shape, generator=generator(self.seed, channel, attempt), dtype=torch.float32, device="cpu")
            for channel in channels
        ]
        with without_autocast(host.device):
            images = space.decode(self.noise * 3**attempt * torch.stack(drawn))
        return upload(images, like.device, like.dtype)

    def objective(self, activation: Tensor, channels: Tensor, neuron: tuple[int, int] | None = None) -> Tensor:
        """Each image's own channel, averaged over space or at the neuron: (B, D, …) and (B,) → (B,).

        Args:
            activation: Of the layer.
            channels: One per image.
            neuron: Where the neuron lies if ``activation`` is that of a crop.

        Raises:
            LayerError: The layer has no such channel or neuron.
        """
        return objectives.objective(self.layer, activation, channels, max(self.channels), neuron or self.neuron)

    def position(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Row and column of the neuron in an activation of this shape.

        Raises:
            LayerError: The activation is no map, or has no such position.
        """
        return objectives.position(self.layer, shape, self.neuron or "center")

    def ascend(
        self, start: Tensor, gradient: Gradient, *, batch_size: int, advance: Callable[[], None]
    ) -> tuple[Maps, dict[str, Tensor]]:
        """The step rule, for any source of gradients: raw maps and extras from start images.

        Autocast is for the model: it is on for ``gradient`` alone, not for images, spectra and transforms.

        Args:
            start: (K, C, H, W).
            gradient: What a backend computes.
            batch_size: Filters per forward.
            advance: Called after each step of each batch.
        """
        channels = torch.tensor(self.channels, device="cpu")
        parts = zip(start.split(batch_size), channels.split(batch_size), strict=True)
        as_asked = autocast_as_now(start.device)

        def of_the_model(images: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
            with as_asked():
                return gradient(images, channels)

        with without_autocast(start.device):
            done = [climb(self, images, channels, of_the_model, advance) for images, channels in parts]
        extras = {
            "objective": torch.cat([part.objective for part in done], dim=1),
            "status": torch.cat([part.status for part in done]),
        }
        maps = {self.layer: [part.final for part in done], FIRST_STEP: [part.first for part in done]}
        return {name: torch.cat(images) for name, images in maps.items()}, extras

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """The final images."""
        return {self.layer: raw[self.layer]}

    def agreement(self, a: Comparable, b: Comparable) -> list[Agreement]:
        """The images after one step (a tenth of the tolerance in float32), and the final objectives within 1 %.

        On an accelerator 10 %: a hundredth was passed by 2 of 64 filters after three steps, with TF32 off.

        Later images are not compared: 60 float32 steps spread rounding to tens of percent. A channel that is dead on
        both sides proves nothing: its image is the start that both share.
        """
        pieces = paired_maps(a, b, by_target=False, only=FIRST_STEP)
        host = a.on_host and b.on_host
        pairs = [
            agree(name, x, y, relative=relative_tolerance(dtype, host=host) / (10 if dtype == torch.float32 else 1))
            for name, x, y, dtype in pieces
        ]
        finals = [side.extras.get("objective", torch.empty(1, 0, device="cpu"))[-1] for side in (a, b)]
        if len(pairs) != len(self.channels) or finals[0].shape != finals[1].shape:
            return [*pairs, agree("final objective", *finals, relative=0.0)]
        dead = (_dead(a, len(pairs)) & _dead(b, len(pairs))).tolist()
        names = [f"{self.layer} · channel {channel}" for channel in self.channels]
        steps = [replace(pair, name=f"{name} · first step") for name, pair in zip(names, pairs, strict=True)]
        ends = [
            agree(f"{name} · final objective", x, y, relative=1e-2 if host else 1e-1)
            for name, x, y in zip(names, *finals, strict=True)
        ]
        return [replace(p, degenerate=p.degenerate or d) for p, d in zip([*steps, *ends], [*dead, *dead], strict=True)]

    @classmethod
    def example(cls) -> Self:
        """Two filters of the small models, three steps."""
        return cls(layer="body", channels=(0, 2), steps=3, size=(17, 23))


def _dead(result: Comparable, channels: int) -> Tensor:
    status = result.extras.get("status", torch.zeros(channels, dtype=torch.int8, device="cpu"))
    return status.cpu() == DEAD


def _first_channels(model: nn.Module) -> int:
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return module.in_channels
    raise ModelError("the model has no convolution to tell how many input channels it takes; give in_channels=…")
