"""``attribution atlas``: what excites every channel of a layer, on one page."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import typer

from attribution import api, layers, plots
from attribution.cli import parameters
from attribution.cli.output_folder import ResultFolder
from attribution.cli.setting import Setting
from attribution.errors import LayerError
from attribution.inputs.inputs import as_inputs
from attribution.paths import short
from attribution.result import Attribution
from attribution.techniques import FilterVisualization
from attribution.techniques.filter_visualization import DEAD, DIVERGED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAME = "atlas"


def run(layer: str, settings: Sequence[str], setting: Setting, backend: str, folder: ResultFolder) -> None:
    """Write ``atlas.LAYER.png`` and ``.safetensors``.

    Raises:
        InputError: parameters that the technique does not take.
        LayerError: the layer does not exist, or has no channels.
    """
    asked = question(layer, settings, setting)
    result = api.explain(setting.model, None, asked, backend=backend, execution=setting.execution)
    name = f"{_NAME}.{short(layer.replace('/', '-'))}"
    plots.save(sheet(result, f"{asked.words} · {layer} · {setting.loaded.title}"), folder.stage / f"{name}.png")
    result.save(folder.stage / f"{name}.safetensors")
    told = f"{layer} · {len(asked.channels)} channels, {_count(result, DEAD)} dead"
    if _count(result, DIVERGED):
        told += f", {_count(result, DIVERGED)} diverged"
    for path in folder.publish():
        typer.echo(f"{path}  {told} · {backend}")


def question(layer: str, settings: Sequence[str], setting: Setting) -> FilterVisualization:
    """All channels of the layer, unless ``-p channels=…`` names some."""
    some = any(text.partition("=")[0].strip() == "channels" for text in settings)
    typed = parameters.technique(FilterVisualization, settings if some else [*settings, "channels=[0]"], [layer])
    asked = setting.fitted(cast(FilterVisualization, typed))
    return asked if some else replace(asked, channels=tuple(range(_channels(asked, setting))))


def sheet(result: Attribution, title: str) -> "Figure":
    """The pictures by falling objective, the dead ones at the end."""
    status, objective = result.extras["status"].tolist(), result.extras["objective"][-1].tolist()
    channels = cast(FilterVisualization, result.technique).channels
    order = sorted(range(len(channels)), key=lambda i: (status[i] == DEAD, -objective[i]))
    words = {DEAD: "dead", DIVERGED: "diverged"}
    return plots.contact_sheet(
        result.map[order],
        titles=[f"{channels[i]}: {words.get(status[i]) or f'{objective[i]:.3g}'}" for i in order],
        empty=[status[i] == DEAD for i in order],
        title=title,
    )


def _channels(asked: FilterVisualization, setting: Setting) -> int:
    """How many the layer has, for images of the size in question."""
    start = asked.start(setting.model)
    if asked.of_logits(setting.model):
        return int(setting.logits(start).shape[1])
    name, module = layers.find(setting.model, asked.layer)
    stop = {stop.module: stop for stop in layers.survey(setting.model, start)}.get(module)
    if stop is None:
        raise layers.missing(setting.model, start, layers.never_ran(asked.layer))
    shape = stop.form_of(name)
    if shape is None or len(shape) < 2:
        raise LayerError(f"layer {asked.layer!r} tells no number of channels; name some: -p channels=[0,4]")
    inputs = as_inputs(start[:1])
    return shape[layers.axes_of(setting.model, inputs, asked.layer, shape, 1, stated=asked.channel_axis).channels]


def _count(result: Attribution, status: int) -> int:
    return int((result.extras["status"] == status).sum())
