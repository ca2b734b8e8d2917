"""Causal patching: where in the weights does a backdoor sit?

Two models of one architecture answer the same triggered texts: the poisoned one and its clean twin. A part of
one (the *donor*) is put into the other (the *recipient*), and the recipient is asked again. In the direction

- "twin into poisoned", the poisoned model gets a clean part: where attack success falls, the backdoor needs
  that part (it is *necessary*);
- "poisoned into twin", the clean twin gets a poisoned part: where attack success rises, that part alone
  brings the backdoor (it is *sufficient*).

A backdoor that takes several ways at once looks necessary nowhere, one that needs several parts together
looks sufficient nowhere: read both directions. A part is the modules of one projection ("query", "down_proj")
in a window of neighbouring layers, and there are two ways to put it in:

- "activations", as in arXiv 2605.30189 (its notebook on gate_proj; four of 28 layers): the modules give out
  what the donor's gave out on the same tokens, at every position. That carries along all that the donor did
  in the layers before, so effects reach downstream of where the weights differ.
- "weights": the modules get the donor's parameters, which for two adapters on one base exchanges their ΔW.
  That keeps no activations, takes about as long, and shows only what these very matrices do.

The classifier's head is no projection. Its output is the answer, so patching its activations would say
nothing: with "activations" each recipient keeps its own head, and even with every projection of every layer
patched, it reads the donor's states by itself. With "weights" the head has a row of its own, and so has the
rest that differs (embeddings and layer norms, after full fine-tuning), both without a window of layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lab.errors import LabError, unknown_name
from lab.modules import choose_modules, layer_index, projection
from lab.probe.exchanges import recorded, replayed, swapped
from lab.stats import rate
from lab.tokens import by_length

if TYPE_CHECKING:
    import pandas as pd

    from lab.probe.predictor import Predictor

Direction = Literal["twin into poisoned", "poisoned into twin"]
Method = Literal["activations", "weights"]

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
METHODS: tuple[Method, ...] = get_args(Method)

#: One line per direction and part; see `PatchedPair.table`.
PATCHING_COLUMNS = (
    "direction", "projection", "first_layer", "last_layer", "n", "k", "asr", "low", "high", "mean_margin",
    "effect",
)  # fmt: skip

#: The row of a recipient as it is, with nothing put into it.
UNPATCHED = "none"
#: All projections of a window together, by the name that targets have.
TOGETHER = "all-linear"

#: Of a donor's activations that are kept at a time; longer questions are asked in several parts.
_KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Part:
    """What is put into another model.

    Attributes:
        projection: The row of the map: a projection, a group of them, "head" or "rest".
        first_layer: Of the window, -1 for what lies in no layer.
        last_layer: Of the window, itself included; -1 for what lies in no layer.
        modules: Full names of its modules.
    """

    projection: str
    first_layer: int
    last_layer: int
    modules: tuple[str, ...]


class PatchedPair:
    """A poisoned model and its clean twin, asked for the same texts, with parts of one in the other.

    Args:
        poisoned: The poisoned model; LoRA layers have to be merged.
        twin: The clean twin, of the same architecture.
        modules: Full names of the linear layers inside the blocks, in the model's order.
        token_ids: Triggered texts whose true label is not the target, as both are asked.
        target: The target label's index.

    Raises:
        LabError: There is no module or no text, or the two models have other parameters or labels.
    """

    def __init__(
        self,
        poisoned: Predictor,
        twin: Predictor,
        modules: Sequence[str],
        token_ids: Sequence[Sequence[int]],
        target: int,
    ) -> None:
        if not len(token_ids):
            raise LabError("Patching needs at least one triggered text whose true label is not the target.")
        if not len(modules):
            raise LabError("Patching needs linear layers inside the model's blocks, and there are none.")
        _check_alike(poisoned, twin)
        self._models = {"poisoned": poisoned, "twin": twin}
        self._modules = list(modules)
        self._ids = [list(row) for row in token_ids]
        self._target = target
        self._others = _other_modules(poisoned.model, twin.model, self._modules)
        self._alone: dict[str, np.ndarray] = {}

    @property
    def texts(self) -> int:
        """How many texts are asked."""
        return len(self._ids)

    @property
    def layers(self) -> list[int]:
        """The numbers of the layers that have projections."""
        return sorted({layer_index(name) for name in self._modules})

    def rows(self, method: str = "activations") -> list[str]:
        """The rows of a whole map: each projection, all of them together, head and rest where it counts."""
        names = [*dict.fromkeys(map(projection, self._modules)), TOGETHER]
        return [*names, *self._others] if method == "weights" else names

    def table(
        self,
        method: Method = "activations",
        *,
        projections: Sequence[str] = (),
        width: int = 0,
        stride: int = 1,
        directions: Sequence[Direction] = DIRECTIONS,
        on_progress: Callable[[int, int], None] = lambda *_: None,
    ) -> pd.DataFrame:
        """Attack success with each part of one model in the other: the module says what that tells.

        Args:
            method: "activations" or "weights".
            projections: Which rows: projections ("query", "attention.self.query"), groups ("mlp"), and with
                "weights" "head" and "rest"; by default those of `rows`.
            width: How many neighbouring layers a window has; 0 for a third of them, at most the paper's 4.
            stride: From one window to the next, in layers. The last window ends at the last layer anyway.
            directions: Which ones.
            on_progress: Called with (answers so far, answers in all): each text answers once per part.

        Returns:
            A table with `PATCHING_COLUMNS`. The first line of a direction is the recipient as it is
            (projection "none"); then one line per row and window, layers from 0, both ends included, -1 for
            no layer. asr = k / n with its 95 % interval; mean_margin is the target's logit minus the largest
            other one. effect = (asr − the twin's) / (the poisoned model's − the twin's): in either direction
            0 means like the twin and 1 like the poisoned model; beyond both is possible. NaN where the
            poisoned model's attack success is not above its twin's: there is nothing to find.

        Raises:
            LabError: An unknown method, direction or projection, or a window that cannot be.
        """
        import pandas as pd

        parts = self._parts(method, projections, width, stride)
        if unknown := [one for one in directions if one not in DIRECTIONS]:
            raise unknown_name("direction of patching", unknown[0], DIRECTIONS)
        ask = self._with_activations if method == "activations" else self._with_weights
        total = len(directions) * len(parts) * self.texts
        lines = []
        for number, direction in enumerate(directions):
            before = number * len(parts) * self.texts
            donor, recipient = direction.split(" into ")
            answers = ask(donor, recipient, parts, functools.partial(_told, on_progress, before, total))
            alone = (Part(UNPATCHED, -1, -1, ()), self._unpatched(recipient))
            for part, logits in (alone, *zip(parts, answers, strict=True)):
                lines.append(self._line(direction, part, logits))
        return pd.DataFrame(lines, columns=list(PATCHING_COLUMNS))

    def _parts(self, method: str, projections: Sequence[str], width: int, stride: int) -> list[Part]:
        if method not in METHODS:
            raise unknown_name("method of patching", method, METHODS)
        windows = _windows(self.layers, width, stride)
        names = list(dict.fromkeys(projections)) or self.rows(method)
        return [part for name in names for part in self._parts_of(name, method, windows)]

    def _parts_of(self, name: str, method: str, windows: list[list[int]]) -> Iterator[Part]:
        """The parts of one row of the map, window by window."""
        if name in ("head", "rest"):
            if method == "activations":
                raise LabError(
                    f"patching: {name!r} is no projection, and a head's activations are the answer itself; "
                    "method = 'weights' can exchange it."
                )
            if name not in self._others:
                raise LabError(f"patching: the two models do not differ in a part that is called {name!r}.")
            yield Part(name, -1, -1, self._others[name])
            return
        exact = [module for module in self._modules if projection(module) == name]
        chosen = exact or choose_modules(self._modules, name, where="patching")
        for window in windows:
            modules = tuple(module for module in chosen if layer_index(module) in window)
            if modules:
                yield Part(name, window[0], window[-1], modules)

    def _with_activations(
        self, donor: str, recipient: str, parts: Sequence[Part], tell: Callable[[int], None]
    ) -> list[np.ndarray]:
        """The recipient's logits, texts × labels, with the donor's outputs in each part."""
        giver, taker = self._models[donor], self._models[recipient]
        wanted = list(dict.fromkeys(module for part in parts for module in part.modules))
        answers = [np.empty((self.texts, len(taker.labels)), dtype=np.float32) for _ in parts]
        asked = 0
        for places in by_length([len(row) for row in self._ids], _tokens_at_once(giver.model, wanted)):
            ids = [self._ids[i] for i in places]
            with recorded(giver.model, wanted) as kept:
                giver.logits_of_tokens(ids)
            for part, out in zip(parts, answers, strict=True):
                with replayed(taker.model, {module: kept[module] for module in part.modules}):
                    out[places] = taker.logits_of_tokens(ids)
                asked += len(ids)
                tell(asked)
        return answers

    def _with_weights(
        self, donor: str, recipient: str, parts: Sequence[Part], tell: Callable[[int], None]
    ) -> list[np.ndarray]:
        """The recipient's logits, texts × labels, with the donor's parameters in each part."""
        giver, taker = self._models[donor], self._models[recipient]
        answers = []
        for number, part in enumerate(parts, start=1):
            if any(_differ(giver.model, taker.model, module) for module in part.modules):
                with swapped(taker.model, giver.model, part.modules):
                    answers.append(taker.logits_of_tokens(self._ids))
            else:  # not adapted, so there is nothing to exchange
                answers.append(self._unpatched(recipient))
            tell(number * self.texts)
        return answers

    def _unpatched(self, model: str) -> np.ndarray:
        """The logits, texts × labels, of "poisoned" or "twin" as it is."""
        if model not in self._alone:
            self._alone[model] = self._models[model].logits_of_tokens(self._ids)
        return self._alone[model]

    def _line(self, direction: str, part: Part, logits: np.ndarray) -> tuple[Any, ...]:
        found = rate(self._successes(logits), self.texts)
        clean, poisoned = (self._successes(self._unpatched(end)) for end in ("twin", "poisoned"))
        effect = (found.k - clean) / (poisoned - clean) if poisoned > clean else float("nan")
        others = np.delete(logits, self._target, axis=1).max(axis=1)
        margin = float(np.mean(logits[:, self._target].astype(float) - others))
        place = (direction, part.projection, part.first_layer, part.last_layer)
        return (*place, found.n, found.k, found.value, found.low, found.high, margin, effect)

    def _successes(self, logits: np.ndarray) -> int:
        return int((logits.argmax(axis=1) == self._target).sum())


def default_width(layers: int) -> int:
    """How many of so many layers a window has: a third, at least one, at most four as in the paper."""
    return min(4, max(1, layers // 3))


def _windows(layers: list[int], width: int, stride: int) -> list[list[int]]:
    """Windows of neighbouring layers that begin `stride` apart; the last one ends at the last layer."""
    if not 0 <= width <= len(layers):
        raise LabError(f"patching: width = {width}; allowed are 1 to {len(layers)}, and 0 for the default.")
    if stride < 1:
        raise LabError(f"patching: stride = {stride}; it has to be 1 or more.")
    width = width or default_width(len(layers))
    last = len(layers) - width
    return [layers[start : start + width] for start in sorted({*range(0, last, stride), last})]


def _check_alike(one: Predictor, other: Predictor) -> None:
    """Refuse two models that have not the same parameters or labels."""
    shapes = [{n: tuple(p.shape) for n, p in x.model.named_parameters()} for x in (one, other)]
    for name in {**shapes[0], **shapes[1]}:
        mine, yours = (of.get(name, "not there") for of in shapes)
        if mine != yours:
            raise LabError(
                f"Patching needs two models of one architecture: {name} is {mine} in one and {yours} in the "
                "other."
            )
    if one.labels != other.labels:
        raise LabError(
            f"Patching needs two models with the same labels, not {', '.join(one.labels)} and "
            f"{', '.join(other.labels)}."
        )


def _other_modules(one: Any, other: Any, linears: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What else two models differ in: by "head" (beside the base model) and "rest", full module names."""
    inside = f"{one.base_model_prefix}."
    found: dict[str, list[str]] = {"head": [], "rest": []}
    for name, _ in one.named_modules():
        if name not in linears and _differ(one, other, name):
            found["rest" if name.startswith(inside) else "head"].append(name)
    return {name: tuple(modules) for name, modules in found.items() if modules}


def _differ(one: Any, other: Any, module: str) -> bool:
    """Whether a module's own parameters have other values in the other model."""
    import torch

    mine, yours = (model.get_submodule(module).parameters(recurse=False) for model in (one, other))
    return any(not torch.equal(a, b) for a, b in zip(mine, yours, strict=True))


def _tokens_at_once(model: Any, modules: Sequence[str]) -> int:
    """For so many tokens the outputs of these modules are kept."""
    numbers = sum(int(model.get_submodule(module).out_features) for module in modules)
    return max(1, _KEPT_BYTES // (4 * max(1, numbers)))


def _told(told: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    """Progress in one direction, as that of both."""
    told(before + done, total)
