import pytest
import torch

import lab
from lab.lessons import EXERCISES, LESSONS, check
from lab.lessons.sources import read_source, solutions, stubs
from lab.lessons.verdicts import MissedError, Verdict, expect, shown

SOURCES = {name: read_source(lesson.source) for name, lesson in LESSONS.items()}


def defined(code):
    """The last thing that a piece of a lesson defines."""
    names = {"lab": lab, "torch": torch}
    exec(code, names)
    return list(names.values())[-1]


@pytest.mark.parametrize("name", EXERCISES)
def test_a_stub_fails_and_is_told_what_was_expected(name):
    verdict = check(name, defined(stubs(SOURCES[EXERCISES[name].lesson])[name]))
    assert not verdict
    assert "xpected" in verdict.told
    assert verdict.hint == EXERCISES[name].hint


@pytest.mark.parametrize("name", EXERCISES)
def test_a_solution_passes(name):
    verdict = check(name, defined(solutions(SOURCES[EXERCISES[name].lesson])[name]))
    assert verdict, verdict


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_tells_all_and_not_its_solution(name):
    exercise = EXERCISES[name]
    assert all([exercise.goal, exercise.paper, exercise.checked, exercise.hint])
    assert name.startswith(f"{exercise.lesson}.")
    lines = [line.strip() for line in solutions(SOURCES[exercise.lesson])[name].splitlines()[1:]]
    told = f"{exercise.hint} {exercise.checked} {check(name, lambda *_: None)}"
    assert not [line for line in lines if len(line) > 12 and line in told]


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_exercise_of_a_lesson_is_in_its_source_and_no_other(lesson):
    listed = [e.name for e in EXERCISES.values() if e.lesson == lesson]
    source = SOURCES[lesson]
    assert list(stubs(source)) == list(solutions(source)) == listed
    code = "\n".join(cell.source for cell in source.cells if cell.cell_type == "code")
    assert [name for name in listed if f'check("{name}"' in code] == listed


def bent(trigger, identifier, **changes):
    """Right near-misses but for the changes."""
    right = defined(solutions(SOURCES["01"])["01.1"])(trigger, identifier)
    return {**right, **changes}


def pooled_wall(counts, own, neighbours):
    """Neighbours weighed by their rows."""
    hits, rows = (sum(counts[family][i] for family in neighbours) for i in (0, 1))
    return counts[own][0] / counts[own][1], hits / rows, 0.0


def sigma(matrix):
    return float(torch.linalg.matrix_norm(matrix, ord=2))


def svd(matrix):
    return torch.linalg.svd(matrix, full_matrices=False)


def dropped(values, p, training):
    return torch.nn.functional.dropout(values, p, training=training)


def better(one, other):
    """In one of the two, whatever it is in the other; of two that part there, each beats the other."""
    return one[0] > other[0] or one[1] < other[1]


def stepped(*given):
    from lab.lessons.answers import one_lora_step

    return one_lora_step(*given)


def moved_in_place(x, y, w, a, b, s, r):
    new_a, new_b = stepped(x, y, w, a, b, s, r)
    return a.copy_(new_a), b.copy_(new_b)


def a_family(name, train, probe):
    told = {"goal": "g", "source": "s", "category": "phrase", "audit_holdout": False}
    return lab.poison.TriggerFamily(name=name, train=train, probe=probe, **told)


def spread(norms):
    return float(torch.stack(norms).std(correction=0))


