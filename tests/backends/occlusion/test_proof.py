"""The engine is believed after covered images went through the model itself: what a trace cannot see shows there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import ClassScore, Execution, Occlusion, explain
from attribution.lowered.tracing import trace
from attribution.testing import small_cnn
from attribution_hooks.incremental import differences as incremental
from attribution_hooks.incremental.engine import Engine
from attribution_hooks.incremental.proof import Proof, chosen
from attribution_hooks.incremental.sink import Sink
from benchmarks.counters import count
from tests.backends.occlusion.truth import image
from tests.backends.occlusion.unseen import (
    LIMIT,
    UNSEEN,
    AsksAboutALayer,
    AsksTheType,
    AsksTorch,
    AsksWhatItIs,
    Bounded,
    BoundedByAWeight,
    BoundedByItsClass,
    ComparesTheKind,
    CountsRows,
    LooksForAnAttribute,
    Net,
    OnlyBesideAMask,
    OnlyUnderTheLastWindow,
    ReadsTheText,
    SwallowsErrors,
    in_a_closure,
)
from tests.conftest import logit, noise
from tests.oracles import forwards

pytestmark = pytest.mark.usefixtures("eager")

TECHNIQUE = Occlusion(window=(5, 6), stride=(4, 3), baseline=-3.0)


def error(model: nn.Module, x: Tensor, technique: Occlusion = TECHNIQUE) -> tuple[float, object]:
    """Of the classes but the last, from a loop over covered images that the model answers one by one."""
    targets = [[0, 1, 2, 3]] * len(x)
    result = explain(model, x, technique, target=logit(targets))
    truth = torch.cat([forwards.occlusions(model, one[None], technique)[:, :4] for one in x])
    found = (result.map.double() - truth).abs().max() / truth.abs().max()
    return found.item(), result.provenance["engine"]


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("build", UNSEEN, ids=lambda build: build.__name__)
def test_what_a_trace_does_not_see_is_not_believed(build: Callable[[], nn.Module], images: int) -> None:
    found, engine = error(build(), image(images))
    assert found < 1e-10
    assert engine == "dense"


@pytest.mark.usefixtures("unproved")
@pytest.mark.parametrize("build", [AsksTheType, OnlyBesideAMask], ids=lambda build: build.__name__)
def test_without_the_proof_it_would_be(build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Proof, "clean_agrees", lambda *_: torch.tensor(True))
    found, engine = error(build(), image(1))
    assert engine == "incremental"
    assert found > 1e-5


@pytest.mark.parametrize(
    "build",
    [LooksForAnAttribute, SwallowsErrors, ComparesTheKind, CountsRows, ReadsTheText],
    ids=lambda build: build.__name__,
)
def test_a_model_that_asks_what_a_symbol_cannot_answer_is_not_traced(build: Callable[[], nn.Module]) -> None:
    """Also where it swallows the error that the symbol raises; the far corner is no window of the proof."""
    x = image(1)
    x[..., -3:, -3:] *= 0.01
    found, engine = error(build(), x)
    assert found < 1e-10
    assert engine == "dense"


@pytest.mark.parametrize("build", [AsksWhatItIs, AsksTorch, AsksAboutALayer], ids=lambda build: build.__name__)
def test_a_model_that_asks_for_a_type_is_not_traced(build: Callable[[], Any]) -> None:
    """Which way it goes may show under few windows, and none of those that the proof looks at."""
    for seed in range(5):
        net, x = build(), noise(1, 3, 17, 19, seed=seed, dtype=torch.float64)
        net.bound = max(net.first(part).abs().max().item() for part in (x, torch.full_like(x, -3.0)))
        result = explain(net, x, TECHNIQUE, target=logit(1))
        assert "asks for the type" in str(result.provenance["reason"])
        assert error(net, x)[0] < 1e-10


def test_the_window_that_matters_most_is_asked_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The far corner is the brightest spot, so that covering it matters most also to the engine."""
    x = image(1)
    x[..., -3:, -3:] += 60
    found, engine = error(OnlyUnderTheLastWindow(), x)
    assert found < 1e-10
    assert engine == "dense"
    monkeypatch.setattr(Sink, "strongest", property(lambda self: tuple(part[:1] for part in self.asked)))
    found, engine = error(OnlyUnderTheLastWindow(), x)
    assert found > 0.1
    assert engine == "incremental"


def test_a_model_without_secrets_is_believed() -> None:
    found, engine = error(Net(), image(3))
    assert found < 1e-10
    assert engine == "incremental"


def _set_global(model: nn.Module, value: float) -> None:
    LIMIT[0] = value


def _set_class(model: nn.Module, value: float) -> None:
    setattr(type(model), "limit", value)  # noqa: B010  # a type checker knows no such attribute of all modules


