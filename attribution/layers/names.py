"""What a layer may be called, and what is said when the name does not serve."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from torch import Tensor, nn

from attribution.errors import LayerError, nearest
from attribution.layer_name import LayerName

_WRAPPERS = ("module.", "_orig_mod.")
_parsed = lru_cache(LayerName.parse)


def find(model: nn.Module, text: str) -> tuple[LayerName, nn.Module]:
    """The name, read, and the module it belongs to.

    The prefixes ``module.`` and ``_orig_mod.`` of wrapped models are accepted with and without the wrapper.

    Raises:
        LayerError: The model has no such layer; names the nearest ones.
    """
    name = _parsed(text) if isinstance(text, str) else LayerName.parse(text)
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
    """The error for a layer whose output or input, or the item chosen from it, is not a tensor.

    Args:
        name: As asked for.
        output: What the layer gave; of an input the arguments, by position or keyword.
    """
    if name.entry and isinstance(output, Mapping):
        found = ", ".join(f"[{key}] {type(value).__name__}" for key, value in output.items()) or "nothing"
        tensors = [key for key, value in output.items() if isinstance(value, Tensor)]
        choice = f"; choose one, e.g. '{name.whole}[{tensors[0]}]'" if tensors else "; choose another layer"
        return LayerError(f"layer {name.text!r} is given {found}, which is not one tensor{choice}")
    if isinstance(output, Mapping):
        found, items = f"a {type(output).__name__} with keys {sorted(map(str, output))}", [*output]
    elif isinstance(output, tuple | list):
        found, items = f"a {type(output).__name__} of {len(output)}", [*range(len(output))]
    else:
        return LayerError(
            f"layer {name.text!r} gives {type(output).__name__}, not a tensor; choose a layer that gives one"
        )
    choice = f"; choose one item, e.g. '{name.whole}[{items[0]}]'" if items else ""
    return LayerError(f"layer {name.text!r} gives {found}, not a tensor{choice}")


def per_image(name: str, shape: Sequence[int], images: int) -> None:
    """Refuse an output whose first axis is not that of the images: windows, or parts of the batch, lie there.

    Raises:
        LayerError: It is such a one.
    """
    if tuple(shape[:1]) != (images,):
        raise not_per_image(name, shape, images)


def not_per_image(name: str, shape: Sequence[int], images: int) -> LayerError:
    """The error for an output whose first axis is not that of the images."""
    return LayerError(
        f"layer {name!r} gives shape {tuple(shape)} for {images} image{'s' * (images != 1)}: its first axis is not "
        "that of the images; choose a layer around it (`attribution layers` prints the shapes)"
    )


def no_space(name: str, shape: tuple[int, ...]) -> LayerError:
    """The error for a layer without places, of which a mean over space is asked."""
    return LayerError(
        f"layer {name!r} gives shape {tuple(shape)}; a mean over space needs (N, D, h, w), tokens or another grid: "
        "choose a layer that has one (`attribution layers` prints the shapes), or Activations(reduce='none')"
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
