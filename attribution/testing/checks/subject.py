"""``Subject``: the attributor under test and the questions that it is asked."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from attribution.agreement import all_hold, table
from attribution.attributor import Attributor
from attribution.result import Attribution
from attribution.running.execution import Execution
from attribution.scores.reading import Asked
from attribution.technique import Technique
from attribution.testing.models.attending import attending

IMAGES, SIZE, CLASSES = 2, (17, 23), 5

HOST = torch.device("cpu")
Held = TypeVar("Held", nn.Module, Tensor)


@dataclass(frozen=True)
class Subject:
    """An attributor class and an instance of its technique that fits the small models.

    Attributes:
        cls: The attributor.
        technique: What it is asked to compute.
        device: Where models and images lie, with its number where there may be several.
    """

    cls: type[Attributor[Any]]
    technique: Technique
    device: torch.device = HOST

    @property
    def name(self) -> str:
        """``technique.backend``."""
        return f"{self.technique.name}.{self.cls.backend}"

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the technique asks for; empty where it knows none."""
        field = _layer_field(self.technique)
        value = () if field is None else getattr(self.technique, field)
        return value if isinstance(value, tuple) else (value,)

    def on(self, held: Held) -> Held:
        """A model or a tensor on the device; the model with attention, for a technique that reads it."""
        if isinstance(held, nn.Module) and self.technique.needs_attention:
            attending(held)
        return held.to(self.device)

    def noise(
        self,
        images: int = IMAGES,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        size: Sequence[int] = SIZE,
    ) -> Tensor:
        """Standard normal images (N, 3, H, W) from a seed of their own, the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        return self.on(torch.randn(images, 3, *size, generator=generator, dtype=torch.float64).to(dtype))

    def asking(self, *layers: str) -> Technique:
        """The same technique for other layers; only where `layers` is not empty."""
        field = _layer_field(self.technique)
        return replace(self.technique, **{str(field): layers if field == "layers" else layers[0]})

    def attributor(
        self, model: nn.Module, *, technique: Technique | None = None, execution: Execution = Execution()
    ) -> Attributor[Any]:
        """The class with a model; off the host with deterministic kernels, since others give other bits each time."""
        if self.device.type != HOST.type:
            execution = replace(execution, deterministic=True)
        return self.cls(model, technique or self.technique, execution)

    def ask(
        self,
        model: nn.Module,
        inputs: Tensor | None = None,
        target: Asked = 1,
        *,
        technique: Technique | None = None,
        execution: Execution = Execution(),
    ) -> Attribution:
        """One answer; inputs (noise where none are given) and target are left out where the technique takes none."""
        return self.put(self.attributor(model, technique=technique, execution=execution), inputs, target)

    def put(self, attributor: Attributor[Any], inputs: Tensor | None = None, target: Asked = 1) -> Attribution:
        """Ask an attributor that is built already."""
        shown = (self.noise() if inputs is None else inputs) if self.technique.needs_inputs else None
        return attributor.attribute(shown, target if self.technique.needs_target else None)

    def difference(self, a: Attribution, b: Attribution, *, exact: bool = False) -> str:
        """Where two answers differ by more than rounding (``exact``: at all), in words; empty where they do not."""
        if exact:
            keys = sorted({*a.raw, *b.raw})
            unequal = [key for key in keys if key not in a.raw or key not in b.raw or not equal(a.raw[key], b.raw[key])]
            return "; ".join(f"map {key!r} differs by {largest(a.raw.get(key), b.raw.get(key))}" for key in unequal)
        agreements = a.technique.agreement(a, b)
        return "" if all_hold(agreements) else table([x for x in agreements if not x.holds] or agreements)


def part(result: Attribution, images: Sequence[int], targets: Sequence[int] | None = None) -> Attribution:
    """The answer for some of the images, and some of the columns of targets."""
    rows = list(images)

    def cut(tensor: Tensor | None, *, by_target: bool = True) -> Any:
        if tensor is None:
            return None
        return tensor[rows] if targets is None or not by_target else tensor[rows][:, list(targets)]

    planes = result.technique.kind == "heatmap"
    return replace(
        result,
        maps={key: cut(map_, by_target=planes) for key, map_ in result.maps.items()},
        raw={key: cut(map_, by_target=planes) for key, map_ in result.raw.items()},
        target=cut(result.target),
        scores=cut(result.scores),
    )


def equal(a: Tensor, b: Tensor) -> bool:
    """The same bits, dtype and shape."""
    return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))


def largest(a: Tensor | None, b: Tensor | None) -> str:
    """The largest difference of two maps, in words."""
    if a is None or b is None or a.shape != b.shape:
        return "its shape"
    scale = max(a.abs().max().item(), b.abs().max().item())
    return f"{(a.double() - b.double()).abs().max().item():.3g} (largest value {scale:.3g})"


def needs_target(subject: Subject) -> bool:
    """Explains classes."""
    return subject.technique.needs_target


def explains_no_class(subject: Subject) -> bool:
    """Takes no target."""
    return not subject.technique.needs_target


def needs_inputs(subject: Subject) -> bool:
    """Takes images."""
    return subject.technique.needs_inputs


def makes_inputs(subject: Subject) -> bool:
    """Makes its own images."""
    return not subject.technique.needs_inputs


def knows_layers(subject: Subject) -> bool:
    """Has a field ``layers`` or ``layer``, of any kind of layer."""
    return _layer_field(subject.technique) is not None and not subject.technique.needs_attention


def knows_several_layers(subject: Subject) -> bool:
    """Likewise a field ``layers``."""
    return _layer_field(subject.technique) == "layers" and not subject.technique.needs_attention


def _layer_field(technique: Technique) -> str | None:
    names = {field.name for field in fields(technique)}
    return "layers" if "layers" in names else "layer" if "layer" in names else None
