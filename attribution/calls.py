"""``answers``: a call from its inputs to its results, of one technique or of several that share what they can."""

from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attribution.agreement import coarser
from attribution.beginning import Beginning
from attribution.errors import InputError, named
from attribution.grouping import Grouping
from attribution.inputs import checks
from attribution.inputs.inputs import Inputs
from attribution.inputs.lent import Lent
from attribution.isolation import function_modes, process_flags
from attribution.isolation.context import current, hold_again, isolate, settled, unwrap
from attribution.isolation.notes import notes as notes_of
from attribution.isolation.torch_modes import devices_of, keep_random, leave, note_random, set_modes
from attribution.isolation.undo import Undo
from attribution.isolation.unsupported import Weights, accelerator_failed, explained
from attribution.members import Member
from attribution.passes import Pass, own
from attribution.result import Attribution
from attribution.running import torch_internals
from attribution.running.execution import Execution, lost
from attribution.running.guards import Guards
from attribution.running.memory import room
from attribution.running.offload import AcceleratorLane, Offload, copies_beside
from attribution.running.precision import tf32
from attribution.running.provenance import provenance
from attribution.scores.classes import ClassScore
from attribution.scores.score import Score, whole
from attribution.settled import Record, Settled, keep, repeated, settles
from attribution.zero_maps import labels, zero_maps


def answers(members: Sequence[Member], inputs: Any) -> list[Attribution]:
    """Check, isolate, compute, finish. The model, the inputs and torch's modes are as found on every exit.

    Inputs are read once, and the model is isolated and proved once. Techniques of one family go through the model
    together; where that fails each is computed alone, so that an error is that of one technique.

    Args:
        members: At least one, all with the same model and execution.
        inputs: As the user gave them.

    Raises:
        AttributionError: Of the first technique that cannot be computed, named where it has a label.
    """
    undo = Undo()
    undo.add(partial(leave, torch.is_grad_enabled(), torch_internals.transforms(), function_modes.stack()))
    try:
        guards = Guards()
        try:
            return _answers(undo, guards, members, inputs)
        except Exception as error:
            if lost(error):  # wherever it was waited for
                raise accelerator_failed(error) from error
            if (first := guards.broken()) is not None:  # what is not finite may have led to the other error
                raise first from None
            raise
        finally:
            undo.back()
    finally:
        undo.back()


def _answers(undo: Undo, guards: Guards, members: Sequence[Member], inputs: Any) -> list[Attribution]:
    first = members[0].asker
    inner = unwrap(first.model)
    block = settled(inner)
    if block is not None and not settles(members, inputs):
        block = None
    found = None if block is None else repeated(block, members[0], inputs)
    if found is not None:
        answer = _again(undo, guards, members[0], inputs, inner, found)
        if answer is not None:
            return [answer]
    shown = _shown(members, inputs, inner)
    beginning = Beginning(members, shown, guards)
    known, tensors = current(inner), [] if shown is None else shown.tensors()
    places = devices_of(inner) if known is None else known.devices
    devices = list(dict.fromkeys([*places, *(tensor.device for tensor in tensors)]))
    device = devices[0] if devices else torch.device("cpu")
    guards.late = first.technique.batch_of != "windows" and device.type != "cpu"
    if shown is not None:
        for tensor in (shown.values[key] for key in shown.explained):
            guards.finite(tensor, partial(checks.not_finite, tensor))
    execution = first.execution.on(device)
    set_modes(undo, execution, device)
    weights = Weights()
    with room(", ".join(member.name for member in members), execution), explained(inner, weights):
        held = undo if len(members) == 1 else undo.inner()
        model, isolation = isolate(held, first.model, beginning.example, known)
        guarded = isolation.startswith("guarded")
        if any(member.technique.takes_gradients for member in members):
            weights.note(model)
            process_flags.differentiable(undo, model, device)
        if len(members) > 1:
            restart = note_random(undo, devices)
        else:
            keep_random(undo, devices)
        grouping = Grouping(members, *beginning.of(model), shown, guarded=guarded)
        offload = Offload(AcceleratorLane()) if execution.offload and any(map(copies_beside, devices)) else None
        answered: set[Hashable] = notes_of(model).setdefault("answered", set())
        new: set[Hashable] = set()
        waiting, passes = grouping.passes, list[Pass]()
        while waiting:
            each = waiting.pop(0)
            if passes or each.why:  # each pass meets the model and the generators as a call of its own does
                held.back()
                model, _ = isolate(held, first.model, known=current(inner))  # a copy is not proved again
                answered = notes_of(model).setdefault("answered", set())
                restart()
            guards.late = each.members[0].technique.batch_of != "windows" and device.type != "cpu"
            apart = explained(inner, weights) if each.label else nullcontext()  # a label goes before what it says
            with named(each.label), apart:
                questions = set(map(partial(_question, each.start), each.members, each.asked))
                if not questions <= answered:
                    guards.settle()  # what is found out in the first call of a question is kept
                new |= questions
                each.resolve(model)
                why = each.compute(model, execution, guards, offload, anew=guarded)
            if why:
                waiting[:0] = grouping.apart(each, why)
            else:
                passes.append(each)
        if grouping.lent is not None:
            grouping.lent.check()
        if offload is not None:
            offload.finish()
        done: dict[int, Attribution] = {}
        for each in passes:
            for place, member in enumerate(each.members):
                with named(member.label):
                    record = provenance(type(member.asker), member.asker.model, each.start, isolation)
                    done[id(member)] = _result(each, place, guards, record, offload, execution)
        answered |= new
        shared = known is not None and known.model is model and known.proved
        if block is not None and known is not None and shared and all(place.type == "cpu" for place in devices):
            keep(block, Settled.of(inner, known, members[0], passes[0].start, passes[0].asked[0], record))
    return [done[id(member)] for member in members]


