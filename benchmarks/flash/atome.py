"""Trains Atome LM on a corpus with its own code and scores it like our models:

    git clone https://github.com/TilelliLab/atome-lm clones/atome-lm
    python benchmarks/flash/atome.py --clone clones/atome-lm --corpus DIR --out runs/atome

Its trainer (`scripts/train_atome_1m.py`) reads train.txt; the best checkpoint of its own held-out
part is exported by its own base-3 packing, and scored on a split in windows of bytes, each from a
fresh state. Prints its best length of a window as a table for `resnet-bk-benchmarks page`, all of
them on standard error. What is trained already is only scored.
"""

import argparse
import json
import math
import pathlib
import re
import subprocess
import sys

import torch
import torch.nn.functional as F

# Windows per pass.
PASS = 16


def load(args, checkpoint):
    sys.path.insert(0, str(args.clone))
    from atome_llm.core.atome_lm import AtomeLM

    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    names = ("vocab_size", "d_model", "n_layers", "d_head", "top_k", "kernel_size")
    model = AtomeLM(**{name: saved["config"][name] for name in names})
    model.load_state_dict(saved["state_dict"])
    return model.eval()


@torch.no_grad()
def nats(model, text, window):
    """Loss of every byte but the first, each window of bytes from a fresh state."""
    whole = (len(text) - 1) // window * window
    parts = [(text[:whole].view(-1, window), text[1 : whole + 1].view(-1, window))]
    parts.append((text[None, whole:-1], text[None, whole + 1 :]))
    losses = []
    for inputs, targets in parts:
        for start in range(0, len(inputs) if inputs.numel() else 0, PASS):
            logits = model(inputs[start : start + PASS]).flatten(0, 1)
            wanted = targets[start : start + PASS].flatten()
            losses.append(F.cross_entropy(logits, wanted, reduction="none"))
    return torch.cat(losses).double()


def standard_error(losses, text):
    """Of bits per byte, by articles: a line ` = Title = ` between blank ones begins each; none of a
    single one."""
    starts = [m.start() for m in re.finditer(rb"(?m)^ \n = [^=\n]+ = \n \n", text)]
    ends = [0, *starts[1:], len(text)]
    sums = [losses[max(a - 1, 0) : b - 1].sum().item() for a, b in zip(ends, ends[1:])]
    lengths = [b - max(a, 1) for a, b in zip(ends, ends[1:])]
    mean, count = sum(sums) / sum(lengths), len(sums)
    if count < 2:
        return None
    squares = sum((s - mean * n) ** 2 for s, n in zip(sums, lengths))
    return math.sqrt(squares * count / (count - 1)) / sum(lengths) / math.log(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--clone", required=True, type=pathlib.Path, help="its repository")
    add("--corpus", required=True, type=pathlib.Path, help="folder with train.txt and so on")
    add("--out", required=True, type=pathlib.Path, help="output folder")
    add("--split", default="test", choices=["valid", "test"])
    add("--width", type=int, default=64, help="d_model; 256 for the model of 945 K parameters")
    add("--layers", type=int, default=4, help="8 for the model of 945 K parameters")
    add("--steps", type=int, default=20_000)
    add("--lr", type=float, default=3e-4)
    add("--seed", type=int, default=1)
    args = parser.parse_args()
    args.clone = args.clone.resolve()
    checkpoint, packed = args.out / "atome.pt", args.out / "atome.bin"
    scripts = args.clone / "scripts"
    if not checkpoint.with_suffix(".train.json").exists():
        command = [sys.executable, scripts / "train_atome_1m.py", "--output", checkpoint]
        command += ["--data", args.corpus / "train.txt", "--d-model", str(args.width)]
        command += ["--n-layers", str(args.layers), "--d-head", str(args.width // 4)]
        command += ["--steps", str(args.steps), "--lr", str(args.lr), "--seed", str(args.seed)]
        command += ["--min-lr", str(args.lr / 10)]
        args.out.mkdir(parents=True, exist_ok=True)
        with (args.out / "output.txt").open("w") as output:
            subprocess.run(command, check=True, stdout=output, stderr=output)
    export = [sys.executable, scripts / "export_to_atome_packed.py"]
    command = [*export, "--checkpoint", checkpoint, "--output", packed]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    model = load(args, checkpoint)
    text = (args.corpus / f"{args.split}.txt").read_bytes()
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    lines = []
    for window in (32, 128, 256, 512):
        losses = nats(model, tokens, window)
        lines.append({
            "model": f"Atome LM, {args.width} wide",
            "storage": f"ternary, windows of {window} bytes",
            "parameters": sum(p.numel() for p in model.parameters()),
            "bytes": packed.stat().st_size,
            "bits_per_byte": losses.mean().item() / math.log(2),
            "bits_per_byte_se": standard_error(losses, text),
        })
        print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    best = min(lines, key=lambda line: line["bits_per_byte"])
    table = {"text": f"wikitext-2 {args.split}", "errors_by": "articles", "lines": [best]}
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
