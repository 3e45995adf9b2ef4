"""``FilterVisualization``: its parameters, its start, its rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from attribution.agreement import Agreement
from attribution.inputs.inputs import Inputs
from attribution.isolation.torch_modes import autocast_as_now, without_autocast
from attribution.layers import Axes
from attribution.technique import Comparable, Kind, Maps, Technique
from attribution.techniques.filter_visualization import objectives, starts, units
from attribution.techniques.filter_visualization.agreeing import FIRST_STEP, agreed
from attribution.techniques.filter_visualization.fields import checked
from attribution.techniques.filter_visualization.objectives import Objective
from attribution.techniques.filter_visualization.optimisation import Gradient, Rule, climbs
from attribution.techniques.filter_visualization.parametrization import Fourier, Parametrization, Pixels
from attribution.techniques.filter_visualization.penalties import Penalty
from attribution.techniques.filter_visualization.reading import Reading
from attribution.techniques.filter_visualization.transforms import Transforms
from attribution.techniques.filter_visualization.units import LOGITS
from attribution.techniques.parameters import by_value

_PLAIN = Axes()


@dataclass(frozen=True, kw_only=True)
class FilterVisualization(Technique):
    r"""The image that gradient ascent finds for a channel, a neuron, a class, or any function of a layer's output.

    objective = mean over p of A[channel, p], or A[channel, neuron], or one of ``objectives``; ascended in the
    parameters of the image: its pixels or its spectrum, each image by itself.

    Sign and unit: **ascent**, so the objective rises; images are in model-input units (after normalisation). Maps are
    (K, C, H, W), one image per channel or objective; (K, C, T), (K, C, D, H, W) and (K, F) of other models.
    ``extras["objective"]`` is (steps + 1, K): of the moved image that each step saw, last of the final image as it is.
    ``extras["status"]`` (K,) is 0 ok, 1 dead (no gradient at the start, nor from three others with up to 27 times the
    noise; its map is zero, so that nothing passes for a pattern), 2 diverged (stopped; the image is the last finite
    one).

    Args:
        layer: One layer, named as in `Activations`; ``"logits"``: the model's output, whose channels are the classes.
        channels: Which of its channels, each once, ≥ 0. Of tokens and channels-last layers they lie on the last axis.
        objectives: In their place, `ChannelsObjective`, `DirectionObjective`, sums of these, or functions of the
            layer's output for one image, (1, …) → (1,).
        neuron: Excite one position of the map: (row, column), one index per axis of places, or ``"center"``; ``None``:
            the mean over all.
        parametrization: ``"fourier"``: amplitudes fall as 1 / frequency, as in photos, and values stay within ± 2.5
            spreads. ``"pixel"``: the values themselves, without limit; so are features.
        decorrelate: Climb in colours that are decorrelated in photos, where there are three channels; ``None``: in
            spectra, and not in pixels.
        optimizer: ``"adam"`` (β 0.9, 0.999), or ``"normalized"``: x ← x + step_size · g / (std(g) + 1e-8), std
            unbiased over each image.
        steps: ≥ 1.
        step_size: > 0, in spreads for pixels, in standard deviations of a coefficient for a spectrum.
        size: Height and width of the images in pixels; (T,) or (D, H, W) for series and volumes, () for features. One
            number is for each axis that the first convolution has.
        spread: Standard deviation of photos in model-input units, > 0: the unit of ``step_size`` and ``noise``.
            ``None``: 1, which fits normalised inputs; ``inputs.std()`` of a photo where values are larger.
        noise: Standard deviation of the start, ≥ 0, in spreads. One generator per (seed, channel).
        jitter: Every step shifts each image by up to this many pixels, ≥ 0,
        scale: scales it by up to this part, in [0, 1),
        rotate: and turns it by up to this many degrees, ≥ 0; all three drawn per (seed, channel). Series are not
            turned, volumes in their planes, features not moved.
        tv: Weight of total variation, ≥ 0.
        l2: Weight of the squared values, ≥ 0. At weight 1 a pixel one spread off the mean is drawn back as hard as the
            objective pushes a typical pixel.
        penalty: A penalty of one's own: images in spreads (B, C, …) → (B,). Its gradient is subtracted like ``l2``'s.
        seed: ≥ 0.
        in_channels: C; ``None``: that of the first convolution, or of the first linear layer for features.
        initial: Images to begin from in place of noise, in model-input units: (C, H, W) for all, or (K, C, H, W).
        channel_axis: Of the layer's output; ``None``: told by the modules, see `Activations`.

    Raises:
        InputError: A field is out of range, or inputs were given: the technique makes its own. When run: ``initial`` is
            of another form than the model's images.
        LayerError: When run: the layer does not exist, has no such channel or neuron, or nothing tells its channels
            from its places.

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
    channels: tuple[int, ...] = ()
    objectives: Sequence[Objective | Callable[[Tensor], Tensor]] = ()
    neuron: tuple[int, ...] | Literal["center"] | None = None
    parametrization: Literal["fourier", "pixel"] = "fourier"
    decorrelate: bool | None = None
    optimizer: Literal["adam", "normalized"] = "adam"
    steps: int = 64
    step_size: float = 0.05
    size: int | tuple[int, ...] = 128
    spread: float | None = None
    noise: float = 0.1
    jitter: int = 8
    scale: float = 0.05
    rotate: float = 5.0
    tv: float = 0.0
    l2: float = 0.0
    penalty: Penalty | None = None
    seed: int = 0
    in_channels: int | None = None
    initial: Tensor | None = None
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        for name, value in checked({name: getattr(self, name) for name in self.__dataclass_fields__}).items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and by_value(self) == by_value(other)

    def __hash__(self) -> int:
        return hash(by_value(self))

    @classmethod
    def notebook(
        cls,
        *,
        layer: str,
        channels: Sequence[int],
        steps: int = 60,
        step_size: float = 0.05,
        size: int | tuple[int, ...] = 128,
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

    @property
    def asked(self) -> tuple[Objective, ...]:
        """The objectives, functions among them as `FunctionObjective`."""
        return tuple([each for each in self.objectives if isinstance(each, Objective)])

    @property
    def titles(self) -> tuple[str, ...]:
        """A few words for each image."""
        return tuple(map(str, self.asked)) or tuple(f"channel {channel}" for channel in self.channels)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of each image, by which its random numbers are drawn: its channel, or the place of its objective."""
        return tuple(range(len(self.objectives))) or self.channels

    def space(self, like: Tensor) -> Parametrization:
        """What is optimised of images (…, C, *places), on their device, in their dtype or float32 if that is finer."""
        pixels = self.parametrization == "pixel"
        colours = self.unit, not pixels if self.decorrelate is None else self.decorrelate
        dtype = torch.promote_types(like.dtype, torch.float32)
        if pixels or like.ndim == 2:
            return Pixels(*colours, dtype, like.device)
        return Fourier(*colours, dtype, like.device, size=tuple(like.shape[2:]))

    def of_logits(self, model: nn.Module) -> bool:
        """Whether ``layer`` means the model's own output, rather than a module of that name."""
        return self.layer == LOGITS and LOGITS not in dict(model.named_modules())

    def named(self, model: nn.Module) -> tuple[str, ...]:
        """The layer, where it is one."""
        return () if self.of_logits(model) else (self.layer,)

    def start(self, model: nn.Module) -> Tensor:
        """The start images (K, C, *places), in the dtype and on the device of the model's parameters."""
        if self.initial is None:
            return self.noise_images(starts.form(model, self.size, self.in_channels), self.numbers, attempt=0)
        return starts.given(self.initial, model, self.size, len(self.numbers))

    def noise_images(self, like: Tensor, numbers: Sequence[int], attempt: int) -> Tensor:
        """Noise for each number, three times as strong at each further attempt: as ``like``, (len(numbers), …)."""
        host = torch.empty((1, *like.shape[1:]), dtype=torch.float32, device="cpu")
        return starts.noise(self.space(host), like, numbers, self.noise, self.seed, attempt)

    def other_start(self, start: Tensor, numbers: Sequence[int], attempt: int) -> Tensor:
        """Where those that have no gradient at ``start`` begin next: other noise, or the user's image under noise."""
        drawn = self.noise_images(start[:1], numbers, attempt)
        if self.initial is None:
            return drawn
        rows = torch.tensor([self.numbers.index(number) for number in numbers], device="cpu")
        return starts.each(self.initial, len(self.numbers), start.ndim - 2)[rows].to(drawn) + drawn

    def reading(self, model: nn.Module, inputs: Inputs) -> Reading:
        """Where examples and channels lie in what the layer gives for start images, for every backend."""
        reads = bool(self.asked) and all(isinstance(each, objectives.FunctionObjective) for each in self.asked)
        return Reading(model, inputs, None if self.of_logits(model) else self.layer, self.channel_axis, sides=not reads)

    def objective(
        self, activation: Tensor, channels: Tensor, neuron: tuple[int, ...] | None = None, axes: Axes = _PLAIN
    ) -> Tensor:
        """Each image's own channel, averaged over space or at the neuron, or its own objective: (B, D, …) → (B,).

        Args:
            activation: Of the layer, in its own form.
            channels: One per image; of objectives their places, on the host.
            neuron: Where the neuron lies if ``activation`` is that of a crop.
            axes: Where examples and channels lie in it.

        Raises:
            LayerError: The layer has no such channel or neuron.
            InputError: A function does not give one number per image.
        """
        first, place = axes.first(activation), neuron or self.neuron
        if not self.objectives:
            return units.objective(self.layer, first, channels, max(self.channels), place)
        if place is not None:
            first = units.at(first, units.position(self.layer, tuple(first.shape), place))
        output = activation.transpose(0, axes.examples) if axes.examples else activation
        return objectives.each(self.layer, self.asked, channels.tolist(), output, first)

    def position(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Where the neuron lies in an activation (B, D, *places) of this shape: row and column of an image's.

        Raises:
            LayerError: The activation is no map, or has no such position.
        """
        return units.position(self.layer, shape, self.neuron or "center")

    def ascend(
        self, start: Tensor, gradient: Gradient, *, batch_size: int, advance: Callable[[], None]
    ) -> tuple[Maps, dict[str, Tensor]]:
        """The step rule, for any source of gradients: raw maps and extras from start images.

        Autocast is for the model: it is on for ``gradient`` alone, not for images, spectra and transforms.

        Args:
            start: (K, C, *places).
            gradient: What a backend computes.
            batch_size: Filters per forward.
            advance: Called after each step of each batch.
        """
        channels = torch.tensor(self.numbers, device="cpu")
        as_asked = autocast_as_now(start.device)

        def of_the_model(images: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
            with as_asked():
                return gradient(images, channels)

        with without_autocast(start.device):
            done = climbs(self._rule(start), start, channels, of_the_model, advance, batch_size=batch_size)
        extras = {"objective": done.objective, "status": done.status}
        return {self.layer: done.final, FIRST_STEP: done.first}, extras

    def _rule(self, start: Tensor) -> Rule:
        own = ("transforms", "steps", "step_size", "optimizer", "unit", "seed", "tv", "l2", "penalty")
        return Rule(
            **{name: getattr(self, name) for name in own},
            space=self.space(start),
            other=self.other_start,
            on_host=bool(self.objectives),
        )

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """The final images."""
        return {self.layer: raw[self.layer]}

    def agreement(self, a: Comparable, b: Comparable) -> list[Agreement]:
        """The images after one step (a tenth of the tolerance in float32), and the final objectives within 1 %."""
        return agreed(self.layer, self.titles, a, b)

    @classmethod
    def example(cls) -> Self:
        """Two filters of the small models, three steps."""
        return cls(layer="body", channels=(0, 2), steps=3, size=(17, 23))
