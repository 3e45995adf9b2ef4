"""Channels last: taken where the model says the same, left where it fails or says something else."""

import pytest
import torch
from torch import Tensor, nn

from attribution.metrics import removal_curves
from tests.conftest import noise
from tests.metrics.asked import SIZE, a_map, only, photos

LAID: list[tuple[int, bool]] = []
"""Of each forward the number of images, and whether their channels lay last; beside the model, since a copy is run."""


class Seen(nn.Module):
    """A convolution; what follows it tells the layouts apart by ``kind``."""

    def __init__(self, kind: str, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.body = nn.Conv2d(channels, 4, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        last = x.is_contiguous(memory_format=torch.channels_last) and x.shape[1] > 1
        LAID.append((len(x), last))
        y = self.body(x)
        if self.kind == "views":
            y = y.view(len(x), -1).reshape(y.shape)
        if self.kind == "tells" and last:
            y = y + 1e-4
        found: Tensor = y.flatten(2).amax(2)
        return found


@pytest.mark.parametrize(("kind", "taken"), [("good", True), ("views", False), ("tells", False)])
@pytest.mark.parametrize("count", [1, 3])
def test_the_layout_is_taken_where_nothing_changes(kind: str, taken: bool, count: int) -> None:
    model, x, map_ = Seen(kind), photos(count), a_map(count, 1, 4, 5)
    LAID.clear()
    found = only(removal_curves(model, x, {"m": map_}, target=1, steps=3, baselines=("mean",)))
    assert {last for _, last in LAID[-2:]} == {taken}
    plain = only(removal_curves(Seen("plain"), x, {"m": map_}, target=1, steps=3, baselines=("mean",)))
    torch.testing.assert_close(found.most, plain.most, rtol=0, atol=1e-12)


def test_one_channel_is_left_as_it_is() -> None:
    LAID.clear()
    removal_curves(
        Seen("good", 1), noise(2, 1, *SIZE, dtype=torch.float64), {"m": a_map(2, 1, 4, 5)}, target=1, steps=2
    )
    assert not any(last for _, last in LAID)
