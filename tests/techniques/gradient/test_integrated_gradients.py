"""Integrated gradients: completeness, rules, baselines, and where Captum is known to be wrong."""

import pytest
import torch
from torch import Tensor, nn

from attribution import GradientSHAP, InputError, IntegratedGradients, compare, explain
from attribution.techniques.gradient.baselines import Baseline
from attribution.techniques.gradient.quadrature import RULES, Rule, nodes
from tests.conftest import BACKENDS
from tests.techniques.gradient.cases import cases, noise

NEWTON = tuple(rule for rule in RULES if rule != "riemann_trapezoid")


class Linear(nn.Module):
    """S(x) = Σ w · x + 1 for each of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise(2, 3, 5, 7, seed=2))

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, None] * self.weight).flatten(2).sum(dim=2) + 1


@pytest.mark.parametrize("steps", [2, 3, 10, 50])
@pytest.mark.parametrize("rule", RULES)
def test_a_linear_model_is_complete(rule: Rule, steps: int) -> None:
    """Every rule's weights add up to 1, so that the map is w · (x − b) whatever the steps."""
    model, x = Linear(), noise(2, 3, 5, 7)
    asked = IntegratedGradients(steps=steps, rule=rule, baseline=0.5)
    result = explain(model, x, asked, target=[[0, 1]] * 2)
    expected = model.weight.detach() * (x - 0.5)[:, None]
    assert (result.map - expected).abs().max() < 1e-12
    assert result.extras["gap"].abs().max() < 1e-12
    assert result.extras["relative_gap"].abs().max() < 1e-12


@pytest.mark.parametrize("rule", RULES)
def test_a_lost_step_shows_in_the_gap(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    import attribution.techniques.gradient.integrated_gradients as module

    monkeypatch.setattr(module, "nodes", lambda rule, steps: [*nodes(rule, steps)[:-1], (1.0, 0.0)])
    result = explain(Linear(), noise(1, 3, 5, 7), IntegratedGradients(steps=10, rule=rule), target=0)
    assert result.extras["relative_gap"].abs().min() > 0.01


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_gauss_and_legendre_are_exact_for_polynomials(steps: int) -> None:
    for power in range(2 * steps):
        assert sum(weight * at**power for at, weight in nodes("gausslegendre", steps)) == pytest.approx(1 / (power + 1))
    missed = sum(weight * at ** (2 * steps) for at, weight in nodes("gausslegendre", steps))
    assert missed != pytest.approx(1 / (2 * steps + 1), rel=1e-9)


def test_more_steps_close_the_gap() -> None:
    case = cases(3)["value"]
    gaps = [
        explain(case.model, case.given, IntegratedGradients(steps=n, rule="riemann_middle"), target=case.target)
        .extras["gap"]
        .abs()
        .max()
        .item()
        for n in (2, 16, 128)
    ]
    assert gaps[0] > 20 * gaps[1] > 400 * gaps[2] > 0


@pytest.mark.parametrize("steps", [5, 10, 50])
def test_known_disagreement_captum_trapezoid(steps: int) -> None:
    """Captum 0.9.0 takes ``linspace(0, 1, n)`` with steps of 1 / n: the weights add up to (n − 1) / n.

    The backend gives what Captum gives. A day on which this fails is the day on which Captum was mended: take the row
    out of the page then.
    """
    model, x = Linear(), noise(2, 3, 5, 7)
    answer = compare(model, x, IntegratedGradients(steps=steps, rule="riemann_trapezoid"), target=0)
    ours, captums = (answer.attributions[backend] for backend in ("hooks", "captum"))
    assert not answer.holds
    assert ((captums.map / ours.map) - (steps - 1) / steps).abs().max() < 1e-6
    assert captums.extras["relative_gap"].abs().sub(1 / steps).abs().max() < 1e-6
    assert ours.extras["relative_gap"].abs().max() < 1e-12


@pytest.mark.parametrize("rule", NEWTON)
def test_captum_agrees_by_every_other_rule(rule: Rule) -> None:
    asked = IntegratedGradients(steps=10, rule=rule)
    assert compare(Linear(), noise(2, 3, 5, 7), asked, target=0).holds


@BACKENDS
def test_baselines_of_every_form(backend: str) -> None:
    model, x = Linear(), noise(2, 3, 5, 7)
    channels, picture, batch = (0.1, -0.2, 0.3), noise(3, 5, 7, seed=1), noise(2, 3, 5, 7, seed=4)
    spread = torch.tensor(channels, dtype=torch.float64).reshape(1, 3, 1, 1)
    forms: list[tuple[Baseline, Tensor]] = [(channels, spread), (picture, picture[None]), (batch, batch)]
    for baseline, expected in [*forms, (batch[:1], batch[:1])]:
        result = explain(model, x, IntegratedGradients(steps=3, baseline=baseline), backend=backend, target=1)
        assert (result.map[:, 0] - model.weight[1].detach() * (x - expected)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 2.5),
        ("rule", "simpson"),
        ("channels", "mean"),
        ("baseline", float("nan")),
        ("baseline", "black"),
        ("baseline", (0.0, float("inf"))),
        ("baseline", ()),
    ],
)
def test_wrong_fields_are_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"IntegratedGradients.{field}"):
        IntegratedGradients(**{field: value})  # type: ignore[arg-type]


def test_the_trapezoid_needs_two_steps() -> None:
    with pytest.raises(InputError, match="at least 2"):
        IntegratedGradients(steps=1, rule="riemann_trapezoid")


@pytest.mark.parametrize("baseline", [(0.0, 1.0), torch.zeros(5, 7), torch.zeros(3, 3, 5, 7), torch.zeros(3, 7, 5)])
def test_a_baseline_that_does_not_fit_is_refused(baseline: object) -> None:
    with pytest.raises(InputError, match="baseline"):
        explain(Linear(), noise(2, 3, 5, 7), IntegratedGradients(baseline=baseline), target=0)  # type: ignore[arg-type]


def test_questions_compare_by_value() -> None:
    one, same, other = (IntegratedGradients(baseline=noise(3, 5, 7, seed=seed)) for seed in (0, 0, 1))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert IntegratedGradients(steps=4) != IntegratedGradients(steps=5)
    assert IntegratedGradients() == IntegratedGradients()


@BACKENDS
@pytest.mark.parametrize("kind", ["integrated_gradients", "gradient_shap"])
def test_values_per_channel_are_rounded_to_the_inputs_dtype_only(kind: str, backend: str) -> None:
    """Whatever torch makes of Python's floats by default, and wherever it puts them."""
    model, x, channels = Linear(), noise(2, 3, 5, 7), (0.1, -0.2, 0.3)
    spread = torch.tensor(channels, dtype=torch.float64).reshape(1, 3, 1, 1)

    def map_of(baseline: Baseline) -> Tensor:
        shap = GradientSHAP(samples=3, baselines=baseline)
        asked = shap if kind == "gradient_shap" else IntegratedGradients(steps=3, baseline=baseline)
        return explain(model, x, asked, backend=backend, target=0).map

    wanted, rounded = map_of(spread), map_of(spread.float().double())
    assert torch.equal(map_of(channels), wanted)
    assert not torch.equal(wanted, rounded)
    with torch.device("meta"):
        assert torch.equal(map_of(channels), wanted)
