"""What stands in place of cells that are removed."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import InputError
from attribution.inputs.inputs import Inputs
from attribution.metrics.draws import generator
from attribution.running.upload import upload
from attribution.techniques.perturbation import baselines as covers

One = Literal["mean", "blur", "noise", "linear"] | float | tuple[float, ...] | Tensor
"""``"mean"``: of each channel of the photo. ``"blur"``: the photo blurred by a Gaussian with σ = size / 16, at least 1,
along each axis. ``"noise"``: normal, with the mean and standard deviation of each channel of the photo. ``"linear"``:
of images, imputed from what is left of them, with noise, as in `attribution.metrics.ROAD`; the mean where nothing is
left. A number, one per channel, or a tensor that fits the input, in model-input units."""

Baselines = Sequence[One] | Mapping[str, One] | None
"""Several at once; a sequence is named by its words and numbers. ``None``: mean, blur and noise; of features 0."""

WORDS: tuple[Literal["mean", "blur", "noise", "linear"], ...] = ("mean", "blur", "noise", "linear")
DEFAULT = WORDS[:3]
IMPUTED = 0.01
"""Standard deviation of the noise of ``"linear"``, as a part of max x − min x of the photo."""

_NOISE, _IMPUTED = 1, 6


def named(given: Baselines, inputs: Inputs) -> dict[str, One]:
    """Baselines by name, each checked against the inputs.

    Raises:
        InputError: None is given, one is unknown or does not fit, or is a word that needs places.
    """
    spatial = all(inputs.places(name) for name in inputs.explained)
    if given is None:
        return {word: word for word in DEFAULT} if spatial else {"0": 0.0}
    if isinstance(given, Mapping):
        found = {str(name): each for name, each in given.items()}
    else:
        each_one = numbers.items(given) if not isinstance(given, Tensor) else None
        if each_one is None:
            raise InputError(f"baselines are {given!r}; give several, such as ('mean', 'blur'), or a mapping by name")
        found = {_name(each): each for each in each_one}
    if not found:
        raise InputError("there are no baselines; give at least one, such as 'mean'")
    return {name: _checked(name, each, inputs, spatial=spatial) for name, each in found.items()}


def made(one: One, inputs: Inputs, name: str, *, seed: int, first: int) -> Tensor:
    """(N, …): what an explained input is replaced by, of its shape.

    Args:
        one: Checked.
        inputs: Of the call.
        name: Of the input.
        seed: Of ``"noise"``.
        first: Place of the first photo in the data set.
    """
    x = inputs.values[name]
    axes = tuple(range(2, x.ndim))
    if isinstance(one, str) and one == "blur":
        return covers.blurred(x, tuple(max(1.0, size / 16) for size in x.shape[2:]))
    if isinstance(one, str):
        wide = x.double() if x.device.type != "mps" else x.float()
        mean: Tensor = wide.mean(dim=axes, keepdim=True)
        if one != "noise":
            return mean.to(x.dtype).expand_as(x)
        spread: Tensor = wide.std(dim=axes, keepdim=True, correction=0)
        return (mean + spread * _drawn(wide, seed, first, _NOISE)).to(x.dtype)
    return covers.cover(one, x, ()).expand_as(x)


def imputation_noise(inputs: Inputs, name: str, *, seed: int, first: int) -> Tensor:
    """(N, …): what is added to imputed places; the arguments are those of `made`."""
    x = inputs.values[name]
    wide = x.double() if x.device.type != "mps" else x.float()
    size = wide.amax(dim=(1, 2, 3), keepdim=True) - wide.amin(dim=(1, 2, 3), keepdim=True)
    found: Tensor = IMPUTED * size * _drawn(wide, seed, first, _IMPUTED)
    return found.to(x.dtype)


def of_part(one: One, rows: slice, inputs: Inputs) -> One:
    """A tensor with a row for each photo, cut to some of them."""
    if isinstance(one, Tensor) and one.ndim == inputs.first.ndim and len(one) > 1:
        return one[rows]
    return one


def _drawn(like: Tensor, seed: int, first: int, what: int) -> Tensor:
    """Standard normal numbers (N, …) that belong to the photos."""
    drawn = [
        torch.randn(like.shape[1:], generator=generator(seed, first + n, what), dtype=torch.float64, device="cpu")
        for n in range(len(like))
    ]
    return upload(torch.stack(drawn), like.device, like.dtype)


def _name(one: object) -> str:
    if isinstance(one, str):
        return one
    number = numbers.real(one)
    if number is None:
        raise InputError(f"the baseline {type(one).__name__} needs a name; give a mapping such as {{'grey': {one!r}}}")
    return f"{number:g}"


def _checked(name: str, one: One, inputs: Inputs, *, spatial: bool) -> One:
    if isinstance(one, str):
        if one not in WORDS:
            raise InputError(
                f"the baseline {one!r} is not known; give {', '.join(map(repr, WORDS))}, a number or a tensor"
            )
        if not spatial:
            raise InputError(
                f"the baseline {one!r} needs places, and the inputs ({inputs}) are features; give a number for each, "
                "such as their mean over the training data, or {'NAME': tensor}"
            )
        if one == "linear" and (odd := [each for each in inputs.explained if inputs.values[each].ndim != 4]):
            shape = tuple(inputs.values[odd[0]].shape)
            raise InputError(f"the baseline 'linear' and ROAD need images (N, C, H, W); {odd[0]!r} has shape {shape}")
        return one
    kept = covers.checked("baselines", one)
    if isinstance(kept, Mapping):
        raise InputError(f"the baseline {name!r} is a mapping; give a number, numbers or a tensor")
    for each in inputs.explained:
        covers.check("baselines", kept, each, inputs.values[each])
    return kept
