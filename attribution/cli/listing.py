"""``attribution list`` and ``attribution layers``: what there is."""

from PIL import Image

from attribution import registry
from attribution.cli.setting import Setting
from attribution.cli.text import table
from attribution.errors import BackendNotInstalledError, ModelError
from attribution.layers import Stop, survey


def attributors() -> str:
    """A table of techniques, backends and the distributions that bring them."""
    rows = [(*pair, registry.distribution(*pair), "") for pair in registry.available()]
    rows += [(*pair, registry.distribution(*pair), _reference(*pair)) for pair in registry.references()]
    return table([("technique", "backend", "distribution", ""), *sorted(rows)])


def _reference(technique: str, backend: str) -> str:
    """That it is one, and whether its library is there."""
    try:
        registry.get(technique, backend)
    except BackendNotInstalledError as error:
        return f"reference, not installed: {error}"
    return "reference"


def layers(setting: Setting) -> str:
    """A table of the layers that run: name, type, output shape without the image axis.

    Raises:
        ModelError: the model fails on an input of its own size.
    """
    inputs = setting.inputs(Image.new("RGB", (256, 256)))
    stops = survey(setting.model, inputs)
    if stops.failure is not None:
        raise ModelError(f"{setting.loaded.name}: {stops.failure}")
    order = {name: position for position, (name, _) in enumerate(setting.model.named_modules())}
    rows = [
        (stop.name, type(stop.module).__name__, _shape(stop)) for stop in sorted(stops, key=lambda s: order[s.name])
    ]
    return table([("layer", "type", "output"), *rows])


def _shape(stop: Stop) -> str:
    text = stop.output_type if stop.shape is None else " × ".join(map(str, stop.shape[1:])) or "1"
    if stop.calls > 1:
        text += f"  (runs {stop.calls} times: {stop.name}#0 … {stop.name}#{stop.calls - 1})"
    return text
