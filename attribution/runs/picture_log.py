"""Where a trainer's pictures go: TensorBoard, Weights & Biases, MLflow."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from attribution.errors import InputError

PictureLog = Callable[[str, "np.ndarray[Any, Any]", int], object]
"""``log(name, image, step)``, the image (H, W, 3) of uint8."""


def logs_of(trainer: Any) -> list[PictureLog]:
    """Those of a trainer's loggers that take pictures.

    Raises:
        InputError: None does.
    """
    found: list[PictureLog] = []
    for logger in trainer.loggers:
        experiment = logger.experiment
        if hasattr(experiment, "add_image"):
            found.append(partial(_tensorboard, experiment))
        elif hasattr(logger, "run_id") and hasattr(experiment, "log_image"):
            found.append(partial(_mlflow, experiment, logger))
        elif hasattr(logger, "log_image"):
            found.append(partial(_wandb, logger))
    if not found:
        names = ", ".join(type(logger).__name__ for logger in trainer.loggers) or "none"
        raise InputError(
            f"the trainer's loggers ({names}) take no images; give log=function(name, image, step), or a "
            "TensorBoardLogger"
        )
    return found


def _tensorboard(experiment: Any, name: str, image: "np.ndarray[Any, Any]", step: int) -> None:
    experiment.add_image(name, image, step, dataformats="HWC")


def _wandb(logger: Any, name: str, image: "np.ndarray[Any, Any]", step: int) -> None:
    logger.log_image(key=name, images=[image], step=step)


def _mlflow(experiment: Any, logger: Any, name: str, image: "np.ndarray[Any, Any]", step: int) -> None:
    experiment.log_image(logger.run_id, image, key=name.replace("/", "."), step=step)
