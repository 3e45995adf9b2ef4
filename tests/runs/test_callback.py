"""Maps while a model is trained: drawn when they should be, and the training is to the bit as without them."""

import copy
import importlib
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from attribution import GradCAM, Saliency, explain, runs
from attribution.errors import InputError
from tests.conftest import noise

LIBRARIES = {"lightning": lightning.pytorch, "pytorch_lightning": pytorch_lightning}
IMAGES = noise(2, 3, 12, 16, seed=9)
TECHNIQUES = {"cam": GradCAM(layers=("net.body",)), "saliency": Saliency()}


def network() -> nn.Module:
    """With batch statistics and dropout, which a careless look would move."""
    body = nn.Conv2d(4, 6, 3)
    net = nn.Sequential()
    net.add_module("stem", nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)))
    net.add_module("body", body)
    net.add_module("head", nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net.add_module("linear", nn.Linear(6, 4))
    return net


def module(library: Any, *, compiled: bool = False) -> Any:
    class Net(library.LightningModule):  # type: ignore[misc]  # of either library
        def __init__(self) -> None:
            super().__init__()
            net = network()
            self.net = torch.compile(net, backend="eager") if compiled else net
            self.losses: list[float] = []

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.net(x)
            return found

        def training_step(self, batch: Any, index: int) -> Tensor:
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.losses.append(float(loss))
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.losses.append(float(nn.functional.cross_entropy(self(batch[0]), batch[1])))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    return Net()


def trained(
    callback: Any, library: Any = lightning.pytorch, *, validates: bool = True, compiled: bool = False, **options: Any
) -> Any:
    """A module after three epochs from one seed; its losses are kept."""
    library.seed_everything(3, verbose=False)
    net = module(library, compiled=compiled)
    data = TensorDataset(noise(24, 3, 12, 16), torch.arange(24) % 4)
    loaders = [DataLoader(data, batch_size=6, shuffle=True), *([DataLoader(data, batch_size=12)] * validates)]
    trainer = library.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*([] if callback is None else [callback]), *options.pop("callbacks", [])],
        **{"num_sanity_val_steps": 1, **options},
    )
    with warnings.catch_warnings(action="ignore"):  # of few workers and few batches
        trainer.fit(net, *loaders)
    net.state = torch.get_rng_state()
    return net


class Log:
    """What was handed to ``log=``."""

    def __init__(self) -> None:
        self.said: list[tuple[str, np.ndarray[Any, Any], int]] = []

    def __call__(self, name: str, image: "np.ndarray[Any, Any]", step: int) -> None:
        self.said.append((name, image, step))


def ema() -> Any:
    from lightning.pytorch.callbacks import WeightAveraging

    return WeightAveraging()


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "validation": dict,
    "no validation": lambda: {"validates": False},
    "no inference mode": lambda: {"inference_mode": False},
    "bf16-mixed": lambda: {"precision": "bf16-mixed"},
    "compiled": lambda: {"compiled": True},
    "averaged weights": lambda: {"callbacks": [ema()]},
    "every second validation": lambda: {"check_val_every_n_epoch": 2},
}
BOTH = [("lightning", case) for case in CASES] + [
    ("pytorch_lightning", "validation"),
    ("pytorch_lightning", "bf16-mixed"),
]


