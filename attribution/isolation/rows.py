"""Whether a model answers about each image of a batch as it answers about that image alone: proved, never assumed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from attribution.agreement import coarser
from attribution.errors import AttributionError
from attribution.inputs.inputs import Inputs, joined
from attribution.isolation.answers import Answer, Rows, answer
from attribution.running.execution import Execution, out_of_memory
from attribution.running.guards import Guards
from attribution.running.precision import tf32
from attribution.running.upload import upload
from attribution.running.values import all_true

MIXED = "the model's answer to an image depends on the images beside it"

FAILS = "the model fails on an image alone"

ONE_ROW = "the model gives one row for several images"
"""Of a user's several images that is an error of the scores, not a reason."""

NO_ROOM = "three images at once do not fit into memory"

CROWD = 4
"""Images that are put together for the proof where the call puts more than three together: models that count their rows
count by two or four."""

ROUNDING = {torch.float64: 2e-12, torch.float32: 1e-3, torch.float16: 0.06, torch.bfloat16: 0.25}
"""How far the kernels for another number of images may take a value, as a part of the largest of its column."""

_EQUAL = {"cpu": 64, "other": 512, "half": 2}
"""The same in units in the last place for the same kernels, which give the same bits on a CPU, and nearly elsewhere."""

_NOISE = {"single": 1024, "half": 64}
"""Units in the last place of the median column, which rounding may leave where a column is all but zero; half precision
and TF32 take the second. Nets of torchvision leave up to 200 on a CPU and 300 on an H100."""


@dataclass(frozen=True)
class _Proof:
    """What was found, and which parameters the model had then, at which versions."""

    reason: str | None
    tensors: tuple[Tensor, ...]
    versions: tuple[int, ...]

    @property
    def holds(self) -> bool:
        """Whether no parameter was written into since."""
        return _versions(self.tensors) == self.versions


_proofs: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], _Proof]] = WeakKeyDictionary()


def mixing(
    model: nn.Module, inputs: Inputs, execution: Execution, guards: Guards, *, anew: bool, together: int
) -> str | None:
    """Why images must go through the model one by one; ``None`` where a row of a batch is what its image has alone.

    Forwards without graph, once per model, shape and precision, and again after a parameter was written into, or where
    the model is given an object beside the examples of which nobody knows what it holds: [x], [a, x, b] and [b, x, d],
    and where the call puts more than three images together, x among `CROWD`. The rows of x
    must be equal in the second and third, which run the same kernels, and be that of [x] within the rounding of other
    kernels; b must have the same row in either place. A model that draws random numbers draws others for other shapes:
    of it only the second and third count. Whatever tensors the model returns are looked at, entry by entry, each by the
    size of its own column: a class that is masked by -1e4 hides no other.

    Args:
        model: Isolated, in eval mode. Its buffers and the random numbers are given back.
        inputs: x is the example of the smallest values, and b is the last or the first where it is another.
        execution: Its precision counts.
        guards: Settled before anything is found out.
        anew: Look again, since the model may have changed without a trace.
        together: Rows of a forward that the call will make.
    """
    key = (inputs.kind, inputs.device, execution.autocast, tf32(inputs), together > 3)
    known = _proofs.setdefault(model, {})
    proof = known.get(key)
    if proof is None or anew or not proof.holds or not inputs.told_by_kind:
        guards.settle()
        try:
            reason = _reason(model, inputs.detach(), execution, together)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return NO_ROOM  # next time there may be
        tensors = tuple(tensor for tensor in model.parameters() if not tensor.is_inference())
        proof = known[key] = _Proof(reason, tensors, _versions(tensors))
    return None if proof.reason is ONE_ROW and len(inputs) > 1 else proof.reason


def _versions(tensors: tuple[Tensor, ...]) -> tuple[int, ...]:
    return tuple([tensor._version for tensor in tensors])


