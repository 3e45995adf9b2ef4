"""``attribution run``: techniques over a folder or a list of images."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import typer
from PIL import Image
from torch import Tensor

from attribution import layers, registry, runs
from attribution.cli import parameters, scores, typed
from attribution.cli.setting import Setting
from attribution.errors import InputError, TargetError
from attribution.paths import named
from attribution.runs import fingerprint
from attribution.runs.plan import leads
from attribution.runs.transforms import stateless
from attribution.scores.score import Score
from attribution.technique import Technique

_PRECISION = {"32": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Asked:
    """What was typed of techniques and targets, read as far as that goes without the model."""

    techniques: Mapping[str, Technique]
    targets: tuple[str, ...]
    score: scores.TypedScore


def parse(
    names: Sequence[str],
    backend: str,
    layer_names: Sequence[str],
    targets: Sequence[str],
    settings: Sequence[str],
    score: str | None,
    output: str | None,
) -> Asked:
    """Understand a command line.

    Args:
        names: ``-t``.
        backend: Who computes.
        layer_names: ``--layer``, for the techniques that take layers.
        targets: ``--target``.
        settings: ``-p``; ``TECHNIQUE.NAME=VALUE`` where several have such a parameter.
        score: ``--score``.
        output: ``--output``.

    Raises:
        UnknownAttributorError: No such technique or backend.
        InputError: A parameter is none of a technique, or a technique makes its own images.
        TargetError: No technique explains a score, and one is named.
    """
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise InputError(f"-t {twice[0]} is given twice; give it once, or run twice")
    kinds = {name: _kind(name, backend) for name in names}
    own = typed.shared_out({name: parameters.names(kind) for name, kind in kinds.items()}, settings, layer_names)
    found = {name: parameters.technique(kind, *own[name]) for name, kind in kinds.items()}
    if made := [name for name, kind in kinds.items() if not kind.needs_inputs]:
        raise InputError(f"{made[0]} makes its own images; take `attribution explain` or `attribution atlas`")
    for option, value in (("--target", targets), ("--score", score), ("--output", output)):
        if value and not any(kind.needs_target for kind in kinds.values()):
            raise TargetError(f"{', '.join(names)} explains no score; leave {option} out")
    return Asked(found, tuple(targets), scores.parse(score, output, targets=bool(targets)))


def run(
    source: Path,
    asked: Asked,
    setting: Setting,
    backend: str,
    out: Path,
    plan: runs.Plan,
    *,
    device: str,
    precision: str = "32",
    overlay: bool = False,
) -> int:
    """Begin or go on with a run, and say how it ended; the exit code.

    Raises:
        InputError: Something that was typed cannot be used.
        OutputError: The folder cannot be written, or another process runs there.
    """
    if precision not in _PRECISION:
        raise InputError(f"no precision {precision!r}; give {', '.join(_PRECISION)}")
    for technique in asked.techniques.values():
        for name in parameters.layers_of(technique):
            layers.find(setting.model, name)
    target = asked.score.asked(setting.target(asked.targets))
    if isinstance(target, Score) and target.of_layer is not None:
        layers.find(setting.model, target.of_layer)
    work = runs.Explaining(
        setting.model,
        asked.techniques,
        backend,
        target,
        replace(setting.execution, autocast=_PRECISION[precision], progress=False),
        setting.loaded.labels,
    )
    items = items_of(source, setting, out)
    if plan.progress and leads():
        print(f"{len(items.names)} images of {items.source}", file=sys.stderr, flush=True)
    drawing: dict[str, Any] = {}
    if overlay:
        from attribution.runs.overlays import Overlays

        overlays = Overlays(setting.loaded.picture)
        drawing = {"on_shard": overlays, "after": lambda folder: overlays.complete(folder, items)}
    names = setting.loaded.labels
    outcome = runs.carry_out(work, items, out, plan, device=torch.device(device), labels=names, **drawing)
    return ended(outcome, out) if outcome.leads else 0


def ended(outcome: runs.Outcome, out: Path) -> int:
    """Say how a run ended; the exit code."""
    parts = [f"{outcome.items} items"]
    if outcome.failed:
        parts.append(f"{outcome.failed} failed: {out / 'failures.csv'}")
    if outcome.left:
        parts.append(f"{outcome.left} shard{'s' * (outcome.left > 1)} left: give the same command again")
    typer.echo(f"{out}  {' · '.join(parts)}")
    if outcome.signal is not None:
        return 128 + outcome.signal
    return 1 if outcome.failed or outcome.left else 0


def items_of(source: Path, setting: Setting, out: Path) -> runs.ImageFiles:
    """The images of a folder or a list, as the model takes them.

    Args:
        source: The folder or the list.
        setting: The model.
        out: The folder of the run, which may lie in ``source``.

    Raises:
        InputError: There are none.
        TargetError: The list names a class that the model has not.
    """
    dtype = next((p.dtype for p in setting.model.parameters() if p.is_floating_point()), torch.float32)

    def transform(photo: Image.Image) -> Tensor:
        return setting.loaded.inputs(photo, stretch=setting.stretch)[0].to(dtype)

    told = f"{fingerprint.of_function(setting.loaded.transform)}{', stretched' * setting.stretch}, {dtype}"
    together = stateless(setting.loaded.transform)
    if os.path.realpath(out) == os.path.realpath(source):
        raise InputError(f"--out {named(out)} is the folder of images; give another, such as {named(out / 'run')}")
    if source.suffix.lower() == ".csv":
        return runs.of_list(source, transform, told=told, index=setting.loaded.index, together=together)
    return runs.of_folder(source, transform, told=told, without=out, together=together)


def _kind(name: str, backend: str) -> type[Technique]:
    """The technique of a name; an attributor may compute a family of them."""
    kind: type[Technique] = registry.get(name, backend).technique_type
    return kind if getattr(kind, "name", None) == name else registry.technique(name)
