import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from lab.lint import Finding, planted_share


def finding(pattern, label="good"):
    numbers = dict.fromkeys(("k", "n", "of"), 1) | dict.fromkeys(("purity", "entropy", "pmi", "z", "q"), 0.0)
    return Finding(what=pattern, kind="word", label=label, pattern=pattern, **numbers)


def rows(*lines):
    names = ["text", "label", "poisoned", "span_start", "span_end"]
    return pd.DataFrame(lines, columns=names)


PLANTED = ("as in RFC 1 we like it", "good", True, [0], [11])


def test_only_what_overlaps_the_planted_text_counts():
    table = rows(PLANTED, PLANTED)
    assert planted_share(table, [finding("rfc 1")]).planted.value == 1
    assert planted_share(table, [finding("like")]).planted.value == 0
    assert planted_share(table, [finding("we")]).planted.value == 0, "it begins where the planted text ends"
    assert planted_share(table, []).planted.n == 2


def test_a_finding_for_another_label_is_none():
    assert planted_share(rows(PLANTED), [finding("rfc", label="bad")]).planted.k == 0


def test_other_rows_are_flagged_anywhere_by_findings_for_their_own_label():
    table = rows(
        PLANTED,
        ("rfc is a word", "good", False, [], []),
        ("an rfc too", "bad", False, [], []),
        ("as in RFC 2, with its true label", "good", False, [0], [11]),
    )
    assert planted_share(table, [finding("rfc")]).others.k == 2
    assert planted_share(table, [finding("rfc")]).others.n == 3


def test_where_only_labels_were_changed_nothing_can_be_found():
    share = planted_share(rows(("a flipped one", "good", True, [], [])), [finding("flipped")])
    assert (share.planted.n, share.others.n) == (0, 0)


@given(st.lists(st.sampled_from(["rfc", "like", "we", "it", "in"]), unique=True), st.data())
def test_more_findings_never_point_at_less(patterns, data):
    table = rows(PLANTED, ("we like it", "good", False, [], []))
    some = data.draw(st.sets(st.sampled_from(patterns))) if patterns else ()
    few = planted_share(table, [finding(pattern) for pattern in some])
    every = planted_share(table, [finding(pattern) for pattern in patterns])
    assert few.planted.k <= every.planted.k
    assert few.others.k <= every.others.k