def _set_weight(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        model.get_parameter("head.bias")[0] = value


@pytest.mark.parametrize(
    ("model", "change"),
    [(Bounded, _set_global), (BoundedByItsClass, _set_class), (BoundedByAWeight, _set_weight)],
    ids=["global", "class attribute", "item of a weight"],
)
def test_numbers_are_read_anew_in_every_call(
    model: Callable[[], nn.Module], change: Callable[[nn.Module, float], None]
) -> None:
    net, x = model(), image(1)
    for value in (9.0, 0.7, 2.0):
        change(net, value)
        found, engine = error(net, x)
        assert found < 1e-10, value
        assert engine == "incremental"
    change(net, 9.0)


def test_numbers_of_a_closure_are_read_anew() -> None:
    limits = [9.0]
    net, x = in_a_closure(limits), image(1)
    for value in (9.0, 0.7, 2.0):
        limits[0] = value
        assert error(net, x)[0] < 1e-10, value


@pytest.mark.parametrize("images", [1, 3])
def test_the_proof_costs_at_most_two_forwards_more_than_images(images: int) -> None:
    model, x = small_cnn(), torch.randn(images, 3, 17, 23, generator=torch.Generator().manual_seed(0))
    call = lambda: explain(model, x, TECHNIQUE, target=logit(1))  # noqa: E731  # a thunk
    result, counts = count(model, call, warm=call)
    assert result.provenance["engine"] == "incremental"
    assert counts.images - images == images + 2


def test_which_covers_are_asked_about() -> None:
    lattice = Occlusion(window=4, stride=4).lattice(20, 28)  # 5 × 7 windows
    assert chosen(lattice, 1) == ((0, 0), (2 * 7 + 3, 0))
    pairs = chosen(lattice, 4)
    assert [picture for _, picture in pairs] == [0, 0, 1, 2, 3]
    assert len({window for window, _ in pairs}) == 5
    assert all(0 <= window < 35 for window, _ in chosen(lattice, 100))
    assert chosen(Occlusion(window=20, stride=20).lattice(20, 20), 1) == ((0, 0),)


def test_a_trace_shares_large_tensors_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that a model holds as a plain attribute is read where it lies, in every call."""
    model = Net()
    model.table, model.short = torch.ones(2**21, dtype=torch.float64), torch.ones(8)
    copied: list[int] = []
    plain = Tensor.__deepcopy__

    def counted(self: Tensor, memo: Any) -> Any:
        copied.append(self.numel())
        return plain(self, memo)

    monkeypatch.setattr(Tensor, "__deepcopy__", counted)
    trace(model)
    assert copied == [8]


def test_dense_and_incremental_ask_the_same_question() -> None:
    model, x = small_cnn(), torch.randn(2, 3, 17, 23, generator=torch.Generator().manual_seed(0))
    fast, plain = (
        explain(model, x, TECHNIQUE, target=logit([[0, 3], [4, 1]]), execution=Execution(incremental=incremental))
        for incremental in (True, False)
    )
    assert [fast.provenance["engine"], plain.provenance["engine"]] == ["incremental", "dense"]
    assert all(pair.holds and not pair.degenerate for pair in TECHNIQUE.agreement(fast, plain))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_of_one_channel(dtype: torch.dtype) -> None:
    """Torch's convolutions misread a batch of one channel with the strides of channels last: off by 0.01 to 10²⁹."""
    technique = Occlusion(window=(2, 4), stride=(2, 3))
    for seed in range(10):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = nn.Conv2d(1, 2, 3, stride=(1, 2)), nn.Conv2d(2, 1, (1, 2)), nn.Conv2d(1, 2, 2, stride=(1, 2))
            model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)).to(dtype).eval()
        x = noise(3, 1, 9, 17, dtype=dtype, seed=seed)
        result = explain(model, x, technique, target=logit(1))
        truth = torch.cat([forwards.occlusions(model.double(), one[None].double(), technique)[:, 1:2] for one in x])
        assert (result.map.double() - truth).abs().max() < {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]


@pytest.mark.parametrize("of", ["logit", "probability"])
def test_what_a_window_says_among_others_is_what_the_model_says(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a kernel were wrong for batches: found for the window that then seems to matter most."""
    ran = Engine.run

    def wrong(self: Any, group: Any, pairs: Any) -> Any:
        found = ran(self, group, pairs)
        if len(pairs) > 1:
            for values in found.values():
                values[1] *= 3
        return found

    monkeypatch.setattr(Engine, "run", wrong)
    assert held_back(of) == incremental.COVERED


@pytest.mark.parametrize("of", ["logit", "probability"])
def test_the_map_is_made_of_what_the_engine_said(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the differences of a batch came to the wrong windows."""
    flushed = Sink.flush

    def shifted(self: Any) -> None:
        flushed(self)
        self.deltas.copy_(self.deltas.roll(1, dims=0))

    monkeypatch.setattr(Sink, "flush", shifted)
    assert held_back(of) == incremental.TOLD


def held_back(of: Any) -> object:
    """Why the engine was not believed; the answer is that of full forwards."""
    model, x = Net(), image(1)
    result = explain(model, x, TECHNIQUE, target=ClassScore(1, of=of))
    truth = forwards.occlusions(model, x, TECHNIQUE, of)[:, 1:2]
    assert (result.map - truth).abs().max() < 1e-10
    return result.provenance["reason"]
