"""From a case to its rows: every backend answers, the answers are held against each other, and only then timed."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from attribution import (
    Attribution,
    ClassScore,
    Execution,
    FilterVisualization,
    Occlusion,
    Technique,
    compare,
    explain_many,
    registry,
)
from attribution.agreement import Agreement, all_hold, table
from attribution.running import precision
from attribution.techniques.gradient.family import AveragedGradient
from benchmarks.cases import Case
from benchmarks.clock import timed
from benchmarks.counters import Counts, count, peak_bytes
from benchmarks.devices import module, on_host
from benchmarks.models import inputs_of, model_of

REFERENCE = "captum"
"""The backend that the others are raced against."""

CHUNKS = (1, 4, 8, 16, 32)
"""The values of ``perturbations_per_eval`` that the reference may choose from."""

DEVICE_CHUNKS = (16, 64, 128)
"""Likewise on a device."""

COARSE = ("bfloat16", "float16")
"""In these a window may change a logit by less than its rounding: no comparison could tell, and the row says so."""

_PER_ITEM = ("dense", "captum.Occlusion")
_sweeps: dict[tuple[str, str, int, str], dict[int, float]] = {}


@dataclass
class Answer:
    """What one backend said to a case, and what saying it took."""

    attribution: Attribution
    counts: Counts
    first_call: float
    peak: int | None
    sweep: dict[int, float] = field(default_factory=dict)


@dataclass
class Settled:
    """A case that every installed backend has answered.

    Attributes:
        answers: By backend.
        agreements: By pair of backends.
        whole: Whether the answers are to the whole question, or to its stand-in.
        rounded: What `compare` says where backends differ by more than the tolerance, and each is off float64 by
            rounding; ``""`` elsewhere.
    """

    case: Case
    device: str
    whole: bool
    answers: dict[str, Answer]
    agreements: dict[tuple[str, str], list[Agreement]]
    rounded: str = ""

    def disagreement(self, backend: str) -> str:
        """The table of every pair with this backend that does not hold; empty where all hold."""
        if self.rounded:
            return ""
        holds = _none_differs if self.case.dtype in COARSE else all_hold
        bad = [
            f"{a} | {b}\n{table(pairs)}"
            for (a, b), pairs in self.agreements.items()
            if backend in (a, b) and not holds(pairs)
        ]
        return "\n".join(bad)

    def call(self, backend: str) -> tuple[Callable[[], Attribution], float]:
        """What to time for a backend, and the factor from its time to the whole question."""
        answer = self.answers[backend]
        case, technique, targets, scale = self.case, self.case.technique, self.case.question.targets, 1.0
        if case.question.stand_in and answer.attribution.provenance.get("engine") in _PER_ITEM:
            technique = case.timed
            scale = windows(case.technique, case.question.pixels) / windows(technique, case.question.pixels)
        if case.question.timed_targets and backend == REFERENCE:
            targets = case.question.timed_targets
            scale = case.question.targets / targets
        best = min(answer.sweep, key=answer.sweep.__getitem__) if answer.sweep else None
        return ask(case, backend, technique, self.device, case.score(targets), best), scale


def _none_differs(pairs: Sequence[Agreement]) -> bool:
    return all(pair.holds for pair in pairs)


def ask(
    case: Case,
    backend: str,
    technique: Technique,
    device: str,
    target: ClassScore | None,
    batch_size: int | None = None,
) -> Callable[[], Attribution]:
    """A call without arguments: tensor in, tensor on the device out."""
    model, inputs = subject_of(case, device)
    several, execution = case.several, Execution(batch_size=batch_size)
    if several:
        return lambda: merged(explain_many(model, inputs, several, backend=backend, target=target, execution=execution))
    attributor = registry.get(technique, backend)(model, technique, execution)
    return lambda: attributor.attribute(inputs, target)


def merged(results: Mapping[str, Attribution]) -> Attribution:
    """The answers of one call as one, with the maps of all techniques."""
    first = next(iter(results.values()))
    maps, raw = (
        {f"{name}: {key}": map_ for name, each in results.items() for key, map_ in getattr(each, group).items()}
        for group in ("maps", "raw")
    )
    return replace(first, maps=maps, raw=raw)


def subject_of(case: Case, device: str) -> tuple[nn.Module, Tensor | None]:
    """The case's model and inputs; ``None`` for a technique that makes its own."""
    dtype: torch.dtype = getattr(torch, case.dtype)
    inputs = inputs_of(case.batch, case.question.pixels, device, dtype) if case.technique.needs_inputs else None
    return model_of(case.model, device, dtype), inputs


def settle(case: Case, device: str, *, sweep: bool) -> Settled:
    """Let every installed backend answer a case, and compare the answers pair by pair.

    Args:
        case: The question.
        device: Where.
        sweep: Look for the reference's best chunk size first, once per model.
    """
    whole = case.model in case.question.whole
    technique = case.technique if whole else case.timed
    answers = {name: _answer(case, name, technique, device, sweep) for name in registry.backends(technique.name)}
    agreements = {
        (a, b): technique.agreement(answers[a].attribution, answers[b].attribution) for a, b in combinations(answers, 2)
    }
    settled = Settled(case, device, whole, answers, agreements)
    if any(map(settled.disagreement, answers)) and isinstance(technique, AveragedGradient):
        settled.rounded = _rounding(case, technique, device, settled)
    return settled


