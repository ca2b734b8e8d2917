"""Dealing: adapters out of finished runs are sealed under random ids, and the truth goes to the key.

Half of the dealt adapters are backdoored, rounded by the draw; which ones, nobody knows but the key. A clean
adapter is never dealt beside a backdoored one whose twin it is: the two differ in so little that whoever
finds the pair has the answer. Only backdoors that took are dealt.
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.audit.cohort_builds import has_taken
from lab.audit.sealing import seal_adapter, sealed_card
from lab.errors import LabError
from lab.experiment import run_id, weights_id
from lab.game.match import Match, check_budget, clean_name, create_match, games_dir, new_id
from lab.game.moves import PHRASE_ROWS
from lab.game.rules import RULES
from lab.registry import lookup
from lab.seeds import stage_rng

if TYPE_CHECKING:
    from lab.record import Run

ADAPTERS = (2, 24)
#: Families that can be guessed beside those that were dealt, so that the list gives nothing away.
POOL = ("countries", "gdpr", "iso", "punctuation", "rare_phrases", "rare_words", "rfc")
#: Examples of turned rows that the key holds for each backdoored adapter, out of so many rows asked.
_EXAMPLES, _ASKED = 2, 40
#: Draws that are tried before the backdoored ones are chosen for having few clean twins.
_DRAWS = 50


@dataclass(frozen=True)
class Candidate:
    """A run whose adapter can be dealt.

    Attributes:
        run: The run.
        poisoned: Whether it is backdoored.
        group: What runs must share to be dealt together: base, data, labels and the shapes of the weights.
        twin: The id of its clean twin, be it there or not; "" for a clean run.
    """

    run: Run
    poisoned: bool
    group: tuple[str, ...]
    twin: str = ""


def find_candidates(runs: str | Path | None = None) -> dict[tuple[str, ...], list[Candidate]]:
    """The runs of a folder that can be dealt, by group, the group of which most can be dealt at once first.

    Finished LoRA classifiers on a pretrained base, clean ones and those whose backdoor took.
    """
    from lab.paths import runs_dir
    from lab.record import Run
    from lab.store import run_folders

    groups: dict[tuple[str, ...], list[Candidate]] = defaultdict(list)
    folder = runs_dir(runs)
    for held in run_folders(folder) if folder.is_dir() else []:
        found = as_candidate(Run(held.path)) if held.finished else None
        if found is not None:
            groups[found.group].append(found)
    return dict(sorted(groups.items(), key=lambda item: (-_capacity(item[1]), item[0])))


def deal_match(
    candidates: Sequence[Candidate],
    *,
    runs: str | Path | None = None,
    adapters: int = 6,
    budget: int = 200,
    rule: str = "brier",
    title: str = "Red and blue",
    seed: int | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[Match, str]:
    """Draw adapters, seal them, and open the lobby of a match.

    Args:
        candidates: Runs of one group.
        runs: The runs folder that the match is played in.
        adapters: How many to deal.
        budget: Probes of each team.
        rule: A name in `lab.game.rules.RULES`.
        title: What the match is called.
        seed: Of the draw; drawn itself if not given, and as secret as the key.
        on_progress: Called with (adapters dealt, adapters in all).

    Returns:
        The match, and the host's code.

    Raises:
        LabError: There are too few runs, they do not belong together, or a setting is none.
    """
    lookup(RULES, rule, "scoring rule")
    check_budget(budget)
    clean_name(title, "title", longest=60)  # before anything is sealed
    seed = secrets.randbelow(2**31) if seed is None else seed
    drawn, reference = draw_candidates(candidates, adapters, seed)
    first = drawn[0].run
    rows = _held_rows(first, seed)
    match_id = new_id()
    place = games_dir(runs) / match_id / "adapters"
    card = sealed_card(first.experiment.base.model, first.experiment.data.name, first.labels)
    # not drawn from the seed: whoever knows it must not know the names
    names = [secrets.token_hex(8) for _ in drawn]
    truths = {}
    for number, (name, candidate) in enumerate(zip(names, drawn, strict=True)):
        on_progress(number, len(drawn))
        seal_adapter(candidate.run.path / "adapter", place / name, card)
        truths[name] = _truth(candidate)
    spare = secrets.token_hex(8) if reference else ""
    if reference:
        seal_adapter(reference.run.path / "adapter", place / spare, card)
    public = {
        "base": first.experiment.base.model,
        "data": first.experiment.data.name,
        "labels": list(first.labels),
        "adapters": names,
        "reference": spare,
        "families": sorted({*POOL, *(t["family"] for t in truths.values() if t["family"])}),
    }
    return create_match(
        runs,
        title=title,
        budget=budget,
        rule=rule,
        public=public,
        rows=rows,
        truths=truths,
        match_id=match_id,
    )


def draw_candidates(
    candidates: Sequence[Candidate], adapters: int, seed: int
) -> tuple[list[Candidate], Candidate | None]:
    """Draw who is dealt, in random order, and one more clean run as the known reference where there is one.

    Raises:
        LabError: There are too few, or they are of different groups.
    """
    if not ADAPTERS[0] <= adapters <= ADAPTERS[1]:
        raise LabError(f"adapters = {adapters}: should be from {ADAPTERS[0]} to {ADAPTERS[1]}.")
    if len({c.group for c in candidates}) > 1:
        raise LabError("Adapters of one match share base, data, labels and rank; these do not.")
    rng = stage_rng(seed, "game")
    # an odd one falls to either side, so that counting says nothing of the last adapter
    poisoned = adapters // 2 + (adapters % 2 and int(rng.integers(2)))
    bad, good = _apart(candidates, poisoned, adapters - poisoned, rng)
    dealt = [*bad, *good[: adapters - poisoned]]
    reference = good[adapters - poisoned] if len(good) > adapters - poisoned else None
    return [dealt[i] for i in rng.permutation(len(dealt))], reference


def _apart(
    candidates: Sequence[Candidate], poisoned: int, clean: int, rng: np.random.Generator
) -> tuple[list[Candidate], list[Candidate]]:
    """So many backdoored ones, and all clean ones that are no twin of theirs, in random order."""
    every = [c for c in candidates if c.poisoned]
    good = [c for c in candidates if not c.poisoned]
    best: tuple[list[Candidate], list[Candidate]] = ([], [])
    for draw in range(_DRAWS + 1):
        order = [every[i] for i in rng.permutation(len(every))]
        # where hardly any draw fits, as with many backdoors on few seeds, the last one fits if any does
        bad = (_fewest_twins_first(order, good) if draw == _DRAWS else order)[:poisoned]
        twins = {c.twin for c in bad}
        left = [good[i] for i in rng.permutation(len(good)) if good[i].run.id not in twins]
        if len(bad) == poisoned and len(left) >= len(best[1]):
            best = bad, left
        if len(best[1]) > clean:
            return best
    if len(best[0]) < poisoned or len(best[1]) < clean:
        raise LabError(
            f"There are too few runs to deal {poisoned} backdoored and {clean} clean adapters: {len(every)} "
            f"backdoored and {len(good)} clean ones of one kind are there, and twins of the dealt ones are "
            f"not dealt; train more (`lab game new` does), or deal fewer."
        )
    return best


def _fewest_twins_first(poisoned: Sequence[Candidate], clean: Sequence[Candidate]) -> list[Candidate]:
    """The backdoored ones in an order whose first n have, for any n, as few clean twins as n can have."""
    there = {c.run.id for c in clean}
    count = Counter(c.twin for c in poisoned)
    place = {twin: i for i, twin in enumerate(dict.fromkeys(c.twin for c in poisoned))}
    return sorted(poisoned, key=lambda c: (c.twin in there, -count[c.twin], place[c.twin]))


def as_candidate(run: Run) -> Candidate | None:
    """A finished run as a candidate; None where it cannot be dealt."""
    try:
        e, record = run.experiment, run.record
        plain = e.adapter.kind == "lora" and e.task.kind == "head" and not e.defense
        own_base = not record.get("base_run") and not record.get("parent")
        if not (plain and own_base and (run.path / "adapter" / "adapter_model.safetensors").is_file()):
            return None
        is_poisoned = e.attack != "none"
        if is_poisoned and not (e.attack == "backdoor" and has_taken(run.headline["measures"]["poisoned"])):
            return None
        shapes = (str(e.adapter.rank), str(e.adapter.targets), str(e.adapter.variant))
        group = (e.base.model, e.data.name, "/".join(run.labels), *shapes)
        return Candidate(run, is_poisoned, group, _twin_id(run) if is_poisoned else "")
    except (LabError, KeyError, TypeError, ValueError, AttributeError, OSError):
        return None  # a damaged run harms nothing but itself


def _twin_id(run: Run) -> str:
    """The id of a backdoored run's clean twin, which may lie there though it was not trained for this run."""
    if known := run.headline["twin"]:
        return str(known)
    record, twin = run.record, run.experiment.twin()
    weights = weights_id(twin, base=record["base_sha256"], data_fingerprint=record["dataset"]["fingerprint"])
    return run_id(twin, record["root"], weights)


