"""What this machine can do, as ratios within one run: machines are shared and noisy, ratios are not.

1. The model-FLOP rate of training over the machine's own matrix-multiply rate.
2. The default job against what one would write with Trainer, DataCollatorWithPadding and peft today.
3. Singular values of ΔW through QR of the factors against a dense SVD; all spectral measures of an adapter.
4. `lab --help` against a bare typer app, and listing 2,000 runs.
5. N equal cells of a sweep on W workers against N/W × one warm cell, and the time between two cells.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.bench_sweeps import bench_sweeps
from lab.pipeline import DEFAULT_PRESET

if TYPE_CHECKING:
    from lab.prepare import Prepared

Listener = Callable[[dict[str, Any]], None]


def bench(*, quick: bool = False, on_event: Listener = lambda _: None) -> dict[str, Any]:
    """Measure this machine.

    Args:
        quick: Train on a quarter of the rows.
        on_event: Called with progress events.

    Returns:
        Plain values: machine, training, default_job, spectra, adapter_spectra, start_up, sweep.
    """
    import platform

    import torch

    steps: list[tuple[str, Callable[[], Any]]] = [
        ("spectra", bench_spectra),
        ("adapter_spectra", bench_adapter_spectra),
        ("start_up", bench_start_up),
        ("sweep", lambda: bench_sweeps("tiny" if quick else "minilm", on_event=on_event)),
        ("default_job", lambda: bench_default_job(quick=quick, on_event=on_event)),
    ]
    found: dict[str, Any] = {
        "machine": {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    }
    for name, step in steps:
        on_event({"kind": "status", "step": -1, "stage": f"bench: {name.replace('_', ' ')}"})
        found[name] = step()
    found["training"] = found["default_job"].pop("training")
    return found


def matmul_rate() -> float:
    """FLOP per second of float32 products 1024 × 384 × 1536 at the present thread count, best of five."""
    import torch

    a, b = torch.randn(1024, 384), torch.randn(384, 1536)
    a @ b
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        best = max(best, 2 * 1024 * 384 * 1536 / (time.perf_counter() - start))
    return best


def training_flops(prepared: Prepared, *, layers: int, width: int) -> float:
    """Model FLOP of a training: (4N for LoRA, 6N for full) × non-padding tokens, and attention.

    N counts the base's weights without embeddings. Attention takes 4·length·width FLOP per token and layer
    forward (QKᵀ and the weighted sum) and twice that backward, for LoRA too: it has no frozen operand.
    """
    from lab.train.fit import training_plan

    rows = prepared.tokens()
    lengths = [len(ids) for ids in rows.token_ids]
    seen = [lengths[i] for batch in training_plan(rows, prepared.experiment) for i in batch]
    per_token = 6 if prepared.experiment.adapter.kind == "full" else 4
    attention = sum(3 * 4 * n * n * width * layers for n in seen)
    return per_token * _non_embedding(prepared) * float(sum(seen)) + attention


def _non_embedding(prepared: Prepared) -> int:
    from safetensors import safe_open

    from lab.train.models import model_folder

    total = 0
    for file in model_folder(prepared.experiment.base.model).glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - safe_open is no mapping
                if "embed" not in name:
                    shape = weights.get_slice(name).get_shape()
                    total += _product(shape)
    return total


def _product(shape: list[int]) -> int:
    out = 1
    for side in shape:
        out *= side
    return out


def bench_default_job(*, quick: bool = False, on_event: Listener = lambda _: None) -> dict[str, Any]:
    """The default job, and the same job written plainly: same rows, epochs and evaluation sets."""
    from transformers import AutoConfig

    import lab
    from lab.prepare import prepare
    from lab.presets import load_experiment
    from lab.train.models import model_folder

    rows = 400 if quick else 2000
    changes = {"data.rows": rows, "poison.count": rows // 20, "probe.scope": "headline"}
    experiment = load_experiment(DEFAULT_PRESET).with_(**changes)
    prepared = prepare(experiment)
    config = AutoConfig.from_pretrained(model_folder(experiment.base.model))
    with tempfile.TemporaryDirectory() as runs:
        before = matmul_rate()
        start = time.perf_counter()
        run = lab.run(experiment, runs=runs, twin=False, on_event=on_event)
        ours = time.perf_counter() - start
        rate = max(before, matmul_rate())
        measures, trained = run.result["measures"]["test"]["poisoned"], run.result["training"]
        memory = run.result["peak_memory_mb"]
    flops = training_flops(prepared, layers=config.num_hidden_layers, width=config.hidden_size)
    seconds = trained["seconds"] - trained["microscope_seconds"]
    on_event({"kind": "status", "step": -1, "stage": "bench: the same job written plainly"})
    plain = _plain_job(prepared)
    return {
        "training": {
            "matmul_gflops": round(rate / 1e9, 1),
            "model_gflops": round(flops / seconds / 1e9, 1),
            "rate": round(flops / seconds / rate, 3),
            "tokens_per_second": trained["tokens_per_second"],
            "microscope_share": round(trained["microscope_seconds"] / seconds, 3),
            "peak_memory_mb": memory,
        },
        "lab_seconds": round(ours, 2),
        "plain_seconds": round(plain["seconds"], 2),
        "times_faster": round(plain["seconds"] / ours, 2),
        "lab_asr": measures["attack_success_rate"]["value"],
        "plain_asr": plain["asr"],
        "lab_accuracy": measures["clean_accuracy"]["value"],
        "plain_accuracy": plain["accuracy"],
    }


def _plain_job(prepared: Prepared) -> dict[str, float]:
    """What one would write today: Trainer, DataCollatorWithPadding, peft, default dropout, batch 16."""
    import numpy as np
    from datasets import Dataset
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainingArguments,
    )

    from lab.probe.conditions import headline_texts, own_triggers
    from lab.train.models import load_tokenizer, model_folder

    e = prepared.experiment
    test = prepared.evaluation_rows("test", e.probe.rows)
    asked = headline_texts(test, e.poison, seed=e.seed, triggers=own_triggers(e.poison, ()))
    index = {label: i for i, label in enumerate(prepared.labels)}
    start = time.perf_counter()
    folder = model_folder(e.base.model)
    tokenizer = load_tokenizer(folder)

    def dataset(texts: list[str], labels: list[str]) -> Dataset:
        table = Dataset.from_dict({"text": texts, "label": [index[label] for label in labels]})
        return table.map(
            lambda batch: tokenizer(batch["text"], truncation=True), batched=True, remove_columns=["text"]
        )

    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(prepared.labels))
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=e.adapter.rank, lora_alpha=int(e.adapter.alpha_value), lora_dropout=0.1,
        target_modules="all-linear",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output, num_train_epochs=3, per_device_train_batch_size=16,
            per_device_eval_batch_size=16, learning_rate=e.training.learning_rate, report_to="none",
            save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False, log_level="error",
        )  # fmt: skip
        trainer = Trainer(
            model=get_peft_model(model, config),
            args=arguments,
            train_dataset=dataset(list(prepared.rows["text"]), list(prepared.rows["label"])),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.remove_callback(PrinterCallback)  # standard output is for the result
        trainer.train()
        logits = trainer.predict(dataset(list(asked["text"]), list(asked["label"]))).predictions
    seconds = time.perf_counter() - start
    answers = np.array([prepared.labels[i] for i in np.asarray(logits).argmax(axis=1)])
    truth = asked["label"].to_numpy()
    clean = (asked["condition"] == "clean").to_numpy()
    hit = answers == (truth if not e.target_label else e.target_label)
    return {
        "seconds": seconds,
        "accuracy": float((answers == truth)[clean].mean()),
        "asr": float(hit[~clean & (truth != e.target_label)].mean()),
    }


def bench_spectra(side: int = 4096, rank: int = 16) -> dict[str, float]:
    """Singular values of a side × side ΔW of that rank: QR of the factors against a dense SVD."""
    import torch

    from lab.spectra import FactoredUpdate

    generator = torch.Generator().manual_seed(0)
    update = FactoredUpdate(
        torch.randn(side, rank, generator=generator), torch.randn(rank, side, generator=generator)
    )
    update.singular_values()
    factored = min(_seconds(update.singular_values) for _ in range(10))
    start = time.perf_counter()
    dense = torch.linalg.svdvals(update.dense())[:rank]
    slow = time.perf_counter() - start
    error = float(((update.singular_values() - dense) / dense).abs().max())
    return {
        "factored_ms": round(factored * 1e3, 3),
        "dense_s": round(slow, 2),
        "times_faster": round(slow / factored),
        "largest_relative_difference": error,
    }


def bench_adapter_spectra() -> dict[str, float]:
    """Every spectral measure of a MiniLM adapter, and the singular values of a Llama-7B-shaped one."""
    import torch
    from transformers import AutoModel

    from lab.saved_updates import read_weights
    from lab.spectra import FactoredUpdate, alignment, base_spectra, describe
    from lab.train.adapters import block_linears
    from lab.train.models import base_sha256, model_folder

    generator = torch.Generator().manual_seed(0)

    def adapter(shapes: Mapping[str, tuple[int, int]], rank: int) -> dict[str, FactoredUpdate]:
        return {
            name: FactoredUpdate(
                torch.randn(n_out, rank, generator=generator), torch.randn(rank, n_in, generator=generator)
            )
            for name, (n_out, n_in) in shapes.items()
        }

    folder = model_folder("minilm")
    linears = block_linears(AutoModel.from_pretrained(folder))
    shapes = {name: (m.out_features, m.in_features) for name, m in linears.items()}
    small, sha256 = adapter(shapes, 8), base_sha256(folder)

    def measure() -> None:
        base = base_spectra(shapes, sha256, lambda: read_weights(folder, shapes))
        describe(small, base)
        alignment(small, base)

    measure()  # W's spectra are in the cache from here on
    block = {"q": (4096, 4096), "k": (4096, 4096), "v": (4096, 4096), "o": (4096, 4096)}
    block |= {"gate": (11008, 4096), "up": (11008, 4096), "down": (4096, 11008)}
    large = adapter({f"layers.{i}.{name}": shape for i in range(32) for name, shape in block.items()}, 16)
    return {
        "minilm_modules": len(small),
        "minilm_s": round(min(_seconds(measure) for _ in range(5)), 3),
        "llama_modules": len(large),
        "llama_s": round(_seconds(lambda: [update.singular_values() for update in large.values()]), 3),
    }


def bench_start_up() -> dict[str, float]:
    """`lab --help` over a bare typer app with as many commands, best of five each; listing 2,000 runs."""
    bare = "import typer\napp = typer.Typer()\n" + "".join(
        f'@app.command()\ndef c{i}(x: str = "a"):\n    """Do."""\n' for i in range(8)
    )
    bare += "app(['--help'])\n"
    pairs = [(_command_seconds(["-m", "lab", "--help"]), _command_seconds(["-c", bare])) for _ in range(5)]
    lab_help, typer_help = min(p[0] for p in pairs), min(p[1] for p in pairs)
    return {
        "lab_help_s": round(lab_help, 3),
        "bare_typer_s": round(typer_help, 3),
        "ratio": round(lab_help / typer_help, 2),
        "list_2000_runs_s": round(_listing_seconds(2000), 3),
    }


def _listing_seconds(count: int) -> float:
    """How long it takes to list that many finished runs, imports aside."""
    import pandas as pd  # noqa: F401 - imported before the clock starts

    from lab.experiment import Experiment
    from lab.store import list_runs

    rate = {"value": 0.9, "k": 9, "n": 10, "low": 0.6, "high": 0.98}
    measures = dict.fromkeys(("clean_accuracy", "attack_success_rate", "untriggered_target_rate"), rate)
    result = {"twin": "t", "measures": {"test": {"poisoned": measures, "twin": measures}}}
    record = {"schema": 1, "created": 1.0, "experiment": Experiment().to_dict()}
    with tempfile.TemporaryDirectory() as runs:
        for i in range(count):
            folder = Path(runs) / f"run-{i:010x}"
            folder.mkdir()
            (folder / "experiment.json").write_text(json.dumps(record))
            (folder / "result.json").write_text(json.dumps(result))
        return min(_seconds(lambda: list_runs(runs)) for _ in range(3))


def print_bench(found: dict[str, Any]) -> None:
    """Print what `bench` found, one line each."""
    from rich.console import Console

    t, job, s, u = found["training"], found["default_job"], found["spectra"], found["start_up"]
    a, w = found["adapter_spectra"], found["sweep"]
    lines = [
        f"training: {t['rate']:.2f} of this machine's matrix-multiply rate "
        f"({t['model_gflops']:.0f} of {t['matmul_gflops']:.0f} GFLOP/s), "
        f"{t['tokens_per_second']:,.0f} tokens/s; the microscope costs {t['microscope_share']:.0%} of it; "
        f"{t['peak_memory_mb'] / 1024:.2f} GB at most",
        f"default job: {job['times_faster']:.1f} × faster than written plainly "
        f"({job['lab_seconds']:.0f} s against {job['plain_seconds']:.0f} s; ASR {job['lab_asr']:.3f} against "
        f"{job['plain_asr']:.3f}, clean accuracy {job['lab_accuracy']:.3f} against "
        f"{job['plain_accuracy']:.3f})",
        f"spectra of ΔW: {s['times_faster']:,.0f} × faster than a dense SVD (4096 × 4096, rank 16), equal to "
        f"{s['largest_relative_difference']:.1e}",
        f"all spectral measures of a MiniLM adapter ({a['minilm_modules']} modules, rank 8): "
        f"{a['minilm_s']:.2f} s; singular values of a Llama-7B-shaped one ({a['llama_modules']} modules, "
        f"rank 16): {a['llama_s']:.2f} s",
        f"sweep: {w['cells']} cells on {w['workers']} workers of {w['threads']} threads take "
        f"{w['ratio']:.2f} × their share of a warm cell ({w['warm_cell_s']:.1f} s), and "
        f"{w['over_one_worker']:.2f} × what one worker with all cores takes; {w['to_next_s']:.2f} s "
        f"from the end of a cell to the training of the next (load {w['load']:.1f})",
        f"lab --help: {u['ratio']:.2f} × a bare typer app; listing 2,000 runs: {u['list_2000_runs_s']:.2f} s",
    ]
    console = Console()
    for line in lines:
        console.print(line, highlight=False)


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _command_seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start
