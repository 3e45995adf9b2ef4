"""``Attribution``: the answer to one question, with all that is needed to read it again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from attribution import drawing, saving
from attribution.class_names import ClassNames
from attribution.errors import InputError, OutputError
from attribution.fusion import FuseRule, fused
from attribution.scores.score import Score
from attribution.technique import Technique

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Attribution:
    """Maps and where they come from.

    Attributes:
        maps: By layer name (or ``"input"``). activation: (N, D, h, w), other ranks keep their shape · heatmap:
            (N, T, H, W), (N, T, h, w) if not upsampled, (N, T, C, H, W) if channels are kept · image: (K, C, H, W).
            On the model's device, in the dtype of the inputs (float32 below that), without graph.
        technique: With what was left open filled in (default layers).
        backend: Who computed it.
        target: (N, T) class indices; ``None`` where the score is not one of classes, or the technique explains none.
        score: What was explained, settled: the predicted classes and regions are part of it. ``None`` where the
            technique explains no score.
        scores: (N, T), of the clean inputs.
        extras: What else the backend told, e.g. ``"objective"``.
        provenance: Versions, device, dtype, engine, notes.
        raw: The backend's maps before the shared finish; what `compare` compares. Saved only if asked.
        computes_in: The coarsest dtype on the way.
    """

    maps: Mapping[str, Tensor]
    technique: Technique
    backend: str
    target: Tensor | None = None
    score: Score | None = None
    scores: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)
    raw: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    computes_in: torch.dtype | None = None

    @property
    def map(self) -> Tensor:
        """The only map.

        Raises:
            InputError: There are several; names them.
        """
        if len(self.maps) != 1:
            raise InputError(
                f"there are {len(self.maps)} maps: {', '.join(map(repr, self.maps))}; choose one from .maps"
            )
        return next(iter(self.maps.values()))

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """A few words for each image and target (N × T): ``"class 7"``, ``"channel 2"``; empty where there are none."""
        if self.score is None or self.scores is None:
            return ()
        columns = self.target if self.target is not None else self.scores  # of other scores only their number counts
        return self.score.names(columns)

    @property
    def on_host(self) -> bool:
        """Whether it was computed on a CPU, by the record; a result without one counts as computed there."""
        return str(self.provenance.get("device", "cpu")).startswith("cpu")

    def fused(self, rule: FuseRule = "mean", *, scaled: bool = True) -> "Attribution":
        """The maps of several layers as one, at each place their mean, largest value or product.

        By default each map of an image and target is divided by its largest |value| first: layers have gradients of
        other sizes, and the loudest would speak alone. The fused map then has no unit. pytorch-grad-cam takes such a
        mean, of maps scaled to 0…1 before they are enlarged; torch-cam's ``fuse_cams`` is ``"max"`` without scaling.

        Args:
            rule: ``"mean"``, ``"max"`` or ``"product"``.
            scaled: Divide first; ``False``: the maps as they are, in their own units.

        Returns:
            The same answer with one map, named after all layers, and no raw maps; ``provenance["fused"]`` says how.

        Raises:
            InputError: It has no heatmaps, fewer than two of them, or such of several sizes.
        """
        if self.technique.kind != "heatmap":
            raise InputError(f"{self.technique.name} has no heatmaps; only these are fused")
        told = f"{rule} of {len(self.maps)} layers, {'each by its largest value' if scaled else 'as they are'}"
        return replace(
            self,
            maps={" + ".join(self.maps): fused(self.maps, rule, scaled=scaled)},
            provenance={**self.provenance, "fused": told},
            raw={},
        )

    def numpy(self) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        """The maps as arrays on the host, by the same keys."""
        return {name: map_.cpu().numpy() for name, map_ in self.maps.items()}

    def figure(
        self,
        image: Any = None,
        labels: ClassNames | None = None,
        *,
        model: str | None = None,
        scale: Any = "each",
        cmap: str | None = None,
        alpha: float = 0.45,
        columns: int = 6,
        size: float = 2.2,
        aspect: Any = None,
        mean: Any = None,
        std: Any = None,
        bands: Any = None,
    ) -> "Figure":
        """A matplotlib figure of the maps, which a notebook shows as it is.

        All but the first three arguments are for heatmaps alone; see `attribution.plots.heatmap_figure`.

        Args:
            image: What the model saw, to draw heatmaps over: a PIL image, an array (H, W), (H, W, C) or (N, H, W, C), a
                tensor (C, H, W) or (N, C, H, W), with values in [0, 1] or 8 or 16 bits; normalised inputs with ``mean``
                and ``std``; or one for each image in a list.
            labels: Class names, for the titles: a sequence or an array with one per class, or a dict by index (int or
                ``"7"``), where a class without a name is "class 7".
            model: How the title calls the model; ``None``: by its class.
            scale: ``"each"``: every map has its own colours · ``"shared"``: all have the same · (lo, hi).
            cmap: A colour map of matplotlib; ``None``: inferno, or red to blue where maps are signed.
            alpha: Share of the colour over the picture.
            columns: Panels in a line at most.
            size: Width of a panel, in inches.
            aspect: Height by width of a panel, or ``"equal"`` for square pixels.
            mean: Per channel, of the transform that made ``image``; with ``std``.
            std: Per channel.
            bands: Which channels of ``image`` are drawn: three, or one in grey.

        Raises:
            InputError: The image, the labels or an option are of another form, or there are fewer labels than classes.
        """
        look = {
            "scale": scale,
            "cmap": cmap,
            "alpha": alpha,
            "columns": columns,
            "size": size,
            "aspect": aspect,
            "mean": mean,
            "std": std,
            "bands": bands,
        }
        return drawing.figure(self, image, labels, model, look)

    def packed(self, *, raw: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
        """What a file holds of this answer: tensors by name, and a header of texts; `unpacked` reads both.

        Raises:
            OutputError: JSON has no form for a parameter or a note.
        """
        groups = {"maps": self.maps, "extras": self.extras, "raw": self.raw if raw else {}}
        tensors = {f"{group}/{name}": tensor for group, maps in groups.items() for name, tensor in maps.items()}
        parameters, held = saving.technique_text(self.technique)
        tensors |= held
        tensors |= {name: t for name, t in (("target", self.target), ("scores", self.scores)) if t is not None}
        header = {
            "schema": saving.SCHEMA,
            "technique": self.technique.name,
            "parameters": parameters,
            "backend": self.backend,
            "computes_in": str(self.computes_in).removeprefix("torch."),
            "provenance": saving.text(dict(self.provenance)),
        }
        if self.score is not None:
            header["score"], held = saving.score_text(self.score)
            tensors |= held
        header["tensors"] = json.dumps({name: list(tensor.shape) for name, tensor in tensors.items()})
        return tensors, header

    def save(self, path: str | Path, *, raw: bool = False) -> Path:
        """Write maps, target, scores, extras and provenance into one ``.safetensors`` file; whole or not at all.

        Raises:
            OutputError: Another suffix, a folder that does not exist, or a write that fails.
        """
        path = saving.writable(path)
        if not self.maps:
            raise OutputError(f"there are no maps to write into {path.name}")
        saving.write(path, *self.packed(raw=raw))
        return path

    @staticmethod
    def header(path: str | Path) -> dict[str, str]:
        """The metadata of a saved file: technique, parameters, backend, provenance.

        Raises:
            OutputError: The file does not exist or is not one that `save` wrote.
        """
        return saving.header(path)

    @classmethod
    def load(cls, path: str | Path, technique_type: type[Technique] | None = None) -> Self:
        """Read what `save` wrote, onto the CPU.

        Args:
            path: The file.
            technique_type: The class of the technique; ``None``: a built-in one. `attribution.load` finds
                those of plugins too.

        Raises:
            OutputError: The file cannot be read or lacks tensors that were saved, its technique is not known, or its
                maps have shapes that the technique cannot give.
        """
        header = cls.header(path)
        technique_type = technique_type or _built_in(header["technique"])
        return cls.unpacked(header, saving.tensors(path), technique_type, place=path)

    @classmethod
    def unpacked(
        cls, header: Mapping[str, str], tensors: Mapping[str, Tensor], technique_type: type[Technique], *, place: object
    ) -> Self:
        """Read what `packed` gave.

        Args:
            header: Its texts.
            tensors: Its tensors.
            technique_type: The class of the technique.
            place: Where both were found, for messages.

        Raises:
            OutputError: They are no whole answer of that technique.
        """

        def group(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{name}/"): t for key, t in tensors.items() if key.startswith(f"{name}/")}

        try:
            parameters = saving.parameters_of(header, tensors)
            score = saving.score_of(header, parameters, technique_type, tensors)
            technique = technique_type(**parameters)
            provenance = dict(json.loads(header["provenance"]))
            shapes = {str(name): tuple(shape) for name, shape in json.loads(header.get("tensors", "{}")).items()}
        # A technique may be a plugin's, and a header may be anything: nested too deep for JSON, or beyond a float.
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise OutputError(
                f"the header of {place} does not fit {getattr(technique_type, '__name__', technique_type)} as "
                f"installed: {said}"
            ) from error
        flaw = saving.flaw(technique, score, shapes, tensors)
        if flaw:
            raise OutputError(f"{place} holds no whole answer: {flaw}; save it anew with Attribution.save")
        dtype = getattr(torch, header["computes_in"], None)
        return cls(
            maps=group("maps"),
            technique=technique,
            backend=header["backend"],
            target=tensors.get("target"),
            score=score,
            scores=tensors.get("scores"),
            extras=group("extras"),
            provenance=provenance,
            raw=group("raw"),
            computes_in=dtype if isinstance(dtype, torch.dtype) else None,
        )

    def __repr__(self) -> str:
        maps = ", ".join(f"{name!r} {tuple(map_.shape)}" for name, map_ in self.maps.items())
        return f"<Attribution {self.technique.name}.{self.backend}: {maps}>"

    def _repr_html_(self) -> str:
        return drawing.embedded(self.figure(), repr(self))


def _built_in(name: str) -> type[Technique]:
    from attribution import techniques

    for technique in vars(techniques).values():
        if isinstance(technique, type) and issubclass(technique, Technique) and technique.name == name:
            return technique
    raise OutputError(f"the technique {name!r} is not built in; load it with attribution.load, or pass its class")
