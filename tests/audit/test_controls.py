import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from lab.audit.controls import SUGGESTED, reference_runs

LINE = st.fixed_dictionaries(
    {
        "state": st.sampled_from(["finished", "killed"]),
        "base.model": st.sampled_from(["tiny", "minilm"]),
        "data.name": st.sampled_from(["toy", "imdb"]),
        "adapter.kind": st.sampled_from(["lora", "full"]),
        "adapter.rank": st.sampled_from([4, 8, float("nan")]),
        "poison.attack": st.sampled_from(["none", "backdoor"]),
        "twin": st.sampled_from(["", "run-0", "run-1"]),
    }
)


@given(st.lists(LINE, max_size=20), st.sampled_from(["", "tiny"]), st.sampled_from([0, 4]))
def test_what_is_suggested_is_clean_alike_and_neither_the_adapter_nor_its_twin(lines, base, rank):
    table = pd.DataFrame([{"id": f"run-{i}", **line} for i, line in enumerate(lines)])
    offered, suggested = reference_runs(table, base, rank=rank, data="toy", but="run-2")
    assert set(suggested) <= set(offered)
    assert len(suggested) <= SUGGESTED
    assert len(set(offered)) == len(offered)
    own = next((line["twin"] for line in lines[2:3]), None)
    for name in offered:
        line = lines[int(name.removeprefix("run-"))]
        assert name != "run-2"
        assert (line["state"], line["adapter.kind"]) == ("finished", "lora")
        assert base in ("", line["base.model"])
    for name in suggested:
        line = lines[int(name.removeprefix("run-"))]
        assert (line["poison.attack"], line["adapter.rank"], line["data.name"]) == ("none", rank, "toy")
        assert name != own
    # the best come first
    assert offered[: len(suggested)] == suggested or own in offered


def test_a_store_without_runs_offers_none():
    assert reference_runs(pd.DataFrame(columns=["id", "state"]), "tiny", rank=4) == ([], [])
