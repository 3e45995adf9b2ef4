"""The harness itself: races, schema, report, and the refusal to time what disagrees."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from attribution import Attributor, GradCAM, Occlusion, Run, registry
from attribution.agreement import agree
from attribution.technique import Maps
from attribution_hooks.gradient.guided_backprop import HooksGuidedBackprop
from benchmarks import charts, clock, conftest, report
from benchmarks.cases import cases, strangers
from benchmarks.models import SUBJECTS
from benchmarks.questions import ON_ONE_MODEL, QUESTIONS
from benchmarks.rows import Settled, row, settle, windows
from benchmarks.schema import read


class _Clock:
    """Stands for time: every call takes as long as it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, canaries: Iterator[float]) -> None:
        self.order: list[str] = []
        self.now = 0.0
        self.canaries = canaries
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def takes(self, name: str, seconds: float) -> Any:
        def call() -> None:
            self.order.append(name)
            self.now += seconds

        return call

    def canary(self) -> None:
        self.now += next(self.canaries)


def _steady() -> Iterator[float]:
    while True:
        yield 1.0


def _shaken() -> Iterator[float]:
    for pair in range(1000):
        yield from [2.0 if pair == 1 else 1.0] * 3


def test_a_race_interleaves_and_reports_the_median_of_paired_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    time = _Clock(monkeypatch, _steady())
    found = clock.race(
        time.takes("a", 2.0), time.takes("b", 3.0), against="b", canary=time.canary, device="cpu", pairs=4, scale=10
    )
    assert time.order == ["a", "b", "b", "a"] * 2
    assert (found.ratio, found.low, found.high) == pytest.approx((0.15, 0.15, 0.15))
    assert (found.seconds, found.against_seconds, found.pairs, found.disturbed) == (20.0, 3.0, 4, False)


def test_pairs_around_which_the_canary_moved_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    time = _Clock(monkeypatch, _shaken())
    found = clock.race(
        time.takes("a", 1.0), time.takes("b", 1.0), against="b", canary=time.canary, device="cpu", pairs=3
    )
    assert (found.pairs, found.discarded, found.disturbed) == (3, 2, False)


def test_a_race_without_quiet_pairs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    restless = iter([float(2 ** (pair % 2)) for pair in range(100) for _ in range(3)])
    time = _Clock(monkeypatch, restless)
    found = clock.race(
        time.takes("a", 1.0), time.takes("b", 2.0), against="b", canary=time.canary, device="cpu", pairs=3
    )
    assert (found.pairs, found.disturbed) == (6, True)


def test_the_interval_holds_the_median_and_shrinks_to_a_constant() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    low, high = clock.interval(values)
    assert 1.0 <= low < 4.0 < high <= 7.0
    assert clock.interval(np.full(7, 2.5)) == (2.5, 2.5)


def test_full_size_asks_every_question_of_every_model() -> None:
    asked = {(case.question.label, case.model) for case in cases("full", "cuda")}
    cams = ("eigen", "layer_cam", "hires", "xgrad", "guided_backprop", "gradient_shap")
    forwards = ("ablation_cam", "score_cam", "rise", "feature_ablation")
    some = ("scaling", "occlusion, 448 px", "activations, one middle layer", *cams, *forwards, *ON_ONE_MODEL)
    everywhere = [q for q in QUESTIONS if "full" in q.models and not q.label.startswith(some)]
    assert {(question.label, model) for question in everywhere for model in SUBJECTS} <= asked
    assert ("occlusion, 448 px, window 16, stride 16", "ResNet-50") in asked
    assert ("activations, one middle layer", "ResNet-50") in asked
    assert {case.dtype for case in cases("full", "cuda")} == {"float32", "bfloat16"}
    assert {case.batch for case in cases("full", "cuda")} == {1, 64}


def test_a_stand_in_has_at_least_64_windows() -> None:
    for case in cases("full", "cpu"):
        if isinstance(case.technique, Occlusion) and case.question.stand_in:
            assert windows(case.timed, case.question.pixels) >= 64


@pytest.fixture
def wrong() -> Iterator[type[Attributor[GradCAM]]]:
    """A backend that is off by 0.1 %, known to the registry for one test."""

    class Wrong(Attributor[GradCAM]):
        technique_type = GradCAM
        backend = "wrong"

        def compute(self, run: Run[Any]) -> Maps:
            (maps,) = (registry.get("grad_cam", "hooks")(run.model, run.technique, run.execution).compute(run),)
            return {name: 1.001 * map_ for name, map_ in maps.items()}

    yield registry.register(Wrong)
    registry.unregister(Wrong)


