"""``AttributionCallback``: maps of fixed images while a model is trained."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attribution import numbers
from attribution.api import explain
from attribution.errors import InputError
from attribution.runs.named import techniques_by_name
from attribution.runs.overlays import heatmaps
from attribution.runs.picture_log import PictureLog, logs_of
from attribution.scores.reading import Asked
from attribution.technique import Technique

_LIBRARIES = ("lightning.pytorch", "pytorch_lightning")


class AttributionCallback:
    """Draws heatmaps of the same images as a model learns, and hands them to the trainer's loggers.

    A callback of whichever Lightning was imported, ``lightning.pytorch`` or ``pytorch_lightning``. Maps are drawn at
    the end of a validation epoch, where there is validation, else of a training epoch, by the process of rank 0.
    The training is not touched: weights, gradients, batch statistics and random numbers are to the bit as without it.

    Args:
        technique: One, several, or a mapping from names; each gives heatmaps.
        images: (N, C, H, W), as the model takes them; cast and sent to where the model is.
        every_n_epochs: Draw after epochs n, 2n, …, counted from 1.
        log: ``log(name, image, step)`` with an (H, N · W, 3) array of uint8; ``None``: the trainer's loggers, which may
            be TensorBoard's, Weights & Biases' or MLflow's.
        model: Picks the network out of the `LightningModule`; ``None``: the module itself, by its ``forward``.
        backend: Who computes.
        target: As `explain` takes it for N images.
        picture: From ``images`` to (N, H, W, 3) in [0, 1]; ``None``: each image from its least value to its largest.

    Raises:
        InputError: An argument is of another form. When fitting begins: no logger takes images.
    """

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        """An instance that is a callback of the Lightnings that were imported too."""
        own: Any = cls
        return object.__new__(_kind(own, tuple(name for name in _LIBRARIES if name in sys.modules)))

    def __init__(
        self,
        technique: Technique | Sequence[Technique] | Mapping[str, Technique],
        images: Tensor,
        *,
        every_n_epochs: int = 1,
        log: PictureLog | None = None,
        model: Callable[[Any], nn.Module] | None = None,
        backend: str = "hooks",
        target: Asked = None,
        picture: Callable[[Tensor], Any] | None = None,
    ) -> None:
        self._techniques = techniques_by_name(technique)
        for name, each in self._techniques.items():
            if each.kind != "heatmap":
                raise InputError(f"{name} gives no heatmaps; watch a technique that does, such as GradCAM()")
        if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or not len(images):
            raise InputError("images must be a float tensor (N, C, H, W), as the model takes them")
        every = numbers.integer(every_n_epochs)
        if every is None or every < 1:
            raise InputError(f"every_n_epochs is {every_n_epochs!r}; give an int of at least 1")
        self._images, self._every, self._log, self._model = images.detach().clone(), every, log, model
        self._backend, self._target = backend, target
        self._pictures = _pictures(self._images) if picture is None else np.asarray(picture(self._images))

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse loggers that take no images before an epoch is spent.

        Raises:
            InputError: No logger of the trainer takes images.
        """
        if self._log is None:
            logs_of(trainer)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw, unless this is the check of the validation loop before training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._draw(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw where this epoch had no validation."""
        loop = trainer.fit_loop.epoch_loop
        validates = trainer.enable_validation and sum(loop.val_loop.max_batches or [0]) > 0
        due = (
            trainer.check_val_every_n_epoch is None
            or (trainer.current_epoch + 1) % trainer.check_val_every_n_epoch == 0
        )
        if not (validates and due):
            self._draw(trainer, pl_module)

    def _draw(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero or (trainer.current_epoch + 1) % self._every:
            return
        model = pl_module if self._model is None else self._model(pl_module)
        like = next((each for each in model.parameters() if each.is_floating_point()), self._images)
        logs = [self._log] if self._log is not None else logs_of(trainer)
        for name, technique in self._techniques.items():
            # Images that were made inside inference mode could have no gradient.
            with torch.inference_mode(False):
                images = self._images.to(like.device, like.dtype, copy=True)
            target = self._target if technique.needs_target else None
            found = explain(model, images, technique, backend=self._backend, target=target)
            for key, row in heatmaps(found, self._pictures).items():
                shown = name if key == "input" else f"{name}/{key}"
                strip = np.concatenate(row, axis=1)
                for log in logs:
                    log(shown, strip, int(trainer.global_step))

    def __reduce__(self) -> Any:
        return _made, (vars(self),)


def _made(held: dict[str, Any]) -> AttributionCallback:
    """A callback anew, where a process was started that imports Lightning itself."""
    made = AttributionCallback.__new__(AttributionCallback)
    vars(made).update(held)
    return made  # type: ignore[no-any-return]  # of a class that is made for the process


@cache
def _kind(cls: Any, imported: tuple[str, ...]) -> Any:
    """The class with the hooks that Lightning calls and that this one has no use for."""
    for name in () if imported else _LIBRARIES:
        try:
            import_module(name)
        except ImportError:
            continue
        imported = (name,)
        break
    if not imported:
        raise InputError("a callback needs Lightning; pip install 'torch-attribution[lightning]'")
    bases = [import_module(name).Callback for name in imported]
    if issubclass(cls, tuple(bases)):
        return cls
    return type(cls.__name__, (cls, *dict.fromkeys(bases)), {"__doc__": cls.__doc__, "__module__": cls.__module__})


def _pictures(images: Tensor) -> "np.ndarray[Any, Any]":
    """(N, H, W, 3) in [0, 1], each from its least value to its largest; other than three channels are averaged."""
    values = images.detach().cpu().double()
    values = values if values.shape[1] == 3 else values.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    low, high = values.amin(dim=(1, 2, 3), keepdim=True), values.amax(dim=(1, 2, 3), keepdim=True)
    scaled = (values - low) / torch.where(high > low, high - low, 1)
    pixels: np.ndarray[Any, Any] = scaled.movedim(1, -1).numpy()
    return pixels
