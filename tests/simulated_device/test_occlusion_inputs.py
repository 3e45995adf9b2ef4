"""Occlusion of inputs other than one image says on a device what it says on the host."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import ClassScore, Execution, Occlusion, explain
from attribution.testing import small_cnn
from tests.conftest import BACKENDS, noise
from tests.techniques.occlusion.loop import Features, Siamese, Volume, WithMetadata, built

LOGIT = ClassScore(1, of="logit")
DISC = torch.ones(17, 23, dtype=torch.bool).tril()
WINDOW: dict[str, Any] = {"window": 4, "stride": 3}
IMAGE = noise(3, 3, 17, 23)


def small(kind: Any) -> nn.Module:
    return built(kind).float()


QUESTIONS: dict[str, tuple[nn.Module, Any, Occlusion]] = {
    "features": (small(Features), noise(3, 9), Occlusion(**WINDOW)),
    "volume": (small(Volume), noise(2, 2, 5, 6, 7), Occlusion(**WINDOW)),
    "two images": (small(Siamese), (noise(3, 3, 7, 8), noise(3, 3, 9, 9)), Occlusion(**WINDOW)),
    "metadata": (
        small(WithMetadata),
        (noise(3, 3, 7, 8), torch.tensor([2, 7, 4]), torch.ones(2), 2.0),
        Occlusion(**WINDOW),
    ),
    "by pixel": (small_cnn(), IMAGE, Occlusion(**WINDOW, baseline=noise(3, 17, 23, seed=1))),
    "by image": (small_cnn(), IMAGE, Occlusion(**WINDOW, baseline=noise(3, 3, 17, 23, seed=1).double())),
    "blurred": (small_cnn(), IMAGE, Occlusion(**WINDOW, baseline="blur")),
    "channels": (small_cnn(), IMAGE, Occlusion(**WINDOW, channels=(0, 2))),
    "a region": (small_cnn(), IMAGE, Occlusion(**WINDOW, region=DISC)),
    "bounds": (small_cnn(), IMAGE, Occlusion(**WINDOW, region=((3, 8), (2, 9)))),
}


def moved(given: Any, device: str) -> Any:
    if isinstance(given, tuple):
        return tuple(moved(each, device) for each in given)
    return given.to(device) if isinstance(given, Tensor | nn.Module) else given


@BACKENDS
@pytest.mark.parametrize("batch_size", [2, None])
@pytest.mark.parametrize("name", list(QUESTIONS))
def test_a_device_says_what_the_host_says(name: str, batch_size: int | None, backend: str) -> None:
    model, given, technique = QUESTIONS[name]
    execution = Execution(batch_size=batch_size)
    host, device = (
        explain(moved(model, at), moved(given, at), technique, backend=backend, target=LOGIT, execution=execution)
        for at in ("cpu", "sim:0")
    )
    model.to("cpu")
    assert {map_.device.type for map_ in device.maps.values()} == {"sim"}
    for key, expected in host.maps.items():
        assert (device.maps[key].cpu() - expected).abs().max() <= 1e-5 * host.extras["largest_score"].max()
        assert expected.abs().max() > 1e-4
