"""Occlusion sensitivity: which pixels matter most?"""

from dataclasses import InitVar, dataclass
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import InputError
from attribution.inputs.inputs import Inputs
from attribution.techniques.parameters import choice, integer, one_or_several
from attribution.techniques.perturbation.family import Perturbation, places_of
from attribution.techniques.perturbation.lattice import Bounds, Lattice, intervals
from attribution.techniques.perturbation.lattice import Interval as Interval

Region = Tensor | Bounds | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Occlusion(Perturbation):
    r"""How much the score drops when a window of the input is covered.

    δ[w] = score(x) − score(x with window w set to the baseline);
    map[p] = mean of δ[w] over the windows w that cover place p.

    Sign and unit: positive where covering lowered the score, in units of the score; of classes that is the probability,
    unless the target says otherwise: ``target=ClassScore(3, of="logit")``.

    Inputs are images (N, C, H, W), sequences (N, C, L), volumes (N, C, D, H, W), or features (N, F), whose windows are
    of neighbouring features. Maps are (N, T, *places): (N, T, H, W) of images, (N, T, F) of features. Windows start at
    0 and step by ``stride`` along each place axis. Of several explained inputs each is covered alone, and has a map of
    its own, ``"input.0"`` or ``"input.NAME"``.

    Args:
        window: Size of the cover in places, 1 to the input's: one int for all place axes, or one for each, such as
            (height, width). A tuple fits inputs of so many place axes alone, also where its entries are equal.
        stride: Step in places, 1 to the window's, likewise.
        baseline: What covers, in model-input units (after the transform: 0 is the mean colour): one value; one per
            input channel (of (N, F): per feature); a tensor, such as (C, H, W) or one for each image, (N, C, H, W),
            whose axes, counted from the last, are those of the input or 1; or ``"blur"``, the input blurred by a
            Gaussian: b[p] = Σ g(p − q) x[q] / Σ g(p − q) over the places q of the input, g(d) = exp(−|d|² / 2σ²), with
            σ a quarter of the window along each axis, at least 1, and g cut off at 4σ. A mapping by the names or
            indices of several inputs has one for each.
        border: ``"cover"``: the last window is cut at the border, so that every place is covered (Captum's lattice);
            ``"drop"``: it is left out, and places that no window covers are 0.
        channels: The input channels that are covered; ``None``: all.
        region: Where it is asked: bools (*places), common to all examples, or bounds, one (begin, end) for each place
            axis. Only windows that touch it are run, and places that none of them covers are 0. ``None``: everywhere.
        input: The one input that is covered, by its name or index; ``None``: every explained one.

    Raises:
        InputError: A field is out of range, or does not fit the input: a window larger than the image is one.
        ModelError: When run: the probability of a model with a single output, whose softmax is always 1.

    Source: M. D. Zeiler, R. Fergus, *Visualizing and Understanding Convolutional Networks*, ECCV 2014, section 4.2. The
    blurred baseline: R. Fong, A. Vedaldi, *Interpretable Explanations of Black Boxes by Meaningful Perturbation*,
    ICCV 2017, section 4.1, where σ is 10 pixels, which it is here for the default window.
    Departs from the paper: a difference to the clean score rather than the covered score, averaged over overlaps.
    """

    name: ClassVar[str] = "occlusion"
    takes_integers: ClassVar[bool] = True

    window: int | tuple[int, ...] = 40
    stride: int | tuple[int, ...] = 20
    border: Literal["cover", "drop"] = "cover"
    channels: tuple[int, ...] | None = None
    region: Region = None
    score: InitVar[None] = None

    def __post_init__(self, score: None) -> None:
        if score is not None:
            raise InputError(
                "Occlusion has no score any more: it says of which number is spoken, so that it went to the target; "
                f"give target=ClassScore(…, of={score!r})"
            )
        super().__post_init__()
        for name in ("window", "stride"):
            object.__setattr__(self, name, one_or_several("Occlusion", name, getattr(self, name)))
        object.__setattr__(self, "border", choice("Occlusion", "border", self.border, ("cover", "drop")))
        object.__setattr__(self, "channels", _channels(self.channels))
        object.__setattr__(self, "region", _region(self.region))
        axes = max(len(given) for given in (self.window, self.stride, (1,)) if isinstance(given, tuple))
        window, stride = self.sizes(axes)
        if any(step > size for size, step in zip(window, stride, strict=True)):
            raise InputError(
                f"Occlusion.stride {stride} is larger than the window {window}: places would be left out; give a "
                "stride of at most the window"
            )

    def sizes(self, places: int, of: str = "input") -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Window and stride along each of so many place axes.

        Raises:
            InputError: They were given for another number of axes.
        """
        found = []
        for name in ("window", "stride"):
            given = getattr(self, name)
            sizes = given if isinstance(given, tuple) else (given,) * places
            if len(sizes) != places:
                raise InputError(
                    f"Occlusion.{name} {sizes} has {len(sizes)} sizes, and {of!r} {places} place axes; give one int, "
                    "or one for each axis"
                )
            found.append(sizes)
        return found[0], found[1]

    @property
    def size(self) -> tuple[int, ...]:
        """(height, width) of the window on an image."""
        return self.sizes(2)[0]

    @property
    def step(self) -> tuple[int, ...]:
        """(down, right) on an image."""
        return self.sizes(2)[1]

    def spread(self, places: int) -> tuple[float, ...]:
        """A quarter of the window, at least 1."""
        return tuple(max(1.0, size / 4) for size in self.sizes(places)[0])

    def check(self, inputs: Inputs) -> None:
        """The windows fit each input that is covered, and so do baseline, channels and region."""
        super().check(inputs)
        for name in self.covered(inputs):
            self._check_one(name, inputs.values[name], several=len(inputs.explained) > 1)

    def _check_one(self, name: str, tensor: Tensor, *, several: bool) -> None:
        places = places_of(tensor)
        window, _ = self.sizes(len(places), name)
        if any(size > have for size, have in zip(window, places, strict=True)):
            what = "image" if len(places) == 2 else "input"
            fits = tuple(max(1, have // 4) for have in places)
            hint = f", or the one input that is covered: input={name[6:]!r}" if several else ""
            raise InputError(
                f"Occlusion.window {window} is larger than the {what} {places}; give a smaller window, such as "
                f"window={fits}, stride={tuple(max(1, size // 2) for size in fits)}{hint}"
            )
        if self.channels is not None and (tensor.ndim == 2 or self.channels[-1] >= tensor.shape[1]):
            has = "has features, and no channels" if tensor.ndim == 2 else f"has {tensor.shape[1]} channels"
            raise InputError(f"Occlusion.channels is {self.channels}, and {name!r} {has}; give channels of it, or None")
        if self.region is not None:
            self._check_region(name, places)
            if self._everywhere(places).touching(self.region) is None:
                raise InputError(f"no window of Occlusion touches its region in {name!r}; give another region, or None")

    def _check_region(self, name: str, places: tuple[int, ...]) -> None:
        if isinstance(self.region, Tensor):
            if tuple(self.region.shape) != places:
                raise InputError(
                    f"Occlusion.region has shape {tuple(self.region.shape)}, and {name!r} the places {places}; give a "
                    "bool for each place"
                )
        elif self.region is not None and (
            len(self.region) != len(places)
            or any(end > size for (_, end), size in zip(self.region, places, strict=False))
        ):
            raise InputError(
                f"Occlusion.region is {self.region}, and {name!r} has the places {places}; give one (begin, end) for "
                "each place axis, within it"
            )

    def lattice(self, *places: int) -> Lattice:
        """The windows on an input with these sizes of its place axes; the one choice that both backends share."""
        every = self._everywhere(places)
        found = every if self.region is None else every.touching(self.region)
        assert found is not None  # `check` refuses
        return found

    def _everywhere(self, places: tuple[int, ...]) -> Lattice:
        whole_only = self.border == "drop"
        along = zip(places, *self.sizes(len(places)), strict=True)
        return Lattice(tuple(intervals(size, window, step, whole_only=whole_only) for size, window, step in along))

    @classmethod
    def example(cls) -> Self:
        """Windows for the small models' images."""
        return cls(window=5, stride=3)


