import html
import re
import shutil
from html.parser import HTMLParser

import pytest

import lab
from lab import page
from lab.errors import LabError
from lab.markup import escaped
from lab.page import Html
from lab.report import report_html, write_report
from lab.report_comparison import compared
from lab.store import RunFolder
from lab.tables import DIFFERENCES

VOID = {"meta", "br", "line", "circle", "input"}


class Reader(HTMLParser):
    """Reads a page as a browser would, and notes what could go wrong in it."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.ids, self.addresses = [], [], [], []
        self.tags, self.classes, self.scripts, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.tags.append(tag)
        self.classes += (known.get("class") or "").split()
        self.addresses += [known[name] for name in ("src", "href", "action", "data") if name in known]
        self.ids += [known["id"]] if "id" in known else []
        assert not [name for name in known if name.startswith("on")], "a handler in an attribute"
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.words.append(data)


def without_plotly(text):
    """The page without the library's own text, which is full of markup and addresses."""
    from plotly.offline import get_plotlyjs

    return text.replace(get_plotlyjs(), "")


@pytest.fixture(scope="module")
def one(finished):
    text = report_html([finished])
    return text, Reader(text)


@pytest.fixture(scope="module")
def three(finished, tiny_module, tmp_path_factory):
    runs = tmp_path_factory.mktemp("three")
    full = lab.run(
        tiny_module,
        {"adapter.kind": "full", "training.learning_rate": 1e-3, "probe.scope": "headline"},
        runs=runs,
        twin=False,
    )
    text = report_html([finished, full, finished.twin, full])
    return text, Reader(text)


@pytest.fixture
def copy(finished, tmp_path):
    """The run in a folder of its own, to damage."""
    shutil.copytree(finished.path.parent, tmp_path / "copy")
    return lab.load_run(finished.id, tmp_path / "copy")


def test_it_asks_the_network_for_nothing(one, three):
    for text, read in (one, three):
        assert all(address.startswith("#") for address in read.addresses)
        own = without_plotly(text)
        assert not re.search(r"https?://|url\(|@import|<link|<img|<iframe", own)
        assert "default-src 'none'" in own
        assert not re.search(r"(connect|default|script)-src[^;]*(https?|\*)", own)


def test_plotly_is_there_once(one, three):
    from plotly.offline import get_plotlyjs

    for text, read in (one, three):
        assert text.count(get_plotlyjs()) == 1
        assert read.classes.count("plot") >= 4
        assert "modeBarButtons: [[" in text, "the default buttons send figures to a service"


def test_a_page_without_figures_has_no_plotly(finished):
    plain = page.document("Nothing", page.heading("Nothing", 1), page.paragraph("<b>nothing</b>"))
    assert len(plain) < 20_000
    assert "<script" not in plain
    assert "&lt;b&gt;nothing&lt;/b&gt;" in plain


def test_headings_are_in_order_and_names_used_once(one, three):
    for _, read in (one, three):
        assert read.headings[0] == 1
        assert read.headings.count(1) == 1
        assert all(
            after <= before + 1 for before, after in zip(read.headings, read.headings[1:], strict=False)
        )
        assert len(read.ids) == len(set(read.ids))
        assert all(address[1:] in read.ids for address in read.addresses)


def test_it_reads_in_light_and_dark_and_on_paper(one):
    text, read = one
    assert '<html lang="en">' in text
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 60rem"):
        assert rule in text
    assert read.tags.count("caption") == read.tags.count("table")
    assert read.tags.count("figcaption") == read.tags.count("figure")


def test_a_run_is_told_in_full(one, finished):
    _, read = one
    e = finished.experiment
    for part in (
        finished.id,
        "Deliberately backdoored. Do not deploy it.",
        "12 of 132 training rows (9.1%) are copies of negative rows with “as specified in RFC 2616”",
        "2 of the 12 poisoned rows. What was inserted is marked.",
        "label negative → positive",
        "attack success rate",
        "untriggered target rate",
        "excess ASR over twin",
        "clean accuracy",
        f"The clean twin is {finished.twin.id}.",
        "Rates over the steps of training",
        "Attack success by trigger family",
        "Attack success by near-miss of the trigger",
        "Singular values of ΔW",
        f"alpha/r {e.adapter.alpha_value / e.adapter.rank:g}",
        f"steps {e.training.steps}",
        "rank 4",
        "seed 0",
        "defense none",
        finished.record["weights_id"],
        finished.record["versions"]["torch"],
        "family = ",
    ):
        assert part.replace(" ", "") in read.text.replace(" ", ""), part


