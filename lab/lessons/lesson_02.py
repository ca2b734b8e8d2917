"""The exercises of lesson 02: how strong an update is, the three parts of RoRA, and what they are worth."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lab.lessons.verdicts import Exercise, MissedError, expect, expect_any, expect_close, expect_that, shown

if TYPE_CHECKING:
    import torch

    from lab.record import Run

#: Rows, input and output width, rank of the made-up layer, and its scaling alpha/r.
_ROWS, _N_IN, _N_OUT, _RANK, _SCALING = 64, 12, 10, 3, 2.0


def _forgetting(answer: Any, on: Run | None) -> str:
    for before, after, expected in (
        ((1.0, 0.2), (0.6, 0.2), 0.5),
        ((1.0, 0.2), (1.0, 0.2), 0.0),
        ((0.9, 0.1), (0.3, 0.3), 1.0),
    ):
        where = f"Attack success and the twin's {before} before, {after} after: the share that is forgotten"
        expect_close(where, answer(before, after), expected)
    if on is None or on.base_run is None:
        return "What the twin does as well is no backdoor, before or after."
    start, end = (excess_told(run) for run in (on.base_run, on))
    came = answer(start[:2], end[:2])
    expect_close(f"What {on.id} has forgotten, from the lab's excess", came, 1 - end[2] / start[2], 1e-4)
    return f"{on.id} has forgotten {came:+.2f} of the backdoor, from the lab's excess."


def _strength(answer: Any, on: Run | None) -> str:
    import torch

    _, W, A, B = _layer()
    expected = _sigma(_SCALING * B @ A) / _sigma(W)
    expect_close("A made-up layer with scaling 2", _number(answer(W, A, B, _SCALING)), expected, 1e-4)
    expect_close("The same with scaling 5", _number(answer(W, A, B, 5.0)), 2.5 * expected, 1e-4)
    one = torch.eye(4)
    expect_close("W = 2·1, B·A = 1, scaling 3", _number(answer(2 * one, one, one, 3.0)), 1.5, 1e-4)
    if on is None:
        return "The largest singular value of the scaled update over W's."
    name, update, told = _strongest(on)
    W = _base_weights(on, [name])[name]
    came = _number(answer(W, update.right, update.left, 1.0))
    expect_close(f"{name} of {on.id}, as the lab has it", came, told, 1e-3 * told)
    return f"On {name} of {on.id} the same as the lab's: {came:.3f}."


def _dropping(answer: Any, on: Any) -> str:
    import torch

    x, W, A, B = _layer()
    frozen, update = x @ W.T, _SCALING * (x @ A.T @ B.T)
    came = _tensor("Outside of training", answer(x, W, A, B, _SCALING, 0.3, False), frozen.shape)
    expect_near("outside of training the layer gives Wx + s·BAx", came, frozen + update)
    torch.manual_seed(0)
    came = _tensor("In training", answer(x, W, A, B, _SCALING, 0.3, True), frozen.shape)
    rest = came - update  # what is left when the update's part is taken away: zeros, and Wx scaled up
    dropped = rest.abs() < 1e-4
    share = float(dropped.float().mean())
    expect_that("in training about 30 % of the frozen path's outputs are dropped, and the update's path is "
                "left whole", 0.2 < share < 0.4, f"{share:.0%} of them")  # fmt: skip
    expect_near("what is not dropped of the frozen path is divided by 1 − p", rest[~dropped],
                (frozen / 0.7)[~dropped])  # fmt: skip
    again = _tensor("Once more", answer(x, W, A, B, _SCALING, 0.3, True), frozen.shape)
    expect_that("every pass draws anew what is dropped", not torch.equal(came, again), "the same twice")
    return "The frozen path is thinned out while training, the update never, and nothing afterwards."


def _constraining(answer: Any, on: Any) -> str:
    _, W, A, B = _layer()
    for k in (1, 3, _N_OUT):
        came = _number(answer(W, A, B, k))
        told = _tr_of_the_lab(W, A, B, k)
        expect_close(f"The penalty with k = {k}, as lab.defend has it", came, told, 1e-3 * told)
    return "The same as lab.defend's Tr for three k."


def _rescaling(answer: Any, on: Run | None) -> str:
    import torch

    _, W, A, B = _layer()
    delta = _SCALING * B @ A
    expected = delta * _sigma(W) / _sigma(delta)
    came = _tensor("The rescaled update", answer(W, delta), delta.shape)
    expect_near("its largest singular value is W's, and nothing else has changed", came, expected)
    expect_near("a strong update is scaled down", _tensor("It", answer(W, 50 * delta), delta.shape), expected)
    nothing = _tensor("A zero update", answer(W, torch.zeros_like(W)), W.shape)
    expect_that("a zero update stays zero", bool((nothing == 0).all()), nothing)
    if on is None or on.parent is None:
        return "σ_max of the update is W's."
    return _rescaling_as_the_lab(answer, on)


def _rescaling_as_the_lab(answer: Any, run: Run) -> str:
    """The rescaled modules of a run that was derived with Pt."""
    before, after = run.parent.updates, run.updates  # type: ignore[union-attr]
    moved = [n for n in after if abs(after[n].norm() / before[n].norm() - 1) > 1e-3]
    weights = _base_weights(run, moved)
    for name in moved:
        came = _tensor(name, answer(weights[name], before[name].dense()), after[name].shape)
        expect_near(f"{name} is as Pt left it in {run.id}", came, after[name].dense())
    return f"The same as the lab's Pt on the {len(moved)} modules that it rescaled in {run.id}."


def _choosing(answer: Any, on: Any) -> str:
    arms = {
        "lora": (0.81, 0.80),
        "cl": (0.80, 0.47),
        "tr": (0.81, 0.85),
        "pt": (0.74, 0.05),
        "both": (0.79, 0.05),
        "same": (0.79, 0.05),
    }
    for given, expected in (
        (arms, {"lora", "cl", "both", "same"}),
        ({"a": (0.9, 0.0), "b": (0.8, 0.1)}, {"a"}),
        ({}, set()),
    ):
        came = answer(dict(given))
        expect_any(f"Expected {sorted(expected)}", came)
        expect(f"Of the arms {shown(given)}", sorted(came), sorted(expected))
    return "An arm stays unless another is at least as good in both, and better in one."


def excess_told(run: Run) -> tuple[float, float, float]:
    """Attack success, the twin's on the same rows, and the excess, as the lab measured them.

    Args:
        run: A finished run with a twin and a trigger, its own or its base's.
    """
    told = run.headline["measures"]
    own = told["poisoned"]
    twin = told["twin"]["attack_success_rate"]["value"]
    return own["attack_success_rate"]["value"], twin, own["excess_asr"]["value"]


def expect_near(what: str, came: torch.Tensor, expected: torch.Tensor) -> None:
    """Hold a tensor against what was expected, to four digits of its largest value."""
    off = float((came - expected).abs().max()) if came.numel() else 0.0
    largest = max(float(expected.abs().max()) if expected.numel() else 0.0, 1e-6)
    expect_that(what, off <= 1e-3 * largest, f"values that are up to {off:.3g} off")


def _layer() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A made-up layer: x [rows, n_in], W [n_out, n_in], A [r, n_in], B [n_out, r]."""
    import torch

    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    return normal(_ROWS, _N_IN), normal(_N_OUT, _N_IN), normal(_RANK, _N_IN), normal(_N_OUT, _RANK)


