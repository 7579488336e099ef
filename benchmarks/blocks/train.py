"""Trains one model on tokens written by `resnet-bk-benchmarks tokens`.

    python train.py --tokens DIR --out DIR --kind mamba --width 64 --layers 6 --lr 0.01

The recipe is that of `resnet-bk train`: random windows, AdamW with decay of matrices only, linear
warm-up and half a cosine, gradients clipped by their norm. The same seed gives the same weights on
the same machine with the same number of threads; every step seeds its own random numbers, so that
an interrupted run, started again, ends in the same weights.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import time

import torch
import torch.nn.functional as F

from architectures import MIXERS, Config, Model
from store import Tokens, save_model, write_atomically

SAVE_EVERY = 250
LOG_EVERY = 50
# Windows per pass when validating.
PASS = 64


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--tokens", required=True, help="folder with train.u16 and so on")
    add("--out", required=True, type=pathlib.Path, help="output folder")
    add("--kind", required=True, choices=sorted(MIXERS))
    add("--width", type=int, default=128)
    add("--layers", type=int, required=True)
    add("--hidden", type=int, default=0, help="of the FFN; 0 for none")
    add("--channels", type=int, default=0, help="of mamba and gated; twice the width if 0")
    add("--states", type=int, default=16, help="a channel, of mamba")
    add("--heads", type=int, default=4, help="of attention")
    add("--potentials", type=int, default=8, help="of gated")
    add("--lr", type=float, required=True, help="peak learning rate")
    add("--seed", type=int, default=1)
    add("--steps", type=int, default=1500)
    add("--batch", type=int, default=32, help="windows per step")
    add("--window", type=int, default=128, help="tokens per window")
    add("--warmup", type=int, default=200, help="steps of linear warm-up")
    add("--final-lr", type=float, default=0.01, help="as a fraction of the peak")
    add("--weight-decay", type=float, default=0.2)
    add("--dropout", type=float, default=0.1)
    add("--clip", type=float, default=1.0)
    add("--embedding", type=float, default=0.1, help="initial deviation of embeddings")
    add("--device", default="cpu")
    add("--threads", type=int, default=1)
    add("--half", action="store_true", help="write the weights in f16")
    add("--tied", action="store_true", help="the output layer's weights are the embedding's")
    add("--average", type=float, default=0.0,
        help="write moving averages of the weights that keep this part at every step")
    add("--validation-window", type=int, help="tokens per window of the validation split")
    return parser.parse_args()


def rate(args, step):
    """Learning rate of a step, counted from 0."""
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    done = min(1.0, (step - args.warmup) / max(1, args.steps - args.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return args.lr * (args.final_lr + (1 - args.final_lr) * cosine)


def optimizer(model, args):
    """Decay of matrices only; Mamba's A is exempt, as published."""
    decays = lambda name, p: p.ndim == 2 and not name.endswith("A_log")
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if decays(n, p)], "weight_decay": args.weight_decay},
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), eps=1e-8, fused=True)


@torch.no_grad()
def bits_per_byte(model, tokens, lengths, window, device):
    """Consecutive windows, each from a fresh state; every token but the first is predicted."""
    model.eval()
    whole = (len(tokens) - 1) // window * window
    inputs, targets = tokens[:-1].to(device), tokens[1:].to(device)
    parts = [(inputs[:whole].view(-1, window), targets[:whole].view(-1, window))]
    parts.append((inputs[None, whole:], targets[None, whole:]))
    nats = 0.0
    for x, y in parts:
        for start in range(0, len(x) if x.numel() else 0, PASS):
            logits = model(x[start : start + PASS]).flatten(0, 1)
            loss = F.cross_entropy(logits, y[start : start + PASS].flatten(), reduction="sum")
            nats += loss.item()
    model.train()
    return nats / math.log(2) / lengths[tokens[1:]].sum().item()


@torch.no_grad()
def average(means, model, keep, step):
    """Moves averages towards the weights; at first they follow more closely."""
    keep = min(keep, (1 + step) / (10 + step))
    for name, parameter in model.named_parameters():
        means[name].lerp_(parameter, 1 - keep)


