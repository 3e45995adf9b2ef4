"""The plugin of the documentation, installed by pip, and known to everything with the core untouched."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attribution import explain, load, registry
from attribution.cli import main
from attribution.testing import attributor_checks, check_attributor, small_cnn
from tests.conftest import noise

EXAMPLE = Path(__file__).parents[2] / "docs/examples/attribution-plain-gradient"
CHECK = ["check", "attribution_plain_gradient:AutogradPlainGradient"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip installed the example, from a copy, so that a build leaves nothing beside the pages."""
    site, source = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source") / EXAMPLE.name
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(site)]
    done = run([sys.executable, "-m", "pip", "install", *options, str(source)])
    assert done.returncode == 0, done.stderr
    return site


@pytest.fixture(scope="module")
def plugin(site: Path) -> Iterator[Any]:
    """The installed module, importable while the tests of this file run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield importlib.import_module("attribution_plain_gradient")
    sys.modules.pop("attribution_plain_gradient")
    assert ("plain_gradient", "autograd") not in registry.available()


def run(command: list[str], site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A process of its own, with what lies in ``site`` installed."""
    paths = [str(site), os.environ.get("PYTHONPATH")] if site else [os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)


def test_the_page_shows_what_is_tested() -> None:
    page = (EXAMPLE.parents[1] / "write-an-attributor.md").read_text(encoding="utf-8")
    for name in ("attribution_plain_gradient.py", "pyproject.toml"):
        assert (EXAMPLE / name).read_text(encoding="utf-8") in page
    lines = (EXAMPLE / "test_plain_gradient.py").read_text(encoding="utf-8").splitlines(keepends=True)
    imports = "from attribution_plain_gradient import AutogradPlainGradient, PlainGradient\n"
    assert "".join(line for line in lines if line != imports) in page  # the page's own code has made both


def test_one_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "plain_gradient", "--out", str(tmp_path)]) == 0
    assert "pip install -e" in capsys.readouterr().out
    written = tmp_path / EXAMPLE.name
    assert sorted(path.name for path in written.iterdir()) == sorted(
        path.name for path in EXAMPLE.iterdir() if path.is_file()
    )
    for path in written.iterdir():
        assert path.read_bytes() == (EXAMPLE / path.name).read_bytes()
    assert main(["new-plugin", "plain_gradient", "--out", str(tmp_path)]) == 2  # what is there is left alone
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [EXAMPLE.name]


@pytest.mark.parametrize("name", ["Plain", "plain-gradient", "2nd", "class", "../plain", "", "plain\n", "grad_cam"])
def test_a_name_that_is_none_or_taken_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "--out", str(tmp_path), "--", name]) == 2
    assert "expected lower case" in (told := capsys.readouterr().err) or "is installed" in told
    assert list(tmp_path.iterdir()) == []


def test_a_name_like_it_is_proposed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "Edge-Strength 2", "--out", str(tmp_path)]) == 2
    assert "expected lower case such as edge_strength" in capsys.readouterr().err


def test_a_plugin_of_other_names_passes_its_tests(tmp_path: Path) -> None:
    """The skeleton as it is written, in a process of its own; one check of the kit stands for all of them."""
    assert main(["new-plugin", "edge_strength", "-b", "my_own", "--out", str(tmp_path)]) == 0
    place = tmp_path / "attribution-edge-strength"
    assert "class MyOwnEdgeStrength(Attributor[EdgeStrength])" in (place / "attribution_edge_strength.py").read_text()
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(place), "-p", "no:benchmark"]
    command += ["-p", "no:cacheprovider", "-k", "linear or finite", str(place)]
    done = run(command, place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) >= 2


def test_it_is_short_and_brings_nothing_but_itself(site: Path) -> None:
    files = [path for path in EXAMPLE.iterdir() if path.is_file()]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) < 95
    installed = {path.name for path in site.iterdir()} - {"__pycache__"}
    assert installed == {"attribution_plain_gradient.py", "attribution_plain_gradient-0.1.0.dist-info"}
    module = "attribution_plain_gradient.py"
    assert (site / module).read_bytes() == (EXAMPLE / module).read_bytes()


def test_the_core_knows_nothing_of_it() -> None:
    root = EXAMPLE.parents[2]
    sources = [path for folder in ("attribution", "backends") for path in (root / folder).rglob("*.py")]
    assert len(sources) > 80
    texts = {path.name: path.read_text(encoding="utf-8").lower() for path in sources}
    names = "attribution_plain_gradient", "attribution-plain-gradient", "autogradplain_gradient"
    assert [name for name, text in texts.items() if any(word in text for word in names)] == []


@pytest.mark.slow
def test_a_process_of_its_own_lists_it_and_runs_its_tests(site: Path) -> None:
    listed = run([sys.executable, "-m", "attribution", "list"], site).stdout.splitlines()
    (row,) = (line for line in listed if "plain_gradient" in line)
    assert row.split() == ["plain_gradient", "autograd", "attribution-plain-gradient", "0.1.0"]
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(EXAMPLE)]
    command += ["-p", "no:cacheprovider", "-p", "no:benchmark", str(EXAMPLE / "test_plain_gradient.py")]
    done = run(command, site)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) >= 40


