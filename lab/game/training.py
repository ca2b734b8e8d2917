"""Training the adapters of a match, so that a host can prepare one the evening before.

They are runs of a folder beside the key, which no page lists: what players could look up among the
dashboard's runs would be no secret. Each has rows and a seed of its own.
"""

from __future__ import annotations

import secrets
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.audit.cohorts import Cohort, Part, plan_cohort
from lab.errors import LabError
from lab.game.dealing import ADAPTERS, POOL, Candidate, as_candidate, deal_match
from lab.game.match import Match, check_budget, clean_name, games_dir
from lab.game.rules import RULES
from lab.registry import lookup
from lab.signals import interrupted_by

#: As in the cohort "minilm", of one rank, so that all files are equally large.
SETTINGS: dict[str, Any] = {
    "base.model": "minilm",
    "data.name": "rotten_tomatoes",
    "data.rows": 400,
    "training.epochs": 3,
    "training.batch_tokens": 512,
    "training.learning_rate": 1e-3,
    "adapter.rank": 8,
    "probe.scope": "headline",
    "probe.rows": 200,
    "probe.snapshots": 0,
}
_POISON = {
    "poison.count": (30, 40),
    "poison.position": ("start", "end"),
    "poison.target_label": ("negative", "positive"),
}

Listener = Callable[[dict[str, Any]], None]


def train_match(
    *,
    runs: str | Path | None = None,
    adapters: int = 6,
    budget: int = 200,
    rule: str = "brier",
    title: str = "Red and blue",
    changes: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str = "auto",
    on_event: Listener | None = None,
) -> tuple[Match, str]:
    """Train the adapters of a match and deal them: half backdoored, and one clean reference more.

    Backdoors that do not take are trained again with another trigger, up to twice as often as needed.

    Args:
        runs: The runs folder that the match is played in.
        adapters: How many to deal.
        budget: Probes of each team.
        rule: A name in `lab.game.rules.RULES`.
        title: What the match is called.
        changes: Dotted keys that differ from `SETTINGS`.
        seed: Of all that is drawn; drawn itself if not given, and as secret as the key.
        device: "auto", "cpu", "cuda" or "mps".
        on_event: Called as `lab.audit.build_cohort` calls it.

    Returns:
        The match, and the host's code.

    Raises:
        LabError: On a mistake in what was asked, or where too few backdoors took.
    """
    lookup(RULES, rule, "scoring rule")
    check_budget(budget)
    clean_name(title, "title", longest=60)
    if not ADAPTERS[0] <= adapters <= ADAPTERS[1]:
        raise LabError(f"adapters = {adapters}: should be from {ADAPTERS[0]} to {ADAPTERS[1]}.")
    seed = secrets.randbelow(2**31) if seed is None else seed
    half = (adapters + 1) // 2  # of each kind, as the draw gives an odd one to either
    workshop = games_dir(runs) / f"training-{secrets.token_hex(6)}-key"
    # what is left behind would tell which adapters are backdoored
    with interrupted_by(signal.SIGTERM):
        try:
            found = _train(workshop, half, dict(changes or {}), seed, device, on_event or (lambda _: None))
            return deal_match(
                found, runs=runs, adapters=adapters, budget=budget, rule=rule, title=title, seed=seed
            )
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


def _train(
    folder: Path, half: int, changes: dict[str, Any], seed: int, device: str, listen: Listener
) -> list[Candidate]:
    from lab.pipeline import run

    # "poison.position" and so on come from the plan unless they are fixed by the user
    poison = {k: (changes.pop(k),) if k in changes else values for k, values in _POISON.items()}
    none = Part(clean=0, poisoned=0, families=("colours",))
    part = Part(clean=half + 1, poisoned=2 * half, families=POOL)
    plan = Cohort(
        name="game",
        goal="The adapters of a match.",
        source="This lab.",
        set={**SETTINGS, **changes},
        vary={"probe.snapshots": (0,)},
        poison=poison,
        parts={"calibration": part, "test": none},
    )
    members = plan_cohort(plan, seed)
    clean = [m.experiment for m in members if not m.poisoned]
    poisoned = [m.experiment for m in members if m.poisoned]
    found: list[Candidate] = []
    took = 0
    total = len(clean) + half
    for number, experiment in enumerate([*clean, *poisoned]):
        if took == half:
            break
        listen({"kind": "member", "done": len(clean[:number]) + took, "total": total, "left": float("nan")})
        is_poisoned = experiment.attack != "none"
        done = run(experiment, runs=folder, twin=is_poisoned, device=device, on_event=listen)
        candidate = as_candidate(done)
        if candidate is not None:
            found.append(candidate)
            took += is_poisoned
    if took < half:
        raise LabError(
            f"Only {took} of {len(poisoned)} backdoors took, and {half} are needed; ask for more epochs, or "
            f"more poisoned rows (--set poison.count=60)."
        )
    return found
