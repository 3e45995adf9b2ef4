"""Where the ascent begins: noise, or images of the user's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attribution import numbers
from attribution.errors import InputError, ModelError
from attribution.isolation.torch_modes import without_autocast
from attribution.running.upload import upload
from attribution.techniques.filter_visualization.parametrization import Parametrization
from attribution.techniques.filter_visualization.transforms import generator

_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


def form(model: nn.Module, size: int | tuple[int, ...], in_channels: int | None) -> Tensor:
    """(1, C, *places), of no values, in the dtype and on the device of the model's parameters."""
    sides = places(model, size)
    like = _parameter(model)
    return torch.empty(
        (1, in_channels or first_channels(model, len(sides)), *sides), dtype=like.dtype, device=like.device
    )


def given(initial: Tensor, model: nn.Module, size: int | tuple[int, ...], count: int) -> Tensor:
    """The user's start images (K, C, *places), likewise.

    Raises:
        InputError: See `each`.
    """
    known = len(size) if isinstance(size, tuple) else axes_of_places(model)
    like = _parameter(model)
    return upload(each(initial, count, max(0, initial.ndim - 2) if known is None else known), like.device, like.dtype)


def _parameter(model: nn.Module) -> Tensor:
    return next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0, device="cpu"))


def places(model: nn.Module, size: int | tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of an image's axes of places: as stated; one number is for each axis that the model has.

    A model has as many as its first convolution; two where it has none.
    """
    if isinstance(size, tuple):
        return size
    return (size,) * (axes_of_places(model) or 2)


def axes_of_places(model: nn.Module) -> int | None:
    """Of the first convolution; ``None`` where there is none."""
    found = (rank for module in model.modules() for kind, rank in _CONVOLUTIONS.items() if isinstance(module, kind))
    return next(found, None)


def first_channels(model: nn.Module, axes: int) -> int:
    """Of the first convolution; of a model of features (N, F), the features of its first linear layer.

    Raises:
        ModelError: There is no such layer.
    """
    for module in model.modules():
        if axes and isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return module.in_channels
        if not axes and isinstance(module, nn.Linear):
            return module.in_features
    raise ModelError(
        "the model has no convolution to tell how many input channels it takes; give in_channels=…, or size=() where "
        "it takes features (N, F)"
    )


def own(images: object) -> Tensor:
    """Start images of the user's, as a float tensor on the host that is nobody else's.

    Raises:
        InputError: No such tensor, or a value in it is not finite.
    """
    tensor = images.detach() if isinstance(images, Tensor) else None
    if tensor is None and (numbers.items(images) or hasattr(images, "__array__")):
        try:
            tensor = torch.as_tensor(images)
        except (TypeError, ValueError, RuntimeError):
            tensor = None
    if tensor is None or not tensor.is_floating_point() or not 1 <= tensor.ndim <= 5 or not tensor.numel():
        raise InputError(
            f"FilterVisualization.initial is {type(images).__name__}; give a float tensor, (C, H, W) or (K, C, H, W), "
            "in model-input units"
        )
    if not bool(tensor.isfinite().all()):
        raise InputError("FilterVisualization.initial holds NaN or infinity; give finite images")
    return tensor.cpu().clone().contiguous()


def each(initial: Tensor, count: int, axes: int) -> Tensor:
    """The user's start images, one for each objective: (K, C, *places) from that, or from (C, *places).

    Raises:
        InputError: There is another number of them, or of axes.
    """
    if initial.ndim == axes + 1:
        return initial.expand(count, *initial.shape).clone()
    if initial.ndim == axes + 2 and len(initial) in (1, count):
        return initial.expand(count, *initial.shape[1:]).clone()
    letters = ("F", "C, T", "C, H, W", "C, D, H, W")[axes]
    raise InputError(
        f"FilterVisualization.initial has shape {tuple(initial.shape)}; this model takes ({letters}), or ({count}, "
        f"{letters}) for {count} images"
    )


def noise(
    space: Parametrization, like: Tensor, numbers: Sequence[int], scale: float, seed: int, attempt: int
) -> Tensor:
    """Noise for each number, three times as strong at each further attempt: as ``like``, (len(numbers), …).

    Args:
        space: On the host, in float32.
        like: (1, C, *places).
        numbers: One per image, each with a generator of its own.
        scale: Standard deviation at the first attempt, in the space's unit.
        seed: Of all.
        attempt: 0 for the first.
    """
    shape = space.shape(tuple(like.shape[1:]))
    drawn = [
        torch.randn(shape, generator=generator(seed, number, attempt), dtype=torch.float32, device="cpu")
        for number in numbers
    ]
    with without_autocast(torch.device("cpu")):
        images = space.decode(scale * 3**attempt * torch.stack(drawn))
    return upload(images, like.device, like.dtype)