def _reason(model: nn.Module, inputs: Inputs, execution: Execution, together: int) -> str | None:
    places = torch.arange(len(inputs), device=inputs.device)
    first = inputs.first
    first = first.byte() if first.dtype == torch.bool else first
    moderate = first.flatten(1).abs().amax(dim=1).argmin()  # a range that the whole batch decides shows on it
    inputs = inputs[torch.where(places == moderate, -1, places).argsort()]
    for inside in (False, True):  # what a model returns may not tell images apart: a loss, or nothing
        answers = _answers(model, inputs, pairs=execution.batch_size == 2, inside=inside)
        if answers is FAILS and not inside:
            continue  # what is asked for may lie before the failure
        if isinstance(answers, str):
            return answers
        alone, batches = answers
        if not inside and () in alone.rows and not any(() in rows for batch in batches for rows in batch):
            return ONE_ROW
        shared = [place for place in alone.rows if all(place in rows for batch in batches for rows in batch)]
        if shared:
            coarsest = coarser(*{p.dtype for p in model.parameters()}, inputs.dtype, execution.autocast, tf32(inputs))
            found = ((alone.rows[place], first[place], second[place]) for place in shared for first, second in batches)
            alike = [flag for rows in found for flag in _alike(*rows, coarsest, draws=alone.draws)]
            if not all_true(alike):
                return MIXED
            if together > 3 and not alone.draws:
                return _in_a_crowd(model, inputs, alone, shared, coarsest, inside=inside)
            return None
    return None


def _in_a_crowd(
    model: nn.Module,
    inputs: Inputs,
    alone: Answer,
    places: list[tuple[object, ...]],
    coarsest: torch.dtype,
    *,
    inside: bool,
) -> str | None:
    """The same about x among `CROWD` images: the others of the call, again and again."""
    others = inputs[1:] if len(inputs) > 1 else _changed(inputs[:1], lambda tensor: tensor.flip(-1))
    crowd = [others[index % len(others) :][:1] for index in range(CROWD - 1)]
    try:
        rows = answer(model, joined([crowd[0], inputs[:1], *crowd[1:]]), inside=inside).rows
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            return None  # so many never go together
        if isinstance(error, AttributionError):
            return f"the model fails on several images at once ({error})"
        raise
    alike = []
    for place in places:
        if place not in rows or rows[place][1].shape != alone.rows[place][0].shape:
            continue
        one, among = alone.rows[place][0], rows[place][1]
        size = torch.maximum(_columns(one), _columns(among))
        alike.append(_near(one, among, _rough(size, coarsest)))
    return None if all_true(alike) else MIXED


def _rough(size: Tensor, coarsest: torch.dtype) -> Tensor:
    """How far other kernels may take a value, by the size of its column and of the median one."""
    part, places = ROUNDING.get(coarsest, ROUNDING[torch.bfloat16]), torch.finfo(coarsest)
    noise = _NOISE["half" if places.bits < 32 else "single"]
    return part * size + noise * places.eps * size.median() if size.numel() else size


def _answers(
    model: nn.Module, inputs: Inputs, *, pairs: bool, inside: bool
) -> tuple[Answer, list[tuple[Rows, Rows]]] | str:
    """What the model returns for [x], and for [a, x, b] and [b, x, d]; or why it returns nothing.

    With ``pairs`` no more than two at once: [a, x] and [b, x], [x, a] and [x, b]; a third row stands for none.
    """

    def rows(*images: Inputs) -> Rows:
        return answer(model, joined(images), inside=inside).rows

    def ordered(found: Rows, *order: int) -> Rows:
        return {place: [each[index] for index in order] for place, each in found.items()}

    x = inputs[:1]
    try:
        alone = answer(model, x, inside=inside)
    except AttributionError:
        return FAILS
    reason = ""
    for a, b, d in _neighbours(inputs):
        try:
            if not pairs:
                return alone, [(rows(a, x, b), rows(b, x, d))]
            behind = ordered(rows(a, x), 0, 1, 0), ordered(rows(b, x), 0, 1, 0)
            ahead = ordered(rows(x, a), 1, 0, 1), ordered(rows(x, b), 1, 0, 1)
        except AttributionError as error:
            reason = f"the model fails on several images at once ({error})"
        else:
            return alone, [_closed(*behind), _closed(*ahead)]
    return reason


def _closed(first: Rows, second: Rows) -> tuple[Rows, Rows]:
    """Where no image but x is in both, nothing else can be compared."""
    return first, {p: [first[p][2], *each[1:]] for p, each in second.items() if p in first}


