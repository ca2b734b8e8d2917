"""Building a cohort: train what is planned, seal the adapters, write the key, and say how far it got.

Every member is an ordinary run of the store, so that finished ones are read and a build that was interrupted
goes on where it was. A member that fails is recorded with its reason and does not stop the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.audit.cohorts import PARTS, Cohort, Member, find_cohort, plan_cohort
from lab.audit.sealing import (
    key_path,
    open_key,
    read_key,
    seal_adapter,
    sealed_card,
    sealed_folder,
    update_key,
)
from lab.errors import LabError, MissingAssetError, sentence_of, unknown_name
from lab.experiment import content_hash
from lab.paths import kept_folder

if TYPE_CHECKING:
    import pandas as pd

    from lab.record import Run

#: A backdoor took where most triggered rows go to the target ...
TOOK_ASR = 0.5
#: ... and clearly more of them than without the trigger.
TOOK_MARGIN = 0.2

Listener = Callable[[dict[str, Any]], None]


def cohort_folder(cohort: Cohort, folder: str | Path | None = None) -> Path:
    """The folder of a cohort's sealed adapters: the one that is given, else `cohorts/<name>`."""
    return kept_folder(folder).absolute() if folder else Path.cwd() / "cohorts" / cohort.name


def build_cohort(
    name: str | Path = "minilm",
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    runs: str | Path | None = None,
    part: str = "",
    limit: int = 0,
    device: str = "auto",
    on_event: Listener | None = None,
) -> pd.DataFrame:
    """Build a cohort, or what is missing of it. Two processes may build its two parts.

    The seed is as secret as the key: with cohort and seed, anybody could train the members again and compare
    the weights.

    Args:
        name: A cohort's name or file.
        seed: Of the plan.
        folder: Where the sealed adapters go, `cohorts/<name>` if not given; the key goes to `<folder>-key`.
        runs: The runs folder, in which the truth stands too.
        part: "calibration" or "test"; "" for both.
        limit: Only the first so many members of that; 0 for all.
        device: "auto", "cpu", "cuda" or "mps".
        on_event: Called with every event of every run, and before each member with `{"kind": "member",
            "done", "total", "left"}`; left is in seconds, NaN while unknown.

    Returns:
        The key's lines of the members that were asked for, as `key_table` has them.

    Raises:
        LabError: On a mistake in what was asked, or where the folder holds another cohort.
    """
    cohort = find_cohort(name)
    members = plan_cohort(cohort, seed)
    if part and part not in PARTS:
        raise unknown_name("part of a cohort", part, PARTS)
    if limit < 0:
        raise LabError(f"limit = {limit}: allowed is a number from 0 up; 0 builds all.")
    place = cohort_folder(cohort, folder)
    key = open_key(place, _head(cohort, seed), [member_facts(m) for m in members])
    asked = [(i, m) for i, m in zip(key["adapters"], members, strict=True) if part in ("", m.part)][
        : limit or None
    ]
    listen = on_event or (lambda _: None)
    missing = [(i, m) for i, m in asked if not _is_sealed(place, key["adapters"][i], i)]
    start, before = time.perf_counter(), len(asked) - len(missing)
    for number, (adapter, member) in enumerate(missing):
        spent = (time.perf_counter() - start) / number if number else math.nan
        left = spent * (len(missing) - number)
        listen({"kind": "member", "done": before + number, "total": len(asked), "left": left})
        _build_member(place, adapter, member, runs, device, listen)
    table = key_table(place)
    return table[table["id"].isin([i for i, _ in asked])].reset_index(drop=True)


def member_facts(member: Member) -> dict[str, Any]:
    """The truth of a member, as the key has it; "" and 0 where there is no backdoor."""
    e, poison = member.experiment, member.experiment.poison
    return {
        "part": member.part,
        "poisoned": member.poisoned,
        "group": member.group,
        **{name: getattr(poison, name, "") for name in ("family", "member", "position", "target_label")},
        "count": getattr(poison, "count", 0),
        "rank": e.adapter.rank,
        "learning_rate": e.training.learning_rate,
        "seed": e.seed,
    }


