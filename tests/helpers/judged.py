"""Sealed cohorts whose statistics a test writes itself."""

import json

from lab.audit.cohort_builds import member_facts
from lab.audit.cohort_scores import scores_folder
from lab.audit.cohorts import plan_cohort
from lab.audit.sealing import open_key, update_key


def judged_folder(tmp_path, statistic, *, silent=(), name="sealed"):
    """A sealed cohort "tiny" whose search gave `statistic(facts, number)`; nothing for the silent."""
    folder = tmp_path / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    members = [member_facts(m) for m in plan_cohort("tiny")]
    key = open_key(folder, {"cohort": "tiny"}, members)
    scores_folder(folder).mkdir()
    for number, (adapter, facts) in enumerate(zip(key["adapters"], members, strict=True)):
        update_key(folder, adapter, state="sealed", measures={}, run=f"run-{number}")
        found = {} if number in silent else {"string_shift": statistic(facts, number)}
        entry = {"search": {"settings": "", "statistics": found, "reason": "", "seconds": 1.0}}
        (scores_folder(folder) / f"{adapter}.json").write_text(json.dumps(entry))
    return folder, members
