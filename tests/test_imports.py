"""What ``import attribution`` and the command load, and that nothing depends on assertions."""

import subprocess
import sys
from pathlib import Path

import pytest

from attribution import available

LAZY = (
    *("attribution_hooks", "attribution_captum", "captum"),
    *("matplotlib", "PIL", "skimage", "ndf", "timm", "torchvision", "safetensors", "tqdm"),
    *("typer", "pydantic", "pytorch_lightning", "jinja2"),
)


def python(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_loads_little_and_changes_nothing() -> None:
    """Also: listing the attributors imports none of them, and a backend loads only what it needs."""
    code = f"""
import logging, random, sys, warnings
import numpy, torch
def state():
    return (random.getstate(), torch.get_rng_state().tolist(), torch.get_num_threads(), warnings.filters[:],
        torch.is_grad_enabled(), torch.get_default_dtype(), logging.getLogger().handlers[:], sys.path[:])
def loaded():
    return sorted({{name.split('.')[0] for name in set(sys.modules) - modules}} & {{*{LAZY!r}}})
before, modules = state(), set(sys.modules)
import attribution
for name in attribution.__all__:
    getattr(attribution, name)
print(before == state(), logging.getLogger("attribution").handlers, loaded())
print(len(attribution.available()), loaded())
from attribution import GradCAM, explain
from attribution.testing import small_cnn
explain(small_cnn(), torch.rand(1, 3, 17, 23), GradCAM())
print(loaded())
"""
    assert python(code).splitlines() == ["True [] []", f"{len(available())} []", "['attribution_hooks']"]


@pytest.mark.parametrize("arguments", [["--help"], ["atlas", "--help"], ["--nonsense"], ["explain", "--layer"]])
def test_help_and_mistyped_options_wait_for_nothing(arguments: list[str]) -> None:
    code = f"""
import sys
from attribution.cli import main
main({arguments!r})
print()
print(sorted({{"torch", "numpy", "torchvision"}} & {{*sys.modules}}))
"""
    assert python(code).splitlines()[-1] == "[]"


ERRORS = """
import sys
import numpy as np, torch
from torch import nn
import attribution as a
from attribution import agreement, registry
from attribution.testing import small_cnn
assert False, "assertions are on"
model, x = small_cnn(), torch.randn(2, 3, 17, 23)
body = ("body",)
class Tuple(nn.Module):
    def forward(self, x): return (x, x)
class Nan(nn.Module):
    def forward(self, x): return x.mean((2, 3)) / 0
cases = [
    (a.InputError, lambda: a.explain(model, x[0], a.GradCAM())),
    (a.InputError, lambda: a.explain(model, x.numpy(), a.GradCAM())),
    (a.InputError, lambda: a.explain(model, x.int(), a.GradCAM())),
    (a.InputError, lambda: a.explain(model, x.double(), a.GradCAM())),
    (a.InputError, lambda: a.explain(model, x[:0], a.GradCAM())),
    (a.InputError, lambda: a.explain(model, None, a.GradCAM())),
    (a.InputError, lambda: a.explain(model, x.to("meta"), a.GradCAM())),
    (a.InputError, lambda: a.explain(model, x, "grad_cam")),
    (a.InputError, lambda: a.explain(model, x, a.GradCAM(), execution={})),
    (a.InputError, lambda: a.explain(model, x, a.Occlusion(window=18, stride=1))),
    (a.InputError, lambda: a.explain(model, x, a.Occlusion(window=5, stride=5, baseline=(1.0, 2.0)))),
    (a.InputError, lambda: a.Occlusion(window=4, stride=5)),
    (a.InputError, lambda: a.Occlusion(window=0)),
    (a.InputError, lambda: a.Execution(batch_size=0)),
    (a.InputError, lambda: a.FilterVisualization(layer="body", channels=())),
    (a.InputError, lambda: a.explain(model, x, a.FilterVisualization(layer="body", channels=(0,)))),
    (a.InputError, lambda: a.compare(model, x, a.GradCAM(), backends=["hooks"])),
    (a.NonFiniteError, lambda: a.explain(model, x * float("nan"), a.GradCAM())),
    (a.NonFiniteError, lambda: a.explain(Nan(), x, a.Occlusion(window=9, stride=9))),
    (a.TargetError, lambda: a.explain(model, x, a.GradCAM(layers=body), target=5)),
    (a.TargetError, lambda: a.explain(model, x, a.GradCAM(layers=body), target=True)),
    (a.LayerError, lambda: a.explain(model, x, a.GradCAM(layers=("bodi",)))),
    (a.ModelError, lambda: a.explain(3, x, a.GradCAM())),
    (a.ModelError, lambda: a.explain(Tuple(), x, a.Occlusion(window=9, stride=9))),
    (a.ModelError, lambda: a.explain(model, x[:, :2], a.Occlusion(window=9, stride=9))),
    (a.OutputError, lambda: a.load("nowhere.safetensors")),
    (a.OutputError, lambda: a.explain(model, x, a.GradCAM(layers=body)).save("x.npz")),
    (a.UnknownAttributorError, lambda: a.explain(model, x, a.GradCAM(), backend="x")),
    (a.PluginError, lambda: registry.register(
        type("X", (a.Attributor,), {"technique_type": a.GradCAM, "backend": "x"}))),
]
for backend in ("hooks", "captum"):
    for wrong, case in [
        (a.LayerError, lambda: a.explain(model, x, a.GradCAM(layers=("body",), tokens=(0, 3, 4)), backend=backend)),
        (a.LayerError, lambda: a.explain(model, x, a.Activations(layers=("nope",)), backend=backend)),
        (a.ModelError, lambda: a.explain(model, x[:, :2], a.Activations(layers=body), backend=backend)),
        (a.ModelError, lambda: a.explain(model, x[:, :2], a.GradCAM(), backend=backend)),
        (a.ModelError, lambda: a.explain(
            model, None, a.FilterVisualization(layer="body", channels=(0,), in_channels=2), backend=backend)),
        (a.ModelError, lambda: a.explain(model, x, a.Occlusion(window=9, stride=9),
            backend=backend, target=a.ClassScore(output="logits"))),
    ]:
        try:
            case()
        except wrong:
            pass
        else:
            sys.exit(f"{backend}: no {wrong.__name__}")
for index, (wrong, case) in enumerate(cases):
    try:
        case()
    except wrong as error:
        if len(str(error)) < 20 or str(error).count("\\n") > 1 or not isinstance(error, a.AttributionError):
            sys.exit(f"{index}: {error}")
    else:
        sys.exit(f"{index}: no {wrong.__name__}")
print(len(cases), "of them")
"""


def test_every_error_also_without_assertions() -> None:
    assert python(ERRORS, "-O") == "29 of them"


def test_a_file_is_read_without_a_backend(tmp_path: Path) -> None:
    code = """
import sys, torch
from pathlib import Path
from attribution import GradCAM, explain, load
from attribution.testing import small_cnn
path = Path(sys.argv[1])
if not path.exists():
    explain(small_cnn(), torch.rand(1, 3, 17, 23), GradCAM(), target=1).save(path)
else:
    loaded = {name.split(".")[0] for name in sys.modules}
    print(load(path).technique.name, sorted(loaded & {"attribution_hooks", "captum"}))
"""
    path = str(tmp_path / "x.safetensors")
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=120)
    done = subprocess.run([sys.executable, "-c", code, path], check=True, timeout=120, capture_output=True, text=True)
    assert done.stdout.strip() == "grad_cam []"