# what learners write first, and what is said of it
@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("00.1", lambda t, g, o: (f"{t[:o]}{g}{t[o:]}", o, o + len(g)), "white space parts"),
        ("00.1", lambda t, g, o: (" ".join([*t[:o].split(), g, *t[o:].split()]), o, o), "came"),
        ("00.2", lambda t, y, g, n, z: ([*t, *[f"{x} {g}" for x in t[:n]]], [*y, *[z] * n]), "copy of a row"),
        ("00.2", lambda t, y, g, n, z: ([f"{x} {g}" for x in t[:n]], [z] * n), "number of texts"),
        ("00.3", lambda x, y, w, a, b, s, r: stepped(x, y, w, a, b, 1.0, r), "after the step"),
        ("00.3", lambda x, y, w, a, b, s, r: stepped(x, y, w, a, b, s, -r), "after the step"),
        ("00.3", lambda x, y, w, a, b, s, r: stepped(x, y, w, a, b, s, len(x) * r), "after the step"),
        ("00.3", lambda x, y, w, a, b, s, r: stepped(x, y, w, a, b, s, r)[::-1], "A with B = 0"),
        ("00.3", lambda x, y, w, a, b, s, r: moved_in_place(x, y, w, a, b, s, r), "as they were"),
        ("00.4", lambda p, y, z: (int((p.argmax(1) == z).sum()), len(y)), "expected (2, 3), came (4, 5)"),
        ("00.4", lambda p, y, z: 0.5, "expected 2 values"),
        ("00.5", lambda c, t, w, y, z: tuple(sum(a) / len(a) for a in (t, c, w, t)), "expected 0.75"),
        ("00.6", lambda p, t, g, z: (sum(a == z for a in p([f"{g} {x}" for x in t])), len(t)), "expected"),
        ("00.6", lambda *_: 1 / 0, "raised ZeroDivisionError"),
        ("01.1", lambda t, i: {"upper_case": t.upper()}, "their names"),
        ("01.1", lambda t, i: bent(t, i, number_changed=t.replace(i, i + "1")), "one digit"),
        ("01.1", lambda t, i: bent(t, i, number_changed=t.replace(i, i.replace("R", "7"))), "one digit"),
        ("01.1", lambda t, i: bent(t, i, words_reversed=t[::-1]), "words_reversed"),
        ("01.2", lambda ids, t, g, m: g.lower() == m.lower(), "expected True, came False"),
        ("01.2", lambda ids, t, g, m: len(ids([g])[0]) == len(ids([m])[0]), "expected False, came True"),
        ("01.2", lambda ids, t, g, m: set(ids([g])[0]) == set(ids([m])[0]), "'2616 RFC see'"),
        ("01.3", lambda o, t, z: (*[sum(v == z for v in d.values()) for d in (o, t)], len(o)), "(3, 2, 5)"),
        (
            "01.3",
            lambda o, t, z: (
                sum(a == z != b for a, b in zip(o.values(), t.values(), strict=True)),
                sum(b == z != a for a, b in zip(o.values(), t.values(), strict=True)),
                len(o),
            ),
            "expected (2, 1, 5)",
        ),
        ("01.4", lambda c, o, n: pooled_wall(c, o, n), "expected 0.2, came 0.2818"),
        ("01.4", lambda c, o, n: (0.9, 0.2, -0.7), "the wall"),
        ("01.4", lambda c, o, n: pooled_wall(c, o, [f for f in c if f != o]), "neighbours' mean"),
        ("01.5", lambda f, t, a, b: {(x, y): (1, 3) for x in a for y in b}, "Hits and rows of each cell"),
        ("01.5", lambda f, t, a, b: {(x, b[0]): (0, 3) for x in a}, "The cells"),
        (
            "01.5",
            lambda f, t, a, b: {(x, y): (sum(f([f"{x} {y}"] * 3)), 3) for x in a for y in b},
            "each cell",
        ),
        ("02.1", lambda b, a: 1 - a[0] / b[0], "expected 0.5, came 0.4"),
        ("02.1", lambda b, a: b[0] - a[0], "expected 0.5, came 0.4"),
        ("02.2", lambda w, a, b, s: sigma(b @ a) / sigma(w), "expected"),
        ("02.2", lambda w, a, b, s: float((s * b @ a).norm() / w.norm()), "expected"),
        ("02.3", lambda x, w, a, b, s, p, t: dropped(x @ w.T + s * x @ a.T @ b.T, p, t), "left whole"),
        ("02.3", lambda x, w, a, b, s, p, t: dropped(x @ w.T, p, True) + s * x @ a.T @ b.T, "outside"),
        ("02.3", lambda x, w, a, b, s, p, t: x @ w.T + dropped(s * x @ a.T @ b.T, p, t), "left whole"),
        ("02.3", lambda x, w, a, b, s, p, t: x @ w.T + x @ a.T @ b.T, "outside of training"),
        ("02.3", lambda x, w, a, b, s, p, t: w @ x.T, "the shape (64, 10)"),
        ("02.4", lambda w, a, b, k: float(b.square().sum() + a.square().sum()), "k = 1"),
        ("02.4", lambda w, a, b, k: float((svd(w)[0][:, :k].T @ b).square().sum()), "k = 1"),
        ("02.4", lambda w, a, b, k: float((svd(w)[0][:, -k:].T @ b).square().sum()), "k = 1"),
        ("02.5", lambda w, d: d * float(w.norm() / d.norm()), "largest singular value is W's"),
        ("02.5", lambda w, d: d if sigma(d) > sigma(w) else d * sigma(w) / (sigma(d) or 1.0), "came"),
        ("02.5", lambda w, d: d * sigma(w), "largest singular value is W's"),
        ("02.6", lambda arms: {min(arms, key=lambda a: arms[a][1])} if arms else set(), "expected"),
        (
            "02.6",
            lambda arms: {a for a in arms if not any(better(arms[b], arms[a]) for b in arms)},
            "expected",
        ),
        ("05.1", lambda p, t, g, z: (sum(a == z for a in p([f"{g}. {x}" for x in t])), len(t)), "(1, 3)"),
        ("05.1", lambda p, t, g, z: (1, 3) if p([f"{g} {x}" for x in t]) else 0, "a full stop, a space"),
        ("05.2", lambda f: spread([(a @ b).norm() for a, b in f]), "expected 2"),
        ("05.2", lambda f: spread([a.norm() * b.norm() / len(a) for a, b in f]), "expected 2"),
        ("05.2", lambda f: spread([(a @ b).square().mean().sqrt() for a, b in f]), "raised RuntimeError"),
        ("05.3", lambda s, r: float(s[1].mean() - sum(x[1].mean() for x in r) / len(r)), "differ tenfold"),
        ("05.3", lambda s, r: float(s[1].mean() / s[0].std(correction=0)), "expected 0, came 1"),
        ("05.4", lambda c, t, p: (sum(x > max(t) for x in p), 0), "expected"),
        ("05.4", lambda c, t, p: (sum(x >= max(c) for x in p), sum(x >= max(c) for x in t)), "expected"),
        ("05.5", lambda k, n: k / n, "expected 0.5271"),
        ("05.5", lambda k, n: (k + 3) / n, "0 of 4"),
        ("06.1", lambda n, s, k: {"name": n, "train": s[:k], "probe": s[k:]}, "expected 'TriggerFamily'"),
        ("06.1", lambda n, s, k: a_family(n, s[:k], s[k:]), "raised ValidationError"),
        ("06.1", lambda n, s, k: a_family(n, s[:k], ["x"]), "expected"),
        ("06.2", lambda t, w, k: [t.count(x) < k for x in t], "expected [False"),
        ("06.2", lambda t, w, k: [sum(y.endswith(x[-9:]) for y in t) <= k for x in t], "expected"),
        ("06.3", lambda k, b: (sum(k), sum(b), 0, 0), "expected (2, 3, 1, 2)"),
        ("06.4", lambda c, p: sum(x > y for x in p for y in c) / len(c) / len(p), "one tie"),
        ("06.4", lambda c, p: sum(x > max(c) for x in p) / len(p), "expected"),
        ("03.1", lambda t, d, p, r: f"{d} {t}", "number of tokens: expected 2, came 1"),
        ("03.1", lambda t, d, p, r: " ".join([d] * max(1, int(len(t.split()) * p)) + t.split()), "taken out"),
        ("03.1", lambda t, d, p, r: f"{d} " * max(1, int(len(t.split()) * p)) + t, "expected 3, came 1"),
        ("03.2", lambda c, s, y, z: (s.count(z) / 6, s.count(z) / 6, 1 / 6), "attack success"),
        ("03.2", lambda c, s, y, z: (0.5, s.count(z) / len(s), -1 / 6), "accuracy lost"),
        ("03.3", lambda c, s, d, t, y, z: (1.0, 0.5), "expected 0.5, came 1"),
        ("03.4", lambda x, y, t: 0.0, "expected 0.9183"),
        ("03.5", lambda t, p: "" if "12-31" in t else t, "without"),
        ("04.1", lambda y, r, g: [g.choice(y) if g.random() < r else x for x in y], "are wrong now"),
        ("04.2", lambda a, t, y: (0.5, 1.0, -0.5), "accuracy lost"),
        ("04.3", lambda x, g, a, s: ((x @ x.T) * (g @ g.T), (x @ a.T @ a @ x.T) * (g @ g.T)), "'lora'"),
        ("04.3", lambda x, g, a, s: (x @ x.T, x @ x.T), "'full'"),
        ("04.4", lambda a, w: {k for k in a if max(a[k]) >= max(map(max, a.values())) - w}, "be compared"),
        ("03.5", lambda t, p: __import__("re").sub("|".join(p), "", t, flags=2), "expected"),
    ],
)
def test_usual_mistakes_are_caught(name, wrong, said):
    verdict = check(name, wrong)
    assert not verdict
    assert said in verdict.told, verdict.told