def _sigma(matrix: torch.Tensor) -> float:
    import torch

    return float(torch.linalg.matrix_norm(matrix, ord=2))


def _number(came: Any) -> float:
    expect_any("Expected a number", came)
    try:
        return float(came)
    except (TypeError, ValueError, RuntimeError):
        raise MissedError(f"Expected one number, came {shown(came)}.") from None


def _tensor(what: str, came: Any, shape: Any) -> torch.Tensor:
    import torch

    expect_any(f"{what}: expected a tensor", came)
    if not isinstance(came, torch.Tensor) or tuple(came.shape) != tuple(shape):
        raise MissedError(
            f"{what}: expected a tensor of the shape {tuple(shape)}, "
            f"came {shown(tuple(came.shape) if isinstance(came, torch.Tensor) else came)}."
        )
    return came.detach()


def _tr_of_the_lab(W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, k: int) -> float:
    """Ω of one layer, from the lab's own penalty with λ = 1."""
    import torch

    from lab.defend import DEFENSES

    U, _, Vt = torch.linalg.svd(W, full_matrices=False)
    layer = SimpleNamespace(
        lora_A={"default": SimpleNamespace(weight=A)}, lora_B={"default": SimpleNamespace(weight=B)}
    )
    subject = SimpleNamespace(layers={"layer": layer}, spectra=lambda: {"layer": SimpleNamespace(U=U, Vt=Vt)})
    defense: Any = DEFENSES["tr"]
    with defense.attach(defense.knobs(weight=1.0, k=k), subject) as penalty:
        return float(penalty())


