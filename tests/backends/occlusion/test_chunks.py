"""Work in parts: all of it once and in order, halved where memory runs out, nothing left behind by an interrupt."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attribution import Execution, Occlusion, ResourceError, explain
from attribution.testing import Watch, guard, small_cnn, small_depthwise, small_residual
from attribution.testing.models.awkward import Watched
from attribution_hooks.chunks import in_parts
from tests.conftest import noise

FULL = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
TECHNIQUE = Occlusion(window=5, stride=3)
ENGINES = pytest.mark.parametrize("incremental", [False, True], ids=["dense", "incremental"])


class _Work:
    """Has room for some items at a time; ``room`` says for how many, before each part."""

    def __init__(self, *room: int) -> None:
        self.room = list(room)
        self.sizes: list[int] = []
        self.done: list[int] = []
        self.advanced = 0

    def __call__(self, part: Sequence[int]) -> None:
        self.sizes.append(len(part))
        room = self.room.pop(0) if len(self.room) > 1 else self.room[0]
        if len(part) > room:
            raise RuntimeError(FULL)
        self.done += part

    def advance(self) -> None:
        self.advanced += 1


@pytest.mark.parametrize(
    ("items", "size", "room", "sizes", "fitted"),
    [
        (10, 4, [9], [4, 4, 2], 4),
        (10, 100, [99], [10], 100),
        (10, 8, [3], [8, 4, 2, 2, 2, 2, 2], 2),
        (10, 4, [4, 1], [4, 4, 2, 1, 1, 1, 1, 1, 1], 1),
        (7, 5, [1, 1, 9], [5, 2, 1, 1, 1, 1, 1, 1, 1], 1),
        (5, 3, [9, 1], [3, 2, 1, 1], 1),
        (0, 3, [1], [], 3),
    ],
)
def test_parts_are_halved_until_they_fit_and_stay_so(
    items: int, size: int, room: list[int], sizes: list[int], fitted: int
) -> None:
    work = _Work(*room)
    assert in_parts(range(items), size, work, work.advance) == fitted
    assert work.sizes == sizes
    assert work.done == list(range(items))
    assert work.advanced == items


def test_a_single_item_that_does_not_fit_is_an_error() -> None:
    work = _Work(4, 0)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        in_parts(range(9), 4, work, work.advance)
    assert work.sizes == [4, 4, 2, 1]
    assert (work.done, work.advanced) == ([0, 1, 2, 3], 4)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2"), ValueError("no"), KeyboardInterrupt()])
def test_other_errors_pass_at_once(error: BaseException) -> None:
    calls: list[int] = []

    def work(part: Sequence[int]) -> None:
        calls.append(len(part))
        raise error

    with pytest.raises(type(error)) as caught:
        in_parts(range(8), 4, work, lambda: None)
    assert caught.value is error
    assert calls == [4]


def test_what_did_not_fit_is_freed_before_the_next_try() -> None:
    """The traceback of the failure holds the frame that holds the tensors."""
    alive: list[int] = []

    class Held:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    seen: list[int] = []

    def work(part: Sequence[int]) -> None:
        seen.append(len(alive))
        held = Held()
        if len(part) > 1:
            raise RuntimeError(FULL)
        del held

    in_parts(range(4), 4, work, lambda: None)
    assert seen == [0] * len(seen)


class _Roomy(nn.Module):
    """Has memory for so many images at once, which its head needs."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.net = small_cnn()
        self.full = _Full(limit)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.full(self.net(x))
        return logits


class _Full(nn.Module):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.limit:
            raise RuntimeError(FULL)
        return x


def _same(a: Tensor, b: Tensor) -> None:
    assert (a - b).abs().max() <= 1e-5 * (1 + b.abs().max())
    assert b.abs().max() > 0


@ENGINES
@pytest.mark.parametrize(("limit", "fitted"), [(5, 4), (1, 1)])
def test_a_model_that_runs_out_of_memory_gets_fewer_windows_at_once(limit: int, fitted: int, incremental: bool) -> None:
    inputs, execution = noise(1, 3, 17, 23), Execution(batch_size=16, incremental=incremental)
    short, ample = (explain(_Roomy(n), inputs, TECHNIQUE, target=[[0, 3]], execution=execution) for n in (limit, 99))
    assert short.provenance["engine"] == ample.provenance["engine"] == ("incremental" if incremental else "dense")
    assert ample.provenance["windows_per_forward"] == 16
    if not incremental:  # there, the rest runs in parts of its own
        assert short.provenance["windows_per_forward"] == fitted
    _same(short.map, ample.map)


@ENGINES
def test_memory_for_no_window_at_all_is_a_resource_error(incremental: bool) -> None:
    with pytest.raises(ResourceError, match="ran out of memory"):
        explain(_Roomy(0), noise(1, 3, 17, 23), TECHNIQUE, target=0, execution=Execution(incremental=incremental))


