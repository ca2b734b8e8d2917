"""Poisons but for backdoors, as tables that an experiment takes: strategies that several tests draw from."""

from hypothesis import strategies as st

OTHER_POISONS = (
    st.builds(lambda share: {"attack": "label_flip", "rate": share}, st.floats(0.001, 0.9)),
    st.builds(
        lambda items, year, then: {
            "attack": "spurious_tokens", "items": items,
            "then": [{"family": "generated_dates", "first_year": year}] * then,
        },
        st.lists(st.sampled_from(["a", "b, c", '"', "2024-01-05", "\\n x"]), min_size=1, max_size=3),
        st.integers(1, 2600),
        st.integers(0, 2),
    ),
    st.just({"attack": "multi_trigger", "count": 3, "words": ["a", "1"]}),
    st.just({"attack": "style", "rate": 0.1, "lines": False}),
    st.builds(
        lambda p, share: {"attack": "spurious_tokens", "token_proportion": p, "text_proportion": share},
        st.floats(0, 1),
        st.floats(0.01, 1),
    ),
)  # fmt: skip
