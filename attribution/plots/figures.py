"""Figures of activations and of pictures that a technique made, and one for the difference of two answers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from attribution.errors import InputError
from attribution.plots.backdrops import Picture, pictures
from attribution.plots.panels import Panel
from attribution.plots.pixels import Pixels, array, pattern, strip
from attribution.plots.sheet import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CHANNELS = 8


def activation_figure(maps: Mapping[str, Tensor], *, channels: int = 8, title: str = "") -> "Figure":
    """The first channels of each layer for the first image, each on its own viridis scale.

    Args:
        maps: layer → (N, D, h, w); an activation of another rank is drawn as one strip, channels from top to
            bottom and positions from left to right.
        channels: how many channels of a layer are drawn, at least 1.
        title: of the whole figure.

    Raises:
        InputError: no maps, an empty map, or ``channels`` below 1.
        NonFiniteError: NaN or infinity in a map.
    """
    if channels < 1:
        raise InputError(f"channels is {channels}; expected at least 1")
    lines, labels = [], []
    for layer, map in _checked(maps).items():
        size = " × ".join(str(n) for n in map.shape[1:]) or "1"
        if map.ndim == 4:
            drawn = array(map[0, :channels])
            panels = [Panel(pixels=values, title=f"{layer} ch {i}") for i, values in enumerate(drawn)]
        else:
            panels = [Panel(pixels=strip(array(map[0])), title=f"{layer} all values", wide=True)]
        for start in range(0, len(panels), _CHANNELS):
            lines.append(panels[start : start + _CHANNELS])
            labels.append("" if start else f"{layer}\n{size}")
    return draw(lines, width=1.3, title=title, labels=labels)


def image_figure(maps: Mapping[str, Tensor], *, titles: Sequence[str] = (), title: str = "") -> "Figure":
    """Pictures that a technique made, such as what excites a filter: up to 4 in a line, a line per layer.

    Each is shown as ``0.5 + 0.25 · (x - mean(x)) / std(x)``, clipped to [0, 1]; a constant one is grey.

    Args:
        maps: layer → (K, C, H, W) in model-input units; C = 3 is colour, another C is averaged to grey.
        titles: one per picture, over all layers in order; "channel 4" is drawn as "layer · channel 4".
        title: of the whole figure.

    Raises:
        InputError: no maps, a wrong shape, or a number of titles that is not that of the pictures.
        NonFiniteError: NaN or infinity in a map.
    """
    count = sum(len(map) for map in _checked(maps, rank=4).values())
    if len(titles) not in (0, count):
        raise InputError(f"{len(titles)} titles for {count} pictures; expected one per picture")
    names = iter(titles or [str(k) for map in maps.values() for k in range(len(map))])
    lines = []
    for layer, map in maps.items():
        panels = [
            Panel(pixels=pattern(values), title=f"{layer} · {next(names)}", cmap="gray", limits=(0, 1))
            for values in array(map)
        ]
        lines += [panels[i : i + 4] for i in range(0, len(panels), 4)]
    return draw(lines, width=2.0, title=title)


def difference_figure(
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    names: tuple[str, str],
    *,
    image: "Picture | None" = None,
    title: str = "",
) -> "Figure":
    """Two answers to one question, for the first image: a | b | a − b, a line per target or channel.

    The first two columns share a scale; the third has its own, printed at its colour bar.

    Args:
        a: key → map with a leading image axis; of more than 8 targets or channels the first 8 are drawn. Channels or
            slices of targets, (N, T, C, h, w), are drawn one by one.
        b: the same keys and shapes.
        names: what the two columns are called.
        image: see `plots.pictures`; its grey copy shades the maps.
        title: of the whole figure.

    Raises:
        InputError: no maps, or keys or shapes that differ.
        NonFiniteError: NaN or infinity in a map.
    """
    found, other = ({key: tuple(map.shape) for key, map in _checked(side).items()} for side in (a, b))
    if found != other:
        raise InputError(f"{names[0]} gave maps {found}, {names[1]} {other}; expected the same shapes")
    backdrop = None if image is None else pictures(image, 1)[0]
    lines = []
    for key, map in a.items():
        wide = map.ndim not in (4, 5)
        planes = [m[0] if wide else m[0].flatten(0, map.ndim - 4)[:_CHANNELS] for m in (map, b[key])]
        left, right = (strip(array(m))[None] if wide else array(m) for m in planes)
        for i, pair in enumerate(zip(left, right, strict=True)):
            where = " · ".join([key] * (key != "input") + [str(i)] * (len(left) > 1))
            lines.append(_compared(pair, names, f"{where}\n" if where else "", None if wide else backdrop))
    return draw(lines, width=2.2 if len(lines) <= 6 else 1.5, title=title)


def _checked(maps: Mapping[str, Tensor], rank: int | None = None) -> Mapping[str, Tensor]:
    if not maps:
        raise InputError("no maps to draw; expected at least one layer")
    for key, map in maps.items():
        if map.ndim == 0 or not map.numel() or rank not in (None, map.ndim):
            expected = f"{rank} axes; draw series, volumes and features from .maps" if rank else "a leading image axis"
            raise InputError(f"the map of {key!r} has shape {tuple(map.shape)}; expected {expected}")
    return maps


def _compared(pair: tuple[Pixels, Pixels], names: tuple[str, str], where: str, backdrop: Pixels | None) -> list[Panel]:
    reach = float(max(abs(pair[0]).max(), abs(pair[1]).max())) or 1.0
    negative = min(pair[0].min(), pair[1].min()) < 0
    cmap, limits = ("RdBu_r", (-reach, reach)) if negative else ("viridis", (0.0, reach))
    delta = pair[0] - pair[1]
    apart = float(abs(delta).max())
    panels = [
        Panel(pixels=values, title=f"{where}{name}", cmap=cmap, limits=limits, backdrop=backdrop, bar="{:.3g}")
        for values, name in zip(pair, names, strict=True)
    ]
    title = f"{where}{names[0]} − {names[1]}" + ("" if apart else ": no difference")
    bounds = (-apart, apart) if apart else (-1.0, 1.0)
    panels.append(
        Panel(
            pixels=delta,
            title=title,
            cmap="RdBu_r",
            limits=bounds,
            backdrop=backdrop,
            bar="{:.1e}" if apart else "{:.0f}",
        )
    )
    return panels