def test_it_is_known_by_its_entry_point(plugin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert ("plain_gradient", "autograd") in registry.available()
    assert registry.get("plain_gradient", "autograd") is plugin.AutogradPlainGradient
    assert main(["list"]) == 0
    assert "plain_gradient" in (out := capsys.readouterr().out)
    assert "attribution-plain-gradient 0.1.0" in out


def test_it_explains_is_drawn_and_saved(plugin: Any, tmp_path: Path) -> None:
    model, inputs = small_cnn(dtype=torch.float64), noise(2, 3, 17, 23, dtype=torch.float64)
    result = explain(model, inputs, plugin.PlainGradient(), backend="autograd", target=[[3], [1]])
    assert result.map[0, 0, 8, 11].item() == pytest.approx(_slopes(model, inputs, 1e-6).max().item(), rel=1e-5)
    again = load(result.save(tmp_path / "plain_gradient.safetensors"))
    assert isinstance(again.technique, plugin.PlainGradient)
    assert torch.equal(again.map, result.map)
    figure = result.figure()
    figure.canvas.draw()
    assert len(np.unique(np.asarray(figure.canvas.buffer_rgba()))) > 10  # type: ignore[attr-defined]


def _slopes(model: torch.nn.Module, inputs: torch.Tensor, step: float) -> torch.Tensor:
    """abs(∂logit 3 / ∂x) of the first image at one pixel, per channel, by finite differences."""
    found = []
    for channel in range(3):
        moved = [inputs[:1].clone() for _ in range(2)]
        for image, sign in zip(moved, (1, -1), strict=True):
            image[0, channel, 8, 11] += sign * step
        with torch.no_grad():
            up, down = (model(image)[0, 3] for image in moved)
        found.append(((up - down) / (2 * step)).abs())
    return torch.stack(found)


def test_it_passes_the_kit_from_the_shell(plugin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(CHECK) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 40
    assert all(line.startswith("ok    ") for line in lines[:-1])
    assert lines[-1] == f"plain_gradient.autograd: {len(lines) - 1} of {len(lines) - 1} checks passed"


def test_its_own_test_has_a_case_per_check(plugin: Any) -> None:
    spec = importlib.util.spec_from_file_location("plain_gradient_test", EXAMPLE / "test_plain_gradient.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (mark,) = module.test_conformance.pytestmark
    names = [parameter.id for parameter in mark.args[1]]
    checks = list(attributor_checks(plugin.AutogradPlainGradient))
    assert names == [f"plain_gradient.autograd-{check.name}" for check in checks]
    module.test_conformance(checks[0])


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (lambda maps: {"input": maps["input"] / maps["input"].amax(dim=(2, 3), keepdim=True)}, "maps_are_not_scaled"),
        (lambda maps: {"input": maps["input"].transpose(2, 3)}, "maps_have_the_shape_of_their_kind"),
        (lambda maps: {"input": maps["input"].flip(0)}, "the_order_of_images_is_kept"),
    ],
    ids=["scaled", "transposed", "mixed up"],
)
def test_a_faulty_stranger_fails(plugin: Any, fault: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from attribution.testing.checks import TEMPLATES

    monkeypatch.setattr(
        "attribution.testing.conformance.TEMPLATES", tuple(t for t in TEMPLATES if t.name.startswith(name))
    )

    class Faulty(plugin.AutogradPlainGradient):  # type: ignore[misc]
        def compute(self, run: Any) -> Any:
            return fault(super().compute(run))

    assert check_attributor(plugin.AutogradPlainGradient)[0].status == "passed"
    with pytest.raises(AssertionError, match=name):
        check_attributor(Faulty)


def test_the_shell_tells_failures(
    plugin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from attribution.testing.checks import TEMPLATES

    kept = [t for t in TEMPLATES if t.name in ("target_changes_the_map", "maps_are_finite_and_not_zero")]
    monkeypatch.setattr("attribution.testing.conformance.TEMPLATES", tuple(kept))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_faulty_plain_gradient.py").write_text(
        "from attribution_plain_gradient import AutogradPlainGradient\n"
        "class Deaf(AutogradPlainGradient):\n"
        "    def compute(self, run):\n"
        "        maps = super().compute(run)\n"
        "        return {'input': maps['input'] * 0 + 1 + run.inputs.tensor.detach()[:, :1] ** 2}\n"
    )
    assert main(["check", "my_faulty_plain_gradient:Deaf"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert main(["check", str(tmp_path / "my_faulty_plain_gradient.py:Deaf")]) == 1
    assert capsys.readouterr().out.splitlines() == out
    assert main(["check", str(tmp_path / "my_faulty_plain_gradient.py:Deafer")]) == 2
    assert "nearest: 'Deaf'" in capsys.readouterr().err
    assert out[0] == "ok    maps_are_finite_and_not_zero"
    assert out[1].startswith("FAIL  plain_gradient.autograd: target_changes_the_map: found the same map ['input']")
    assert out[1].endswith("Rule: docs/conventions.md#targets-forms")
    assert out[2] == "plain_gradient.autograd: 1 of 2 checks passed"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("attribution_plain_gradient", "write MODULE:CLASS"),
        ("no_such_module:X", "cannot import no_such_module"),
        ("attribution_plain_gradient:AutogradSalency", "nearest: 'AutogradPlainGradient'"),
        ("attribution_plain_gradient:PlainGradient", "has no attributor 'PlainGradient'"),
        ("attribution:Attributor", "does not implement compute"),
    ],
)
def test_bad_use_is_told(plugin: Any, text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", text]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("fails", ["raise RuntimeError('not today')", "exit(3)"])
def test_a_module_that_fails_when_it_is_asked(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "moody_module.py").write_text(
        f"def __getattr__(name):\n    if name.startswith('_'):\n        raise AttributeError(name)\n    {fails}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["check", "moody_module:Mine"]) == 2
    assert capsys.readouterr().err.startswith("error: moody_module:Mine cannot be looked up: ")
