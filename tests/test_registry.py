"""Who is installed: entry points of this and of foreign distributions, and what is said about the broken ones."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attribution import (
    Attributor,
    BackendNotInstalledError,
    GradCAM,
    PluginError,
    Run,
    UnknownAttributorError,
    available,
    compare,
    explain,
    registry,
)
from attribution.technique import Maps
from tests.cases import OF_ATTENTION, PAIRS
from tests.conftest import build, noise

GOOD = """
from attribution_hooks.cam import HooksGradCAM
from attribution import GradCAM
from attribution.attributor import Attributor

class Mine(Attributor):
    technique_type, backend = GradCAM, {backend!r}

    def compute(self, run):
        return HooksGradCAM(self.model, self.technique, self.execution).compute(run)
"""

Install = Callable[..., None]
EVERY = sorted([*PAIRS, *OF_ATTENTION])


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution with entry points on the path, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(name: str, entries: dict[str, str], **modules: str) -> None:
        info = tmp_path / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{key} = {value}" for key, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines]) + "\n")
        for module, source in modules.items():
            monkeypatch.delitem(sys.modules, module, raising=False)
            (tmp_path / f"{module}.py").write_text(source)

    return add


def test_every_technique_comes_by_both_backends() -> None:
    assert available() == EVERY
    assert registry.backends("grad_cam") == ["captum", "hooks"]
    assert registry.distribution("grad_cam", "hooks").startswith("torch-attribution ")
    for technique, backend in EVERY:
        cls = registry.get(technique, backend)
        assert (cls.technique_type.name, cls.backend) == (technique, backend)
        assert registry.get(cls.technique_type, backend) is cls
        assert cls.__module__.split(".")[0] == f"attribution_{backend}"


def test_a_stranger_is_known_everywhere(install: Install) -> None:
    install("their-cam", {"grad_cam.mine": "their_cam:Mine"}, their_cam=GOOD.format(backend="mine"))
    assert ("grad_cam", "mine") in available()
    assert registry.distribution("grad_cam", "mine") == "their-cam 1.2"
    model, inputs = build("cnn"), noise(1, 3, 17, 23)
    result = explain(model, inputs, GradCAM(layers=("body",)), backend="mine", target=2)
    assert result.backend == "mine"
    assert result.provenance["attributor"] == "their_cam:Mine"
    found = compare(model, inputs, GradCAM(layers=("body",)), target=2)
    assert found.holds
    assert [*found.agreements] == [("captum", "hooks"), ("captum", "mine"), ("hooks", "mine")]


def test_strangers_can_be_switched_off(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("their-cam", {"grad_cam.mine": "their_cam:Mine"}, their_cam="raise SystemExit(3)")
    monkeypatch.setenv("ATTRIBUTION_PLUGINS", "off")
    assert available() == EVERY
    with pytest.raises(UnknownAttributorError):
        registry.get("grad_cam", "mine")


def test_two_that_bring_the_same_are_both_named(install: Install) -> None:
    install("their-cam", {"grad_cam.mine": "their_cam:Mine"}, their_cam=GOOD.format(backend="mine"))
    install("other-cam", {"grad_cam.mine": "other_cam:Mine", "grad_cam.hooks": "other_cam:Mine"}, other_cam="")
    with pytest.raises(PluginError, match=r"grad_cam\.mine is brought by other-cam 1\.2 and their-cam 1\.2"):
        registry.get("grad_cam", "mine")
    with pytest.raises(PluginError, match=r"grad_cam\.hooks is brought by other-cam 1\.2 and torch-attribution"):
        explain(build("cnn"), noise(1, 3, 17, 23), GradCAM(layers=("body",)))
    assert registry.get("grad_cam", "captum").backend == "captum", "the others are not affected"


def test_unknown_names() -> None:
    with pytest.raises(UnknownAttributorError, match=r"no attributor grad_cam\.hook; nearest: 'grad_cam\.hooks'"):
        registry.get("grad_cam", "hook")
    with pytest.raises(UnknownAttributorError, match=r"Installed techniques: .*activations, .*occlusion, .*xgrad_cam$"):
        registry.get("nobody", "hooks")
    with pytest.raises(
        UnknownAttributorError, match=r"^no attributor occlusion\.lrp.*; occlusion is computed by captum, hooks"
    ):
        registry.get("occlusion", "lrp")


BROKEN = {
    "missing library": ("import nothing_like_this", BackendNotInstalledError, "needs 'nothing_like_this'.*pip install"),
    "syntax": ("def (", PluginError, "SyntaxError"),
    "raises": ("raise OSError('no GPU')", PluginError, "OSError: no GPU"),
    "exits": ("raise SystemExit(1)", PluginError, "SystemExit"),
    "no class": ("Mine = 3", PluginError, "is 3, not a subclass"),
    "no attributor": ("class Mine: pass", PluginError, "not a subclass of attribution.Attributor"),
    "nothing there": ("", PluginError, "AttributeError"),
    "abstract": (
        "from attribution import Attributor, GradCAM\n"
        "class Mine(Attributor): technique_type, backend = GradCAM, 'mine'",
        PluginError,
        "does not implement compute",
    ),
    "another name": (GOOD.format(backend="yours"), PluginError, r"calls itself grad_cam\.yours"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_named_and_breaks_nothing_else(install: Install, case: str) -> None:
    source, error, says = BROKEN[case]
    install("their-cam", {"grad_cam.mine": "broken_cam:Mine"}, broken_cam=source)
    assert ("grad_cam", "mine") in available()
    with pytest.raises(error, match=rf"(?s)grad_cam\.mine from their-cam 1\.2.*{says}"):
        registry.get("grad_cam", "mine")
    assert explain(build("cnn"), noise(1, 3, 17, 23), GradCAM(layers=("body",))).backend == "hooks"


def test_a_module_that_is_not_there(install: Install) -> None:
    install("their-cam", {"grad_cam.mine": "their_lost_cam.sub:Mine"})
    with pytest.raises(PluginError, match=r"their_lost_cam\.sub:Mine does not exist"):
        registry.get("grad_cam", "mine")


def test_registering_at_run_time(registered: Any) -> None:
    class Mine(Attributor[GradCAM]):
        technique_type, backend = GradCAM, "mine"

        def compute(self, run: Run[Any]) -> Maps:
            raise NotImplementedError

    assert registered(Mine) is Mine
    assert ("grad_cam", "mine") in available()
    assert registry.get("grad_cam", "mine") is Mine
    assert registry.distribution("grad_cam", "mine") == "registered at run time"
    with pytest.raises(PluginError, match=r"grad_cam\.mine is taken already"):
        registry.register(Mine)
    Mine.backend = "hooks"
    with pytest.raises(PluginError, match=r"grad_cam\.hooks is taken already"):
        registry.register(Mine)
    Mine.backend = "mine"
    registry.unregister(Mine)
    assert available() == EVERY
    registry.unregister(Mine)


BAD_RETURNS = {
    "None": (lambda run: None, PluginError, "returned NoneType"),
    "empty": (lambda run: {}, PluginError, "expected a non-empty dict"),
    "not tensors": (lambda run: {"a": 3}, PluginError, "returned dict, expected a non-empty dict of tensors"),
    "too few rows": (lambda run: {"a": run.inputs.tensor[:1]}, PluginError, r"'a' is \(1, 3, 17, 23\) for 2 images"),
    "a number": (lambda run: {"a": run.inputs.tensor.sum()}, PluginError, r"'a' is \(\) for 2 images"),
    "no scores": (lambda run: {"a": run.inputs.tensor}, PluginError, r"did not call run\.scores"),
}


@pytest.mark.parametrize("case", BAD_RETURNS)
def test_what_a_plugin_returns_is_checked(registered: Any, case: str) -> None:
    compute, error, says = BAD_RETURNS[case]
    mine = type(
        "Mine",
        (Attributor,),
        {"technique_type": GradCAM, "backend": "mine", "compute": lambda self, run: compute(run)},
    )
    registered(mine)
    with pytest.raises(error, match=rf"grad_cam\.mine: .*{says}"):
        explain(build("cnn"), noise(2, 3, 17, 23), GradCAM(layers=("body",)), backend="mine")
