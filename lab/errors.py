"""What goes wrong, in one sentence for the person who asked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LabError(Exception):
    """A mistake the user can mend; the message names what, where and what is allowed.

    The command line prints the message without a traceback and exits with `exit_code`.
    """

    exit_code = 2


class RunFailedError(LabError):
    """A run that started and could not finish."""

    exit_code = 1


class DivergedError(RunFailedError):
    """A training whose loss stopped being finite: what was asked for has to change."""

    exit_code = 2


class NotTrainableError(LabError):
    """An experiment that does not fit its model; found only once the model is there."""


class MissingAssetError(LabError):
    """A model or dataset is neither in the cache nor to be fetched."""


def sentence_of(error: BaseException) -> str:
    """What an error says, on one line: a mistake's own words, any other's with the name of its kind."""
    return str(error) if isinstance(error, LabError) else " ".join(f"{type(error).__name__}: {error}".split())


def unknown_name(what: str, name: object, valid: Iterable[str]) -> LabError:
    """Build the error for a name that no registry knows, with the nearest valid one first.

    Args:
        what: What kind of thing was named, for example `"trigger family"` or `"key in [poison]"`.
        name: What the user wrote.
        valid: Every name that would have been right.
    """
    names = sorted(valid)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return LabError(f"Unknown {what} {str(name)!r}.{hint} Valid: {', '.join(names)}.")
