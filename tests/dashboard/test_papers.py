import sys
import time

import pytest
from apps import healthy, named, said

from lab.paper_cards import load_claims, paper_names


def html_of(app):
    return " ".join(str(element.proto.body) for element in app.get("html"))


@pytest.mark.parametrize("name", ["token-generalization", "rora", "ssti", "lora-vs-full"])
def test_an_empty_store_shows_every_claim_with_its_verdict(page, tmp_path, name):
    app = healthy(page("papers", tmp_path / "none", paper=name))
    shown = html_of(app)
    assert shown.count('class="lab-claim"') == len(load_claims(name).claims)
    assert shown.count("<h3>") == len(load_claims(name).claims)
    assert "lab-verdict" in shown
    assert len(app.get("plotly_chart")) == 1
    assert load_claims(name).paper.says[:30] in said(app)


def test_an_unknown_paper_in_a_link_shows_the_first(page, tmp_path):
    app = healthy(page("papers", tmp_path / "none", paper="<b>nonsense</b>"))
    assert "Token-Level Generalization" in said(app)


def test_one_run_and_many(page, one, many):
    healthy(page("papers", one))
    healthy(page("papers", many, paper="lora-vs-full"))


def test_a_button_opens_a_cell_on_the_bench(page, tmp_path, monkeypatch):
    import streamlit as st

    went = []
    monkeypatch.setattr(st, "switch_page", lambda file, query_params=None: went.append((file, query_params)))
    app = page("papers", tmp_path / "none", paper="lora-vs-full")
    named(app.button, "lora-vs-full-labelflip on the Bench").click().run()
    file, params = went[-1]
    assert file == "bench.py"
    assert params["preset"] == "label-flip"
    assert "data.rows=600" in params["set"]


def test_every_source_has_a_cell_that_the_bench_understands(monkeypatch):
    import lab.paths
    from lab.presets import load_preset

    monkeypatch.syspath_prepend(str(lab.paths.dashboard_dir()))
    import links
    import paper_sources

    for name in paper_names():
        claims = load_claims(name)
        for claim in claims.claims:
            if claim.quantity is None or not claims.sources[claim.quantity.source].runs:
                continue
            source = claims.sources[claim.quantity.source]
            link = paper_sources.bench_link(source, dict(claim.quantity.of))
            params = {k: v if isinstance(v, list) else [v] for k, v in links.to_params(link).items()}
            again = links.from_params(params)
            opened = load_preset(again.preset)[0].with_(**again.changes)
            assert opened.data.rows == source.plan().experiment.data.rows
            assert again.changes == link.changes


def test_text_from_outside_is_shown_and_not_obeyed(monkeypatch):
    import lab.paths

    monkeypatch.syspath_prepend(str(lab.paths.dashboard_dir()))
    import paper_claims

    evil = "<img src=x onerror=alert(1)>\u202e"
    line = dict.fromkeys(
        ["says", "verdict", "paper", "place", "measured", "expected", "note", "reason", "held", "machine"],
        evil,
    )
    line |= {"own": True, "value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "seeds": evil}
    shown = paper_claims.claim_html(line)
    assert "<img" not in shown
    assert "\u202e" not in shown


def test_a_card_over_two_thousand_runs_is_read_fast_and_without_torch(many, monkeypatch):
    import pandas as pd

    from lab import list_runs
    from lab.paper_cards.reproducing import card_of

    table = list_runs(many)
    table = pd.concat([table.assign(id=table["id"] + f"-{i}") for i in range(13)], ignore_index=True)
    assert len(table) > 2000
    before = set(sys.modules)
    since = time.process_time()
    for name in paper_names():
        card_of(load_claims(name), table, many)
    assert time.process_time() - since < 4
    assert "torch" not in set(sys.modules) - before
