"""What a shape tells about where a layer's values lie on the image."""

from collections.abc import Iterable, Sequence
from math import prod

MOST_LEADING = 8
"""Class, distillation and register tokens together that an inferred grid may have in front of it."""

Shape = Sequence[int]


def spatial(shape: Shape | None, image: Shape) -> bool:
    """(1, D, h, w) with h·w > 1, no larger than the image (H, W) and of roughly its aspect."""
    if shape is None or len(shape) != 4 or shape[0] != 1:
        return False
    h, w = shape[2:]
    return h * w > 1 and h <= image[0] and w <= image[1] and stretch((h, w), image) <= 3


def sequence(shape: Shape | None) -> bool:
    """(N, tokens, D)."""
    return shape is not None and len(shape) == 3 and min(shape[1:]) > 1


def flat(shape: Shape | None) -> bool:
    """(N, D), or a grid of one place."""
    return shape is not None and (
        len(shape) == 2 or (len(shape) == 4 and 1 in (shape[1] * shape[2], shape[2] * shape[3]))
    )


def magnified(shape: Shape | None, image: Shape) -> bool:
    """(N, D, h, w) with more places than the image has, as of super-resolution."""
    return shape is not None and len(shape) == 4 and shape[2] > image[0] and shape[3] > image[1]


def stretch(size: Shape, image: Shape) -> float:
    """How much wider or narrower than the image a grid is, ≥ 1."""
    (height, width), (h, w) = image, size
    return max(h * width / (w * height), w * height / (h * width))


def token_grids(tokens: int, image: Shape, computed: Iterable[Shape]) -> list[tuple[int, ...]]:
    """(leading, *places) that so many tokens may be: a grid that the model computes, else square patches.

    Args:
        tokens: With leading ones.
        image: Sizes of its places.
        computed: Shapes of what layers with parameters give for one image.
    """
    found = []
    for shape in computed:
        places = tuple(shape[2:]) if len(shape) == 2 + len(image) > 2 else ()
        if (
            places
            and prod(places) > 1
            and 0 <= tokens - prod(places) <= MOST_LEADING
            and stretch_of(places, image) < 1.5
        ):
            found.append((tokens - prod(places), *places))
    return list(dict.fromkeys(found)) if found else patch_grids(tokens, image) if image else []


def stretch_of(places: Shape, image: Shape) -> float:
    """How much wider or narrower than the input a grid of any number of axes is, ≥ 1."""
    parts = [size / whole for size, whole in zip(places, image, strict=True)]
    return max(parts) / min(parts)


def patch_grids(length: int, image: Shape) -> list[tuple[int, ...]]:
    """(leading, h, w) of square patches that (N, length, D) may hold: of ≤ 1 leading token, else `MOST_LEADING`.

    Of volumes (leading, d, h, w), of cubes.
    """
    sides = [
        tuple(size // p for size in image)
        for p in range(1, min(image) + 1)
        if not any(size % p for size in image) and prod(image) > p ** len(image)
    ]
    grids = [(length - prod(side), *side) for side in sides]
    for leading in (range(2), range(2, MOST_LEADING + 1)):
        if found := [grid for grid in grids if grid[0] in leading]:
            return found
    return []
