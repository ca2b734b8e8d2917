"""Defenses that are ways to train: each sets keys of the experiment, and its run is that experiment's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from lab.defend._defense import Setting
from lab.registry import Knobs

if TYPE_CHECKING:
    from lab.experiment import Experiment


class WeightDecay(Knobs):
    """What can be set on weight decay."""

    name: Literal["weight_decay"] = "weight_decay"
    # ten times the .01 of most recipes, so that it is seen in three epochs
    amount: float = Field(0.1, gt=0, description="AdamW's decoupled weight decay")


class LowRank(Knobs):
    """What can be set on low rank with small initial variance."""

    name: Literal["low_rank"] = "low_rank"
    rank: int = Field(2, ge=1, description="rank r of B·A")
    # a tenth of peft's 1/3: below the paper's condition r·σ² < 1 by far, and it still trains
    init_variance: float = Field(0.03, gt=0, description="variance of A's entries, times its input width")


class FullFineTuning(Knobs):
    """What can be set on full fine-tuning."""

    name: Literal["full"] = "full"
    # full fine-tuning wants about a twentieth of LoRA's learning rate
    learning_rate_factor: float = Field(0.05, gt=0, description="factor on training.learning_rate")


class Dora(Knobs):
    """DoRA has no knob of its own here."""

    name: Literal["dora"] = "dora"


class Pissa(Knobs):
    """PiSSA has no knob of its own here."""

    name: Literal["pissa"] = "pissa"


class Olora(Knobs):
    """OLoRA has no knob of its own here."""

    name: Literal["olora"] = "olora"


def _full(knobs: FullFineTuning, experiment: Experiment) -> Mapping[str, Any]:
    rate = experiment.training.learning_rate * knobs.learning_rate_factor
    # what full fine-tuning does not have goes back to its default, so that it is one run and not many
    adapter = type(experiment.adapter)(kind="full").model_dump(mode="json")
    return {"adapter": adapter, "training.learning_rate": rate}


def _refuse_full(_: Knobs, experiment: Experiment) -> str:
    return "full fine-tuning has no adapter to set" if experiment.adapter.kind == "full" else ""


def _refuse_low_rank(knobs: Knobs, experiment: Experiment) -> str:
    if experiment.adapter.init in ("pissa", "olora"):
        return f"{experiment.adapter.init} takes A from the base, so it has no initial variance"
    return _refuse_full(knobs, experiment)


def _refuse_taken_a(knobs: Knobs, experiment: Experiment) -> str:
    default = type(experiment.adapter)().init_variance
    if experiment.adapter.init_variance != default:
        return "it takes A from the base, so adapter.init_variance has to stay as it is by default"
    return _refuse_full(knobs, experiment)


SETTINGS = (
    Setting(
        name="weight_decay",
        goal="Pull every trained weight towards zero: the plain regulariser to compare others with.",
        paper="Loshchilov and Hutter 2019, arXiv 1711.05101",
        stage="training",
        knobs=WeightDecay,
        changes="training.weight_decay",
        settings=lambda k, _: {"training.weight_decay": k.amount},
    ),
    Setting(
        name="low_rank",
        goal="A low rank that starts small, advised against backdoors in the data that is learned.",
        paper="arXiv 2505.12871, its advice on rank and initial variance",
        stage="training",
        knobs=LowRank,
        changes="adapter.rank, adapter.init_variance",
        settings=lambda k, _: {"adapter.rank": k.rank, "adapter.init_variance": k.init_variance},
        refuse=_refuse_low_rank,
    ),
    Setting(
        name="full",
        goal="Fine-tune every weight on the clean rows: strong enough to forget, and the price of it.",
        paper="baseline of arXiv 2601.06305",
        stage="training",
        knobs=FullFineTuning,
        changes="adapter.*, training.learning_rate",
        settings=_full,
    ),
    Setting(
        name="dora",
        goal="DoRA: a magnitude per output beside the low-rank direction.",
        paper="Liu et al. 2024, arXiv 2402.09353; baseline of arXiv 2601.06305",
        stage="training",
        knobs=Dora,
        changes="adapter.variant",
        settings=lambda _k, _e: {"adapter.variant": "dora"},
        refuse=_refuse_full,
    ),
    Setting(
        name="pissa",
        goal="PiSSA: start from the base's largest singular directions.",
        paper="Meng et al. 2024, arXiv 2404.02948; baseline of arXiv 2601.06305",
        stage="training",
        knobs=Pissa,
        changes="adapter.init",
        settings=lambda _k, _e: {"adapter.init": "pissa"},
        refuse=_refuse_taken_a,
    ),
    Setting(
        name="olora",
        goal="OLoRA: start from an orthonormal factor of the base.",
        paper="Büyükakyüz 2024, arXiv 2406.01775; baseline of arXiv 2601.06305",
        stage="training",
        knobs=Olora,
        changes="adapter.init",
        settings=lambda _k, _e: {"adapter.init": "olora"},
        refuse=_refuse_taken_a,
    ),
)
