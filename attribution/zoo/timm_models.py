"""Classifiers of timm with the transform that their configuration describes."""

import contextlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from attribution.errors import ModelError, nearest
from attribution.running.execution import first_line
from attribution.zoo.download import cached_path, probe, unreachable
from attribution.zoo.loaded import LoadedModel
from attribution.zoo.weights import classes_in, fill, read_state

if TYPE_CHECKING:
    from PIL import Image

_FILES = ("model.safetensors", "pytorch_model.bin")
_PATIENCE = 10.0  # seconds


def load_timm(name: str, weights: Path | None) -> LoadedModel:
    """``timm:NAME`` with its published weights, or with those of a file, of whose number of classes it is made.

    Raises:
        ModelError: timm is not installed or has no such model, or the weights cannot be had, read or fitted.
    """
    timm = import_timm()
    architecture, _, tag = name.partition(".")
    if architecture not in timm.list_models():
        hint = nearest(architecture.lower(), timm.list_models())
        raise ModelError(f"no timm model {name!r}{hint}; timm.list_models() has all")
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tags:
        raise ModelError(f"no timm weights {name!r}{nearest(name, tags)}; {architecture} has: {', '.join(tags) or '-'}")
    assumed = ""
    if weights is None:
        model = _pretrained(timm, name)
    else:
        model, state = timm.create_model(name, pretrained=False), read_state(weights)
        classes = classes_in(state, model, str(weights))
        if classes is not None:
            model = timm.create_model(name, pretrained=False, num_classes=classes)
            assumed = (
                f"{weights} is of {classes} classes, so timm:{name} was made with as many; assumed: the transform of "
                "the published weights"
            )
        fill(model, state, str(weights))
    transform, mean, std = transform_of(timm, model)
    return LoadedModel(
        name=f"timm:{name}",
        model=model.eval(),
        transform=transform,
        mean=mean,
        std=std,
        labels=_labels(timm, model),
        assumed=assumed,
    )


def import_timm() -> ModuleType:
    """The module timm.

    Raises:
        ModelError: it is not installed.
    """
    if find_spec("timm") is None:
        raise ModelError("this model needs timm; pip install 'torch-attribution[timm]'")
    import timm

    return timm


def transform_of(
    timm: ModuleType, model: nn.Module
) -> "tuple[Callable[[Image.Image], Tensor], tuple[float, ...], tuple[float, ...]]":
    """The transform of a timm model, and the mean and std it ends with."""
    config: dict[str, Any] = timm.data.resolve_model_data_config(model)
    return timm.data.create_transform(**config, is_training=False), tuple(config["mean"]), tuple(config["std"])


def _pretrained(timm: ModuleType, name: str) -> nn.Module:
    """The model with its published weights, which timm downloads where they are not in the cache."""
    settings = timm.models.get_pretrained_cfg(name)
    if settings is None or not (settings.hf_hub_id or settings.url):
        raise ModelError(f"timm publishes no weights for {name!r}; pass a file with --weights")
    _check_reachable(settings, f"timm:{name}")
    try:
        # Downloads are announced on stdout, where a caller may be writing results.
        with contextlib.redirect_stdout(sys.stderr):
            model: nn.Module = timm.create_model(name, pretrained=True)
    # What a failed download raises depends on the HTTP library that the installed hub client uses.
    except Exception as error:
        raise ModelError(f"timm cannot load {name!r}: {first_line(error)}; pass a file with --weights") from error
    return model


def _check_reachable(settings: Any, name: str) -> None:
    """Ask once before timm does: its hub client tries again for most of a minute when there is no network."""
    if not settings.hf_hub_id:
        if not cached_path(settings.url).exists():
            probe(settings.url, name)
        return
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = settings.hf_hub_id.partition("@")
    files = (settings.hf_hub_filename,) if settings.hf_hub_filename else _FILES
    if any(isinstance(try_to_load_from_cache(repository, file, revision=revision or None), str) for file in files):
        return
    url = hf_hub_url(repository, files[0], revision=revision or None)
    try:
        get_hf_file_metadata(url, timeout=_PATIENCE)
    except EntryNotFoundError:
        return
    except Exception as error:
        raise unreachable(name, url, error) from error


def _labels(timm: ModuleType, model: nn.Module) -> tuple[str, ...] | None:
    """The first of the names that ImageNet gives each class, where the number of classes is ImageNet's."""
    subset = timm.data.infer_imagenet_subset(model)
    if subset is None:
        return None
    return tuple(text.partition(",")[0] for text in timm.data.ImageNetInfo(subset).label_descriptions())