def _channels(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    given = numbers.items(value)
    if not given:
        raise InputError(f"Occlusion.channels is {value!r}; give a tuple of input channels such as (0, 2), or None")
    found = sorted(integer("Occlusion", "channels", item, least=0) for item in given)
    if len(set(found)) < len(found):
        raise InputError(f"Occlusion.channels is {value!r}, and names a channel twice; give each once")
    return tuple(found)


def _region(value: object) -> Region:
    """Bools on the host, or bounds.

    Raises:
        InputError: It is neither, or empty.
    """
    if value is None:
        return None
    forms = "give bools, one for each place, or one (begin, end) for each place axis"
    if getattr(value, "dtype", None) in (torch.bool, np.dtype(np.bool_)):
        mask = torch.as_tensor(value, device="cpu").detach().clone().contiguous()
        if mask.ndim == 0 or not mask.any():
            raise InputError(f"Occlusion.region of shape {tuple(mask.shape)} has no place; {forms}")
        return mask
    bounds = [numbers.items(item) for item in numbers.items(value) or ()]
    if not bounds or any(each is None or len(each) != 2 for each in bounds):
        raise InputError(f"Occlusion.region is {value!r}; {forms}")
    found = tuple(
        (integer("Occlusion", "region", each[0], least=0), integer("Occlusion", "region", each[1], least=1))
        for each in bounds
        if each is not None
    )
    if any(begin >= end for begin, end in found):
        raise InputError(f"Occlusion.region is {value!r}, in which an interval is empty; {forms}")
    return found