def key_table(folder: str | Path) -> pd.DataFrame:
    """The key of a cohort, one line per adapter.

    Args:
        folder: The cohort's folder.

    Returns:
        A table: id, part, poisoned, group, family, member, position, target_label, count, rank,
        learning_rate, seed, state ("planned", "sealed" or "failed"), reason, run, took (True or False for
        poisoned ones that are built, else None), and each headline measure as `kind`, `kind.n`, `kind.low`,
        `kind.high`, a share in [0, 1] with its 95 % interval.

    Raises:
        LabError: There is no key, or it is damaged.
    """
    return _table(read_key(Path(folder))["adapters"])


def show_cohort(name: str | Path, folder: str | Path | None = None) -> pd.DataFrame:
    """A cohort's key where it has been begun, else what is planned, with "" for ids; as `key_table`.

    Raises:
        LabError: The cohort is unknown, or its key is damaged.
    """
    cohort = find_cohort(name)
    place = cohort_folder(cohort, folder)
    if folder or key_path(place).exists():
        return key_table(place)
    planned = [{**member_facts(m), "state": "planned", "reason": ""} for m in plan_cohort(cohort)]
    return _table(dict(enumerate(planned))).assign(id="")


def _table(adapters: Mapping[Any, dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    from lab.store import headline_columns

    lines = []
    for adapter, entry in adapters.items():
        plain = {name: value for name, value in entry.items() if name != "measures"}
        rates = headline_columns({"poisoned": entry.get("measures", {})})
        lines.append({"id": adapter, **plain, **rates})
    table = pd.DataFrame(lines)
    known = [column for column in ("run", "took") if column in table]
    return table.assign(**{c: None for c in ("run", "took") if c not in known})  # known of none yet


def summarise_key(table: pd.DataFrame) -> pd.DataFrame:
    """How far a cohort got: a line for the clean adapters and for each trigger family of either part.

    Args:
        table: As `key_table` returns it.

    Returns:
        Columns part, family ("clean" for no backdoor), planned, sealed, failed, took (NaN for clean ones);
        in the order of the parts.
    """
    import pandas as pd

    lines = []
    for part in PARTS:
        of_part = table[table["part"] == part]
        for family, group in of_part.groupby("family"):
            states = group["state"].value_counts()
            line = {"part": part, "family": family or "clean", "planned": len(group)}
            line |= {state: int(states.get(state, 0)) for state in ("sealed", "failed")}
            lines.append({**line, "took": int((group["took"] == True).sum()) if family else None})  # noqa: E712
    return pd.DataFrame(lines, columns=["part", "family", "planned", "sealed", "failed", "took"])


def has_taken(measures: dict[str, Any]) -> bool:
    """Whether a backdoor took, by the headline measures of its run.

    It did if its attack success rate is at least `TOOK_ASR`, and by `TOOK_MARGIN` above the rate at which
    the same rows go to the target without the trigger.
    """
    success = measures["attack_success_rate"]["value"]
    return success >= TOOK_ASR and success - measures["untriggered_target_rate"]["value"] >= TOOK_MARGIN


def _head(cohort: Cohort, seed: int) -> dict[str, Any]:
    plan = content_hash(cohort.model_dump(mode="json", exclude={"goal", "source"}))
    return {"cohort": cohort.name, "seed": seed, "plan": plan}


def _is_sealed(place: Path, entry: dict[str, Any], adapter: str) -> bool:
    return entry["state"] == "sealed" and sealed_folder(place, adapter).is_dir()


def _build_member(
    place: Path, adapter: str, member: Member, runs: Any, device: str, listen: Listener
) -> None:
    from lab.pipeline import run

    try:
        done = run(member.experiment, runs=runs, twin=False, device=device, on_event=listen)
        seal_adapter(done.path / "adapter", sealed_folder(place, adapter), _card(done))
        measures = done.headline["measures"]["poisoned"]
    except MissingAssetError:
        raise  # every member would fail alike
    except Exception as error:
        update_key(place, adapter, state="failed", reason=sentence_of(error))
        return
    took = has_taken(measures) if member.poisoned else None
    update_key(place, adapter, state="sealed", reason="", run=done.id, measures=measures, took=took)


def _card(run: Run) -> str:
    from lab.train.models import base_name

    return sealed_card(base_name(run.experiment.base.model), run.record["dataset"]["name"], run.labels)


def failure_reasons(table: pd.DataFrame) -> list[str]:
    """The reasons for which members failed, each once; of a `key_table`."""
    return list(dict.fromkeys(table.loc[table["state"] == "failed", "reason"]))