@pytest.mark.parametrize(("name", "case"), BOTH)
def test_the_loss_curve_is_bit_identical(name: str, case: str) -> None:
    log, library = Log(), LIBRARIES[name]
    techniques, layer = dict(TECHNIQUES), "net.body"
    picks: Callable[[Any], nn.Module] | None = None
    if case == "compiled":  # what was compiled is named from inside, as everywhere
        techniques, layer, picks = {**TECHNIQUES, "cam": GradCAM(layers=("body",))}, "body", lambda each: each.net
    watched = trained(runs.AttributionCallback(techniques, IMAGES, log=log, model=picks), library, **CASES[case]())
    plain = trained(None, library, **CASES[case]())
    assert watched.losses == plain.losses
    assert len(set(plain.losses)) > 10
    assert torch.equal(watched.state, plain.state)
    for mine, theirs in zip(watched.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert all(each.training for each in watched.modules())
    assert [(said, step) for said, _, step in log.said] == [
        (said, step) for step in (4, 8, 12) for said in (f"cam/{layer}", "saliency")
    ]
    assert all(image.shape == (12, 32, 3) and image.dtype == np.uint8 for _, image, _ in log.said)
    assert len({image.tobytes() for _, image, _ in log.said}) == 6  # the maps move with the weights


def test_what_is_drawn_is_the_map_of_the_model_as_it_is_then() -> None:
    log = Log()
    net = trained(runs.AttributionCallback(GradCAM(layers=("body",)), IMAGES, log=log, model=lambda each: each.net))
    from attribution.runs.callback import _pictures
    from attribution.runs.overlays import heatmaps

    expected = heatmaps(explain(net.net, IMAGES, GradCAM(layers=("body",))), _pictures(IMAGES))["body"]
    name, image, step = log.said[-1]
    assert (name, step) == ("grad_cam/body", 12)
    assert np.array_equal(image, np.concatenate(expected, axis=1))
    assert not np.array_equal(log.said[0][1], image)


def test_every_n_epochs_counts_from_one() -> None:
    log = Log()
    trained(runs.AttributionCallback(Saliency(), IMAGES, every_n_epochs=2, log=log))
    assert [step for _, _, step in log.said] == [8]


def test_a_look_that_draws_random_numbers_is_seen() -> None:
    """The comparison above notices a callback that is not careful."""

    class Careless(lightning.pytorch.Callback):
        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.train()(IMAGES)

    assert trained(Careless()).losses != trained(None).losses


class Board:
    """A logger as TensorBoard's is."""

    def __init__(self) -> None:
        self.experiment, self.images = self, list[tuple[str, tuple[int, ...], int]]()

    def add_image(self, name: str, image: Any, step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        self.images.append((name, image.shape, step))


class Weights:
    """As that of Weights & Biases."""

    def __init__(self) -> None:
        self.experiment, self.images = object(), list[tuple[str, tuple[int, ...], int]]()

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        self.images.append((key, images[0].shape, step))


class Flow:
    """As that of MLflow, whose keys hold no slash."""

    def __init__(self) -> None:
        self.experiment, self.images, self.run_id = self, list[tuple[str, tuple[int, ...], int]](), "run"

    def log_image(self, run_id: str, image: Any, *, key: str, step: int) -> None:
        assert run_id == "run"
        self.images.append((key.replace(".", "/", 1), image.shape, step))


def test_loggers_get_what_they_take() -> None:
    callback = runs.AttributionCallback(TECHNIQUES, IMAGES)
    loggers: list[Any] = [Board(), Weights(), Flow()]
    trainer: Any = type(
        "Trainer", (), {"loggers": loggers, "is_global_zero": True, "current_epoch": 0, "global_step": 5}
    )
    net = module(lightning.pytorch)
    callback.on_fit_start(trainer, net)
    callback._draw(trainer, net)
    for logger in loggers:
        assert logger.images == [("cam/net.body", (12, 32, 3), 5), ("saliency", (12, 32, 3), 5)]
    trainer.loggers = []
    with pytest.raises(InputError, match=r"loggers \(none\) take no images; give log="):
        callback.on_fit_start(trainer, net)


def test_it_is_a_callback_of_both_and_survives_a_copy() -> None:
    callback = runs.AttributionCallback(Saliency(), IMAGES, log=print)
    assert isinstance(callback, runs.AttributionCallback)
    for name in ("lightning.pytorch", "pytorch_lightning"):
        assert isinstance(callback, importlib.import_module(name).Callback)
    for again in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert type(again) is type(callback)
        assert torch.equal(again._images, IMAGES)


def test_wrong_arguments_are_refused_at_once() -> None:
    from attribution import Activations

    cases: list[tuple[Any, dict[str, Any], str]] = [
        ((3, IMAGES), {}, "technique is 3"),
        ((Activations(layers=("a",)), IMAGES), {}, "no heatmaps"),
        ((Saliency(), IMAGES[0]), {}, "float tensor"),
        ((Saliency(), IMAGES), {"every_n_epochs": 0}, "every_n_epochs is 0"),
        (([], IMAGES), {}, "no technique"),
    ]
    for arguments, options, said in cases:
        with pytest.raises(InputError, match=said):
            runs.AttributionCallback(*arguments, **options)
