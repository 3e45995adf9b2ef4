"""A map is what the model says of that image alone, whichever images go through it together."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, FilterVisualization, GradCAM, ModelError, compare, explain
from attribution.running.execution import Execution
from attribution.testing import guard
from tests.conftest import BACKENDS, logit
from tests.models.mixing import ALONE, MIXES, Named, Net
from tests.one_by_one import OCCLUSION, QUESTIONS, X, occluded, output_of_body

SIZES = (None, 1, 5)
FILTERS = FilterVisualization(
    layer="body", channels=(0, 2, 3), parametrization="pixel", steps=2, size=(13, 17), jitter=0, in_channels=3
)


@BACKENDS
@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("kind", MIXES)
def test_a_batch_is_a_loop_over_single_images(kind: str, name: str, backend: str) -> None:
    model, (technique, by_hand) = MIXES[kind]().eval(), QUESTIONS[name]
    wanted = torch.stack([by_hand(model, image) for image in X.split(1)])
    within = 1e-5 if (name, backend) == ("occlusion", "captum") else 1e-10  # Captum folds in float32
    for size in SIZES:
        with guard(model, X):
            found = explain(
                model,
                X,
                technique,
                backend=backend,
                target=logit(1) if technique.needs_target else None,
                execution=Execution(batch_size=size),
            )
        (raw,) = found.raw.values()
        difference = (raw.reshape(wanted.shape) - wanted).abs().max()
        assert difference <= within * (wanted.abs().max() + 1), (size, difference)
        alone = size == 1 and name != "occlusion"
        assert str(found.provenance.get("rows")).startswith("one by one: the model's answer") is not alone


def ranged(y: Tensor) -> Tensor:
    """Scaled where anything in the batch is large, as who guesses whether images are in 0 to 255."""
    return y / 255 if y.detach().abs().max() > 20 else y


def by_fours(y: Tensor) -> Tensor:
    """The spread within groups of four, where there are such."""
    return y + y.view(4, -1, *y.shape[1:]).std(0).repeat(4, 1, 1, 1) if len(y) % 4 == 0 else y


def from_four_on(y: Tensor) -> Tensor:
    return y - y.mean(0) if len(y) > 3 else y


@BACKENDS
@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("mix", [ranged, by_fours, from_four_on])
def test_what_the_whole_batch_decides(mix: Callable[[Tensor], Tensor], name: str, backend: str) -> None:
    """By its range or its count: of four images the first is far brighter than the others."""
    images = torch.cat([200 * X[:1], X[1:], X[1:2].flip(-1)])
    technique, by_hand = QUESTIONS[name]
    wanted = torch.stack([by_hand(Net(mix).eval(), image) for image in images.split(1)])
    within = 1e-5 if (name, backend) == ("occlusion", "captum") else 1e-10
    target = logit(1) if technique.needs_target else None
    (raw,) = explain(Net(mix).eval(), images, technique, backend=backend, target=target).raw.values()
    assert (raw.reshape(wanted.shape) - wanted).abs().max() <= within * (wanted.abs().max() + 1)


@BACKENDS
@pytest.mark.parametrize("kind", [kind for kind in MIXES if kind not in ("turned round", "rolled")])
def test_filters_do_not_depend_on_one_another(kind: str, backend: str) -> None:
    model = MIXES[kind]().eval()
    single = [
        explain(model, None, replace(FILTERS, channels=(channel,)), backend=backend).map for channel in FILTERS.channels
    ]
    for size in SIZES:
        found = explain(model, None, FILTERS, backend=backend, execution=Execution(batch_size=size))
        assert (found.map - torch.cat(single)).abs().max() <= 1e-10
        assert ("rows" in found.provenance) is (size != 1)


@pytest.mark.parametrize("kind", MIXES)
def test_two_backends_do_not_agree_on_one_mistake(kind: str) -> None:
    """One image, and its windows beside one another."""
    model, wanted = MIXES[kind]().eval(), occluded(MIXES[kind]().eval(), X[:1])
    found = compare(model, X[:1], OCCLUSION, target=logit(1))
    assert found.holds
    for answer in found.attributions.values():
        assert (answer.map[0, 0] - wanted).abs().max() <= 1e-5 * (wanted.abs().max() + 1)


@BACKENDS
@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("kind", ALONE)
def test_who_mixes_nothing_is_shown_a_batch(kind: str, name: str, backend: str) -> None:
    model, (technique, _) = ALONE[kind]().eval(), QUESTIONS[name]
    found = explain(model, X, technique, backend=backend, target=logit(1) if technique.needs_target else None)
    assert "rows" not in found.provenance
    assert found.provenance.get("windows_per_forward", 2) != 1


def test_half_precision_and_float32_are_not_mistaken_for_mixing() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        model = Net(lambda y: y).to(dtype).eval()
        assert "rows" not in explain(model, X.to(dtype), GradCAM(layers=("stem",)), target=1).provenance
        mixing = Net(lambda y: y - y.mean(0)).to(dtype).eval()
        assert "rows" in explain(mixing, X.to(dtype), GradCAM(layers=("stem",)), target=1).provenance


def test_logits_inside_of_what_the_model_returns() -> None:
    model = Named(lambda y: y - y.mean(0)).eval()
    found = explain(model, X, Activations(layers=("body",)))
    assert "rows" in found.provenance
    assert "rows" not in explain(Named(lambda y: y).eval(), X, Activations(layers=("body",))).provenance


class Counted(Net):
    """Counts images per forward; a list is shared with the copy of the model that is run."""

    def __init__(self, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__(mix)
        self.register_forward_pre_hook(lambda module, args: SEEN.append(len(args[0])))


SEEN: list[int] = []


def test_three_forwards_once_for_each_model_and_shape() -> None:
    model, technique = Counted(lambda y: y).eval(), GradCAM(layers=("stem",))
    ask = lambda x, **how: explain(model, x, technique, target=1, execution=Execution(**how))  # noqa: E731  # a thunk

    def seen(x: Tensor, **how: Any) -> list[int]:
        SEEN.clear()
        ask(x, **how)
        return [*SEEN]

    assert seen(X[:1]) == [1, 1, 1], "one image is always alone; two forwards prove the copy, once"
    assert seen(X, batch_size=1) == [1, 1, 1]
    assert seen(X) == [1, 1, 3, 3, 3], "how much memory it needs; the three; the answer"
    assert seen(X) == [3]
    assert seen(X[..., 1:]) == [1, 1, 3, 3, 3], "another shape"
    assert seen(X) == [3]


def test_a_model_that_was_trained_meanwhile_is_looked_at_again() -> None:
    """A share of the batch's mean that is zero at first, as residual branches start."""

    class Learns(Net):
        def __init__(self) -> None:
            super().__init__(lambda y: y)
            self.share = nn.Parameter(torch.zeros((), dtype=torch.float64))
            self.mix = nn.Identity()

        def forward(self, x: Tensor) -> Any:
            x = self.stem(x).relu()
            return self.head(self.body(x - self.share * x.mean(0)).relu().mean((2, 3)))

    model, technique = Learns().eval(), GradCAM(layers=("stem",))
    assert "rows" not in explain(model, X, technique, target=1).provenance
    with torch.no_grad():
        model.share.fill_(0.5)
    assert "rows" in explain(model, X, technique, target=1).provenance


