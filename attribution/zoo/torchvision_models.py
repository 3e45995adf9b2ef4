"""Classifiers of torchvision with the transform and class names of their default weights."""

from pathlib import Path
from typing import Any

from attribution.errors import ModelError, nearest
from attribution.zoo.download import fetch
from attribution.zoo.loaded import LoadedModel
from attribution.zoo.weights import fill, read_state


def load_torchvision(name: str, weights: Path | None) -> LoadedModel:
    """``torchvision:NAME`` with its default weights, or with those of a file.

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
    model = zoo.get_model(name, weights=None, **_options(name, default.meta, list(state)))
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
        labels=tuple(default.meta["categories"]),
    )


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
