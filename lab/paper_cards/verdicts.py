"""The rule that turns a number and its interval into a verdict on a claim; written once, here.

A claim names a side: above a bound, below one, or between two. With the 95 % interval of what was measured,

* the whole interval beyond the claimed side: **disagrees**;
* a bound inside the interval or at its end, or no interval (fewer than three seeds): **cannot say**;
* the whole interval on the claimed side: **agrees**; but where the claim also has a number of the paper for
  the same quantity, and ours is further from it than the stated tolerance: **direction only**;
* nothing measured: **not run here**.

The interval of a mean over three seeds is their range, which holds the true middle three times in four and
not nineteen in twenty (`lab.stats.bootstrap_mean`): among forty claims some are on one side by chance.

A verdict is of this laboratory's models and data. It says that a claim shows here too, or does not; not that
a paper is right or wrong where it was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: In the order of a summary.
VERDICTS = ("agrees", "direction only", "disagrees", "cannot say", "not run here")
AGREES, DIRECTION, DISAGREES, CANNOT_SAY, NOT_RUN = VERDICTS

#: The rule in one paragraph, for cards and pages.
RULE = (
    "A claim agrees where the whole 95 % interval of what was measured lies on the claimed side, and, where "
    "the paper gives a number for the same quantity, ours is within the stated tolerance of it; direction "
    "only, where the side is right and the number is further off; it disagrees where the whole interval lies "
    "beyond that side; cannot say, where the interval reaches over a bound or there are too few seeds for "
    "one. The interval of a mean over three seeds is their range: it holds the true middle in three cases of "
    "four, so that some verdicts will be chance. The verdict is of the models and data used here, which are "
    "not the paper's."
)


@dataclass(frozen=True)
class Expected:
    """What a claim says of a number.

    Attributes:
        above: The number lies above this; −∞ for no lower bound.
        below: It lies below this; ∞ for no upper bound.
        paper_value: The paper's number for the same quantity, NaN where it has none.
        tolerance: How far ours may be from it, in the quantity's unit; at least 0.
    """

    above: float = -math.inf
    below: float = math.inf
    paper_value: float = math.nan
    tolerance: float = 0.0

    def __str__(self) -> str:
        low, high = (f"{bound:g}".replace("-", "−") for bound in (self.above, self.below))
        if math.isinf(self.below):
            return f"above {low}"
        return f"below {high}" if math.isinf(self.above) else f"between {low} and {high}"


def verdict(value: float, low: float, high: float, expected: Expected) -> str:
    """Judge one claim by the rule of this module.

    Args:
        value: What was measured, NaN for nothing.
        low: Lower end of its 95 % interval, NaN where there is none.
        high: Upper end.
        expected: What the claim says.

    Returns:
        One of `VERDICTS`.
    """
    if math.isnan(value):
        return NOT_RUN
    if math.isnan(low) or math.isnan(high):
        return CANNOT_SAY
    if high < expected.above or low > expected.below:
        return DISAGREES
    if not (expected.above < low and high < expected.below):
        return CANNOT_SAY
    off = abs(value - expected.paper_value)
    # a difference of shares may miss the border by a unit in the last place
    return DIRECTION if off > expected.tolerance + 1e-9 else AGREES


def reason(value: float, low: float, high: float, expected: Expected) -> str:
    """Why a claim was judged so, in a few words that end without a full stop."""
    found = verdict(value, low, high, expected)
    if found == NOT_RUN:
        return "nothing measured"
    if math.isnan(low) or math.isnan(high):
        return "fewer than three seeds have no interval"
    span = f"[{short(low)}, {short(high)}]"
    if found == DISAGREES:
        return f"{span} is wholly on the other side of “{expected}”"
    if found == CANNOT_SAY:
        return f"{span} reaches over the bound of “{expected}”"
    side = f"{span} is wholly {expected}"
    if math.isnan(expected.paper_value):
        return side
    far = "within" if found == AGREES else "more than"
    return f"{side}, and {far} {expected.tolerance:g} of the paper's {expected.paper_value:.3g}"


def short(value: float) -> str:
    """A number with two digits, without the zero before the point: "−.05", "1.00"."""
    text = f"{value:.2f}".replace("-0.00", "0.00")
    text = text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
    return text.replace("-", "−")
