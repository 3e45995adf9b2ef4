"""Infidelity and max-sensitivity: loops in float64, Captum as second witness, and mutants."""

import pytest
import torch
from torch import Tensor, nn

from attribution import ClassScore, Execution, GradCAM, InputError, Inputs, InputXGradient, Saliency, api, explain
from attribution.errors import UnknownAttributorError
from attribution.metrics import Case, Infidelity, MaxSensitivity, Metric
from attribution.metrics.infidelity import infidelity
from attribution.metrics.metric import over_places
from attribution.metrics.sensitivity import max_sensitivity
from attribution.metrics.witnesses import find, witnesses
from attribution.result import Attribution
from attribution.scores.score import Score
from attribution.technique import Technique
from attribution.testing import guard, small_cnn
from tests.conftest import noise

WITNESSES = pytest.mark.parametrize("backend", ["torch", "captum"])
TARGETS = [[1, 4], [0, 2], [3, 3]]


def asked_again(model: nn.Module, inputs: Inputs, technique: Technique, score: Score | None) -> Attribution:
    return api.explain(model, inputs, technique, target=score)


def case(technique: Technique, count: int = 3, batch_size: int | None = None) -> Case:
    model, x = small_cnn(dtype=torch.float64), noise(3, 3, 17, 23, dtype=torch.float64)[:count]
    given, execution = explain(model, x, technique, target=TARGETS[:count]), Execution(batch_size=batch_size)
    return Case(model=model, inputs=Inputs.of(x), given=given, explained=asked_again, execution=execution)


def only(metric: Metric, case: Case) -> Tensor:
    (found,) = metric.measure(case).values()
    return found


def test_captum_is_found() -> None:
    for metric in ("infidelity", "max_sensitivity"):
        assert witnesses(metric) == ["torch", "captum"]
        assert find(metric, "captum").__module__ == "attribution_captum.metrics"
    with pytest.raises(UnknownAttributorError, match="no backend 'capum'; nearest: 'captum'"):
        only(Infidelity(backend="capum", samples=2), case(Saliency(), 1))


@WITNESSES
@pytest.mark.parametrize("normalise", [True, False])
def test_infidelity_is_that_of_a_loop(backend: str, normalise: bool) -> None:
    model, x = small_cnn(dtype=torch.float64), noise(3, 3, 17, 23, dtype=torch.float64)
    map_, drawn = (
        noise(3, 3, 17, 23, dtype=torch.float64, seed=3),
        0.1 * noise(7, 3, 3, 17, 23, dtype=torch.float64, seed=4),
    )

    def change(shown: Tensor, examples: Tensor) -> Tensor:
        scores: Tensor = model(shown).detach()
        return scores.gather(1, torch.tensor([1, 0, 3])[examples][:, None])[:, 0]

    function = infidelity if backend == "torch" else find("infidelity", "captum")
    found = function(change, x, map_, drawn, normalise=normalise, at_once=4)
    for n, target in enumerate([1, 0, 3]):
        clean = float(model(x[n : n + 1]).detach()[0, target])
        fell = [clean - float(model(x[n : n + 1] - drawn[k, n]).detach()[0, target]) for k in range(7)]
        told = [float((drawn[k, n] * map_[n]).sum()) for k in range(7)]
        scale = sum(a * b for a, b in zip(told, fell, strict=True)) / sum(a * a for a in told) if normalise else 1.0
        expected = sum((scale * a - b) ** 2 for a, b in zip(told, fell, strict=True)) / 7
        assert float(found[n]) == pytest.approx(expected, rel=1e-9)
    other = function(change, x, map_.roll(1, 0), drawn, normalise=normalise, at_once=4)
    assert (other - found).abs().max() > 1e-8  # the mutant: the map of another photo


@pytest.mark.parametrize("technique", [Saliency(channels="none"), GradCAM(layers=("body",))], ids=["saliency", "cam"])
@pytest.mark.parametrize("count", [1, 3])
def test_both_witnesses_of_infidelity_agree(technique: Technique, count: int) -> None:
    own, captum = (only(Infidelity(samples=9, backend=each), case(technique, count)) for each in ("torch", "captum"))
    torch.testing.assert_close(own, captum, rtol=1e-9, atol=0)
    assert own.shape == (count, 2)
    assert len(own.flatten().unique()) >= count  # targets and photos are told apart


