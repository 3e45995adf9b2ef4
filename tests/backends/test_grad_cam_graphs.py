"""Captured graphs: when one is made, believed and thrown away. A stand-in does the work again in the same memory.

On CUDA the tests marked ``device`` capture for real.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Attribution, Execution, GradCAM, TargetError, explain
from attribution_hooks.cam import graphs
from tests.conftest import build, noise

X = noise(4, 3, 17, 23)
TECHNIQUE = GradCAM(layers=("stem", "body"))


def ask(model: nn.Module, x: Tensor, target: Any, *, on: bool = True) -> Attribution:
    return explain(model, x, TECHNIQUE, target=target, execution=Execution(graphs=on))


def flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for item in (value.values() if isinstance(value, dict) else value) for tensor in flat(item)]


class Standin:
    """Replays by doing the work once more, into the memory of the first time."""

    def __init__(self) -> None:
        self.captures = self.replays = 0
        self.spoil: Callable[[list[Tensor]], object] = lambda made: None

    def captured(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        self.captures += 1
        made = work()
        for tensor in flat(made):
            tensor.data.fill_(float("nan"))  # holds values after a replay only

        def replay() -> None:
            self.replays += 1
            for tensor, again in zip(flat(made), flat(work()), strict=True):
                tensor.data.copy_(again)
            self.spoil(flat(made))

        return replay, made


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Standin:
    found = Standin()
    monkeypatch.setattr(graphs, "has_graphs", lambda device: True)
    monkeypatch.setattr(graphs, "captured", found.captured)
    return found


def same(found: Attribution, wanted: Attribution) -> bool:
    return (
        all((found.maps[name] - map_).abs().max() <= 1e-6 * map_.abs().max() for name, map_ in wanted.maps.items())
        and torch.equal(found.target, wanted.target)  # type: ignore[arg-type]
        and torch.allclose(found.scores, wanted.scores)  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("target", [None, 2, [[1, 4, 0]]], ids=str)
def test_a_question_is_replayed_from_the_third_time_on(target: Any, standin: Standin) -> None:
    model, plain = build("residual"), build("residual")
    said = []
    kept: list[tuple[Attribution, Tensor]] = []
    for image in X:
        found, wanted = ask(model, image[None], target), ask(plain, image[None], target, on=False)
        assert same(found, wanted)
        said.append(found.provenance.get("graph"))
        kept.append((found, found.maps["body"].clone()))
        assert found.provenance["engine body"] == wanted.provenance["engine body"]
    assert said == [None, None, "replayed", "replayed"]
    assert (standin.captures, standin.replays) == (1, 3)
    assert all(torch.equal(found.maps["body"], map_) for found, map_ in kept), "a replay wrote into an earlier answer"


def test_what_is_written_into_weights_is_read_and_weights_that_moved_are_captured_anew(standin: Standin) -> None:
    model = build("residual")
    for _ in range(3):
        ask(model, X[:1], 1)
    weight = next(model.parameters())
    with torch.no_grad():
        weight.mul_(1.5)
    found = ask(model, X[:1], 1)
    assert (found.provenance["graph"], standin.captures) == ("replayed", 1)
    assert same(found, ask(model, X[:1], 1, on=False))
    weight.data = weight.data * 0.5
    found = ask(model, X[:1], 1)
    assert (found.provenance.get("graph"), standin.captures) == (None, 2)
    assert same(found, ask(model, X[:1], 1, on=False))
    assert ask(model, X[:1], 1).provenance["graph"] == "replayed"


def test_a_replay_that_says_something_else_is_not_believed(standin: Standin) -> None:
    standin.spoil = lambda made: made[0].data.mul_(1.01)
    model = build("residual")
    for image in X:
        found = ask(model, image[None], 1)
        assert same(found, ask(build("residual"), image[None], 1, on=False))
    assert found.provenance["graph"] == "none: a replay gave another answer"
    assert (standin.captures, standin.replays) == (1, 1)


def test_what_cannot_be_captured_is_answered_plainly(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(work: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graphs, "captured", fails)
    model = build("residual")
    for image in X:
        found = ask(model, image[None], 1)
        assert same(found, ask(build("residual"), image[None], 1, on=False))
    assert found.provenance["graph"] == "none: operation not permitted when stream is capturing"


def test_other_questions_hooks_and_many_images_or_targets_have_no_graph_of_this_one(standin: Standin) -> None:
    model = build("residual")
    for _ in range(3):
        ask(model, X[:1], 1)
    assert standin.captures == 1
    with pytest.raises(TargetError, match="target 7 is out of range"):
        ask(model, X[:1], 7)
    for x, target in ((X[:2], 1), (X[:1], [[1, 2]]), (X[:1], "all"), (X.repeat(3, 1, 1, 1), 1)):
        found = ask(model, x, target)
        assert "graph" not in found.provenance
        assert same(found, ask(build("residual"), x, target, on=False))
    calls: list[None] = []
    model.get_submodule("body").register_forward_hook(lambda *_: calls.append(None))
    for count in (1, 2, 3):
        assert "graph" not in ask(model, X[:1], 1).provenance
        assert len(calls) >= count
    assert standin.captures == 1


@pytest.mark.device
@pytest.mark.parametrize("target", [None, 2, [[1, 4, 0]]], ids=str)
def test_on_a_device_the_answers_are_those_without(target: Any, device: str, model_name: str) -> None:
    model, plain = build(model_name).to(device), build(model_name).to(device)
    for image in X.to(device):
        found = ask(model, image[None], target)
        assert same(found, ask(plain, image[None], target, on=False))
    assert found.provenance.get("graph") == ("replayed" if device.startswith("cuda") else None)
