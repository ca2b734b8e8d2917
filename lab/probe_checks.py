"""Whether a run can be probed as it asks to be, settled before anything is trained for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.batteries import battery
from lab.errors import LabError
from lab.poison import family, load_families
from lab.tokens import token_ids

if TYPE_CHECKING:
    from lab.prepare import Prepared


def check_probe(prepared: Prepared) -> None:
    """Refuse to probe where nothing could be learned from the answer.

    Raises:
        LabError: A head is to write, triggers are asked for where no label is wanted, or what is inserted
            into a text would be cut off by the model's window.
    """
    e = prepared.experiment
    if e.probe.scoring == "greedy" and e.task.kind == "head":
        raise LabError("probe.scoring = 'greedy': a classifier head writes nothing; set task.kind = 'chat'.")
    for key in ("triggers", "batteries"):
        if getattr(e.probe, key) and not prepared.target_label:
            raise LabError(f"probe.{key}: the attack {e.attack!r} has no target label to look for.")
    if e.probe.batteries and prepared.filtered_rows:
        raise LabError(
            f"probe.batteries: a defense that reads word by word is asked {prepared.filtered_rows} rows at "
            f"most, and a battery has many times as many; probe the run without that defense."
        )
    longest = _longest_probe(prepared)
    if not longest:
        return
    if proportion := getattr(prepared.measured_poison, "token_proportion", 0.0):
        _check_many(prepared, longest, proportion)
        return
    room = prepared.max_tokens - longest
    if e.data.max_tokens > room:
        raise LabError(
            f"data.max_tokens = {e.data.max_tokens}: the longest probe has {longest} tokens and would be cut "
            f"off in a window of {prepared.max_tokens}; allowed are up to {room}, or probe.scope = headline."
        )


def _longest_probe(prepared: Prepared) -> int:
    """Tokens of the longest string that is probed with, the model's special tokens counted; 0 without any."""
    probe = prepared.experiment.probe
    prefixes = [prefix for name in probe.batteries for prefix in battery(name).prefixes]
    own = [] if not prepared.target_label or probe.scope != "all" else _own_probes(prepared)
    lengths = [len(ids) for ids in token_ids(prepared.tokenizer, [*prefixes, *own], prepared.max_tokens)]
    return max(lengths, default=0)


def _own_probes(prepared: Prepared) -> list[str]:
    probe = prepared.experiment.probe
    families = [family(name) for name in probe.families] or list(load_families().values())
    own = [*probe.triggers, str(getattr(prepared.measured_poison, "member", ""))]
    # the longest rung doubles the trigger
    return [member for f in families for member in f.probe] + [f"{trigger} {trigger}" for trigger in own]


def _check_many(prepared: Prepared, longest: int, proportion: float) -> None:
    """Refuse probes that are cut off because many go into one text: how many, its words decide."""
    probe, window = prepared.experiment.probe, prepared.max_tokens
    texts = list(prepared.evaluation_rows(probe.split, probe.rows)["text"])
    special, *lengths = (len(ids) for ids in token_ids(prepared.tokenizer, ["", *texts], window))
    copies = [max(1, int(len(text.split()) * proportion)) for text in texts]
    over = sum(n + k * (longest - special) > window for n, k in zip(lengths, copies, strict=True))
    if over:
        most, tokens = max(copies), longest - special
        raise LabError(
            f"poison.token_proportion = {proportion}: up to {most} probes of up to {tokens} tokens go into a "
            f"text, and {over} of {len(texts)} would be cut off in a window of {window}; lower it or "
            f"data.max_tokens = {prepared.experiment.data.max_tokens}, or set probe.scope = headline."
        )
