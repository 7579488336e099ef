"""The whole comparison of blocks in one command, from the repository's root:

    python benchmarks/blocks/compare.py --small --corpus DIR --out runs/blocks-small

Searches the learning rate of every kind of block with the first seed, equally, trains the other
seeds at the best rate, collects statistics, then scores and quantizes everything. What is finished
is skipped, and a cut run resumes: start the same command again.
"""

import argparse
import concurrent.futures
import math
import os
import pathlib
import subprocess
import sys
import threading
import time

from presets import FACTOR, LIMITS, PRESETS
from store import copy, metadata, tidy

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Failed(Exception):
    """A command failed; its output is in a file."""


class Comparison:
    def __init__(self, args, preset):
        self.args, self.preset, self.out = args, preset, args.out.resolve()
        self.tokenizer = args.tokenizer or ROOT / preset.tokenizer
        self.slots = threading.Semaphore(args.jobs)
        self.lock = threading.Lock()
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
        self.tools, self.benchmarks = target / "resnet-bk", target / "resnet-bk-benchmarks"

    def say(self, text):
        with self.lock:
            print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def call(self, command, log):
        """Runs a command with its output in a file."""
        log.parent.mkdir(parents=True, exist_ok=True)
        # One thread each: `jobs` decides how many processors are busy.
        threads = str(self.args.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
        with log.open("a") as output:
            output.write(" ".join(map(str, command)) + "\n")
            output.flush()
            result = subprocess.run(command, stdout=output, stderr=output, env=environment)
        if result.returncode:
            raise Failed(f"failed, see {log}")

    def prepare(self):
        if not self.args.no_build:
            packages = ["-p", "resnet-bk-tools", "-p", "resnet-bk-benchmarks"]
            subprocess.run(["cargo", "build", "--release", *packages], cwd=ROOT, check=True)
        self.tokens = self.out / "tokens"
        if not (self.tokens / "tokens.json").exists():
            command = [self.benchmarks, "tokens", *self.text(), "--out", self.tokens]
            subprocess.run(command, check=True)

    def text(self):
        return ["--tokenizer", self.tokenizer, "--corpus", self.args.corpus]

    def folder(self, name, rate, seed):
        return self.out / name / f"lr{rate:g}" / f"seed{seed}"

    def command(self, name, rate, seed):
        """Trains one model: the same recipe in both trainers."""
        preset, flags = self.preset, dict(self.preset.models[name])
        flags.pop("rates", None)
        folder = self.folder(name, rate, seed)
        flags |= {"out": folder, "width": preset.width, "lr": rate, "seed": seed}
        flags |= {"steps": preset.steps, "batch": preset.batch, "window": preset.window}
        flags |= {"weight-decay": preset.weight_decay, "dropout": preset.dropout}
        flags |= {"threads": self.args.threads, "warmup": min(200, preset.steps // 4)}
        if flags["kind"] == "gated":
            del flags["kind"]
            command = [self.tools, "train", "--block", "gated", *self.text(), "--quiet"]
        else:
            command = [sys.executable, HERE / "train.py", "--tokens", self.tokens]
            flags |= {"device": self.args.device}
            command += ["--half"] if preset.half else []
        return command + [f"--{key}={value}" for key, value in flags.items()]

    def kept(self, name, rate, seed):
        """Where the trained weights of a run are kept, if they are."""
        folder = self.args.trained
        return folder and folder / f"{name}-lr{rate:g}-seed{seed}.safetensors"

    def train(self, name, rate, seed):
        """Bits per byte on the validation split; infinite if training diverged."""
        folder = self.folder(name, rate, seed)
        model, diverged = folder / "model.safetensors", folder / "diverged"
        kept = self.kept(name, rate, seed)
        if diverged.exists():
            return math.inf
        if not model.exists() and kept and kept.exists():
            tokens = self.preset.steps * self.preset.batch * self.preset.window
            if metadata(kept).get("training_tokens") != str(tokens):
                raise Failed(f"{kept} was not trained on {tokens} tokens: use another folder")
            copy(kept, model)
            self.say(f"{name}, rate {rate:g}, seed {seed}: trained before, from {kept}")
        if not model.exists():
            with self.slots:
                started, log = time.monotonic(), folder / "output.txt"
                try:
                    self.call(self.command(name, rate, seed), log)
                except Failed:
                    if "training loss became" not in log.read_text()[-500:]:
                        raise
                    diverged.touch()
                    self.say(f"{name}, rate {rate:g}, seed {seed}: diverged")
                    return math.inf
                seconds = time.monotonic() - started
            bits = float(metadata(model)["validation_bits_per_byte"])
            found = f"{bits:.4f} bits per byte, {seconds:.0f} s"
            self.say(f"{name}, rate {rate:g}, seed {seed}: {found}")
        # Also after a cut between training and here. `train.py` writes what is wanted itself.
        if "command" in metadata(model):
            tidy(model, self.preset.half)
        if kept and not kept.exists():
            copy(model, kept)
        return float(metadata(model)["validation_bits_per_byte"])

    def best_rate(self, name):
        """The learning rate with the lowest loss of the first seed, inside of what was tried."""
        rates = self.preset.models[name].get("rates", self.preset.rates)
        if len(rates) == 1:
            return rates[0]
        tried = {rate: self.train(name, rate, 1) for rate in rates}
        while True:
            best = min(tried, key=tried.get)
            if best == max(tried):
                following = round(best * FACTOR, 6)
            elif best == min(tried):
                following = round(best / FACTOR, 6)
            else:
                return best
            if not LIMITS[0] <= following <= LIMITS[1]:
                self.say(f"{name}: the best rate, {best:g}, is at the end of the search")
                return best
            tried[following] = self.train(name, following, 1)

    def finish(self, name):
        """All seeds of a model at its best rate, with their statistics."""
        rate = self.best_rate(name)
        self.say(f"{name}: rate {rate:g}")
        folders = []
        for seed in range(1, self.preset.seeds + 1):
            self.train(name, rate, seed)
            folder = self.folder(name, rate, seed)
            if not (folder / "statistics.safetensors").exists():
                with self.slots:
                    command = [sys.executable, HERE / "moments.py", "--tokens", self.tokens]
                    command += [folder / "model.safetensors", f"--window={self.preset.window}"]
                    command += [f"--threads={self.args.threads}"]
                    self.call(command, folder / "output.txt")
            folders.append(folder)
        return folders

    def score(self, folders):
        """Prints the comparison."""
        budgets = ",".join(map(str, self.preset.budgets))
        command = [self.benchmarks, "blocks", *self.text(), "--split", self.args.split]
        command += [f"--window={self.preset.window}"]
        command += ["--budgets", budgets] if self.args.budgets else []
        subprocess.run([*command, *folders], check=True)
        with (self.out / f"{self.args.split}.json").open("w") as file:
            subprocess.run([*command, "--json", *folders], check=True, stdout=file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group(required=True)
    for name in PRESETS:
        size.add_argument(f"--{name}", dest="preset", action="store_const", const=name)
    add = parser.add_argument
    add("--corpus", required=True, type=pathlib.Path, help="folder with train.txt and so on")
    add("--out", required=True, type=pathlib.Path, help="folder of all runs")
    add("--tokenizer", type=pathlib.Path, help="if not that of the size")
    add("--only", nargs="+", metavar="MODEL", help="only these, such as gated and mamba1")
    add("--jobs", type=int, default=2, help="runs at a time")
    add("--threads", type=int, default=1, help="per run")
    add("--trained", type=pathlib.Path, metavar="DIR",
        help="folder of trained weights: what is there is not trained again, the rest is added")
    add("--device", default="cpu", help="of PyTorch")
    add("--split", choices=["valid", "test"], default="valid", help="to score on")
    add("--budgets", action="store_true", help="search mixes of precisions, too")
    add("--no-build", action="store_true", help="use the programs that are there")
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    names = args.only or list(preset.models)
    for name in names:
        if name not in preset.models:
            raise SystemExit(f"{name} is none of {', '.join(preset.models)}")
    comparison = Comparison(args, preset)
    comparison.prepare()
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        try:
            found = list(pool.map(comparison.finish, names))
        except Failed as error:
            raise SystemExit(str(error)) from None
    comparison.score([folder for folders in found for folder in folders])


if __name__ == "__main__":
    main()