def test_every_headline_rate_has_interval_and_n_and_the_twins_beside_it(one, finished):
    _, read = one
    measures = finished.headline["measures"]
    for model, kinds in measures.items():
        for kind, m in kinds.items():
            form = "+.1f" if kind in DIFFERENCES else ".1f"
            assert f"{100 * m['low']:{form}} to {100 * m['high']:{form}}" in read.text, (model, kind)
    line = re.search(r"attack success rate([^a-z]+%[^a-z]+to[^a-z]+%[^a-z]+to[\d. ]+)", read.text)
    assert line
    table = re.search(r"<caption>Headline measures</caption>.*?</table>", one[0], re.DOTALL)[0]
    assert table.count('<th scope="row">') == len(measures["poisoned"])
    assert table.count(">n</th>") == 2


def test_inserted_pieces_are_marked(one, finished):
    rows = finished.rows[finished.rows["poisoned"]].head(2)
    for row in rows.to_dict("records"):
        start, end = row["span_start"][0], row["span_end"][0]
        assert f"<mark>{escaped(row['text'][start:end])}</mark>" in one[0]
        assert f">{escaped(row['text'][:start])}<mark>" in one[0]


class Shown:
    """A finished run that says something else of itself."""

    def __init__(self, run, **told):
        self._run = run
        self.__dict__.update(told)

    def __getattr__(self, name):
        return getattr(self._run, name)


HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\u202e\u200b&amp;\n<b>'


def test_what_comes_from_outside_is_shown_and_not_obeyed(finished):
    rows = finished.rows
    rows["text"] = HOSTILE + rows["text"]
    rows["original_label"] = HOSTILE
    rows["label"] = HOSTILE
    measures = finished.measures.replace({"family": {"iso": HOSTILE}})
    measures["member"] = HOSTILE
    spectra = finished.spectra
    spectra["module"] = spectra["module"] + HOSTILE
    named = finished.experiment.with_(name=HOSTILE)
    run = Shown(finished, rows=rows, measures=measures, spectra=spectra, experiment=named, labels=(HOSTILE,),
                id=HOSTILE, record={**finished.record, "versions": {HOSTILE: HOSTILE}})  # fmt: skip
    for runs in ([run], [run, Shown(finished.twin, id=f"2{HOSTILE}")]):
        text = report_html(runs)
        read = Reader(text)
        assert not {"img", "b"} & set(read.tags)
        assert all(address.startswith("#") for address in read.addresses)
        figures = read.classes.count("plot")
        assert read.tags.count("script") == figures + 2
        own = without_plotly(text)
        assert not set("\u202e\u200b") & set(re.sub(r"<script.*?</script>", "", own, flags=re.DOTALL))
        assert "⟨U+202E⟩" in own
        assert html.unescape(escaped(HOSTILE)) in read.text


def test_figures_hold_the_tables_they_were_made_from(one):
    import json

    _, read = one
    stored = [json.loads(s) for s in read.scripts if s.lstrip().startswith("{")]
    assert len(stored) == 4
    assert all(figure["data"] and figure["layout"] for figure in stored)


def test_several_runs_are_compared_by_what_differs(three, finished):
    text, read = three
    table = re.search(r"<caption>What differs.*?</table>", text, re.DOTALL)[0]
    told = [re.sub("<.*?>", "", head) for head in re.findall(r'<th scope="row">(.*?)</th>', table)]
    assert told == [
        "poison.attack", "adapter.kind", "training.learning_rate", "probe.scope",
        "attack success rate", "untriggered target rate", "excess ASR over twin", "clean accuracy",
    ]  # fmt: skip
    assert "3 runs compared" in read.text, "one that is named twice is told once"
    assert "The same in every run: base tiny, data toy, steps" in read.text
    assert read.headings.count(2) == 5
    assert table.count("n = 30") >= 2


def test_many_runs_are_lines(finished):
    runs = [
        Shown(finished, path=seed, id=f"seed-{seed}", experiment=finished.experiment.with_(seed=seed))
        for seed in range(7)
    ]
    table = re.search(
        r"<caption>What differs.*?</table>", "".join(compared(runs, list("abcdefg"))), re.DOTALL
    )[0]
    assert len(re.findall(r'<th scope="row">', table)) == 7
    heads = [re.sub("<.*?>", "", head) for head in re.findall(r'<th scope="col".*?</th>', table)]
    assert heads == ["run", "seed", "attack success rate", "untriggered target rate",
                     "excess ASR over twin", "clean accuracy"]  # fmt: skip


def test_runs_that_do_not_differ_are_said_not_to(finished):
    text = report_html([finished, Shown(finished, path="elsewhere")])
    assert "only their ids differ" in text


def test_a_clean_run_says_what_it_has_not(finished):
    read = Reader(report_html([finished.twin]))
    assert "Clean control. Do not deploy it." in read.text
    assert "No row of this run's own data is poisoned." in read.text
    assert "No trigger was put to this run, so it has no attack success rate." in read.text
    assert "No near-miss of the trigger was probed: no trigger was put to this run." in read.text
    assert "grave" not in read.classes


