"""``HooksOcclusion``: clean scores, one difference per window, folded to pixels once."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.isolation import process_flags
from attribution.isolation.notes import notes
from attribution.isolation.torch_modes import devices_of, note_random
from attribution.isolation.undo import Undo
from attribution.running.execution import CPU_WINDOWS, first_line, lost
from attribution.technique import Maps
from attribution.techniques import Occlusion
from attribution.techniques.perturbation.occlusion import Lattice
from attribution_hooks.chunks import in_parts
from attribution_hooks.covers import Covers
from attribution_hooks.incremental import differences as incremental
from attribution_hooks.incremental.graph import Known, Untraceable
from attribution_hooks.perturbation import dense
from attribution_hooks.perturbation.fold import fold


class HooksOcclusion(Attributor[Occlusion]):
    """`Occlusion` with every target from the same windows; sums in at least float32.

    Where the model can be taken apart, only what a window changes is computed again, to the same numbers; where it
    cannot, or would not gain, each window is one full forward. ``provenance["engine"]`` says which, and ``"reason"``
    why it was the full one.
    """

    technique_type: ClassVar[type[Occlusion]] = Occlusion
    backend: ClassVar[str] = "hooks"

    def compute(self, run: Run[Occlusion]) -> Maps:
        """(N, T, H, W) under ``"input"``."""
        inputs = run.inputs.tensor
        lattice = run.technique.lattice(*inputs.shape[2:])
        with torch.no_grad():
            size = inputs[0].numel() * inputs.element_size() * 2 + layers.peak_bytes(run.model, inputs)
            most = CPU_WINDOWS if inputs.device.type == "cpu" else None
            chunk = run.execution.chunk(size, len(lattice.windows) * len(inputs), most=most)
            logits = _clean(run, chunk)
            covers = Covers(inputs, run.technique.cover(inputs), lattice)
            run.note("windows", len(lattice.windows))
            restart = note_random(Undo(), devices_of(run.model, inputs))
            try:
                deltas = self._incremental(run, lattice, covers, logits, chunk)
            finally:
                restart()  # dense draws the same
            if deltas is None:
                run.note("engine", "dense")
                deltas = dense.differences(run, covers, len(lattice.windows), chunk)
        return {"input": fold(deltas, lattice, (inputs.shape[2], inputs.shape[3]))}

    def _incremental(
        self, run: Run[Occlusion], lattice: Lattice, covers: Covers, logits: Tensor, chunk: int
    ) -> Tensor | None:
        try:
            if not run.execution.incremental:
                raise Untraceable(run.apart or "Execution.incremental is False")
            if not run.inputs.plain:
                raise Untraceable("the model takes more than one tensor")
            if run.asked.of_layer is not None:
                raise Untraceable("the score is one of a layer, where the forward ends")
            if run.execution.autocast is not None:
                raise Untraceable("autocast chooses a precision op by op")
            return self._on_tiles(run, lattice, covers, logits, chunk)
        except Untraceable as reason:
            if lost(reason):
                raise
            run.note("reason", str(reason))
        except Exception as error:  # the model's own code, on tiles and symbols; whole images may suit it
            if lost(error):
                raise
            run.note("reason", f"failed on tiles: {first_line(error)}")
        return None

    def _on_tiles(self, run: Run[Occlusion], lattice: Lattice, covers: Covers, logits: Tensor, chunk: int) -> Tensor:
        undo = Undo()
        try:
            try:
                process_flags.untuned(undo, run.inputs.device)
                known = _known(run.model)
                return incremental.differences(run, lattice, covers, logits, known, chunk)
            finally:
                undo.back()
        finally:
            undo.back()


def _known(model: nn.Module) -> Known:
    """What earlier calls found out, if the model is a shadow; a model that runs itself has notes of one call only."""
    known: Known = notes(model).setdefault("occlusion", Known())
    return known


def _clean(run: Run[Occlusion], chunk: int) -> Tensor:
    """The matrix (N, K) that scores of the images as they are are picked from."""
    parts: list[Tensor] = []

    def work(images: Sequence[int]) -> None:
        rows = torch.arange(images[0], images[-1] + 1, device=run.inputs.device)
        parts.append(run.matrix(run.forward(run.inputs[images[0] : images[-1] + 1]), rows))

    in_parts(range(len(run.inputs)), chunk, work, lambda: None)
    return torch.cat(parts)