class Log:
    """JSON lines, without those of a cut run that are written again."""

    def __init__(self, path, step):
        old = path.read_text().splitlines() if path.exists() and step else []
        self.file = path.open("w")
        for line in old:
            if json.loads(line)["step"] <= step:
                self.file.write(line + "\n")

    def write(self, **line):
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        print(json.dumps(line), flush=True)


def main():
    args = arguments()
    finished, state = args.out / "model.safetensors", args.out / "state.pt"
    if finished.exists():
        print(f"{finished} is finished")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    tokens = Tokens(args.tokens)
    fields = [field.name for field in dataclasses.fields(Config) if field.name in vars(args)]
    config = Config(vocab=tokens.vocab, **{name: getattr(args, name) for name in fields})
    torch.manual_seed(args.seed)
    model = Model(config, args.dropout, args.embedding)
    if args.tied:
        model.lm_head.weight = model.token_embedding.weight
    model = model.to(args.device).train()
    optimize = optimizer(model, args)
    means = {name: p.detach().clone() for name, p in model.named_parameters()}
    recipe = {k: v for k, v in vars(args).items() if k not in ("tokens", "out", "threads")}
    first = 0
    if state.exists():
        saved = torch.load(state, map_location=args.device)
        if saved["recipe"] != recipe or saved["tokenizer"] != tokens.tokenizer:
            raise SystemExit(f"{state} belongs to another run: remove it to start anew")
        model.load_state_dict(saved["model"])
        optimize.load_state_dict(saved["optimizer"])
        first, means = saved["step"], saved["means"]
    log = Log(args.out / "train.jsonl", first)
    train = tokens.split("train")
    offsets = torch.arange(args.window + 1)
    parameters = list(model.parameters())
    started, losses = time.monotonic(), []
    for step in range(first, args.steps):
        # Windows and dropout of a step depend on nothing else.
        torch.manual_seed(args.seed << 32 | step)
        for group in optimize.param_groups:
            group["lr"] = rate(args, step)
        starts = torch.randint(len(train) - args.window, (args.batch, 1))
        drawn = train[starts + offsets].to(args.device)
        logits = model(drawn[:, :-1]).flatten(0, 1)
        loss = F.cross_entropy(logits, drawn[:, 1:].flatten())
        optimize.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, args.clip)
        optimize.step()
        if args.average:
            average(means, model, args.average, step)
        losses.append(loss.detach())
        done = step + 1
        if done % LOG_EVERY == 0 or done == args.steps:
            mean = torch.stack(losses).mean().item()
            if not math.isfinite(mean):
                raise SystemExit(f"the training loss became {mean} before step {done}")
            seconds = time.monotonic() - started
            log.write(step=done, loss=round(mean, 5), seconds=round(seconds, 2),
                      milliseconds_per_step=round(1000 * seconds / (done - first), 1))
            losses = []
        if done % SAVE_EVERY == 0 and done < args.steps:
            saved = {"model": model.state_dict(), "optimizer": optimize.state_dict(),
                     "means": means, "step": done, "recipe": recipe, "tokenizer": tokens.tokenizer}
            write_atomically(state, lambda part: torch.save(saved, part))
    if args.average:
        model.load_state_dict(means, strict=False)
    seconds = time.monotonic() - started
    window = args.validation_window or args.window
    bits = bits_per_byte(model, tokens.split("valid"), tokens.lengths, window, args.device)
    log.write(step=args.steps, validation_bits_per_byte=round(bits, 5), seconds=round(seconds, 2))
    about = {
        "recipe": json.dumps(recipe),
        "seed": str(args.seed),
        "training_tokens": str(args.steps * args.batch * args.window),
        "parameters": str(sum(p.numel() for p in parameters)),
        "tokenizer_sha256": tokens.tokenizer,
        "validation_bits_per_byte": f"{bits:.5f}",
    }
    save_model(finished, model, about, torch.float16 if args.half else torch.float32)
    state.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