def _again(
    undo: Undo, guards: Guards, member: Member, inputs: Tensor, model: nn.Module, found: Settled
) -> Attribution | None:
    """The same as `_answers`, without what an earlier call has settled; ``None`` where the copy cannot be had."""
    execution, weights = member.asker.execution, Weights()
    set_modes(undo, execution, inputs.device)
    if not hold_again(undo, model, found.shadow):
        return None
    lent = Lent(Inputs.formed(inputs, found.axes, found.told)) if member.only_reads else None
    own_tensor = inputs.detach().clone() if lent is None else lent.inputs.first
    start = Inputs.formed(own_tensor, found.axes, found.told)
    guards.finite(start.first, partial(checks.not_finite, start.first))
    if member.technique.takes_gradients:
        weights.note(found.shadow.model)
    keep_random(undo, [start.device])
    try:
        member.technique.check(start)
        only = Pass([member], start, [found.asked])
        only.resolve(found.shadow.model)
        only.compute(found.shadow.model, execution, guards, None, anew=False)
        if lent is not None:
            lent.check()
        record = {**found.record, "threads": torch.get_num_threads()}
        return _result(only, 0, guards, record, None, execution)
    except Exception:
        with room(member.name, execution), explained(model, weights):  # entered where there is something to say
            raise


def _shown(members: Sequence[Member], inputs: Any, model: nn.Module) -> Inputs | None:
    """The user's inputs, checked; ``None`` for techniques that make their own.

    Raises:
        InputError: They are none, or a technique makes its own.
    """
    for member in members:
        if not member.technique.needs_inputs and inputs is not None:
            with named(member.label):
                raise InputError(f"{member.technique.name} makes its own inputs; pass inputs=None")
    if not any(member.technique.needs_inputs for member in members):
        return None
    return checks.check(inputs, model, autocast=members[0].asker.execution.autocast is not None)


def _result(
    done: Pass, place: int, guards: Guards, record: Record, offload: Offload | None, execution: Execution
) -> Attribution:
    """From the raw maps of one technique to its answer."""
    member, asked, technique = done.members[place], done.asked[place], done.techniques[place]
    start, runs = done.start, [part[place] for part in done.runs]
    parts = [part[place] for part in done.maps]
    raw = parts[0] if len(parts) == 1 else {name: torch.cat([maps[name] for maps in parts]) for name in parts[0]}
    dtype = torch.promote_types(start.dtype, torch.float32) if start.dtype.is_floating_point else None
    torch_internals.set_gradients(False)  # no gradient is taken any more; the mode is given back with all others
    shown = start if offload is None else start.cpu()
    maps = technique.finish(
        {name: map_ if dtype in (None, map_.dtype) else map_.to(dtype) for name, map_ in raw.items()}, shown
    )
    notes = {key: value for run in runs for key, value in run.notes.items()}
    if done.apart is not None:
        notes["rows"] = f"one by one: {done.apart}"
    score = None if runs[0].score is None else asked.chosen(whole([run.choices for run in runs]))
    columns = _joined([run.target for run in runs])
    target = columns if score is not None and isinstance(score, ClassScore) else None
    if blank := zero_maps(maps, technique.kind, partial(labels, asked, score, columns), guards):
        notes["zero everywhere"] = blank
    if execution.offload:
        kind = start.device.type
        none = "none: the model is on the host" if kind == "cpu" else f"none: {kind} has no streams"
        notes["offload"] = none if offload is None else "page-locked, two buffers"
    asker = member.asker
    return Attribution(
        maps=maps,
        technique=technique,
        backend=asker.backend,
        target=target,
        score=score,
        scores=_joined([run.clean for run in runs]),
        extras={name: own(_whole([run.extras[name] for run in runs])).to(start.device) for name in runs[0].extras},
        provenance={**record, **notes},
        raw=raw,
        computes_in=coarser(start.dtype, execution.autocast, asker.computes_in, tf32(start)),
    )


def _question(start: Inputs, member: Member, asked: Score) -> Hashable:
    """What is asked, of images of this kind; equal for equal questions."""
    asker = member.asker
    question = (type(asker), asker.technique, asker.execution, type(asked), len(start), start.kind)
    try:
        hash(question)
    except TypeError:  # a plugin's technique may hold what has no hash
        return object()
    return question


def _whole(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if len(present) > 1 else next(iter(present), None)