def test_every_installed_backend_takes_part_and_one_that_disagrees_is_not_timed(
    wrong: type[Attributor[GradCAM]],
) -> None:
    (case,) = [case for case in cases("smoke", "cpu", "grad_cam") if case.group.startswith("grad_cam, 1 target · Squ")][
        :1
    ]
    settled = settle(case, "cpu", sweep=False)
    assert set(settled.answers) == {"captum", "hooks", "wrong"}
    assert "DIFFERS" in settled.disagreement("wrong")
    assert row(settled, "wrong")["agreement"]["holds"] is False
    pairs = settled.agreements["captum", "hooks"]
    assert all(pair.holds and not pair.degenerate for pair in pairs)


@pytest.mark.parametrize("wrong", [False, True])
def test_gradients_that_differ_by_kinks_are_judged_against_float64(
    wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tolerance that nothing meets; a backend that is off by 1 % is not put down to rounding."""
    (case,) = [case for case in cases("smoke", "cpu", "guided_backprop") if case.model == "SqueezeNet 1.1"]
    monkeypatch.setattr("attribution.technique.relative_tolerance", lambda dtype, host=True: 1e-12)
    own, factor = HooksGuidedBackprop.compute_many.__func__, 1.01 if wrong else 1 + 3e-7  # type: ignore[attr-defined]

    def off(cls: Any, asked: Any) -> list[Maps]:
        return [{name: factor * map_ for name, map_ in maps.items()} for maps in own(cls, asked)]

    monkeypatch.setattr(HooksGuidedBackprop, "compute_many", classmethod(off))
    settled = settle(case, "cpu", sweep=False)
    assert bool(settled.disagreement("hooks")) is wrong
    assert ("off float64 by rounding" in row(settled, "hooks")["agreement"]["stated"]) is not wrong


def test_a_strangers_technique_is_asked_on_the_small_model() -> None:
    labels = {question.label for question in strangers({"grad_cam", "plain_gradient"})}
    assert labels == {"plain_gradient, its example"}


def _row() -> dict[str, Any]:
    return {
        "schema": 1, "technique": "grad_cam", "question": "grad_cam, 1 target", "parameters": "GradCAM()",
        "model": "ResNet-18", "weights": "random", "batch": 1, "pixels": 224, "dtype": "float32", "device": "cpu",
        "backend": "hooks", "distribution": "torch-attribution 0.1.0", "tier": "default", "engine": "hooks",
        "agreement": {
            "with": ["captum"], "pairs": 1, "degenerate": 0, "scaled": 2e-7, "tolerance": 1e-5, "holds": True,
            "whole": True,
        },
        "counts": {"forwards": 1, "images": 1, "macs": 1_814_073_344, "modules": 60, "parameter_gradients": 0},
        "windows": 1, "targets": 1, "filters": 0, "steps": 0, "scale": 1.0, "first_call_seconds": 0.1,
        "peak_bytes": 2**20, "sweep": {}, "environment": {"threads": 2, "torch": "2.15.0"},
        "race": {
            "against": "captum", "pairs": 7, "discarded": 0, "disturbed": False, "ratio": 1.5, "low": 1.4, "high": 1.6,
            "seconds": 0.02, "against_seconds": 0.03,
        },
    }  # fmt: skip


def _file(folder: Path, **changes: Any) -> Path:
    row = copy.deepcopy(_row())
    for key, value in changes.items():
        target, _, name = key.rpartition("__")
        (row[target] if target else row)[name] = value
    benchmark = {"name": "t", "group": "g", "stats": {"median": 0.02}, "extra_info": row}
    path = folder / "machine.json"
    path.write_text(json.dumps({"machine_info": {}, "datetime": "2026-01-02T03:04:05", "benchmarks": [benchmark]}))
    return path


def test_a_report_is_built_from_a_results_file(tmp_path: Path) -> None:
    assert report.main([str(_file(tmp_path)), "--out", str(tmp_path / "docs")]) == 0
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "1.50 [1.40, 1.60] vs captum" in page
    assert "Of 1 races our backends won 1, lost 0" in page
    technique = read(_file(tmp_path)).results[0].row.technique
    assert (tmp_path / "docs" / "pictures" / f"benchmark-{technique}.png").stat().st_size > 1000
    assert f"| {technique} | our captum backend | **1.5**, 1 / 0 / 0 |" in page
    assert page.index("## In short") < page.index("<summary>")


def test_counts_have_a_table_of_their_own(tmp_path: Path) -> None:
    counts = [
        {"question": "forward", "who": "the network", "launches": 68, "waits": 0},
        {"question": "q", "who": "hooks", "launches": 1234, "waits": 1},
        {"question": "q", "who": "captum.attr", "launches": 5678, "waits": 0},
    ]
    path = tmp_path / "counts.json"
    path.write_text(json.dumps({"versions": {"torch": "2"}, "launches and waits": counts}))
    assert report.main([str(path), str(_file(tmp_path)), "--out", str(tmp_path / "docs")]) == 0
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "| question | hooks | captum.attr |" in page
    assert "| forward | 68 / 0 | 68 / 0 |" in page
    assert "| q | 1,234 / 1 | 5,678 / 0 |" in page
    assert "1.50 [1.40, 1.60] vs captum" in page


def test_a_lost_race_is_published_as_lost(tmp_path: Path) -> None:
    path = _file(tmp_path, race__ratio=0.5, race__low=0.4, race__high=0.6)
    report.main([str(path), "--out", str(tmp_path / "docs")])
    assert "our backends won 0, lost 1" in (tmp_path / "docs" / "benchmarks.md").read_text()


def test_a_peer_that_was_slower_than_hooks_is_a_race_won(tmp_path: Path) -> None:
    changes = {"backend": "torchcam", "race__against": "hooks", "race__ratio": 0.5, "race__low": 0.4, "race__high": 0.8}
    path = _file(tmp_path, **changes)
    duel = read(path).results[0].duel
    assert duel is not None
    assert (duel.ours, duel.other) == ("hooks", "torchcam (default)")
    assert (duel.ratio, duel.low, duel.high) == (2.0, 1.25, 2.5)
    report.main([str(path), "--out", str(tmp_path / "docs")])
    assert "our backends won 1, lost 0" in (tmp_path / "docs" / "benchmarks.md").read_text()


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.01, 5000, [0.01, 0.1, 1, 10, 100, 1000]),
        (0.5, 30, [0.5, 1, 2, 5, 10, 20]),
        (2, 9, [2, 4, 6, 8]),
        (0.95, 1.85, [1, 1.2, 1.4, 1.6, 1.8]),
        (0.98, 1.03, [0.98, 1, 1.02]),
    ],
)
def test_an_axis_has_numbers_to_read_it_by(low: float, high: float, ticks: list[float]) -> None:
    assert charts.ticks_of(low, high) == pytest.approx(ticks)


def test_maps_below_their_tolerance_are_not_said_to_agree(tmp_path: Path) -> None:
    report.main([str(_file(tmp_path, agreement__degenerate=1)), "--out", str(tmp_path / "docs")])
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "1 rows, none differs (of 1 all maps are below the tolerance" in page
    assert "| below tolerance |" in page
    assert "all agree" not in page


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("difference", [0.0, 2.0])
def test_what_no_comparison_could_tell_is_timed_in_coarse_dtypes_only(dtype: str, difference: float) -> None:
    (case,) = [case for case in cases("smoke", "cpu", "grad_cam") if case.group.startswith("grad_cam, 1 target · Squ")][
        :1
    ]
    small = agree("a map", torch.zeros(3), torch.full((3,), difference), relative=0.0, absolute=1.0)
    assert small.degenerate == (difference < 1)
    settled = Settled(replace(case, dtype=dtype), "cpu", True, {}, {("captum", "hooks"): [small]})
    assert bool(settled.disagreement("hooks")) == (dtype == "float32" or difference > 1)


@pytest.mark.parametrize(
    "changes",
    [{"agreement__holds": False}, {"device": "tpu"}, {"scale": 0.5}, {"race__ratio": float("nan")}, {"surprise": 1}],
)
def test_a_row_that_breaks_the_schema_is_refused(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _file(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"machine\.json: t: "):
        read(path)
    assert report.main([str(path), "--out", str(tmp_path / "docs")]) == 2
    assert "machine.json" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize("device", ["sim", "sim:1"])
def test_no_report_takes_the_times_of_a_simulated_device(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([str(_file(tmp_path, device=device)), "--out", str(tmp_path / "docs")]) == 2
    assert f"a rehearsal: device '{device}' is simulated" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()


def test_a_device_that_is_none_ends_the_suite_before_it_begins() -> None:
    options: Any = SimpleNamespace(getoption=lambda name, default=None: "nowhere" if name == "--device" else default)
    with pytest.raises(pytest.UsageError, match="--device nowhere: "):
        conftest.pytest_configure(options)