def _rounding(case: Case, technique: AveragedGradient, device: str, settled: Settled) -> str:
    """Judge gradients against float64: rounding moves rectifiers across their kinks, by other numbers of rows too."""
    model, inputs = subject_of(case, device)
    found = compare(model, inputs, technique, target=case.score(case.question.timed_targets))
    if not found.holds or not found.judgements:
        return ""
    worst = max(pair.scaled for pairs in settled.agreements.values() for pair in pairs)
    return (
        f"{case.model}, {case.technique.name}: backends differ by {worst:.1e} of the maximum, each is off float64 by "
        "rounding, as `compare` judges it"
    )


def _answer(case: Case, backend: str, technique: Technique, device: str, sweep: bool) -> Answer:
    chunks = sweep_of(case, device) if sweep and backend == REFERENCE and case.question.stand_in else {}
    best = min(chunks, key=chunks.__getitem__) if chunks else None
    target = case.score(case.question.timed_targets)
    call = ask(case, backend, technique, device, target, best)
    light = ask(case, backend, case.timed, device, target, best)
    first: list[float] = []
    attribution, counts = count(subject_of(case, device)[0], call, warm=lambda: first.append(timed(light, device)))
    return Answer(attribution, counts, first[0], peak_bytes(light, device), chunks)


def sweep_of(case: Case, device: str) -> dict[int, float]:
    """Seconds of the reference on the stand-in by windows per forward; looked for once per model and batch."""
    key = (case.model, case.dtype, case.batch, device)
    if key not in _sweeps:
        chunks = CHUNKS if on_host(device) else DEVICE_CHUNKS
        calls = {chunk: ask(case, REFERENCE, case.timed, device, case.score(), chunk) for chunk in chunks}
        if not on_host(device):
            for call in calls.values():
                call()  # each size is new to the device's libraries
        _sweeps[key] = {chunk: timed(call, device) for chunk, call in calls.items()}
    return _sweeps[key]


def windows(technique: Technique, pixels: int) -> int:
    """How many windows an occlusion lays; 1 for anything else."""
    return len(technique.lattice(pixels, pixels).windows) if isinstance(technique, Occlusion) else 1


def row(settled: Settled, backend: str) -> dict[str, Any]:
    """Everything that a row says beside its times; see ``benchmarks/schema.py``."""
    case, answer = settled.case, settled.answers[backend]
    pairs = [a for names, found in settled.agreements.items() if backend in names for a in found]
    counting = [a for a in pairs if not a.degenerate]
    worst = max(counting, key=lambda a: a.difference / a.tolerance if a.tolerance else a.difference, default=None)
    _, scale = settled.call(backend)
    return {
        "schema": 1,
        "technique": case.technique.name,
        "question": case.question.label,
        "parameters": str(answer.attribution.technique),
        "model": case.model,
        "weights": case.subject.weights,
        "batch": case.batch,
        "pixels": case.question.pixels,
        "dtype": case.dtype,
        "device": settled.device,
        "backend": backend,
        "distribution": registry.distribution(case.technique.name, backend),
        "tier": "tuned" if answer.sweep else "default",
        "engine": str(answer.attribution.provenance.get("engine", backend)),
        "agreement": {
            "with": sorted({name for names in settled.agreements if backend in names for name in names} - {backend}),
            "pairs": len(pairs),
            "degenerate": len(pairs) - len(counting),
            "scaled": worst.scaled if worst else 0.0,
            "tolerance": worst.tolerance / worst.scale if worst else 0.0,
            "holds": not settled.disagreement(backend),
            "whole": settled.whole,
            "stated": settled.rounded,
        },
        "counts": asdict(answer.counts),
        "windows": windows(case.technique, case.question.pixels),
        "targets": case.question.targets if case.technique.needs_target else 0,
        "filters": len(case.technique.channels) if isinstance(case.technique, FilterVisualization) else 0,
        "steps": getattr(case.technique, "steps", 0),
        "scale": scale,
        "first_call_seconds": answer.first_call,
        "peak_bytes": answer.peak,
        "sweep": {str(chunk): seconds for chunk, seconds in answer.sweep.items()},
        "race": None,
        "environment": environment(settled.device),
    }


def environment(device: str) -> dict[str, str | int | bool]:
    """What a reader must know of the machine and the settings."""
    versions = {}
    for name in ("torch", "torchvision", "captum", "torch-attribution", "grad-cam", "torchcam", "torch-lucent"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "accelerator": "none" if on_host(device) else str(module(device).get_device_name(device)),
        "threads": torch.get_num_threads(),
        "tf32": not on_host(device) and precision.FLAGS["convolution"]().fp32_precision == "tf32",
        "cudnn_benchmark": bool(torch.backends.cudnn.benchmark),
        "heap_trimmed": True,
        "python": platform.python_version(),
        **versions,
    }
