"""Runs as a listing has them, and claims about them: what tests of paper cards share."""

from lab.paper_cards import PaperClaims


def line(experiment, name, **more):
    """A finished run as a listing has it: counts for rates, steps for epochs."""
    record = experiment.to_dict()
    out = {"id": name, "state": "finished", "created": 0.0, "twin": "", "seed": record["seed"]}
    for section in ("base", "data", "poison", "adapter", "training"):
        out |= {f"{section}.{key}": value for key, value in record[section].items()}
    out |= {"training.epochs": 0.0, "training.steps": 54, "task.kind": "head", "defense": ""}
    return out | more


def cell(plan, arm, count, seed, lr=1e-3):
    keys = {**plan.arms[arm], "poison.count": count, "seed": seed, "training.learning_rate": lr}
    return plan.experiment.with_(**keys)


def claims_on(quantity):
    return PaperClaims.model_validate(
        {
            "name": "p",
            "paper": {"arxiv": "2505.12871", "title": "t", "says": "s", "theirs": "t", "ours": "o"},
            "sources": {"lora-vs-full-backdoor": {"sweep": "lora-vs-full-backdoor"}},
            "claims": [{"id": "a", "says": "s.", "place": "p", "paper": "p", "quantity": quantity}],
        }
    )
