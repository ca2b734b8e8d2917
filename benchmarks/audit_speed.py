"""How fast the weight part of an audit reads a 70B-shaped adapter, beside AdapterSentry on the same file.

    python benchmarks/audit_speed.py [--rank 64] [--peer PYTHON]

It writes a synthetic adapter in bfloat16 (80 layers × 7 matrices, about 1.6 GB at rank 64) into a temporary
folder and measures each reader in a process of its own: seconds of wall time without the imports, and the
largest resident memory. PEER is the Python of an environment with `adaptersentry` in it; the lab does not
depend on it. Times of one run are compared with each other alone: the machine is whatever it is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

#: (n_out, n_in) of the seven matrices of a block of Llama-3-70B.
SHAPES = {
    "self_attn.q_proj": (8192, 8192),
    "self_attn.k_proj": (1024, 8192),
    "self_attn.v_proj": (1024, 8192),
    "self_attn.o_proj": (8192, 8192),
    "mlp.gate_proj": (28672, 8192),
    "mlp.up_proj": (28672, 8192),
    "mlp.down_proj": (8192, 28672),
}
LAYERS = 80
_MEASURED = """
import json, re, sys, time
from pathlib import Path
folder = sys.argv[1]
{imports}
started = time.perf_counter()
{work}
seconds = time.perf_counter() - started
# not getrusage: its number begins with what the process that started this one held
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps({{"seconds": seconds, "mb": int(peak[1]) / 1024}}))
"""
OURS = _MEASURED.format(
    imports="import torch, scipy.stats\n"
    "from lab.audit import adapter_statistics, module_statistics, open_adapter",
    work="print(adapter_statistics(module_statistics(open_adapter(folder).updates())), file=sys.stderr)",
)
PEER = _MEASURED.format(
    imports="from pathlib import Path\nfrom adaptersentry.scanner import scan",
    work="scan(Path(folder) / 'adapter_model.safetensors')",
)


def main() -> None:
    """Write the adapter, measure both readers, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--peer", default="", help="Python of an environment with adaptersentry")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held) / "adapter"
        size = write_adapter(folder, asked.rank)
        sys.stdout.write(f"{size / 1e9:.2f} GB, {LAYERS * len(SHAPES)} modules, rank {asked.rank}\n")
        ours = _measure(sys.executable, OURS, folder)
        sys.stdout.write(f"lab: {ours['seconds']:.1f} s, {ours['mb']:.0f} MB\n")
        if asked.peer:
            peer = _measure(asked.peer, PEER, folder)
            sys.stdout.write(f"AdapterSentry: {peer['seconds']:.1f} s, {peer['mb']:.0f} MB\n")
            sys.stdout.write(f"ratio: {peer['seconds'] / ours['seconds']:.1f}\n")


def write_adapter(folder: Path, rank: int) -> int:
    """Write a synthetic adapter; returns the bytes of its weights."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in range(LAYERS):
        for name, (n_out, n_in) in SHAPES.items():
            start = f"base_model.model.model.layers.{layer}.{name}"
            for side, shape in (("A", (rank, n_in)), ("B", (n_out, rank))):
                values = torch.randn(shape, generator=random) / shape[1] ** 0.5
                tensors[f"{start}.lora_{side}.weight"] = values.bfloat16()
    weights = folder / "adapter_model.safetensors"
    save_file(tensors, weights)
    names = sorted({name.rpartition(".")[2] for name in SHAPES})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": names}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "a/70b"}))
    return weights.stat().st_size


def _measure(python: str, code: str, folder: Path) -> dict[str, float]:
    done = subprocess.run([python, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()
