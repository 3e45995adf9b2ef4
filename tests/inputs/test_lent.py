"""What a call reads of the user's own tensor: nothing is written there, and a write by others is found."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    InputError,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
    explain,
    explain_many,
    prepared,
    registry,
)
from attribution.calls import answers
from attribution.inputs.inputs import Inputs
from attribution.inputs.lent import Lent
from attribution.members import Member
from attribution.run import Run
from attribution.technique import Maps, Technique
from attribution.testing import small_residual
from attribution_hooks.gradient.input_x_gradient import HooksInputXGradient
from tests.cases import OF_INPUTS
from tests.conftest import noise

X = noise(3, 3, 17, 23)
READERS: dict[str, Technique] = {
    name: technique for name, technique in OF_INPUTS.items() if "only_shows" in vars(registry.get(technique, "hooks"))
}
LATER: list[Technique] = [InputXGradient(), IntegratedGradients(steps=3), SmoothGrad(samples=3)]
"""Those that read the inputs after a forward."""


def test_the_readers() -> None:
    assert {"saliency", "input_x_gradient", "integrated_gradients", "smooth_grad", "activations"} <= {*READERS}
    assert "occlusion" not in READERS


class Writes(nn.Module):
    """Writes into what it is given, in one of the ways that torch does not count or refuse."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.net, self.way = small_residual(), way
        self.stem, self.body, self.head = self.net.stem, self.net.body, self.net.head

    def forward(self, x: Tensor) -> Any:
        if self.way == "in place":
            x.mul_(1.25)
        elif self.way == "data":
            x.data.mul_(1.25)
        elif self.way == "view":
            x[:, :, 3:9].add_(1)
        elif self.way == "without gradients":
            with torch.no_grad():
                x.clamp_(max=0.5)
        elif self.way == "numpy":
            held = x.detach().numpy()
            held *= 1.25
        out = self.net(x)
        if self.way == "behind":
            x.data.zero_()
        return out


@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize("way", ["in place", "data", "view", "without gradients", "numpy", "behind"])
@pytest.mark.parametrize("name", READERS)
def test_a_model_that_writes_has_a_copy(name: str, way: str, examples: int) -> None:
    """Memory that numpy shares is copied: both answers are the same, and neither wrote."""
    technique, x = READERS[name], X[:examples].clone()
    held = torch.from_numpy(X[:examples].clone().numpy())
    lent = Lent(Inputs.of(x))
    assert lent.inputs.first.data_ptr() == x.data_ptr()
    model, target = Writes(way).eval(), 1 if technique.needs_target else None
    mine, other = (explain(model, given, technique, target=target) for given in (x, held))
    assert torch.equal(x, X[:examples])
    assert torch.equal(held, x)
    lent.check()
    for key, map_ in mine.raw.items():
        assert torch.equal(map_, other.raw[key])
        assert map_.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "expanded": lambda x: x[:1].expand(3, -1, -1, -1),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "strided": lambda x: torch.stack([x, -x], dim=-1)[..., 0],
    "numpy": lambda x: torch.from_numpy(x.clone().numpy()),
    "shared": lambda x: x.clone().share_memory_(),
    "parameter": lambda x: nn.Parameter(x.clone()),
    "negated": lambda x: torch._neg_view(-x),
}


def _inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


@pytest.mark.parametrize("kind", [*KINDS, "inference"])
def test_what_cannot_be_watched_is_copied(kind: str) -> None:
    x = KINDS.get(kind, _inference)(X)
    lent = Lent(Inputs.of(x)).inputs.first
    assert lent.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    assert torch.equal(lent, x)
    assert not lent.requires_grad
    model = small_residual()
    for technique in LATER:
        mine, other = (explain(model, given, technique, target=1) for given in (x, x.detach().clone()))
        assert torch.equal(mine.raw["input"], other.raw["input"])


def test_channels_last_and_rows_of_a_batch_are_lent() -> None:
    for x in (X.contiguous(memory_format=torch.channels_last), X.clone()[1:]):
        lent = Lent(Inputs.of(x))
        assert lent.inputs.first.data_ptr() == x.data_ptr()
        assert lent.inputs.first.stride() == x.stride()
        lent.check()
        x._base.add_(1) if x._base is not None else x.add_(1)
        with pytest.raises(InputError, match="written into"):
            lent.check()


