"""Classifiers of torchvision with the transform and class names of their default weights."""

from pathlib import Path
from typing import Any

from attribution.errors import ModelError, nearest
from attribution.zoo.download import fetch
from attribution.zoo.loaded import LoadedModel
from attribution.zoo.weights import classes_in, fill, read_state


def load_torchvision(name: str, weights: Path | None) -> LoadedModel:
    """``torchvision:NAME`` with its default weights, or with those of a file, of whose number of classes it is made.

    Raises:
        ModelError: torchvision has no such classifier, or the weights cannot be had, read or fitted.
    """
    import torchvision.models as zoo

    available = zoo.list_models(module=zoo)
    if name not in available:
        hint = nearest(name.lower(), available)
        raise ModelError(f"no torchvision classifier {name!r}{hint}; torchvision.models.list_models() has all")
    default = zoo.get_model_weights(name).DEFAULT
    path = fetch(default.url, f"torchvision:{name}") if weights is None else weights
    state = read_state(path)
    options = _options(name, default.meta, list(state))
    model = zoo.get_model(name, weights=None, **options)
    classes = None if weights is None else classes_in(state, model, str(path))
    if classes is not None:
        model = zoo.get_model(name, weights=None, num_classes=classes, **options)
    fill(model, state, str(path))
    if name == "googlenet":  # as torchvision does: the auxiliary heads of the published file were never trained
        model.aux_logits, model.aux1, model.aux2 = False, None, None
    transform = default.transforms()
    return LoadedModel(
        name=f"torchvision:{name}",
        model=model.eval(),
        transform=transform,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        labels=tuple(default.meta["categories"]) if classes is None else None,
        assumed=""
        if classes is None
        else f"{path} is of {classes} classes, so torchvision:{name} was made with as many; assumed: "
        f"{in_words(transform)}",
    )


def in_words(transform: Any) -> str:
    """What a transform of torchvision's classifiers does to a photo."""
    (scaled,), (side,) = transform.resize_size, transform.crop_size
    mean, std = (", ".join(map(str, values)) for values in (transform.mean, transform.std))
    return f"the shorter side scaled to {scaled}, the middle {side} × {side}, mean {mean}, std {std}"


def _options(name: str, meta: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """What torchvision itself sets when it builds a model for its weights."""
    if name in ("googlenet", "inception_v3"):
        auxiliary = any("aux" in key.lower() for key in keys)
        return {"transform_input": True, "aux_logits": auxiliary, "init_weights": False}
    if name.startswith("vgg"):
        return {"init_weights": False}
    if name.startswith("vit_"):
        return {"image_size": meta["min_size"][0]}
    return {}
