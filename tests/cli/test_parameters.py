"""From ``-p`` and ``--layer`` to a technique."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
from torch import Tensor

from attribution import Activations, FilterVisualization, GradCAM, InputError, Inputs, Occlusion, Technique
from attribution.cli import parameters
from attribution.technique import Kind, Maps


@dataclass(frozen=True, kw_only=True)
class Strange(Technique):
    """A stranger's technique, with an option that no command line can carry."""

    name: ClassVar[str] = "strange"
    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True

    mask: Tensor | None = None
    mode: str = "plain"

    def __post_init__(self) -> None:
        if self.mode == "broken":
            raise ValueError("no broken mode")

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        return raw


@pytest.mark.parametrize(
    ("kind", "settings", "layers", "expected"),
    [
        (Occlusion, [], [], Occlusion()),
        (Occlusion, ["window=48", "stride=[24, 12]"], [], Occlusion(window=48, stride=(24, 12))),
        (Occlusion, [" baseline = [0.1, 0, -2e-1]"], [], Occlusion(baseline=(0.1, 0.0, -0.2))),
        (Occlusion, ["window=48", "border='drop'"], [], Occlusion(window=48, border="drop")),
        (Occlusion, ["border=drop"], [], Occlusion(border="drop")),
        (GradCAM, ["relu=false"], ["a", "b"], GradCAM(layers=("a", "b"), relu=False)),
        (Activations, ['layers=["a#1"]'], [], Activations(layers=("a#1",))),
        (
            FilterVisualization,
            ["channels=[0, 4]", "step_size=1", "size=[17, 23]"],
            ["a"],
            FilterVisualization(layer="a", channels=(0, 4), step_size=1.0, size=(17, 23)),
        ),
        (Strange, ['mode="a = b"'], [], Strange(mode="a = b")),
    ],
)
def test_values_are_toml(
    kind: type[Technique], settings: Sequence[str], layers: Sequence[str], expected: Technique
) -> None:
    assert parameters.technique(kind, settings, layers) == expected


@pytest.mark.parametrize(
    ("kind", "settings", "layers", "words"),
    [
        (Occlusion, ["windw=3"], [], "nearest: 'window'"),
        (Occlusion, ["name='x'"], [], "no parameter 'name'"),  # a class variable is no parameter
        (Occlusion, ["window"], [], "not NAME=VALUE"),
        (Occlusion, ["=3"], [], "not NAME=VALUE"),
        (Occlusion, ["window=["], [], "not a TOML value"),
        (Occlusion, ["window=1\nstride=1"], [], "not a TOML value"),
        (Occlusion, ["border=drop it"], [], "text needs quotes: -p 'border=\"drop it\"'"),
        (Occlusion, ["border=drops"], [], "expected Literal['cover', 'drop']"),
        (GradCAM, ["relu=True"], [], "expected bool such as true"),
        (Occlusion, ["window=wide"], [], "expected int | tuple[int, ...]"),
        (Occlusion, ['border="drops"'], [], "expected Literal['cover', 'drop']"),
        (Occlusion, ['score="logit"'], [], "no parameter 'score'"),
        (Occlusion, ["window=true"], [], "expected int | tuple[int, ...] such as 40"),
        (Occlusion, ["window=48.0"], [], "expected int | tuple[int, ...]"),
        (Occlusion, ['window="48"'], [], "expected int | tuple[int, ...]"),
        (Occlusion, ["window=[1, 2, 3]"], [], "is larger than the window (1, 2, 3)"),
        (Occlusion, ["window=2026-01-01"], [], "expected int | tuple[int, ...]"),
        (Occlusion, ["baseline=nan"], [], "finite"),
        (Occlusion, ["window=0"], [], "at least 1"),
        (Occlusion, ["window=1", "window=2"], [], "given twice"),
        (Occlusion, [], ["a"], "takes no layers"),
        (GradCAM, ["relu=1"], [], "expected bool such as true"),
        (GradCAM, ['layers=["a"]'], ["b"], "by --layer and by -p layers"),
        (FilterVisualization, ["channels=[0]"], ["a", "b"], "takes one layer; found 2: a, b"),
        (FilterVisualization, [], [], "needs --layer NAME"),
        (Strange, ["mask=[1.0]"], [], "mask"),
        (Strange, ['mode="broken"'], [], "strange refuses its parameters: no broken mode"),
    ],
)
def test_what_a_technique_does_not_take_is_an_input_error(
    kind: type[Technique], settings: Sequence[str], layers: Sequence[str], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        parameters.technique(kind, settings, layers)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_named_layers_are_found_wherever_a_technique_keeps_them() -> None:
    assert parameters.layers_of(GradCAM(layers=("a", "b"))) == ("a", "b")
    assert parameters.layers_of(FilterVisualization(layer="a", channels=(0,))) == ("a",)
    assert parameters.layers_of(Occlusion()) == ()
