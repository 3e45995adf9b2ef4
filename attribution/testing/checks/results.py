"""An answer can be kept, drawn and read again."""

import json
import sys
import tempfile
from pathlib import Path

import torch

from attribution.result import Attribution
from attribution.testing.checks.check import Template, check, require
from attribution.testing.checks.subject import Subject, equal, needs_inputs
from attribution.testing.models.small import small_cnn


@check("Record: files")
def check_a_saved_answer_comes_back(subject: Subject) -> None:
    """Maps bit by bit, technique, target, scores, extras and record."""
    result = subject.ask(subject.on(small_cnn()))
    with tempfile.TemporaryDirectory() as folder:
        path = result.save(Path(folder) / "answer.safetensors", raw=True)
        left = sorted(entry.name for entry in Path(folder).iterdir())
        again = Attribution.load(path, type(result.technique))
    require(left == ["answer.safetensors"], f"files {left}", "one")
    for group in ("maps", "raw", "extras"):
        before, after = getattr(result, group), getattr(again, group)
        same = before.keys() == after.keys() and all(equal(before[key].cpu(), after[key]) for key in before)
        require(same, f"other {group} after loading", "the same bits under the same names")
    require(again.technique == result.technique, f"{again.technique}", f"{result.technique}")
    require(again.backend == result.backend, f"backend {again.backend!r}", f"{result.backend!r}")
    require(dict(again.provenance) == dict(result.provenance), "another record", "the same")


@check("Maps: raw values")
def check_an_answer_can_be_drawn(subject: Subject) -> None:
    """A figure with something on it, without pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    before = "matplotlib.pyplot" in sys.modules
    canvas = FigureCanvasAgg(subject.ask(subject.on(small_cnn())).figure())
    canvas.draw()
    pixels = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    require(len(pixels.unique()) > 10, "a blank figure", "a picture of the maps")
    require(("matplotlib.pyplot" in sys.modules) == before, "pyplot imported", "matplotlib without global state")


@check("Record: provenance")
def check_the_record_is_complete(subject: Subject) -> None:
    """Who, on what, where, by which versions; written as JSON."""
    result = subject.ask(subject.on(small_cnn()))
    record = dict(result.provenance)
    wanted = {"attributor", "model", "inputs", "dtype", "device", "isolation", "torch", "torch-attribution", "python"}
    require(wanted <= record.keys(), f"a record without {sorted(wanted - record.keys())}", "all of them")
    name = f"{subject.cls.__module__}:{subject.cls.__qualname__}"
    require(record["attributor"] == name, f"attributor {record['attributor']!r}", name)
    require(result.backend == subject.cls.backend, f"backend {result.backend!r}", subject.cls.backend)
    require(type(result.technique) is type(subject.technique), f"{result.technique!r}", f"{subject.technique!r}")
    require(json.loads(json.dumps(record)) == record, "values that JSON does not keep", "strings and numbers")


@check("Record: provenance")
def check_the_question_is_recorded(subject: Subject) -> None:
    """The result holds the technique as it was asked."""
    result = subject.ask(subject.on(small_cnn()))
    require(result.technique == subject.technique, f"{result.technique}", f"{subject.technique}")


@check("Maps: shapes", needs_inputs)
def check_any_size_and_number_of_images(subject: Subject) -> None:
    """Height and width are not mixed up."""
    for images, size in ((1, (17, 23)), (3, (23, 17)), (2, (20, 20))):
        result = subject.ask(subject.on(small_cnn()), subject.noise(images, size=size))
        lengths = {len(map_) for map_ in result.maps.values()}
        require(lengths == {images}, f"maps for {lengths} images", f"{images}")
        flat = result.maps.get("input")
        shape = size if flat is None else tuple(flat.shape[-2:])
        require(shape == size, f"a map of {shape} for images of {size}", "height and width not mixed up")


CHECKS: tuple[Template, ...] = (
    check_a_saved_answer_comes_back,
    check_an_answer_can_be_drawn,
    check_the_record_is_complete,
    check_the_question_is_recorded,
    check_any_size_and_number_of_images,
)
