"""The page of a report: what it shows as plain words and numbers, and the template that lays them out."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from unicodedata import category

from torch import Tensor

from attribution.plots import pictures as backdrops
from attribution.plots.pixels import Pixels
from attribution.plots.scales import POSITIVE, SIGNED
from attribution.report import agreeing, channels, pictures, scored
from attribution.report.report import Item, Report
from attribution.report.views import Plate, View, left_out, plates_of, views_of
from attribution.result import Attribution

if TYPE_CHECKING:
    from jinja2 import Environment

_RAMPS = (POSITIVE, SIGNED, pictures.CHANNELS)
_LONGEST = 160
_UNSEEN, _KEPT = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"), "\n\u200c\u200d"
"""Categories of Unicode that no reader sees; of them, joiners shape the words of some languages."""

_COMMON = ("model", "inputs", "dtype", "device", "float32 products", "threads", "torch-attribution", "torch", "python")
"""What the provenance says of the whole call; the rest belongs to a technique."""


@dataclass(frozen=True)
class Shown:
    """An item as the template takes it.

    Attributes:
        anchor: Its place in the page.
        name: Of the image.
        photo: Its address; empty where there is none.
        size: Height and width of the photo as the model saw it.
        whole: The address of the photo itself, where nobody knows what the model saw of it.
        whole_size: Of that, its height and width.
        top: Label, index, probability.
        views: Heatmaps of planes.
        plates: Figures of heatmaps that are none.
        layers: Activations.
        agreement: Of backends.
        notes: Sentences.
    """

    anchor: str
    name: str
    photo: str
    size: tuple[int, int]
    whole: str
    whole_size: tuple[int, int]
    top: Sequence[tuple[str, int, float]]
    views: list[View]
    plates: list[Plate]
    layers: list[channels.Layer]
    agreement: agreeing.Verdicts | None
    notes: Sequence[str]

    def choices(self, of: str, technique: str | None = None) -> list[str]:
        """The techniques, layers or targets of the heatmaps, in order."""
        found = (getattr(view, of) for view in self.views if technique in (None, view.technique))
        return list(dict.fromkeys(found))


def html(report: Report) -> str:
    """See `Report.html`."""
    held = [_shown(k, item, report) for k, item in enumerate(report.items)]
    answers = {name: answer for item in report.items for name, answer in item.answers.items()} | dict(report.filters)
    style, script = _style(), _text("report.js")
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=report.heading,
            policy=_policy(style, script),
            style=style,
            script=script,
            items=held,
            patterns=[(name, words, *each) for name, words, each in _patterns(report)],
            evidence=None if report.evidence is None else scored.Scores.of(report.evidence),
            facts={**_facts(answers), **report.facts},
            techniques=[_technique(name, answer) for name, answer in answers.items()],
            command=report.command,
            left_out=report.left_out,
            columns=channels.COLUMNS,
        )
    )


def _shown(number: int, item: Item, report: Report) -> Shown:
    seen, whole = item.seen, None if item.whole is None else backdrops(item.whole, 1)[0]
    small = None if seen is None else pictures.shrunk(seen)
    heatmaps = {name: each for name, each in item.answers.items() if each.technique.kind == "heatmap"}
    activations = [each for each in item.answers.values() if each.technique.kind == "activation"]
    return Shown(
        anchor=f"item-{number}",
        name=item.name,
        photo="" if small is None else pictures.photo(small),
        size=_size(seen),
        whole="" if whole is None else pictures.photo(pictures.shrunk(whole)),
        whole_size=_size(whole),
        top=item.top,
        views=[view for name, each in heatmaps.items() for view in views_of(name, each, report.labels, small)],
        plates=[plate for each in heatmaps.values() for plate in plates_of(each, report.labels)],
        layers=[layer for each in activations for layer in channels.layers(each, report.channels)],
        agreement=agreeing.verdicts(item.comparisons) if item.comparisons else None,
        notes=(*item.notes, *filter(None, (left_out(each) for each in heatmaps.values()))),
    )


def _size(picture: Pixels | None) -> tuple[int, int]:
    return (0, 0) if picture is None else (picture.shape[0], picture.shape[1])


def _patterns(report: Report) -> "list[tuple[str, str, tuple[str, list[channels.Pattern]]]]":
    return [
        (name, answer.technique.words, each)
        for name, answer in report.filters.items()
        for each in channels.patterns(answer)
    ]


def _facts(answers: Mapping[str, Attribution]) -> dict[str, str]:
    """What is the same for all answers."""
    found: dict[str, list[str]] = {}
    for answer in answers.values():
        for key in _COMMON:
            if key in answer.provenance:
                found.setdefault(key, []).append(str(answer.provenance[key]))
    return {key: ", ".join(dict.fromkeys(values)) for key, values in found.items()}


def _technique(name: str, answer: Attribution) -> tuple[str, str, str, list[str], list[str]]:
    """Name, words, backend, parameters, notes."""
    technique = answer.technique
    parameters = [f"{each.name} = {_value(getattr(technique, each.name))}" for each in fields(technique)]
    notes = [f"{key}: {value}" for key, value in answer.provenance.items() if key not in _COMMON]
    return name, technique.words, answer.backend, parameters, notes


def _value(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _style() -> str:
    ramps = (
        f".ramp-{name} {{ background: linear-gradient(to right, {', '.join(pictures.ramp(name))}); }}"
        for name in _RAMPS
    )
    return _text("report.css") + "\n".join(ramps) + "\n"


def _policy(style: str, script: str) -> str:
    """Nothing but this page's own style and script, and pictures that lie in it."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _text(name: str) -> str:
    return files("attribution.report").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _environment() -> "Environment":
    from jinja2 import DictLoader, Environment, StrictUndefined

    return Environment(
        autoescape=True,
        finalize=plain,
        loader=DictLoader({"report.html": _text("report.html")}),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )


def plain(value: object) -> object:
    """Text of which every sign is seen: what turns or hides others, or is no character, stands as its number."""
    if type(value) is not str:  # numbers, and markup of the template's own
        return value
    return "".join(ascii(sign)[1:-1] if category(sign) in _UNSEEN and sign not in _KEPT else sign for sign in value)
