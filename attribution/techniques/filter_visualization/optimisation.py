"""The climb itself: one batch of filters, each by itself, from start images to patterns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from attribution.running.upload import upload
from attribution.techniques.filter_visualization.parametrization import Parametrization
from attribution.techniques.filter_visualization.penalties import Penalty, penalty
from attribution.techniques.filter_visualization.transforms import Transforms

OK, DEAD, DIVERGED = 0, 1, 2

CPU_FILTERS = 16
"""More filters than this at once spill the caches of a CPU."""

RETRIES = 3
"""Other starts from which a channel without gradient is tried, each with three times the noise of the one before."""

Gradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images (B, C, *places), channels (B,)) → objective (B,) and its gradient (B, C, *places), image by image.

Where gradients are off, as for the final images, the second is not looked at.
"""

_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Rule:
    """How images climb.

    Attributes:
        space: What is optimised.
        transforms: How each step moves the images.
        other: Start images for channels (k,) at a further attempt, as a tensor of one start image: (k, C, *places).
        steps: ≥ 1.
        step_size: In the space's own unit.
        optimizer: ``"adam"`` or ``"normalized"``.
        unit: The spread of photos.
        seed: Of the transforms.
        tv: Weight of total variation.
        l2: Weight of squared values.
        penalty: Of the user's.
        on_host: Whether the gradient reads the channels on the host, so that no step waits for the device.
    """

    space: Parametrization
    transforms: Transforms
    other: Callable[[Tensor, Sequence[int], int], Tensor]
    steps: int
    step_size: float
    optimizer: Literal["adam", "normalized"]
    unit: float
    seed: int
    tv: float = 0.0
    l2: float = 0.0
    penalty: Penalty | None = None
    on_host: bool = False


def filters_at_once(start: Tensor) -> int | None:
    """How many filters go into one forward where memory allows more: `CPU_FILTERS` on a CPU, else any number.

    The same for every backend, so that all meet the same kernels: those for other batches round otherwise.
    """
    return CPU_FILTERS if start.device.type == "cpu" else None


@dataclass
class _State:
    """The filters that still climb."""

    space: Parametrization
    rows: Tensor
    channels: Tensor
    parameters: Tensor
    draws: Tensor
    status: Tensor
    objective: Tensor
    mean: Tensor | None = None
    square: Tensor | None = None
    floor: Tensor | None = None

    def keep(self, mask: Tensor) -> "_State":
        places = mask.nonzero()[:, 0]  # once: each look waits for the device
        cut: dict[str, Any] = {
            n: p.index_select(0, places.to(p.device)) for n, p in vars(self).items() if isinstance(p, Tensor)
        }
        return replace(self, **cut)


@dataclass(frozen=True)
class Climb:
    """One batch: images (B, C, *places), their objectives by step (steps + 1, B) and status (B,).

    Attributes:
        final: The last images; zero for a dead channel, the last finite one for one that diverged.
        first: After one step; the start for a dead channel.
        objective: Of the images as each step saw them, after the transforms; last: of the final image, untransformed.
        status: `OK`, `DEAD` or `DIVERGED`.
    """

    final: Tensor
    first: Tensor
    objective: Tensor
    status: Tensor


def climbs(
    rule: Rule, start: Tensor, channels: Tensor, gradient: Gradient, advance: Callable[[], None], *, batch_size: int
) -> Climb:
    """All filters, so many at a time; see `climb`."""
    parts = zip(start.split(batch_size), channels.split(batch_size), strict=True)
    done = [climb(rule, images, some, gradient, advance) for images, some in parts]
    return Climb(
        torch.cat([part.final for part in done]),
        torch.cat([part.first for part in done]),
        torch.cat([part.objective for part in done], dim=1),
        torch.cat([part.status for part in done]),
    )


