"""``attribution new-plugin``: a package with a technique and an attributor that pass the conformance kit."""

import keyword
import os
import re
import secrets
import shutil
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from string import Template

from attribution.errors import InputError, OutputError
from attribution.paths import named

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

_MODULE = '''"""${Words}: a technique and a backend in one module."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from attribution import Attributor, Inputs, Run, Technique
from attribution.technique import Kind, Maps


@dataclass(frozen=True, kw_only=True)
class ${Technique}(Technique):
    """map[i, j] = max over input channels of abs(∂score[target] / ∂x[c, i, j]); (N, T, H, W), score per input unit."""

    name: ClassVar[str] = "${name}"
    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """The raw map itself; it lies on the pixels already."""
        return raw


class ${Attributor}(Attributor[${Technique}]):
    """`${Technique}` by ``torch.autograd.grad``, one backward pass per target."""

    technique_type: ClassVar[type[${Technique}]] = ${Technique}
    backend: ClassVar[str] = "${backend}"

    def compute(self, run: Run[${Technique}]) -> Maps:
        """(N, T, H, W) under ``"input"``."""
        x = run.inputs.tensor.requires_grad_()
        scores = run.scores(run.forward(x))
        maps = []
        for column in scores.unbind(1):
            (gradient,) = torch.autograd.grad(column.sum(), x, retain_graph=True)
            maps.append(gradient.abs().amax(dim=1))
        return {"input": torch.stack(maps, dim=1)}
'''

_PROJECT = """[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "${package}"
version = "0.1.0"
description = "${Words} for torch-attribution."
requires-python = ">=3.11"
dependencies = ["torch-attribution"]

[project.entry-points."attribution.techniques"]
"${name}" = "${module}:${Technique}"

[project.entry-points."attribution.attributors"]
"${name}.${backend}" = "${module}:${Attributor}"

[tool.hatch.build.targets.wheel]
only-include = ["${module}.py"]
"""

_TEST = '''"""The whole test file of a plugin: the conformance kit, and a model whose answer is known."""

import torch
from ${module} import ${Attributor}, ${Technique}
from torch import nn

from attribution.testing import Check, parametrize_with_checks


@parametrize_with_checks([${Attributor}])
def test_conformance(check: Check) -> None:
    """One test per check."""
    check()


def test_a_linear_model() -> None:
    """The gradient of a linear model is its weight, whatever the image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 7, 4)).double()
    answer = ${Attributor}(model, ${Technique}()).attribute(torch.rand(2, 3, 5, 7).double(), target=[1, 3])
    expected = model[1].weight[[1, 3]].view(2, 1, 3, 5, 7).abs().amax(dim=2)
    torch.testing.assert_close(answer.map, expected.detach(), rtol=0, atol=1e-12)
'''


def write(name: str, backend: str, parent: Path) -> list[Path]:
    """Write ``attribution-NAME/`` with a module, a ``pyproject.toml`` and a test; whole or not at all.

    Args:
        name: Of the technique: lower case, digits and underscores.
        backend: Of the attributor, likewise.
        parent: The folder it is made in.

    Returns:
        What was written.

    Raises:
        InputError: A name is no such name, or an installed technique has it.
        OutputError: The folder is there already, or cannot be written.
    """
    for what, text in (("technique", name), ("backend", backend)):
        if not _NAME.fullmatch(text) or keyword.iskeyword(text):
            like = "_".join(re.findall(r"[a-z][a-z0-9]*", text.lower()))
            like = like if _NAME.fullmatch(like) and not keyword.iskeyword(like) else "plain_gradient"
            raise InputError(f"the {what} is to be called {named(text)!r}; expected lower case such as {like}")
    if name in {point.name for point in entry_points(group="attribution.techniques")}:
        raise InputError(f"a technique {name!r} is installed; choose another name")
    camel = "".join(part.capitalize() for part in name.split("_"))
    words = {
        "name": name,
        "backend": backend,
        "package": f"attribution-{name.replace('_', '-')}",
        "module": f"attribution_{name}",
        "Technique": camel,
        "Attributor": f"{''.join(part.capitalize() for part in backend.split('_'))}{camel}",
        "Words": name.replace("_", " ").capitalize(),
    }
    texts = {f"{words['module']}.py": _MODULE, "pyproject.toml": _PROJECT, f"test_{name}.py": _TEST}
    place = parent / words["package"]
    if os.path.lexists(place):
        raise OutputError(f"{named(place)} is there already; move it away, or choose another name")
    stage = parent / f".attribution-{secrets.token_hex(4)}"
    try:
        stage.mkdir(parents=True)
        for file, text in texts.items():
            (stage / file).write_text(Template(text).substitute(words), encoding="utf-8")
        os.rename(stage, place)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {named(place)}: {reason}") from error
    finally:
        with suppress(ValueError):
            shutil.rmtree(stage, ignore_errors=True)
    return [place / file for file in texts]