def _alike(
    alone: list[Tensor], first: list[Tensor], second: list[Tensor], coarsest: torch.dtype, *, draws: bool
) -> list[Tensor]:
    """Flags: whether the rows of x are the same in all three, and those of b in the last two."""
    rows, others = [alone[0], first[1], second[1]], [first[2], second[0]]
    if len({row.shape for row in rows}) > 1:
        return [torch.zeros((), dtype=torch.bool, device=rows[0].device)]
    alike = {row.shape for row in (*alone, *first, *second)} == {rows[0].shape}
    draws = draws or others[0].shape != others[1].shape  # detections: as many as there are
    size = _largest([*rows, *others] if alike else rows)
    own, cpu = torch.finfo(coarser(rows[0].dtype)), rows[0].device.type == "cpu"
    exact = _EQUAL["half" if own.bits < 32 else "cpu" if cpu else "other"] * own.eps * size
    if draws:
        return [_near(first[1], second[1], exact)]
    rough = _rough(size, coarsest)
    of_others = rough if alike else _rough(_largest(others), coarsest)
    return [_near(first[1], second[1], exact), _near(alone[0], first[1], rough), _near(others[0], others[1], of_others)]


def _changed(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return inputs.replaced({name: change(inputs.values[name]) for name in inputs.explained})


def _neighbours(inputs: Inputs) -> Iterator[tuple[Inputs, Inputs, Inputs]]:
    """Three examples unlike the first, each explained tensor by `_unlike`; what else b has is that of the last."""
    first, last = inputs[:1], inputs[-1:]
    made = {name: _unlike(inputs.values[name]) for name in inputs.explained}
    while True:
        three = {name: next(tensors, None) for name, tensors in made.items()}
        found = {name: tensors for name, tensors in three.items() if tensors is not None}
        if len(found) < len(made):
            return
        a, b, d = ({name: tensors[place] for name, tensors in found.items()} for place in range(3))
        yield first.replaced(a), last.replaced(b), first.replaced(d)


def _unlike(inputs: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Three tensors (1, …) unlike the first row: beyond its range; for a model that refuses such ones, within it."""
    x, last = inputs[:1], inputs[-1:]
    if not x.is_floating_point():  # indices, often: no others than those that the model was given
        a, d = (inputs.flatten()[_drawn(x, seed) % inputs.numel()] for seed in (0, 1))
        yield a, torch.where((last != x).any(), last, x.flip(-1)), d
        return
    size = x.abs().max()
    size = torch.where(size == 0, torch.ones_like(size), size)
    source = torch.Generator("cpu").manual_seed(0)
    noise = upload(torch.rand((2, *x.shape), generator=source, device="cpu"), x.device, x.dtype) - 0.5
    b = torch.where((last != x).any(), last, x.flip(-1) / 2 + noise[0] * size / 2)
    yield 300 * x.flip(-1) + 2 * noise[0] * size, b, -x.flip(-2) + 3 * noise[1] * size
    yield 2 * x.flip(-1) + 2 * noise[0] * size, b, -x.flip(-2) + 3 * noise[1] * size
    low, high = x.aminmax()
    yield x.flip(-2), (noise[0] + 0.5) * (high - low) + low, x.flip(-1)


def _drawn(like: Tensor, seed: int) -> Tensor:
    """Integers of this shape, the same in every call."""
    source = torch.Generator("cpu").manual_seed(seed)
    return upload(torch.randint(2**31, like.shape, generator=source, device="cpu"), like.device)


def _largest(rows: list[Tensor]) -> Tensor:
    """The largest of each column, of rows of one shape."""
    return torch.stack([_columns(row) for row in rows]).amax(dim=0)


def _columns(row: Tensor) -> Tensor:
    """The largest finite |value| of each column: of a class, a channel, a token."""
    values = torch.nan_to_num(row.double().abs(), 0.0, 0.0, 0.0)
    if values.ndim < 2 or not values.numel():
        return values
    return values.flatten(1).amax(dim=1).reshape(-1, *[1] * (row.ndim - 1))


def _near(a: Tensor, b: Tensor, allowed: Tensor) -> Tensor:
    """Of two rows of one shape."""
    same = (a == b) | (a.isnan() & b.isnan())
    return (same | ((a.double() - b.double()).abs() <= allowed)).all()
