"""``attribution report``: images or a run as one HTML page."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import typer
from torch import Tensor
from tqdm.auto import tqdm

from attribution import api, images, paths, registry, runs
from attribution.cli import question
from attribution.cli.run_photos import Photos
from attribution.cli.setting import Setting
from attribution.comparison import Comparison
from attribution.errors import AttributionError, InputError
from attribution.report import Item, Report, evidence
from attribution.report.report import Top
from attribution.result import Attribution
from attribution.runs import OpenRun, fingerprint

_FEWEST = 8  # channels of a layer, where a page has many images

_FAILED = 5


def of_images(
    asked: question.Question,
    setting: Setting,
    backend: str,
    out: Path,
    *,
    compared: bool,
    evaluation: Path | None,
    command: str,
) -> None:
    """Write a page about images.

    Raises:
        InputError: An image or a parameter cannot be used, or ``evaluation`` holds none.
        OutputError: The page cannot be written.
    """
    scores = None if evaluation is None else evidence.read(evaluation)
    techniques, target = question.fitted(asked, setting), question.checked(asked, setting)
    items, hashes = [], {}
    called = [path.name for path in asked.paths]
    names = called if len({*called}) == len(called) else [str(path) for path in asked.paths]
    silent = True if len(asked.paths) == 1 else None if setting.progress is None else not setting.progress
    for path, name in zip(tqdm(asked.paths, desc="report", unit="image", disable=silent), names, strict=True):
        photo = images.photo(path)
        inputs, cut = setting.inputs(photo.image), setting.cut(photo.image)
        answers = question.answers(setting, inputs, techniques, backend, target)
        comparisons = against(answers, setting, inputs) if compared else {}
        hashes[f"SHA-256 of {name}"] = photo.sha256
        items.append(
            Item(
                answers,
                name=name,
                image=setting.picture(inputs),
                top=_top(setting, inputs),
                comparisons=comparisons,
                notes=(*photo.notes, *([f"Of the whole photo, {cut}."] if cut else [])),
            )
        )
    title = "" if len(items) == 1 else f"{len(items)} images"
    page = Report(
        items=items,
        title=title,
        labels=setting.loaded.labels,
        evidence=scores,
        facts={**facts(setting), **hashes},
        command=command,
        channels=_channels(items),
    )
    typer.echo(page.save(out))


def of_run(
    folder: Path,
    out: Path,
    *,
    most: int,
    photos: Path | None,
    setting: Setting | None,
    default: Callable[[], Setting],
    progress: bool | None,
    evaluation: Path | None,
    command: str,
) -> None:
    """Write a page about the items of a run, at most so many, evenly over all of them.

    Args:
        folder: Of the run.
        out: The page.
        most: Items on it.
        photos: The folder or list that the run went over; ``None``: the one that it remembers.
        setting: The model of the run, for what it sees of the photos; ``None``: none is named.
        default: The model of runs that name none.
        progress: Whether a bar is shown; ``None``: where somebody sees it.
        evaluation: A folder with scores of evidence.
        command: What makes the page again.

    Raises:
        InputError: No run lies there, or it has no results yet; ``photos`` are read by another model or transform.
        OutputError: The run cannot be read, or the page cannot be written.
    """
    scores = None if evaluation is None else evidence.read(evaluation)
    run = runs.open(folder)
    done = [entry for entry in run.entries if entry.error is None]
    if not done:
        raise InputError(f"the run in {paths.named(folder)} has no results yet")
    found = Photos.of(run, photos, setting, default)
    shown = done[:: -(-len(done) // most)]
    items = []
    silent = None if progress is None else not progress
    for entry in tqdm(shown, desc="report", unit="image", disable=silent):
        seen, answers = found.seen(entry), run[entry.number]
        notes = (*entry.notes, *seen.notes)
        items.append(Item(answers, name=entry.name, image=seen.image, whole=seen.whole, top=seen.top, notes=notes))
    settings = run.folder.settings
    page = Report(
        items=items,
        title=f"Run {run.folder.root.name}: {len(run)} items",
        labels=run.folder.labels,
        evidence=scores,
        facts={
            "items": f"{len(run)}, {run.folder.source}",
            "SHA-256 of the weights": settings["model"]["weights"],
            "SHA-256 of the settings": run.folder.fingerprint,
            "transform": str(settings["transform"]),
        },
        command=command,
        left_out=" ".join(filter(None, [_left_out(run, len(shown), len(done)), found.told])),
        channels=_channels(items),
    )
    typer.echo(page.save(out))


def of_demo(
    results: Sequence[Attribution], setting: Setting, inputs: Tensor, name: str, top: Top, command: str
) -> Report:
    """The page of ``attribution demo``. Filters take longest, so that no other backend is asked for them."""
    about = {result.technique.name: result for result in results if result.technique.kind != "image"}
    filters = {
        f"filter_visualization.{k}": result
        for k, result in enumerate(each for each in results if each.technique.kind == "image")
    }
    item = Item(about, name=name, image=setting.picture(inputs), top=top, comparisons=against(about, setting, inputs))
    return Report(
        items=[item],
        labels=setting.loaded.labels,
        filters=filters,
        facts=facts(setting),
        command=command,
    )


def against(answers: Mapping[str, Attribution], setting: Setting, inputs: Tensor) -> dict[str, Comparison]:
    """Each answer beside those of the other backends to the same question; one that fails is left out, with why."""
    found = {}
    for name, answer in answers.items():
        technique, mine = answer.technique, answer.backend
        others: dict[str, Attribution] = {}
        failed: dict[str, str] = {}
        for backend in registry.backends(technique.name):
            if backend == mine:
                continue
            try:
                others[backend] = api.explain(
                    setting.model,
                    inputs if technique.needs_inputs else None,
                    technique,
                    backend=backend,
                    target=answer.score,
                    execution=setting.execution,
                )
            except AttributionError as error:
                failed[backend] = f"{name}: {str(error).splitlines()[0]}"
        agreements = {(mine, other): technique.agreement(answer, each) for other, each in others.items()}
        if agreements or failed:
            # A page needs the verdicts and no second copy of every map.
            light = {each.backend: replace(each, maps={}, raw={}, extras={}) for each in (answer, *others.values())}
            found[name] = Comparison(light, agreements, failed)
    return found


def facts(setting: Setting) -> dict[str, str]:
    """Where a page comes from."""
    return {
        "model": f"{setting.loaded.title} ({setting.loaded.name})",
        "SHA-256 of the weights": fingerprint.of_model(setting.model)["weights"],
        "transform": fingerprint.of_function(setting.loaded.transform) + ", stretched" * setting.stretch,
        **fingerprint.versions("captum"),
    }


def command_of(name: str, words: Sequence[object], options: Mapping[str, object]) -> str:
    """A command line that a shell reads as it was meant.

    Args:
        name: Of the command.
        words: Its arguments.
        options: By name: a value, several of them, or whether a flag is given; ``None`` is left out.
    """
    places = [str(word) for word in words]
    line = ["attribution", name]
    last = ["--", *places] if any(place.startswith("-") for place in places) else []
    line += [] if last else places
    for option, value in options.items():
        if isinstance(value, bool):
            line += [option] * value
        elif isinstance(value, list | tuple):
            line += [word for each in value for word in (option, str(each))]
        elif value is not None:
            line += [option, str(value)]
    return " ".join(map(_quoted, [*line, *last]))


def _quoted(word: str) -> str:
    """In the quotes of a shell; what no reader sees in the form that bash, ksh and zsh read."""
    if word.isprintable():
        return shlex.quote(word)
    data = word.encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in data) + "'"


def _channels(items: Sequence[Item]) -> int:
    """Of a layer: about as many on the whole page, however many images it has."""
    return max(_FEWEST, Report.channels // len(items))


def _top(setting: Setting, inputs: Tensor) -> Top:
    """The most probable classes; none where the output is no matrix of logits, as of a segmentation."""
    try:
        return setting.top(inputs)
    except AttributionError:
        return ()


def _left_out(run: OpenRun, shown: int, done: int) -> str:
    """What of the run is not on the page."""
    told = []
    if shown < done:
        told.append(f"{shown} of {done} items are shown, evenly over the run; --most N shows more.")
    if not run.finished:
        told.append(f"The run is not finished: {done} of {len(run)} items have results.")
    if failed := run.failures:
        named = "; ".join(f"{entry.name} ({entry.error})" for entry in failed[:_FAILED])
        more = f"; and {len(failed) - _FAILED} more in failures.csv" if len(failed) > _FAILED else ""
        told.append(f"{len(failed)} failed and {'is' if len(failed) == 1 else 'are'} not shown: {named}{more}.")
    return " ".join(told)