class Static(Net):
    """As an export for one image."""

    def forward(self, x: Tensor) -> Any:
        if len(x) != 1:
            raise ValueError("expected a batch of 1")
        return super().forward(x)


@BACKENDS
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_model_that_takes_one_image_only(name: str, backend: str) -> None:
    model, (technique, by_hand) = Static(lambda y: y).eval(), QUESTIONS[name]
    found = explain(model, X, technique, backend=backend, target=logit(1) if technique.needs_target else None)
    (raw,) = found.raw.values()
    wanted = torch.stack([by_hand(model, image) for image in X.split(1)])
    assert torch.allclose(raw.reshape(wanted.shape).double(), wanted, rtol=1e-5, atol=1e-6)
    assert "fails on several images at once" in str(found.provenance["rows"])


class Picky(Net):
    """Refuses what no picture is."""

    def forward(self, x: Tensor) -> Any:
        if x.min() < 0 or x.max() > 1:
            raise ValueError("expected values in [0, 1]")
        return super().forward(x)


def test_a_model_that_refuses_values_out_of_range() -> None:
    x, technique = X.sigmoid(), GradCAM(layers=("stem",))
    assert "rows" not in explain(Picky(lambda y: y).eval(), x, technique, target=1).provenance
    assert "one by one" in str(
        explain(Picky(lambda y: y - y.mean(0)).eval(), x, technique, target=1).provenance["rows"]
    )


class Pooled(Net):
    """One row, whatever it was shown."""

    def __init__(self, rows: int) -> None:
        super().__init__(lambda y: y)
        self.rows = rows

    def forward(self, x: Tensor) -> Any:
        return super().forward(x).mean(0).expand(self.rows, -1)


@BACKENDS
@pytest.mark.parametrize("name", ["occlusion", "grad_cam"])
def test_rows_that_are_not_the_images(name: str, backend: str) -> None:
    technique = QUESTIONS[name][0]
    with pytest.raises(ModelError, match=r"logits has shape \(2, \d\) for 3 examples; expected one row per example"):
        explain(Pooled(2).eval(), X, technique, backend=backend, target=1)


class Silent(Net):
    """Returns nothing of its images."""

    def forward(self, x: Tensor) -> Any:
        return {"loss": super().forward(x).mean()}


@pytest.mark.parametrize("inputs", [X, X[:, :, 1:]], ids=["a shape", "another"])
def test_layers_tell_where_the_output_does_not(inputs: Tensor) -> None:
    mixing, apart = Silent(lambda y: y - 0.5 * y.mean(0)).eval(), Silent(lambda y: y).eval()
    question = Activations(layers=("body",))
    found = explain(mixing, inputs, question)
    wanted = torch.stack([output_of_body(mixing, image) for image in inputs.split(1)])
    assert torch.allclose(found.map, wanted, rtol=0, atol=1e-10)
    assert "rows" in found.provenance
    assert "rows" not in explain(apart, inputs, question).provenance


class Stateful(Net):
    """Cannot be copied, so that it runs itself; whether it mixes is up to an attribute."""

    def __init__(self) -> None:
        super().__init__(lambda y: y)
        self.share = 0.0
        self.forward = lambda x: self.answer(x)  # type: ignore[method-assign]

    def answer(self, x: Tensor) -> Any:
        y = self.stem(x).relu()
        return self.head(self.body(y - self.share * y.mean(0)).relu().mean((2, 3)))


def test_a_guarded_model_is_looked_at_in_every_call() -> None:
    model, technique = Stateful().eval(), GradCAM(layers=("stem",))
    for share in (0.0, 0.5, 0.0):
        model.share = share
        found = explain(model, X, technique, target=1)
        assert found.provenance["isolation"] == "guarded"
        assert ("rows" in found.provenance) is (share > 0)
