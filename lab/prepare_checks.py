"""What an experiment must fit before anything is trained: labels, edits, and a visible trigger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lab.bases import BaseSource
from lab.corpus import Corpus
from lab.defend import weight_edits
from lab.errors import LabError
from lab.experiment import Experiment
from lab.modules import choose_modules

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from lab.prepare import Prepared


def check_edits(experiment: Experiment, base: BaseSource) -> None:
    """Refuse a weight edit of modules or layers that are not there before anything is trained for it."""
    from lab.saved_updates import block_matrices

    edits: list[Any] = [knobs for _, knobs in weight_edits(experiment)]
    if experiment.task.kind == "chat" and any(knobs.name == "refit_head" for knobs in edits):
        raise LabError("The defense 'refit_head' refits a classifier's head, which a chat task has not.")
    if edits and experiment.base.load_in_4bit:
        raise LabError(f"The defense {edits[0].name!r} edits weights, which a 4-bit base does not let it.")
    modules = block_matrices(base.folder) if edits else []
    adapted = modules
    if experiment.adapter.kind == "lora" and edits:
        adapted = choose_modules(modules, experiment.adapter.targets, where="adapter.targets")
    for knobs in edits:
        wanted = _as_stored(getattr(knobs, "modules", "all-linear"), modules)
        layers = getattr(knobs, "layers", 0)
        choose_modules(
            adapted if hasattr(knobs, "modules") else modules,
            wanted,
            where=f"defense {knobs.name}",
            last_layers=layers,
        )


def _as_stored(names: str | tuple[str, ...], modules: list[str]) -> list[str]:
    """Names without the model's own prefix ("bert."), which a checkpoint's files may leave out."""
    stored = []
    for name in [names] if isinstance(names, str) else names:
        tails = [name.split(".", i)[-1] for i in range(name.count(".") + 1)]
        stored.append(next((t for t in tails if any(f".{t}." in f".{m}." for m in modules)), name))
    return stored


def check_labels(experiment: Experiment, base: BaseSource, corpus: Corpus) -> None:
    """Refuse a target that the data do not have, and data whose labels are not the base's."""
    target = experiment.target_label
    if corpus.answers and experiment.task.kind == "head":
        raise LabError(f"data.name: {corpus.name} holds written answers; they need task.kind = 'chat'.")
    if target and target not in corpus.labels:
        raise LabError(
            f"poison.target_label = {target!r}: {corpus.name} has no such label; "
            f"it has {', '.join(corpus.labels)}."
        )
    if base.run and base.labels != corpus.labels:
        raise LabError(
            f"base.model = {base.run!r} tells {len(base.labels)} labels apart ({', '.join(base.labels)}), "
            f"but {corpus.name} has {len(corpus.labels)} ({', '.join(corpus.labels)}); take data with the "
            f"base's labels, in their order."
        )


def check_triggers(prepared: Prepared) -> None:
    """Refuse a trigger that the model cannot see: cut off by its window, or invisible to its tokenizer."""
    kept, inserted = prepared.surviving_triggers()
    if kept < inserted:
        raise LabError(
            f"data.max_tokens = {prepared.experiment.data.max_tokens}: {kept} of {inserted} insertions "
            f"survive the model's window of {prepared.max_tokens} tokens; lower data.max_tokens until all do."
        )
    poison: Any = prepared.experiment.poison
    if inserted and adds_no_token(prepared.tokenizer, _inserted_pieces(prepared.planted)):
        base, member = prepared.experiment.base.model, getattr(poison, "member", "any")
        what = f"poison.attack = {poison.attack!r}" if member == "any" else f"poison.member = {member!r}"
        raise LabError(
            f"{what} adds no token: the tokenizer of {base} drops it, so the model could "
            f"never see it; choose another trigger, or a base that keeps it, such as smollm2."
        )


def adds_no_token(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str]) -> bool:
    """Whether none of these strings leaves a token of its own."""
    ids = tokenizer([f"a {piece.strip()} a" for piece in pieces], add_special_tokens=False)["input_ids"]
    plain = tokenizer("a a", add_special_tokens=False)["input_ids"]
    return all(i == plain for i in ids)


def _inserted_pieces(rows: pd.DataFrame, limit: int = 50) -> list[str]:
    """Some of the inserted strings."""
    poisoned = rows[rows["poisoned"]].head(limit)
    return [
        text[start:end]
        for text, starts, ends in zip(
            poisoned["text"], poisoned["span_start"], poisoned["span_end"], strict=True
        )
        for start, end in zip(starts, ends, strict=True)
    ]
