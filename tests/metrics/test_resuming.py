"""`evaluate` with a folder: it goes on where it ended, to the same bytes; bad photos are set aside."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from attribution import ClassScore, Execution, FunctionScore, GradCAM, InputError, Saliency, TargetError
from attribution.metrics import SRG, MaxSensitivity, Table, evaluate, kept
from attribution.metrics.extremes import extremes_figure, of_run
from attribution.runs import Examples, RunFolder
from tests.metrics.asked import CHEAP, SEEN, Counted, photos
from tests.metrics.killed import COUNT, SHARD, evaluation
from tests.runs import forked
from tests.runs.data import contents

CHEAPEST: dict[str, Any] = {"baselines": ("mean",), "metrics": (SRG(steps=2),), "target": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Table]:
    root = tmp_path_factory.mktemp("whole") / "run"
    return root, evaluation(root)


def same(first: Table, second: Table, *, exactly: bool) -> None:
    assert first.maps == second.maps
    assert first.photos == second.photos
    for metric in first.better:
        assert first.variants(metric) == second.variants(metric)
        for name, values in first.values(metric).items():
            other = second.values(metric)[name]
            assert values.tolist() == (other.tolist() if exactly else pytest.approx(other, abs=1e-5))
    for a, b in zip(first.curves, second.curves, strict=True):
        assert (a.photo, a.target, a.map, a.baseline, a.removed) == (b.photo, b.target, b.map, b.baseline, b.removed)
        assert (a.most, a.least) == ((b.most, b.least) if exactly else pytest.approx((b.most, b.least), abs=1e-5))


def test_a_folder_holds_what_is_found_without_one(whole: tuple[Path, Table]) -> None:
    _, table = whole
    assert len(table.photos) == COUNT
    memory = evaluation(None)
    same(memory, table, exactly=False)
    assert table.forwards() == memory.forwards()
    assert 1 <= table.forwards()["grad_cam"] < table.forwards()["saliency"] < 4
    assert set(table.seconds()) == {"grad_cam", "saliency"}
    other = evaluate(Counted(), photos(5), [Saliency()], **CHEAPEST)
    with pytest.raises(AssertionError):
        same(other, table, exactly=False)


def test_killed_and_resumed_to_the_same_bytes(tmp_path: Path, whole: tuple[Path, Table]) -> None:
    root = tmp_path / "run"
    process = forked.started(root, body="tests.metrics.killed:evaluation")
    forked.wait_for(root, process, count=2)
    forked.kill(process)
    process.join(60)
    done = len(forked.shards(root))
    assert 2 <= done < COUNT // SHARD, "the process was killed too late to show anything"
    kept_shards = contents(root)
    table = evaluation(root)
    assert contents(root) == contents(whole[0])
    assert kept_shards.items() <= contents(root).items()
    same(table, whole[1], exactly=True)
    for folder, found in ((tmp_path / "a", table), (tmp_path / "b", whole[1])):
        folder.mkdir()
        found.save(folder)
    for name in ("scores.csv", "curves.csv", "scores.parquet", "curves.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_nothing_is_computed_twice_and_another_question_is_refused(tmp_path: Path) -> None:
    model, x = Counted(), photos(5)
    asked: dict[str, Any] = {"target": 1, "batch_size": 2, **CHEAP}
    found = evaluate(model, x, [Saliency()], out=tmp_path, **asked)
    SEEN.clear()
    again = evaluate(model, x, [Saliency()], out=tmp_path, **asked)
    assert not SEEN
    same(found, again, exactly=True)
    (shard,) = sorted((tmp_path / "shards").rglob("*1.safetensors"))
    shard.unlink()
    mended = evaluate(model, x, [Saliency()], out=tmp_path, **asked)
    per_photo = 4 * 2 * 6 + 3
    assert 2 * per_photo <= sum(SEEN) <= 3 * (per_photo + 4)  # an engine tries one photo before it begins
    same(found, mended, exactly=True)
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")  # the mutant: a shard that is not what was written
    same(found, evaluate(model, x, [Saliency()], out=tmp_path, **asked), exactly=True)
    half = Execution(autocast=torch.bfloat16)
    for changes in (
        {"target": 2}, {"metrics": (SRG(steps=5),)}, {"baselines": (0.0,)}, {"seed": 1}, {"execution": half},
    ):  # fmt: skip
        with pytest.raises(InputError, match="holds another run"):
            evaluate(model, x, [Saliency()], out=tmp_path, **{**asked, **changes})
    with pytest.raises(InputError, match="holds another run"):
        evaluate(model, x, [GradCAM(layers=("inner.body",))], out=tmp_path, **asked)
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    with pytest.raises(InputError, match="holds another run"):
        evaluate(model, x, [Saliency()], out=tmp_path, **asked)


def mapper(sign: float) -> Any:
    return lambda inputs: sign * inputs.first.mean(1, keepdim=True)


def test_another_function_is_another_question(tmp_path: Path) -> None:
    """By its code, its defaults, or what it holds; the same one, made anew, is the same."""
    model, x = Counted(), photos(3)
    mappers = [{"mine": each} for each in (
        mapper(1.0), mapper(-1.0), lambda inputs: inputs.first[:, :1], partial(_channel, 1), partial(_channel, 2),
    )]  # fmt: skip
    scores: list[Any] = [
        FunctionScore(lambda output: output[:, :2] ** 2, "f"), FunctionScore(lambda output: output[:, :2], "f"),
    ]  # fmt: skip
    asked: list[dict[str, Any]] = [*({"techniques": each} for each in mappers), *({"target": each} for each in scores)]
    for n, changes in enumerate(asked):
        question = {"techniques": [Saliency()], "target": 1, **CHEAP, **changes}
        folder = tmp_path / str(n)
        evaluate(model, x, out=folder, **question)
        for m, other in enumerate(asked):
            again = {"techniques": [Saliency()], "target": 1, **CHEAP, **other}
            if m == n:
                evaluate(model, x, out=folder, **again)
            else:
                with pytest.raises(InputError, match="holds another run"):
                    evaluate(model, x, out=folder, **again)
    evaluate(model, x, {"mine": mapper(1.0)}, out=tmp_path / "0", target=1, **CHEAP)


def _channel(number: int, inputs: Any) -> Tensor:
    found: Tensor = inputs.first[:, number : number + 1]
    return found


class Some:
    """Photos by index, of which one cannot be read and one holds NaN."""

    def __init__(self, x: Tensor, bad: int = 1) -> None:
        self.x, self.bad = x, bad

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == self.bad:
            raise ValueError("torn")
        return self.x[index] * (float("nan") if index == self.bad + 2 else 1), 0


def test_a_bad_photo_is_an_error_of_its_own(tmp_path: Path) -> None:
    model, x = Counted(), photos(7)
    names = ["a", "b", "c", "d", "e", "same", "same"]
    data = Examples(Some(x), names)
    table = evaluate(model, data, [Saliency()], batch_size=7, out=tmp_path / "run", **CHEAPEST)
    assert table.photos == ["a", "c", "e", "same (5)", "same (6)"]
    text = (tmp_path / "run" / "failures.csv").read_text()
    assert "torn" in text
    assert "NaN" in text
    alone = evaluate(model, x, [Saliency()], **CHEAPEST)  # what is drawn for a photo goes by its place
    for name in table.maps:
        expected = alone.values("srg")[name][[0, 2, 4, 5, 6]]
        assert table.values("srg")[name] == pytest.approx(expected, abs=1e-12)
        assert abs(table.values("srg")[name] - alone.values("srg")[name][:5]).max() > 1e-9  # photos unpaired


def test_pictures_of_the_best_and_worst(tmp_path: Path) -> None:
    model, x = Counted(), photos(7)
    table = evaluate(model, x, [Saliency()], out=tmp_path, **CHEAPEST)
    values = table.values("srg")["saliency"]
    best, worst = table.extremes("saliency")
    assert [int(name) for name in best] == values.argsort()[::-1][:3].tolist()
    assert [int(name) for name in worst] == values.argsort()[:3].tolist()
    shown = of_run(tmp_path, Examples(x), lambda inputs: inputs.abs().clamp(max=1).movedim(1, -1).float().numpy())
    picture, maps = shown(best[0])
    assert picture.shape == (17, 23, 3)
    assert {name: tuple(each.shape) for name, each in maps.items()} == dict.fromkeys(table.maps, (17, 23))
    figure = extremes_figure(table, shown)
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.split()[0] for title in titles] == [*best, *worst[::-1]]
    assert len(table.extremes("saliency", 9)[0]) == 3
    with pytest.raises(InputError, match="was not measured of 'salency'"):
        table.extremes("salency")
    one = evaluate(model, x[:1], [Saliency()], **CHEAPEST)
    with pytest.raises(InputError, match="fewer than two photos"):
        extremes_figure(one, shown)


def test_what_a_run_cannot_do_is_refused(tmp_path: Path) -> None:
    model, x = Counted(), photos(3)
    root = tmp_path / "run"
    with pytest.raises(InputError, match="give one with __len__ and __getitem__"):
        evaluate(model, iter([x]), [Saliency()], out=root, **CHEAPEST)
    with pytest.raises(TargetError, match="a run asks the same of every item"):
        evaluate(model, x, [Saliency()], out=root, **{**CHEAPEST, "target": [1, 2, 3]})
    assert not root.exists()
    loader: Any = DataLoader(TensorDataset(x), batch_size=2)
    assert len(evaluate(model, loader.dataset, [Saliency()], out=root, **CHEAPEST).photos) == 3
    every = evaluate(model, x, [Saliency()], out=tmp_path / "t", **{**CHEAPEST, "target": ClassScore([[1, 2]])})
    assert {row.target for row in every.rows} == {"", "class 1", "class 2"}
    with pytest.raises(InputError, match="no scores"):
        kept.read(type(RunFolder.read(root))(root, {"kind": "attributions"}, (), None, ""))


def test_metrics_that_ask_again_work_in_a_run(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 3)), torch.rand(3, 3, 4, 5)
    asked: dict[str, Any] = {"metrics": (MaxSensitivity(samples=2),), "target": 1, "batch_size": 2}
    same(
        evaluate(model, x, [Saliency()], out=tmp_path, **asked),
        evaluate(model, x, [Saliency()], **asked),
        exactly=False,
    )
