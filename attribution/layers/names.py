"""What a layer may be called, and what is said when the name does not serve."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from torch import nn

from attribution.errors import LayerError, nearest

_NAME = re.compile(r"(?P<path>[^#\[\]]+)(#(?P<call>\d+))?(\[(?P<key>[^\]]+)\])?")
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class LayerName:
    """A layer as the user writes it: ``path``, ``path#call`` or ``path[key]``.

    Attributes:
        text: As given; the key of the map.
        path: What ``named_modules()`` prints.
        call: Which run of a module that runs several times in one forward, counted from 0.
        key: Which item of a tuple, list or dict output; digits are an index, or where there is none a string.
    """

    text: str
    path: str
    call: int | None = None
    key: str | int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a layer name.

        Raises:
            LayerError: Not a string, or none of the three forms.
        """
        match = _NAME.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise LayerError(
                f"layer {text!r} is not a name; give 'features.28', 'relu#1' (its second run) or 'lstm[0]'"
            )
        call, key = match["call"], match["key"]
        return cls(
            text=text,
            path=match["path"],
            call=None if call is None else int(call),
            key=int(key) if key is not None and key.isdecimal() and str(int(key)) == key else key,
        )


def find(model: nn.Module, text: str) -> tuple[LayerName, nn.Module]:
    """The name, read, and the module it belongs to.

    The prefixes ``module.`` and ``_orig_mod.`` of wrapped models are accepted with and without the wrapper.

    Raises:
        LayerError: The model has no such layer; names the nearest ones.
    """
    name = LayerName.parse(text)
    path = name.path
    while (module := _submodule(model, path)) is None and path.startswith(_WRAPPERS):
        path = path.split(".", 1)[1]
    if module is None:
        names = [name for name, _ in model.named_modules()]
        raise LayerError(
            f"no layer {name.path!r} in {type(model).__name__}{nearest(name.path, names)}. "
            "Layers are named as model.named_modules() prints them (`attribution layers` lists them)"
        )
    return name, module


def _submodule(model: nn.Module, path: str) -> nn.Module | None:
    """One step per dot; reading all names of a deep model would take longer than its first layers."""
    module: nn.Module | None = model
    for step in path.split("."):
        if module is None or not step:
            return None
        module = module._modules.get(step)
    return module


def never_ran(name: str) -> LayerError:
    """The error for a layer that exists but is not part of the forward pass."""
    return LayerError(f"layer {name!r} never ran in the model's forward; choose a layer on the way to the output")


def runs_often(name: LayerName, count: int) -> LayerError:
    """The error for a reused module without ``#k``, or with a k that does not occur."""
    if count == 1:
        return LayerError(f"layer {name.text!r}: the module runs once in one forward; leave #{name.call} out")
    choices = f"'{name.path}#0' (first) to '{name.path}#{count - 1}' (last)"
    if name.call is None:
        return LayerError(f"layer {name.text!r} runs {count} times in one forward; say which run: {choices}")
    return LayerError(f"layer {name.text!r}: the module runs {count} times in one forward; choose {choices}")


def not_a_tensor(name: LayerName, output: object) -> LayerError:
    """The error for a layer whose output, or the item chosen from it, is not a tensor."""
    if isinstance(output, Mapping):
        found, items = f"a {type(output).__name__} with keys {sorted(map(str, output))}", [*output]
    elif isinstance(output, tuple | list):
        found, items = f"a {type(output).__name__} of {len(output)}", [*range(len(output))]
    else:
        return LayerError(
            f"layer {name.text!r} gives {type(output).__name__}, not a tensor; choose a layer that gives one"
        )
    choice = f"; choose one item, e.g. '{name.path}[{items[0]}]'" if items else ""
    return LayerError(f"layer {name.text!r} gives {found}, not a tensor{choice}")


def per_image(name: str, shape: Sequence[int], images: int) -> None:
    """Refuse an output whose first axis is not that of the images: windows, or parts of the batch, lie there.

    Raises:
        LayerError: It is such a one.
    """
    if tuple(shape[:1]) != (images,):
        raise LayerError(
            f"layer {name!r} gives shape {tuple(shape)} for {images} image{'s' * (images != 1)}: its first axis is not "
            "that of the images; choose a layer around it (`attribution layers` prints the shapes)"
        )


def no_space(name: str, shape: tuple[int, ...]) -> LayerError:
    """The error for a layer without height and width, of which a mean over space is asked."""
    return LayerError(
        f"layer {name!r} gives shape {tuple(shape)}; a mean over space needs (N, D, h, w): choose a layer with a grid "
        "(`attribution layers` prints the shapes), or Activations(reduce='none')"
    )


def no_influence(*names: str) -> LayerError:
    """The error for layers that the score does not depend on."""
    listed = ", ".join(map(repr, names))
    return LayerError(
        f"the score does not depend on {listed}, or the gradient is cut; choose a layer on the way to the logits"
    )


def cut_off(name: str) -> LayerError:
    """The error for a layer that no gradient connects with the image."""
    return LayerError(
        f"layer {name!r} does not depend on the image, or the model cuts the gradient; choose another layer"
    )
