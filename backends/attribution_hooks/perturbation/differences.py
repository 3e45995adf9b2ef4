"""What the score loses under each window: by what a window changes where that can be had, else by full forwards."""

from typing import Any

from torch import Tensor, nn

from attribution.attributor import Run
from attribution.isolation import process_flags
from attribution.isolation.notes import notes
from attribution.isolation.torch_modes import devices_of, note_random
from attribution.isolation.undo import Undo
from attribution.running.execution import first_line, lost
from attribution.techniques.perturbation.lattice import Lattice
from attribution_hooks.covers import Covering
from attribution_hooks.incremental import differences as incremental
from attribution_hooks.incremental.graph import Known, Untraceable
from attribution_hooks.perturbation import dense


def differences(
    run: Run[Any], name: str, lattice: Lattice, covers: Covering, matrix: Tensor, chunk: int, whole: str | None
) -> Tensor:
    """score(x) − score(x with window w covered): (windows, N, T).

    Args:
        run: Its score is settled. ``provenance["engine"]`` is noted, and ``"reason"`` where it is the full one.
        name: The input that is covered.
        lattice: The windows, or what lies around the parts that are covered.
        covers: Of that input.
        matrix: (N, K), of the inputs as they are.
        chunk: Covered examples per forward.
        whole: Why the technique's windows cannot be asked as tiles; ``None``: they can.
    """
    restart = note_random(Undo(), devices_of(run.model, *run.inputs.tensors()))
    try:
        deltas = _incremental(run, lattice, covers, matrix, chunk, whole)
    finally:
        restart()  # dense draws the same
    if deltas is None:
        run.note("engine", "dense")
        deltas = dense.differences(run, name, covers, matrix, len(lattice), chunk)
    return deltas


def _incremental(
    run: Run[Any], lattice: Lattice, covers: Covering, logits: Tensor, chunk: int, whole: str | None
) -> Tensor | None:
    try:
        if (reason := _whole_only(run, lattice, covers) or whole) is not None:
            raise Untraceable(reason)
        return _on_tiles(run, lattice, covers, logits, chunk)
    except Untraceable as reason:
        if lost(reason):
            raise
        run.note("reason", str(reason))
    except Exception as error:  # the model's own code, on tiles and symbols; whole images may suit it
        if lost(error):
            raise
        run.note("reason", f"failed on tiles: {first_line(error)}")
    return None


def _on_tiles(run: Run[Any], lattice: Lattice, covers: Covering, logits: Tensor, chunk: int) -> Tensor:
    undo = Undo()
    try:
        try:
            process_flags.untuned(undo, run.inputs.device)
            return incremental.differences(run, lattice, covers, logits, _known(run.model), chunk)
        finally:
            undo.back()
    finally:
        undo.back()


def _whole_only(run: Run[Any], lattice: Lattice, covers: Covering) -> str | None:
    """Why tiles cannot be asked; ``None`` where they can: of one image tensor, each window of one colour."""
    if not run.execution.incremental:
        return run.apart or "Execution.incremental is False"
    if not run.inputs.plain:
        return "the model takes more than one tensor"
    if len(lattice.axes) != 2:
        return f"tiles are of images (N, C, H, W), and the input is {tuple(run.inputs.shape)}"
    if covers.cover.shape[0] > 1 or covers.cover[0, 0].numel() > 1:
        return "the baseline varies by place or image, and a tile is covered by one value per channel"
    if run.asked.of_layer is not None:
        return "the score is one of a layer, where the forward ends"
    if run.execution.autocast is not None:
        return "autocast chooses a precision op by op"
    return None


def _known(model: nn.Module) -> Known:
    """What earlier calls found out, if the model is a shadow; a model that runs itself has notes of one call only."""
    known: Known = notes(model).setdefault("occlusion", Known())
    return known