def climb(rule: Rule, start: Tensor, channels: Tensor, gradient: Gradient, advance: Callable[[], None]) -> Climb:
    """Ascend from ``start``.

    The device is waited for once: after the first step, to see whether a channel stops there.

    Args:
        rule: How.
        start: (B, C, *places).
        channels: (B,), on the host.
        gradient: Of the objective.
        advance: Called after each step.
    """
    working = torch.promote_types(start.dtype, torch.float32)
    space, numbers = rule.space, channels.tolist()
    draws = upload(rule.transforms.draws(rule.seed, numbers, rule.steps, start.ndim - 2), start.device)
    state = _State(
        space=space,
        rows=torch.arange(len(start), device=start.device),
        channels=channels if rule.on_host else upload(channels, start.device),
        parameters=space.encode(start.to(working)),
        draws=draws,
        status=torch.full((len(start),), OK, dtype=torch.int8, device=start.device),
        objective=torch.zeros(len(start), dtype=start.dtype, device=start.device),
    )
    final, first, status = start.clone(), start.clone(), state.status.clone()
    history: list[Tensor] = []

    def settle(over: _State) -> None:
        """Write down those that stop here."""
        status[over.rows] = over.status
        final[over.rows] = space.decode(over.parameters).to(start.dtype)

    for step in range(rule.steps):
        g = _pulled(rule, state, gradient, step, start.dtype)
        begun = replace(state)
        _move(rule, state, g, step)
        if step == 0:
            dead = (g == 0).flatten(1).all(dim=1)
            some_dead, some_stop = torch.stack([dead.any(), (state.status != OK).any()]).tolist()
            if some_dead:  # begin again
                state = begun
                _move(rule, state, _revived(rule, state, gradient, start, g, dead), step)
                some_stop = bool((state.status != OK).any())
        before = history[-1] if history else torch.zeros_like(state.objective)
        history.append(before.index_copy(0, state.rows, state.objective))
        if step == 0:
            first[state.rows] = torch.where(
                _per_image(state.status == OK, first),
                space.decode(state.parameters).to(start.dtype),
                first[state.rows],
            )
            if some_stop:
                settle(state.keep(state.status != OK))
                state = state.keep(state.status == OK)
        advance()
        if not len(state.rows):
            history += [history[-1]] * (rule.steps - step - 1)
            for _ in range(rule.steps - step - 1):
                advance()
            break
    last = history[-1]
    if len(state.rows):
        images = space.decode(state.parameters).to(start.dtype)
        with torch.no_grad():
            objective = gradient(images, state.channels)[0].detach().to(start.device)
        state.status = state.status.masked_fill(~objective.isfinite() & (state.status == OK), DIVERGED)
        last = last.index_copy(0, state.rows, objective)
        settle(state)
    final = final.masked_fill(_per_image(status == DEAD, final), 0)
    return Climb(final, first, torch.stack([*history, last]), status)


def _pulled(rule: Rule, state: _State, gradient: Gradient, step: int, dtype: torch.dtype) -> Tensor:
    """The gradient with respect to the parameters; keeps the objective."""
    parameters = state.parameters.detach().requires_grad_()
    image = state.space.decode(parameters)
    moved = image if rule.transforms.idle else rule.transforms(image, state.draws[:, step])
    state.objective, g = gradient(moved.detach().to(dtype), state.channels)
    state.objective = state.objective.detach().to(parameters.device)
    g = g.detach().to(moved.dtype)
    if rule.tv or rule.l2 or rule.penalty is not None:
        if moved is not image:
            (g,) = torch.autograd.grad(moved, image, g, retain_graph=True)
        alive = _per_image((g != 0).flatten(1).any(dim=1), g)
        held = penalty(image.detach(), rule.unit, tv=rule.tv, l2=rule.l2, own=rule.penalty)
        moved, g = image, torch.where(alive, g / (_spread(g) + 1e-8) - held, g)
    (g,) = torch.autograd.grad(moved, parameters, g)
    return g


def _revived(rule: Rule, state: _State, gradient: Gradient, start: Tensor, g: Tensor, dead: Tensor) -> Tensor:
    """Give channels without gradient, which are ``dead`` (B,), other starts; who has none from any remains so."""
    for attempt in range(1, RETRIES + 1):
        if not bool(dead.any()):
            return g
        again = state.keep(dead)
        images = rule.other(start, again.channels.tolist(), attempt)
        again.parameters = state.space.encode(images.to(state.parameters))
        tried = _pulled(rule, again, gradient, 0, start.dtype)
        found = (tried != 0).flatten(1).any(dim=1)
        rows = dead.nonzero()[:, 0][found]
        g = g.index_copy(0, rows, tried[found])
        state.parameters = state.parameters.index_copy(0, rows, again.parameters[found])
        state.objective = state.objective.index_copy(0, rows, again.objective[found])
        dead = dead.index_fill(0, rows, False)
    state.status = state.status.masked_fill(dead, DEAD)
    return g


def _move(rule: Rule, state: _State, g: Tensor, step: int) -> None:
    """One step; a filter that would leave the finite numbers stays and is marked."""
    adam = rule.optimizer == "adam"
    direction = _adam(rule, state, g, step) if adam else g / (_spread(g) + 1e-8)
    moved = state.parameters + rule.step_size * direction
    low, high = (end * rule.unit for end in moved.flatten(1).aminmax(dim=1))
    finite = low.isfinite() & high.isfinite() & state.objective.isfinite()
    state.status = state.status.masked_fill(~finite & (state.status == OK), DIVERGED)
    state.parameters = torch.where(_per_image(state.status == OK, moved), moved, state.parameters)


def _adam(rule: Rule, state: _State, g: Tensor, step: int) -> Tensor:
    first, second = _BETAS
    if state.mean is None or state.square is None or state.floor is None:
        state.mean, state.square = torch.zeros_like(g), torch.zeros_like(g)
        state.floor = state.space.floor * _per_image(g.flatten(1).square().mean(dim=1).sqrt(), g) + 1e-30
    state.mean = state.mean.lerp(g, 1 - first)
    state.square = state.square * second + (1 - second) * g.square()
    root = (state.square / (1 - second ** (step + 1))).sqrt()
    return state.mean / (1 - first ** (step + 1)) / (root + state.floor)


def _spread(g: Tensor) -> Tensor:
    return _per_image(g.flatten(1).std(dim=1), g)


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))
