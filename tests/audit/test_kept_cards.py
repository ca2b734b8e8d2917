"""Where cards are kept: a folder that may have come from anywhere. Nothing here is trained."""

import os
import shutil
import threading
import time
from types import SimpleNamespace

import pytest

from lab.audit import kept_cards
from lab.audit.card import AdapterFacts, AuditCard, ReferenceFacts, RowsFacts
from lab.audit.kept_cards import find_card, keep_card, one_at_a_time

FILES = SimpleNamespace(sha256={"adapter_model.safetensors": "a" * 64})
CARD = AuditCard(
    date="2026-01-01T00:00:00+00:00",
    verdict="cannot say",
    because="there are no references",
    looked_for=("nothing",),
    adapter=AdapterFacts(
        name="found",
        sha256=FILES.sha256,
        base_claimed="tiny",
        base="tiny",
        base_sha256="c" * 64,
        modules=1,
        ranks=(1,),
    ),
    rows=RowsFacts(source="a file", n=1),
    reference=ReferenceFacts(how="none: uncalibrated"),
    scores=(),
    seconds={},
    versions={},
)
KEY = "0123456789abcdef" * 2


def test_a_card_comes_back_whole_and_only_for_its_adapter(tmp_path):
    assert find_card(KEY, FILES, tmp_path) is None
    keep_card(CARD, KEY, tmp_path)
    assert find_card(KEY, FILES, tmp_path) == CARD
    assert find_card(KEY[::-1], FILES, tmp_path) is None
    assert find_card(KEY, SimpleNamespace(sha256={"adapter_model.safetensors": "b" * 64}), tmp_path) is None


def test_the_cards_used_longest_ago_are_deleted_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_cards, "KEPT_CARDS", 2)
    names = [digit * 32 for digit in "abcd"]
    mine = tmp_path / ".cards" / "mine.json"
    for number, name in enumerate(names[:2]):
        keep_card(CARD, name, tmp_path)
        os.utime(tmp_path / ".cards" / f"{name}.json", (number, number))
    mine.write_text("{}", encoding="utf-8")
    os.utime(mine, (0, 0))
    assert find_card(names[0], FILES, tmp_path) == CARD  # from now on the one used last
    keep_card(CARD, names[2], tmp_path)
    assert sorted(p.stem for p in (tmp_path / ".cards").glob("*.json")) == [names[0], names[2], "mine"]


@pytest.mark.skipif(os.name == "nt", reason="links and pipes need rights there")
def test_a_folder_from_elsewhere_is_not_followed(tmp_path):
    theirs, runs = tmp_path / "theirs", tmp_path / "runs"
    theirs.mkdir()
    runs.mkdir()
    keep_card(CARD, KEY, tmp_path)
    whole = tmp_path / ".cards" / f"{KEY}.json"
    shutil.copy(whole, theirs)
    (runs / ".cards").symlink_to(theirs)
    assert find_card(KEY, FILES, runs) is None
    keep_card(CARD, "f" * 32, runs)
    assert [path.name for path in theirs.iterdir()] == [f"{KEY}.json"]
    # a link, a pipe that nobody writes to and a folder in a card's place
    (runs / ".cards").unlink()
    (runs / ".cards").mkdir()
    place = runs / ".cards" / f"{KEY}.json"
    place.symlink_to(whole)
    assert find_card(KEY, FILES, runs) is None
    place.unlink()
    os.mkfifo(place)
    assert find_card(KEY, FILES, runs) is None
    place.unlink()
    place.mkdir()
    assert find_card(KEY, FILES, runs) is None
    keep_card(CARD, "f" * 32, runs)
    assert find_card("f" * 32, FILES, runs) == CARD


def test_the_code_is_known_by_its_content_in_a_wheel_as_in_a_checkout(tmp_path, monkeypatch):
    def hashed(package):
        monkeypatch.setattr(kept_cards, "_PACKAGE", package)
        kept_cards._code_sha256.cache_clear()
        try:
            return kept_cards._code_sha256()
        finally:
            kept_cards._code_sha256.cache_clear()

    checkout, wheel = tmp_path / "checkout" / "lab", tmp_path / "wheel" / "lab"
    for package in (checkout, wheel):
        (package / "audit").mkdir(parents=True)
        (package / "audit" / "slots.py").write_bytes(b"a = 1\nb = 2\n")
    before = hashed(checkout)
    (wheel / "audit" / "slots.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    (wheel / "_notebooks").mkdir()
    (wheel / "_notebooks" / "lesson.py").write_bytes(b"c = 3\n")
    (wheel / "audit" / ".slots.py").write_bytes(b"an editor's\n")
    assert hashed(wheel) == before
    (wheel / "audit" / "slots.py").write_bytes(b"a = 1\nb = 3\n")
    assert hashed(wheel) != before
    (wheel / "audit" / "slots.py").rename(wheel / "audit" / "search.py")
    (wheel / "audit" / "search.py").write_bytes(b"a = 1\nb = 2\n")
    assert hashed(wheel) != before


def test_one_makes_a_card_and_the_other_waits_and_says_so(tmp_path):
    told, order = [], []

    def second():
        with one_at_a_time(KEY, tmp_path, told.append):
            order.append("second")

    with one_at_a_time(KEY, tmp_path):
        other = threading.Thread(target=second)
        other.start()
        until = time.monotonic() + 30
        while not told and time.monotonic() < until:
            time.sleep(0.01)
        order.append("first")
    other.join(30)
    assert order == ["first", "second"]
    assert told == ["another process makes this very audit; waiting for it"]
    # and where nothing can be locked, nobody waits
    (tmp_path / "file").write_text("", encoding="utf-8")
    with one_at_a_time(KEY, tmp_path / "file"):
        pass
