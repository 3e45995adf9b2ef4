"""``attribution demo``: four techniques on one photo."""

import sys
from pathlib import Path

import numpy as np
import typer
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from attribution import api, images, plots, registry, zoo
from attribution.cli import report
from attribution.cli.output_folder import ResultFolder
from attribution.cli.setting import Setting
from attribution.cli.text import summary
from attribution.errors import AttributionError, ModelError, OutputError
from attribution.layers import Stop, survey
from attribution.result import Attribution
from attribution.technique import Technique
from attribution.techniques import Activations, FilterVisualization, GradCAM, Occlusion

_CHANNELS = (0, 4, 8, 12)
_PICTURES = {"activations": "activations", "grad_cam": "gradcam", "occlusion": "occlusion"}


def photo(path: Path | None, backend: str) -> Image.Image:
    """The photo to show, after making sure that the backend has these four techniques.

    Raises:
        InputError: the file is no image, or there is no sample photo.
        UnknownAttributorError: the backend lacks a technique.
    """
    for kind in (Activations, FilterVisualization, GradCAM, Occlusion):
        registry.get(kind, backend)
    return zoo.sample_photo() if path is None else images.read(path)


def run(
    photo: Image.Image, setting: Setting, backend: str, folder: ResultFolder, *, name: str = "coffee", command: str = ""
) -> bool:
    """Print the top five, and write ``input_image.png``, a picture per technique, the maps, and ``report.html``.

    Args:
        photo: What is explained.
        setting: The model.
        backend: Who computes.
        folder: For the results.
        name: Of the photo.
        command: What makes the page again.

    Returns:
        Whether every technique worked.
    """
    inputs = setting.inputs(photo)
    if told := setting.cut(photo):
        print(f"note: of the photo {told}; --stretch shows the whole photo", file=sys.stderr)
    try:
        best = setting.top(inputs)
    except ModelError as error:  # another output than classes is explained by a score, which the demo cannot know
        raise ModelError(f"{error}; the demo explains classifiers, `attribution explain --score` the rest") from error
    typer.echo(f"{setting.loaded.name} sees:")
    for label, index, probability in best:
        typer.echo(f"  {probability:6.1%}  {label} ({index})")
    silent = None if setting.progress is None else not setting.progress
    asked = tqdm(techniques(setting.model, inputs), desc="demo", unit="technique", disable=silent)
    results: list[Attribution] = []
    failed: list[str] = []
    if not any(isinstance(technique, FilterVisualization) for technique in asked):
        failed.append(f"filter_visualization: {setting.loaded.title} has no convolution wider than a pixel")
    for technique in asked:
        try:
            results.append(_answer(technique, setting, inputs, backend))
        except AttributionError as error:  # the others may say something nonetheless
            failed.append(f"{technique.name}: {error}")
    if not results:
        raise AttributionError(f"no technique of the demo works on this model: {failed[0]}")
    lines = _write(results, setting, setting.picture(inputs), folder)
    page = report.of_demo(results, setting, inputs, name, best, command)
    page.save(folder.stage / "report.html")
    lines["report.html"] = "all of it on one page, for a browser"
    for path in folder.publish():
        typer.echo(f"{path}  {lines[path.name]}")
    for told in failed:
        print(f"left out: {told}", file=sys.stderr)
    return not failed


def techniques(model: nn.Module, inputs: Tensor) -> list[Technique]:
    """The defaults of all four, for four filters of an early and of a middle convolution."""
    filters = [
        FilterVisualization(layer=stop.name, channels=tuple(c for c in _CHANNELS if stop.shape and c < stop.shape[1]))
        for stop in _early_and_middle(model, inputs)
    ]
    return [Activations(), *filters, GradCAM(), Occlusion()]


def _early_and_middle(model: nn.Module, inputs: Tensor) -> list[Stop]:
    """Convolutions that look at more than a pixel, a sixth and half of the way through the network, or none."""
    stops = [stop for stop in survey(model, inputs) if _reach(stop.module) > 1 and stop.calls == 1]
    return [stops[i] for i in dict.fromkeys((len(stops) // 6, len(stops) // 2))] if stops else []


def _reach(module: nn.Module) -> int:
    return max(module.kernel_size) if isinstance(module, nn.Conv2d) else 0


def _answer(technique: Technique, setting: Setting, inputs: Tensor, backend: str) -> Attribution:
    shown = inputs if technique.needs_inputs else None
    return api.explain(setting.model, shown, setting.fitted(technique), backend=backend, execution=setting.execution)


def _write(results: list[Attribution], setting: Setting, picture: np.ndarray, folder: ResultFolder) -> dict[str, str]:
    """Every file of the demo into the stage; what each shows, by its name."""
    lines = {"input_image.png": f"what {setting.loaded.name} sees"}
    try:
        Image.fromarray((picture * 255).round().astype(np.uint8)).save(folder.stage / "input_image.png")
    except OSError as error:
        raise OutputError(f"cannot write into {folder.path}: {error.strerror or error}") from error
    filters: dict[str, Tensor] = {}
    titles: list[str] = []
    for result in results:
        told = summary(result, setting.loaded)
        if isinstance(result.technique, FilterVisualization):
            name = f"filter_visualization.{result.technique.layer}"
            filters |= result.maps
            dead = result.extras["status"].tolist()
            titles += [
                f"channel {c}{' (dead)' * (d == 1)}" for c, d in zip(result.technique.channels, dead, strict=True)
            ]
        else:
            name = _PICTURES[result.technique.name]
            plots.save(
                result.figure(picture, setting.loaded.labels, model=setting.loaded.title), folder.stage / f"{name}.png"
            )
            lines[f"{name}.png"] = told
        result.save(folder.stage / f"{name}.safetensors")
        lines[f"{name}.safetensors"] = told
    if not filters:
        return lines
    words = next(each.technique.words for each in results if isinstance(each.technique, FilterVisualization))
    figure = plots.image_figure(filters, titles=titles, title=f"{words} · {setting.loaded.title}")
    plots.save(figure, folder.stage / "filter_visualization.png")
    lines["filter_visualization.png"] = f"{', '.join(filters)} · {results[0].backend}"
    return lines