def _strongest(run: Run) -> tuple[str, Any, float]:
    """The module with the largest strength, its update, and the strength."""
    table = run.spectral_summary.sort_values("strength", ascending=False)
    name = str(table["module"].iloc[0])
    return name, run.updates[name], float(table["strength"].iloc[0])


def _base_weights(run: Run, modules: list[str]) -> dict[str, torch.Tensor]:
    from lab.bases import find_base
    from lab.saved_updates import read_weights

    return read_weights(find_base(run.experiment.base.model, run.path.parent).folder, modules)


_PAPER = "2601.06305"

EXERCISES = (
    Exercise(
        name="02.1",
        goal="say how much of a backdoor was forgotten",
        paper=f"{_PAPER}; excess over a clean twin is this lab's",
        lesson="02",
        checked="What the twin does as well is no backdoor, before or after.",
        hint="Take the twin's rate away first, on both sides. What is left after, over what was there "
        "before, has stayed; the rest is forgotten.",
        test=_forgetting,
    ),
    Exercise(
        name="02.2",
        goal="measure the strength of an update beside its weight",
        paper=f"{_PAPER}, σ_max(ΔW)/σ_max(W)",
        lesson="02",
        checked="The largest singular value of the scaled update over W's.",
        hint="`torch.linalg.matrix_norm(…, ord=2)` is the largest singular value. The update is B·A with its "
        "scaling: leave that out, and a larger alpha would change nothing.",
        test=_strength,
    ),
    Exercise(
        name="02.3",
        goal="drop out the frozen path (Cl)",
        paper=f"{_PAPER}, clean-strengthened regularisation",
        lesson="02",
        checked="The frozen path is thinned out while training, the update never, and nothing afterwards.",
        hint="Compute the two paths apart, and put `torch.nn.functional.dropout` with its argument "
        "`training` around one of them.",
        test=_dropping,
    ),
    Exercise(
        name="02.4",
        goal="penalise what lies in W's strongest directions (Tr)",
        paper=f"{_PAPER}, Eq. 10-11",
        lesson="02",
        checked="Both sides count: outputs by U, inputs by V.",
        hint="`torch.linalg.svd` gives U, S and V transposed, already sorted. Columns of U go with B, "
        "rows of V transposed with A; square and sum the products.",
        test=_constraining,
    ),
    Exercise(
        name="02.5",
        goal="rescale an update to its weight's strength (Pt)",
        paper=f"{_PAPER}, Eq. 12",
        lesson="02",
        checked="One positive factor for the whole matrix; a zero update stays zero.",
        hint="The factor is one ratio of two largest singular values. Take care of an update that is zero.",
        test=_rescaling,
    ),
    Exercise(
        name="02.6",
        goal="choose the arms that no other arm beats",
        paper="this lab",
        lesson="02",
        checked="An arm stays unless another is at least as good in both, and better in one.",
        hint="For every arm look for another that is nowhere worse and somewhere better. Two arms that "
        "are equal do not beat each other.",
        test=_choosing,
    ),
)