def test_what_lies_beside_is_copied() -> None:
    beside, ids = torch.ones(4), torch.arange(3)
    lent = Lent(Inputs.of((X, ids, beside, [beside]))).inputs
    held = lent.values["input.1"], lent.values["input.2"], lent.values["input.3"][0]
    assert all(mine.data_ptr() != other.data_ptr() for mine, other in zip(held, (ids, beside, beside), strict=True))


class Elsewhere(nn.Module):
    """Knows the user's tensor from elsewhere, and writes there."""

    def __init__(self, write: Callable[[], object]) -> None:
        super().__init__()
        self.net, self.write = small_residual(), write

    def forward(self, x: Tensor) -> Any:
        out = self.net(x)
        self.write()
        return out


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("technique", LATER, ids=lambda technique: technique.name)
def test_a_write_from_elsewhere_is_found(technique: Technique, again: bool) -> None:
    """By the model's own code, and by another thread."""
    x, on = X.clone(), [False]

    def write() -> None:
        if on:
            thread = threading.Thread(target=lambda: x.mul_(0.5))
            thread.start()
            thread.join()

    on.clear()  # the first call proves the copy
    model = Elsewhere(write).eval()
    with prepared(model):
        if again:
            explain(model, x, technique, target=1)
        on.append(True)
        with pytest.raises(InputError, match=r"written into .*clone"):
            explain(model, x, technique, target=1)
    on.clear()
    explain(model, x, technique, target=1)


class Remembers(nn.Module):
    """Has the user's tensor as a state of its own; the lock is what cannot be copied."""

    def __init__(self, state: Tensor, *, copies: bool) -> None:
        super().__init__()
        self.net, self.state = small_residual(), state
        self.lock = None if copies else threading.Lock()

    def forward(self, x: Tensor) -> Any:
        self.state.mul_(0.5)
        return self.net(x)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("technique", LATER, ids=lambda technique: technique.name)
def test_a_state_that_is_the_input(technique: Technique, copies: bool) -> None:
    x = X.clone()
    mine = explain(Remembers(x, copies=copies).eval(), x, technique, target=1)
    other = explain(small_residual(), X, technique, target=1)
    assert torch.equal(mine.raw["input"], other.raw["input"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Zeroes(InputXGradient):
    """A technique that writes where it should not."""

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        inputs.first.zero_()
        return super().finish(raw, inputs)


class WritesItself(HooksInputXGradient):
    """An attributor likewise; of `HooksInputXGradient` it does not have what that says of itself."""

    def finished(self, run: Run[InputXGradient], totals: Any, ends: Any) -> Maps:
        found = super().finished(run, totals, ends)
        run.inputs.first.zero_()
        return found


class SaysIt(WritesItself):
    """Says it anew, and lies."""

    only_shows: ClassVar[bool] = True


def _computed(kind: type[HooksInputXGradient], technique: InputXGradient, x: Tensor) -> Tensor:
    asker: Any = kind(small_residual(), technique)
    (found,) = answers([Member(asker, 1)], x)
    return found.raw["input"]


def test_what_is_derived_has_a_copy() -> None:
    wanted = explain(small_residual(), X, InputXGradient(), target=1).raw["input"]
    for kind, technique in ((WritesItself, InputXGradient()), (HooksInputXGradient, Zeroes())):
        x = X.clone()
        assert torch.equal(_computed(kind, technique, x), wanted)
        assert torch.equal(x, X)
    x = X.clone()
    with pytest.raises(InputError, match="written into"):  # else nothing of this would be seen
        _computed(SaysIt, InputXGradient(), x)


def test_several_techniques_have_no_copies_that_they_need_not(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = list[Tensor]()
    kept = Run.forward

    def forward(self: Run[Any], *given: Any, **kwargs: Any) -> Any:
        starts.append(self.inputs.first)
        return kept(self, *given, **kwargs)

    monkeypatch.setattr(Run, "forward", forward)
    asked: dict[str, Technique] = {
        "a": Saliency(),
        "b": IntegratedGradients(steps=3),
        "c": Activations(layers=("stem",)),
    }
    explain_many(small_residual(), X, asked, target=1)
    assert len(starts) > 3
    assert {start.data_ptr() for start in starts} == {X.data_ptr()}
    starts.clear()
    asked["d"] = OF_INPUTS["grad_cam"]
    explain_many(small_residual(), X, asked, target=1)
    places = [start.data_ptr() for start in starts]
    assert places[0] == places[-2] == X.data_ptr() != places[-1]


@pytest.fixture(autouse=True)
def _untouched() -> Iterator[None]:
    before = X.clone()
    yield
    assert torch.equal(X, before)