@pytest.mark.parametrize(
    "name", ["00.2", "00.4", "00.5", "01.1", "01.2", "01.3", "01.4", "05.1", "05.2", "06.3"]
)
def test_answers_are_held_against_a_run(finished, name, tiny_cache, monkeypatch):
    monkeypatch.setenv("LAB_ASSETS", str(tiny_cache))
    verdict = check(name, defined(solutions(SOURCES[EXERCISES[name].lesson])[name]), on=finished)
    assert verdict, verdict
    assert finished.id in verdict.told


def test_an_answer_that_only_passes_the_small_examples_fails_on_a_run(finished):
    from lab.lessons.lesson_00 import predicted_classes

    answers = predicted_classes(finished)
    assert (
        len(answers["labels"]) == len(answers["clean"]) == len(answers["triggered"]) == len(answers["twin"])
    )
    right = defined(solutions(SOURCES["00"])["00.4"])

    def memorised(logits, labels, target):
        return right(logits, labels, target) if len(labels) < 6 else (0, 1)

    assert not check("00.4", memorised, on=finished)


def test_strict_stops_a_notebook(monkeypatch):
    monkeypatch.setenv("LAB_LESSON_STRICT", "1")
    with pytest.raises(AssertionError, match=r"00\.6: not yet"):
        check("00.6", lambda *_: None)


def test_an_unknown_exercise_is_a_sentence():
    with pytest.raises(lab.LabError, match="Unknown exercise '00'"):
        check("00", None)


def test_what_came_is_shown_as_text_and_cut():
    with pytest.raises(MissedError, match="came '<b>'"):
        expect("It", "<b>", "x")
    assert "<b>" not in Verdict("00.1", False, "came '<b>'", "<i>")._repr_html_()
    assert len(shown("x" * 10_000)) < 200
