import pytest

import lab
from lab.lessons import EXERCISES, LESSONS, check
from lab.lessons.sources import read_source, solutions, stubs
from lab.lessons.verdicts import MissedError, Verdict, expect, shown

SOURCES = {name: read_source(lesson.source) for name, lesson in LESSONS.items()}


def defined(code):
    """The last thing that a piece of a lesson defines."""
    names = {"lab": lab}
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


# what learners write first, and what is said of it
@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("00.1", lambda t, g, o: (f"{t[:o]}{g}{t[o:]}", o, o + len(g)), "white space parts"),
        ("00.1", lambda t, g, o: (" ".join([*t[:o].split(), g, *t[o:].split()]), o, o), "came"),
        ("00.2", lambda t, y, g, n, z: ([*t, *[f"{x} {g}" for x in t[:n]]], [*y, *[z] * n]), "copy of a row"),
        ("00.2", lambda t, y, g, n, z: ([f"{x} {g}" for x in t[:n]], [z] * n), "number of texts"),
        ("00.3", lambda p, y, z: (int((p.argmax(1) == z).sum()), len(y)), "expected (2, 3), came (4, 5)"),
        ("00.3", lambda p, y, z: 0.5, "expected 2 values"),
        ("00.4", lambda c, t, w, y, z: tuple(sum(a) / len(a) for a in (t, c, w, t)), "expected 0.75"),
        ("00.5", lambda p, t, g, z: (sum(a == z for a in p([f"{g} {x}" for x in t])), len(t)), "expected"),
        ("00.5", lambda *_: 1 / 0, "raised ZeroDivisionError"),
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


def test_answers_are_held_against_a_run(finished):
    for name in ("00.2", "00.3", "00.4"):
        verdict = check(name, defined(solutions(SOURCES["00"])[name]), on=finished)
        assert verdict, verdict
        assert finished.id in verdict.told


def test_an_answer_that_only_passes_the_small_examples_fails_on_a_run(finished):
    from lab.lessons.lesson_00 import predicted_classes

    answers = predicted_classes(finished)
    assert (
        len(answers["labels"]) == len(answers["clean"]) == len(answers["triggered"]) == len(answers["twin"])
    )
    right = defined(solutions(SOURCES["00"])["00.3"])

    def memorised(logits, labels, target):
        return right(logits, labels, target) if len(labels) < 6 else (0, 1)

    assert not check("00.3", memorised, on=finished)


def test_strict_stops_a_notebook(monkeypatch):
    monkeypatch.setenv("LAB_LESSON_STRICT", "1")
    with pytest.raises(AssertionError, match=r"00\.5: not yet"):
        check("00.5", lambda *_: None)


def test_an_unknown_exercise_is_a_sentence():
    with pytest.raises(lab.LabError, match="Unknown exercise '00'"):
        check("00", None)


def test_what_came_is_shown_as_text_and_cut():
    with pytest.raises(MissedError, match="came '<b>'"):
        expect("It", "<b>", "x")
    assert "<b>" not in Verdict("00.1", False, "came '<b>'", "<i>")._repr_html_()
    assert len(shown("x" * 10_000)) < 200