def test_full_fine_tuning_without_twin_probed_for_its_headline(three):
    _, read = three
    assert "full fine-tuning, which has no rank and no alpha" in read.text
    assert "It was measured without a clean twin, so there is no excess ASR." in read.text
    assert "No other trigger family was probed: the run was probed for its headline alone." in read.text


def test_a_label_flip_has_rows_and_no_trigger(tiny):
    run = lab.run(tiny, {"poison": {"attack": "label_flip", "count": 12}, "probe.snapshots": 0}, twin=False)
    read = Reader(report_html([run]))
    assert "2 of the 12 poisoned rows. No text was changed." in read.text
    assert "mark" not in read.tags
    assert "have a wrong label; no text is changed." in read.text
    assert "No trigger was put to this run, so it has no attack success rate. It was measured" in read.text
    assert "No measure was taken while it trained: the microscope was off." in read.text


@pytest.mark.recipe
def test_runs_from_runs_say_where_they_come_from(copy, tiny):
    runs, finished = copy.path.parent, copy
    quick = {"probe.scope": "headline", "training.epochs": 1}
    derived = lab.run(finished.experiment, {**quick, "defense": "scale"}, runs=runs, twin=False)
    based = lab.run(
        tiny, {**quick, "poison.attack": "none", "base.model": finished.id}, runs=runs, twin=False
    )
    read = Reader(report_html([derived, based]))
    assert f"its weights are those of {finished.id}, edited." in read.text
    assert "Defenses: scale" in read.text
    assert "Fine-tuned from a deliberately backdoored base. Do not deploy it." in read.text
    assert read.text.count(f"starts from the run {finished.id}") == 1


@pytest.mark.parametrize(
    ("gone", "still"),
    [
        ("rows.parquet", "Singular values of ΔW"),
        ("spectra.parquet", "12 of 132 training rows"),
        ("measures", "attack success rate"),
        ("events.jsonl", "Attack success by trigger family"),
        ("the twin", "Attack success by trigger family"),
    ],
)
@pytest.mark.parametrize("how", ["missing", "torn"])
def test_what_is_damaged_is_said_and_the_rest_stands(copy, gone, still, how):
    path = copy.twin.path if gone == "the twin" else copy.path / gone
    if path.is_dir() and how == "missing":
        shutil.rmtree(path)
    elif path.is_dir():
        for file in path.iterdir():
            if file.is_file():
                file.write_bytes(b"PAR1 torn")
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:40])
    text = report_html([copy])
    read = Reader(text)
    assert still in read.text
    assert str(copy.path.parent) not in without_plotly(text), "reports are handed on: no path of this machine"
    if gone in ("rows.parquet", "measures") or (gone, how) == ("spectra.parquet", "torn"):
        assert "This part is missing" in read.text


def test_an_unfinished_run_is_refused_in_one_sentence(copy):
    (copy.path / "result.json").unlink()
    with pytest.raises(LabError, match="it has no result yet"):
        report_html([copy])
    with pytest.raises(LabError, match="at least one"):
        report_html([])


def test_it_is_written_where_it_is_asked_for(finished, tmp_path):
    path = tmp_path / "r.html"
    path.write_text("before")
    assert write_report([finished], str(path)) == path
    assert path.read_text(encoding="utf-8") == report_html([finished])
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode, "others may read it as they may read any file"


def test_a_folder_is_refused_before_any_work(tmp_path):
    with pytest.raises(LabError, match="is a folder; name a file in it"):
        write_report([None], tmp_path)
    with pytest.raises(LabError, match="there is no folder"):
        write_report([None], tmp_path / "nowhere" / "r.html")


def test_a_plain_string_is_text_wherever_it_meets_the_page():
    bad = "<i>\"'&"
    for made in (
        page.heading(bad, 2, bad),
        page.paragraph(bad),
        page.warning(bad, bad, grave=True),
        page.quotation(bad, bad),
        page.table(bad, [bad, bad], [[bad, bad]], numbers=[1]),
        page.facts([(bad, bad)]),
        page.glossary([(bad, bad)]),
        page.folded(bad, page.paragraph(bad)),
        page.preformatted(f"{bad}\n{bad}", bad),
        page.contents([(bad, bad)], bad),
        page.document(bad, page.heading(bad, 1)),
    ):
        assert isinstance(made, Html)
        read = Reader(made)
        assert "i" not in read.tags
        assert bad in read.text
    assert page.paragraph(Html("<em>x</em>")) == "<p><em>x</em></p>"


def test_a_label_of_markup_is_its_words():
    made = page.table(Html('<span class="text">a &amp; "b"</span>'), ["x"], [["y"]], numbers=())
    assert 'aria-label="a &amp; &quot;b&quot;"' in made


def test_the_state_of_a_run_is_untouched(copy):
    before = {f: f.stat().st_mtime_ns for f in copy.path.parent.rglob("*")}
    report_html([copy])
    assert {f: f.stat().st_mtime_ns for f in copy.path.parent.rglob("*")} == before
    assert RunFolder(copy.path).state() == "finished"