def _failing(function: Any, when: Callable[[int, Tensor], BaseException | None]) -> Any:
    """A function of torch that raises what ``when`` says, given its calls so far and its first argument."""
    calls = 0

    def call(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if (error := when(calls, x)) is not None:
            raise error
        return function(x, *args, **kwargs)

    return call


def test_tiles_that_do_not_fit_are_run_fewer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, execution = small_cnn(), noise(1, 3, 17, 23), Execution(batch_size=16)
    ample = explain(model, inputs, TECHNIQUE, target=0, execution=execution)
    full = lambda _, x: RuntimeError(FULL) if len(x) > 3 else None  # noqa: E731  # a thunk
    monkeypatch.setattr(F, "conv2d", _failing(F.conv2d, full))
    short = explain(model, inputs, TECHNIQUE, target=0, execution=execution)
    assert short.provenance["engine"] == "incremental"
    assert 1 <= int(short.provenance["windows_per_forward"]) <= 3
    _same(short.map, ample.map)


@pytest.mark.parametrize("number", range(1, 9))
def test_memory_that_runs_out_once_loses_no_window(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exits of several groups wait for the rest of the network; a failure there must not drop those that wait."""
    inputs, execution = noise(1, 3, 17, 23), Execution(batch_size=8)
    ample = explain(small_cnn(), inputs, TECHNIQUE, target=0, execution=execution)
    cat, calls = torch.cat, 0

    def once(tensors: Any, *args: Any, **kwargs: Any) -> Tensor:
        nonlocal calls
        if tensors[0].ndim == 4:
            calls += 1
            if calls == number:
                raise RuntimeError(FULL)
        joined: Tensor = cat(tensors, *args, **kwargs)
        return joined

    def poison(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return torch.full_like(new_empty(self, *args, **kwargs), torch.nan)

    new_empty = Tensor.new_empty
    monkeypatch.setattr(torch, "cat", once)
    monkeypatch.setattr(Tensor, "new_empty", poison)
    short = explain(small_cnn(), inputs, TECHNIQUE, target=0, execution=execution)
    _same(short.map, ample.map)


@ENGINES
@pytest.mark.parametrize("after", [0, 2, 4])
def test_an_interrupt_leaves_nothing_behind(after: int, incremental: bool) -> None:
    """The model's end runs for every part of the windows, also in the incremental engine."""
    watch = Watch()
    model, inputs = nn.Sequential(small_residual(), Watched(watch)), noise(2, 3, 17, 23)
    execution = Execution(batch_size=8, incremental=incremental)
    before = explain(model, inputs, TECHNIQUE, target=0, execution=execution)
    watch.plan(KeyboardInterrupt(), after=after)
    with pytest.raises(KeyboardInterrupt), guard(model, inputs):
        explain(model, inputs, TECHNIQUE, target=0, execution=execution)
    assert watch.raised
    watch.plan(None)
    again = explain(model, inputs, TECHNIQUE, target=0, execution=execution)
    assert torch.equal(again.map, before.map)
    assert again.provenance["engine"] == ("incremental" if incremental else "dense")


@pytest.mark.parametrize("number", [1, 4, 9, 13])
def test_an_interrupt_amid_the_tiles_leaves_nothing_behind(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, execution = small_depthwise(), noise(1, 3, 17, 23), Execution(batch_size=4)
    before = explain(model, inputs, TECHNIQUE, target=0, execution=execution)
    assert before.provenance["engine"] == "incremental"
    stop = lambda calls, _: KeyboardInterrupt() if calls == number else None  # noqa: E731  # a thunk
    with monkeypatch.context() as patched:
        patched.setattr(F, "conv2d", _failing(F.conv2d, stop))
        with pytest.raises(KeyboardInterrupt), guard(model, inputs):
            explain(model, inputs, TECHNIQUE, target=0, execution=execution)
    assert torch.equal(explain(model, inputs, TECHNIQUE, target=0, execution=execution).map, before.map)


@ENGINES
@pytest.mark.parametrize("build_model", [small_cnn, small_residual, small_depthwise])
def test_the_size_of_a_part_changes_rounding_only_and_the_same_size_nothing(
    build_model: Callable[[], nn.Module], incremental: bool
) -> None:
    model, inputs, maps = build_model(), noise(2, 3, 17, 23), {}
    for size in (1, 3, 8, 1000, None):
        execution = Execution(batch_size=size, incremental=incremental)
        first, second = (explain(model, inputs, TECHNIQUE, target=[[0, 3]] * 2, execution=execution) for _ in range(2))
        assert first.provenance["engine"] == ("incremental" if incremental else "dense")
        assert torch.equal(first.map, second.map)
        maps[size] = first
    for size, result in maps.items():
        assert all(pair.holds and not pair.degenerate for pair in TECHNIQUE.agreement(result, maps[1])), size