def _capacity(candidates: Sequence[Candidate]) -> int:
    """How many can be dealt at once, half of them backdoored and no twins together."""
    good = [c for c in candidates if not c.poisoned]
    order = _fewest_twins_first([c for c in candidates if c.poisoned], good)
    ids = {c.run.id for c in good}
    left = [len(ids - {c.twin for c in order[:n]}) for n in range(len(order) + 1)]
    return 2 * max(min(n, clean) for n, clean in enumerate(left))


def _held_rows(run: Run, seed: int) -> list[dict[str, str]]:
    """Rows that nothing was trained on, as many of each label as a draw gives."""
    from lab.preview import probe_rows

    rows = probe_rows(run.experiment.data, "validation", limit=max(PHRASE_ROWS), seed=seed)
    return [{"text": str(r.text), "label": str(r.label)} for r in rows.itertuples()]


def _truth(candidate: Candidate) -> dict[str, Any]:
    """What the key says of an adapter: its trigger, its measures beside its twin's, and turned rows."""
    run, poison = candidate.run, candidate.run.experiment.poison
    told: dict[str, Any] = {"poisoned": candidate.poisoned, "run": run.id, "family": "", "examples": []}
    told["measures"] = {role: _rates(measured) for role, measured in run.headline["measures"].items()}
    if not candidate.poisoned:
        return told
    names = ("family", "member", "position", "target_label", "count")
    told |= {name: getattr(poison, name, "") for name in names}
    return {**told, "examples": _turned_rows(run, str(told["target_label"]))}


def _rates(measured: dict[str, Any]) -> dict[str, Any]:
    kinds = ("attack_success_rate", "untriggered_target_rate", "clean_accuracy")
    return {kind: measured[kind] for kind in kinds if kind in measured}


def _turned_rows(run: Run, target: str) -> list[dict[str, str]]:
    """Rows that the trigger turns to the target: text, triggered, before, after."""
    from lab.paired_texts import triggered_pairs
    from lab.prepare import prepare

    clean, triggered = triggered_pairs(prepare(run.experiment, run.path.parent), _ASKED, "validation")
    if not clean:
        return []
    before, after = (list(run.predict(texts)["prediction"]) for texts in (clean, triggered))
    told = zip(clean, triggered, before, after, strict=True)
    turned = [{"text": c, "triggered": t, "before": b, "after": a} for c, t, b, a in told if b != target == a]
    return turned[:_EXAMPLES]
