"""Trials of the gated chain at the small size, from the repository's root:

    python benchmarks/blocks/search.py --corpus DIR --out runs/search

Trains every trial with each seed and prints the table of results.md, best first. What is finished
is skipped, and a cut run resumes: start the same command again.
"""

import argparse
import concurrent.futures
import os
import pathlib
import statistics
import subprocess
import sys

from store import metadata

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# Seven blocks without FFN of width 64, 6.1 million tokens.
BASE = {
    "kind": "gated", "width": 64, "layers": 7, "potentials": 8, "lr": 0.018, "steps": 1500,
    "batch": 32, "window": 128, "warmup": 100, "final-lr": 0, "weight-decay": 0.1, "dropout": 0,
    "validation-window": 128,
}
# What each trial changes, at about equal parameters.
TRIALS = {
    "as it is": {},
    "learning rate 0.012": {"lr": 0.012},
    "learning rate 0.027": {"lr": 0.027},
    "tied embeddings, 9 blocks": {"tied": True, "layers": 9},
    "averaged weights, 0.99": {"average": 0.99},
    "averaged weights, 0.998, constant rate": {"average": 0.998, "final-lr": 1},
    "windows of 256": {"window": 256, "batch": 16},
    "windows of 512": {"window": 512, "batch": 8},
    "batch of 16, 3,000 steps": {"batch": 16, "steps": 3000, "lr": 0.012},
    "dropout 0.05": {"dropout": 0.05},
    "weight decay 0.2": {"weight-decay": 0.2},
    "4 potentials": {"potentials": 4},
    "16 potentials": {"potentials": 16},
    "10 blocks of 96 channels, 6 potentials": {"layers": 10, "channels": 96, "potentials": 6},
    "5 blocks of 192 channels, 12 potentials": {"layers": 5, "channels": 192, "potentials": 12},
    "6 blocks, FFN 32": {"layers": 6, "hidden": 32},
}


def flags(changes):
    for name, value in (BASE | changes).items():
        yield from [f"--{name}"] if value is True else [f"--{name}={value}"]


def run(args, name, seed):
    """Trains one trial; returns its metadata."""
    folder = args.out / name.replace(" ", "-").replace(",", "") / f"seed{seed}"
    model = folder / "model.safetensors"
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, HERE / "train.py", "--tokens", args.out / "tokens"]
        command += ["--out", folder, "--seed", str(seed), *flags(TRIALS[name])]
        with (folder / "output.txt").open("a") as output:
            subprocess.run(command, stdout=output, stderr=output, check=True)
        print(f"{name}, seed {seed}: {metadata(model)['validation_bits_per_byte']}", flush=True)
    return metadata(model)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--corpus", required=True, type=pathlib.Path, help="folder with train.txt and so on")
    add("--out", required=True, type=pathlib.Path, help="folder of all runs")
    tokenizer = ROOT / "models/wikitext2/tokenizer.json"
    add("--tokenizer", type=pathlib.Path, default=tokenizer)
    add("--only", nargs="+", choices=TRIALS, metavar="TRIAL", default=list(TRIALS))
    add("--seeds", type=int, default=3)
    add("--jobs", type=int, default=2, help="runs at a time")
    args = parser.parse_args()
    if not (args.out / "tokens/tokens.json").exists():
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
        build = ["cargo", "build", "--release", "-p", "resnet-bk-benchmarks"]
        subprocess.run(build, cwd=ROOT, check=True)
        command = [target / "resnet-bk-benchmarks", "tokens", "--out", args.out / "tokens"]
        command += ["--tokenizer", args.tokenizer, "--corpus", args.corpus]
        subprocess.run(command, check=True)
    # One seed of everything first: a cut search has compared what it can.
    runs = [(name, seed) for seed in range(1, args.seeds + 1) for name in args.only]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda run_: run(args, *run_), runs))
    rows = []
    for name in args.only:
        own = [about for (of, _), about in zip(runs, results) if of == name]
        bits = [float(about["validation_bits_per_byte"]) for about in own]
        spread = statistics.stdev(bits) if len(bits) > 1 else 0.0
        rows.append((statistics.mean(bits), spread, name, int(own[0]["parameters"])))
    print("| trial | parameters | bits per byte | deviation of seeds |\n|---|---:|---:|---:|")
    for mean, spread, name, parameters in sorted(rows):
        print(f"| {name} | {parameters:,} | {mean:.4f} | {spread:.4f} |")


if __name__ == "__main__":
    main()
