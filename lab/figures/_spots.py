"""Where the names of points go, so that they do not lie on each other."""

from __future__ import annotations

from collections.abc import Sequence

_LETTER, _LINE, _MARK = 6.6, 15.0, 9.0  # pixels at 12 px: width of a letter, height of a line, half a marker

#: Plotly's textposition → which way the text lies from its marker: right, up.
_SPOTS = {
    "top center": (0, 1),
    "bottom center": (0, -1),
    "middle right": (1, 0),
    "middle left": (-1, 0),
    "top right": (1, 1),
    "top left": (-1, 1),
    "bottom right": (1, -1),
    "bottom left": (-1, -1),
}

_Box = tuple[float, float, float, float]


def label_spots(
    places: Sequence[Sequence[float]],
    names: Sequence[str],
    ranges: tuple[tuple[float, float], tuple[float, float]],
    pixels: tuple[int, int],
) -> list[str]:
    """A text position for each point: the first that touches no other label, no marker and no edge.

    One after the other, without going back; where nothing fits, the one that covers least.

    Args:
        places: x and y of each point, in the axes' numbers.
        names: What will be written there.
        ranges: Ends of the x axis and of the y axis.
        pixels: Width and height of the panel, roughly.

    Returns:
        Plotly text positions, one per point.
    """
    at = [
        [
            (value - low) / (high - low) * size
            for value, (low, high), size in zip(place, ranges, pixels, strict=True)
        ]
        for place in places
    ]
    taken: list[_Box] = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in at]
    chosen = []
    for (x, y), name in zip(at, names, strict=True):
        boxes = {spot: _box(x, y, len(name) * _LETTER, *way) for spot, way in _SPOTS.items()}
        costs = {
            spot: sum(_shared(box, other) for other in taken) + _outside(box, pixels)
            for spot, box in boxes.items()
        }
        spot = min(costs, key=lambda one: costs[one])
        chosen.append(spot)
        taken.append(boxes[spot])
    return chosen


def _box(x: float, y: float, width: float, right: int, up: int) -> _Box:
    """Left, bottom, right, top of a text beside its marker."""
    left = x - width / 2 + right * (width / 2 + _MARK)
    bottom = y - _LINE / 2 + up * (_LINE / 2 + _MARK)
    return left, bottom, left + width, bottom + _LINE


def _shared(one: _Box, other: _Box) -> float:
    """The area that two boxes share, in square pixels."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _outside(box: _Box, pixels: tuple[int, int]) -> float:
    width, height = box[2] - box[0], box[3] - box[1]
    return width * height - _shared(box, (0.0, 0.0, float(pixels[0]), float(pixels[1])))
