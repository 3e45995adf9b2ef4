"""A failure of the accelerator is told late, at whatever call waits: it is named so, and nothing goes on after it."""

import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, ModelError, calls
from attribution.running.execution import lost
from attribution.testing import guard
from tests.cases import SOME_PAIRS
from tests.conftest import noise
from tests.models.kinds import ask

EVERY = pytest.mark.parametrize("pair", SOME_PAIRS)
FAILURE = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"


class Breaking(nn.Module):
    """Its device is lost at forward number ``last``, counted over all copies of the model, and stays so."""

    calls = 0

    def __init__(self, last: int) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        Breaking.calls += 1
        if Breaking.calls >= self.last:
            raise torch.AcceleratorError(FAILURE)
        return self.head(self.body(self.stem(x)).relu().mean((2, 3)))  # type: ignore[no-any-return]


@EVERY
@pytest.mark.parametrize("last", range(1, 9))
def test_a_lost_device_is_named_and_no_other_way_is_tried(last: int, pair: tuple[str, str]) -> None:
    Breaking.calls = 0
    model = Breaking(last).eval()
    found: ModelError | None = None
    try:
        with guard(model):
            ask(pair, model, noise(3, 3, 17, 23))
    except ModelError as error:
        found = error
    assert (Breaking.calls == last) if found else (Breaking.calls < last)  # not asked once more
    if found is not None:
        assert str(found).startswith(
            "the accelerator failed (CUDA error: device-side assert triggered). It tells so late"
        )
        assert "CUDA_LAUNCH_BLOCKING=1" in str(found)
        assert lost(found)


def test_dense_occlusion_does_not_take_over_from_a_lost_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from attribution_hooks.incremental import differences as incremental
    from attribution_hooks.perturbation import dense

    def broken(*args: object) -> Tensor:
        raise torch.AcceleratorError(FAILURE)

    monkeypatch.setattr(incremental, "differences", broken)
    monkeypatch.setattr(dense, "differences", lambda *args: pytest.fail("went on"))
    Breaking.calls = 0
    with pytest.raises(ModelError, match="the accelerator failed"):
        ask(("occlusion", "hooks"), Breaking(99).eval(), noise(1, 3, 17, 23))


@EVERY
def test_it_may_be_told_when_the_answer_is_looked_at(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device the first wait may be the last look of a call, at maps that are zero everywhere."""
    Breaking.calls = 0

    def late(*args: object) -> None:
        raise torch.AcceleratorError(FAILURE)

    monkeypatch.setattr(calls, "zero_maps", late)
    with pytest.raises(ModelError, match="the accelerator failed"):
        ask(pair, Breaking(99).eval(), noise(1, 3, 17, 23))


def test_what_is_given_back_after_a_lost_device_does_not_hide_what_was_lost() -> None:
    """Buffers and generators cannot be written any more."""

    class Stateful(Breaking):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise TypeError("it runs itself")

    class Gone(Tensor):
        """A buffer on the lost device."""

        @classmethod
        def __torch_function__(
            cls, function: object, types: object, args: tuple[object, ...] = (), kwargs: object = None
        ) -> object:
            if Breaking.calls >= 1 and getattr(function, "__name__", "") in ("equal", "copy_"):
                raise torch.AcceleratorError(FAILURE)
            return super().__torch_function__(function, types, args, kwargs or {})

    model = Stateful(1).eval()
    model.register_buffer("state", torch.zeros(3).as_subclass(Gone))
    Breaking.calls = 0
    with pytest.raises(ModelError, match="the accelerator failed"):
        ask(("activations", "hooks"), model, noise(1, 3, 17, 23), execution=Execution())
