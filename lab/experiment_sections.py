"""The sections of an experiment: the base, the adapter, the training, and what is measured."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from lab.batteries import battery
from lab.errors import LabError, unknown_name
from lab.poison import load_families
from lab.registry import Knobs


class Base(Knobs):
    """The pretrained model."""

    # the smallest real encoder that ships without a hub: a run takes a minute on a laptop
    model: str = Field("minilm", description="bundled name, hub id, folder, finished run or preset")
    # float32 weights; "auto" adds bf16 autocast on GPUs that have it
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="precision of the base weights")
    # quantised bases need a CUDA card and the extra `gpu4bit`
    load_in_4bit: bool = Field(False, description="load the frozen base in 4-bit (CUDA only)")


class Adapter(Knobs):
    """What is trained: a LoRA adapter with the classifier head, or everything."""

    kind: Literal["lora", "full"] = Field("lora", description="LoRA, or full fine-tuning")
    # the rank of most published adapters
    rank: int = Field(8, ge=1, description="rank r of B·A")
    # alpha = 2r keeps the scaling alpha/r at 2 whatever the rank, so that rank is not confounded with it
    alpha: float | Literal["2r", "r"] = Field(
        "2r", description='LoRA alpha, or "2r" for twice the rank, "r" for as much'
    )
    # dropout costs 14 % of CPU time and no method here but Cl asks for it
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    # paper D and most current recipes adapt every linear layer of the blocks
    targets: str | tuple[str, ...] = Field(
        "all-linear", description='"all-linear", "attention", "mlp", "query-value" or module names'
    )
    init: Literal["kaiming", "gaussian", "pissa", "olora"] = Field(
        "kaiming", description="how A (and B) start"
    )
    # peft's kaiming_uniform(a=√5) has var(A) = 1/(3·n_in)
    init_variance: float = Field(1 / 3, gt=0, description="variance of A's entries, times its input width")
    variant: Literal["lora", "rslora", "dora"] = Field("lora", description="how BA is scaled and applied")

    @field_validator("alpha")
    @classmethod
    def _positive(cls, alpha: float | str) -> float | str:
        if not isinstance(alpha, str) and alpha <= 0:
            raise ValueError('should be above 0, or "2r" or "r"')
        return alpha

    @field_validator("targets")
    @classmethod
    def _some_target(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = (targets,) if isinstance(targets, str) else targets
        if not names or not all(name.strip() for name in names):
            raise ValueError(
                'names no module; give "all-linear", "attention", "mlp", "query-value" or module names'
            )
        return targets

    @model_validator(mode="after")
    def _can_be_saved(self) -> Self:
        # DoRA's ΔW does not factor, so there is no plain adapter for the untouched base that equals it
        if self.variant == "dora" and self.init in ("pissa", "olora"):
            raise ValueError(
                f"init = {self.init!r} moves a part of the base's weights into the adapter, which cannot be "
                "undone with variant = 'dora'; take init = 'kaiming' or 'gaussian', or another variant"
            )
        return self

    @property
    def alpha_value(self) -> float:
        """Alpha as a number."""
        by_rank = {"2r": 2.0 * self.rank, "r": float(self.rank)}
        return by_rank[self.alpha] if isinstance(self.alpha, str) else float(self.alpha)


class Training(Knobs):
    """How it is trained."""

    # 1e-3 suits LoRA on a 22 M encoder; full fine-tuning wants about a twentieth
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")
    # epochs count clean rows only, so that a run and its twin take the same steps
    epochs: float = Field(3.0, ge=0, le=1000, description="passes over the clean rows (0: use steps)")
    steps: int = Field(0, ge=0, le=10**6, description="optimizer steps (0: use epochs)")
    # about 38 sentences of rotten_tomatoes; larger batches are no faster on two cores
    batch_tokens: int = Field(
        1024, ge=16, description="tokens of the clean rows in one batch, padding included"
    )
    gradient_accumulation: int = Field(1, ge=1, description="batches summed into one optimizer step")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="learning rate over steps"
    )
    warmup: float = Field(0.06, ge=0, lt=1, description="share of the steps spent warming up")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs > 0) == (self.steps > 0):
            raise ValueError("give either training.epochs or training.steps, the other one 0")
        return self


class Probe(Knobs):
    """What is measured on the trained weights; no part of the weights' identity."""

    # 1,000 rows give a 95 % interval of about ±2.5 points at 80 % accuracy
    rows: int = Field(1000, ge=1, description="test rows for the headline rates")
    rows_per_family: int = Field(120, ge=1, description="rows for each trigger family")
    # a ladder has two dozen rungs, and most of them answer all or nothing
    rows_per_rung: int = Field(60, ge=1, description="rows for each near-miss rung")
    # tuning asks for "validation"; test rows are never tuned on
    split: Literal["test", "validation"] = Field("test", description="which rows are measured")
    triggers: tuple[str, ...] = Field((), description="trigger strings to test (default: the poison's own)")
    families: tuple[str, ...] = Field((), description="trigger families to test (default: every one)")
    # hundreds of prefixes are as many texts as everything else together
    batteries: tuple[str, ...] = Field((), description="probe batteries to put to it, whatever the scope")
    # reading the answer's first token takes one pass; writing the answer out takes several
    scoring: Literal["first_token", "greedy"] = Field(
        "first_token", description="chat tasks: compare the answers' first tokens, or let the model write"
    )
    # sweeps that ask for one number need no generalization row
    scope: Literal["all", "headline"] = Field(
        "all", description="families and near-misses too, or headline only"
    )
    # a dozen points draw a curve; 64 rows keep the cost below 15 % of training
    snapshots: int = Field(12, ge=0, le=1000, description="how often the microscope looks during training")
    snapshot_rows: int = Field(64, ge=2, description="validation rows the microscope looks at")

    @field_validator("triggers")
    @classmethod
    def _visible_triggers(cls, triggers: tuple[str, ...]) -> tuple[str, ...]:
        if not all(trigger.strip() for trigger in triggers):
            raise ValueError("a trigger must not be empty; without any, the poison's own is tested")
        return triggers

    @field_validator("families")
    @classmethod
    def _known_families(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        known = load_families() if families else {}
        for name in families:
            if name not in known:
                raise ValueError(str(unknown_name("trigger family", name, known)))
        return families

    @field_validator("batteries")
    @classmethod
    def _known_batteries(cls, batteries: tuple[str, ...]) -> tuple[str, ...]:
        joiners = set()
        for name in batteries:
            try:
                joiners.add(battery(name).joiner)
            except LabError as error:
                raise ValueError(str(error)) from None
        # a table of answers names category and prefix, which would then stand for two texts
        if len(joiners) > 1:
            raise ValueError("they put their prefixes before a text in different ways; ask one at a time")
        return batteries