def test_infidelity_of_a_linear_models_gradient_is_0() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 5 * 7, 3, dtype=torch.float64))
    x = noise(3, 2, 5, 7, dtype=torch.float64)
    gradient = explain(model, x, Saliency(channels="none", absolute=False), target=1)
    for given, low, high in ((gradient, 0.0, 1e-20), (explain(model, x, InputXGradient(), target=1), 1e-6, 1e3)):
        asked = Case(model=model, inputs=Inputs.of(x), given=given)
        assert low <= float(only(Infidelity(normalise=False), asked).max()) <= high
    scaled = 7 * gradient.map
    asked = Case(model=model, inputs=Inputs.of(x), given=scaled, target=ClassScore(1))
    assert float(only(Infidelity(), asked).max()) < 1e-20  # the unit of a map does not count
    assert float(only(Infidelity(normalise=False), asked).min()) > 1e-6


def test_neither_chunks_nor_neighbours_change_infidelity() -> None:
    whole = only(Infidelity(samples=9), case(Saliency()))
    chunks = only(Infidelity(samples=9), case(Saliency(), batch_size=2))
    torch.testing.assert_close(whole, chunks, rtol=1e-9, atol=0)
    torch.testing.assert_close(whole[:1], only(Infidelity(samples=9), case(Saliency(), 1)), rtol=1e-9, atol=0)


@WITNESSES
def test_max_sensitivity_is_that_of_a_loop(backend: str) -> None:
    x, drawn = noise(3, 2, 5, 7, dtype=torch.float64), 0.1 * noise(4, 3, 2, 5, 7, dtype=torch.float64, seed=4)
    size = torch.tensor([1.0, 2.0, 0.0])

    def explanation(shown: Tensor, examples: Tensor) -> Tensor:
        return (shown.square() * size[examples].reshape(-1, 1, 1, 1)).flatten(1)

    function = max_sensitivity if backend == "torch" else find("max_sensitivity", "captum")
    found = function(explanation, x, drawn)
    for n in range(3):
        clean = x[n].square() * size[n]
        whole = float(clean.norm()) or 1.0
        moved = [float(((x[n] + drawn[k, n]).square() * size[n] - clean).norm()) / whole for k in range(4)]
        assert float(found[n]) == pytest.approx(max(moved), rel=1e-9)
    assert (function(explanation, x, drawn.roll(1, 1)) - found).abs()[:2].min() > 1e-6


@pytest.mark.parametrize("technique", [Saliency(), GradCAM(layers=("body",))], ids=["saliency", "cam"])
@pytest.mark.parametrize("count", [1, 3])
def test_both_witnesses_of_max_sensitivity_agree(technique: Technique, count: int) -> None:
    asked = case(technique, count)
    own, captum = (only(MaxSensitivity(samples=3, backend=each), asked) for each in ("torch", "captum"))
    torch.testing.assert_close(own, captum, rtol=1e-9, atol=0)
    assert own.shape == (count, 2)
    assert own.min() > 0


def test_the_model_is_left_alone() -> None:
    model, x = small_cnn().train(), noise(2, 3, 17, 23)
    given = explain(model, x, Saliency(), target=1)
    asked = Case(model=model, inputs=Inputs.of(x), given=given, explained=asked_again)
    state = torch.get_rng_state()
    with guard(model):
        only(Infidelity(samples=2), asked)
        only(MaxSensitivity(samples=2), asked)
    assert torch.equal(state, torch.get_rng_state())


def test_what_does_not_fit_is_refused() -> None:
    asked = case(Saliency())
    with pytest.raises(InputError, match="expected"):
        only(Infidelity(), Case(model=asked.model, inputs=asked.inputs, given=torch.zeros(3, 23)))
    with pytest.raises(InputError, match=r"samples is 0"):
        Infidelity(samples=0)
    with pytest.raises(InputError, match=r"radius is 0"):
        MaxSensitivity(radius=0)
    assert MaxSensitivity().measure(Case(model=asked.model, inputs=asked.inputs, given=asked.map)) == {}


def test_cells_are_laid_over_places() -> None:
    map_ = torch.arange(6.0).reshape(1, 1, 2, 3)
    found = over_places(map_, Inputs.of(torch.zeros(1, 3, 5, 4)))
    rows, columns = [0, 0, 0, 1, 1], [0, 0, 1, 2]
    assert found[0, 0].tolist() == [[float(3 * row + column) for column in columns] for row in rows]
