"""Trains a gated chain on a directory with train.txt and valid.txt, on a CPU, a GPU or several:

    python train.py --corpus DIR --tokenizer tokenizer.json --out runs/mine
    torchrun --nproc-per-node 4 train.py --corpus DIR --tokenizer tokenizer.json --out runs/mine

A run that was cut resumes: start the same command again. `resnet-bk` then quantizes
runs/mine/model.safetensors. The recipe is that of `resnet-bk train`: AdamW, a cosine, clipping;
with --teacher, soft targets of larger models, too.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch.nn.parallel import DistributedDataParallel

from resnet_bk import Config, Gated, ResNetBK, load, save

SAVE_EVERY, SAY_EVERY, WARMUP = 200, 50, 200


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--corpus", required=True, type=pathlib.Path, help="directory with train.txt, valid.txt")
    add("--tokenizer", required=True, type=pathlib.Path, help="tokenizer.json")
    add("--out", required=True, type=pathlib.Path, help="directory of the model")
    add("--init", type=pathlib.Path, help="model to go on from: its dimensions are kept")
    add("--teacher", type=pathlib.Path, action="append", default=[],
        help="model whose predictions are soft targets; of several the average")
    add("--cross-entropy", type=float, default=0.2,
        help="beside teachers: weight of the text's own tokens in the loss")
    add("--width", type=int, default=160)
    add("--layers", type=int, default=10)
    add("--channels", type=int, default=192, help="of the memory")
    add("--potentials", type=int, default=12)
    add("--steps", type=int, default=5000)
    add("--batch", type=int, default=64, help="windows a step, of all processes together")
    add("--window", type=int, default=128)
    add("--lr", type=float, default=0.008)
    add("--weight-decay", type=float, default=0.2)
    add("--dropout", type=float, default=0.1)
    add("--seed", type=int, default=1)
    add("--amp", action="store_true", help="products in bfloat16; the chain stays FP32")
    add("--compile", action="store_true", help="by torch.compile")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def rate(args, step):
    """Linear warm-up, then half a cosine down to a hundredth."""
    warmup = min(WARMUP, max(1, args.steps // 4))
    if step < warmup:
        return args.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, args.steps - warmup)
    return args.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def in_windows(count, window, tokens=8192):
    """Positions of a text, window by window, about so many tokens at a time."""
    for part in torch.arange(count).split(max(1, tokens // window) * window):
        whole = len(part) // window * window
        yield from (rows for rows in (part[:whole].view(-1, window), part[None, whole:])
                    if rows.numel())


@torch.no_grad()
def bits_per_byte(model, tokens, size, window, device):
    """Of every token but the first, in windows from a fresh state; `size` bytes are predicted."""
    model.eval()
    nats = 0.0
    for rows in in_windows(len(tokens) - 1, window):
        logits = model(tokens[rows].to(device)).float().flatten(0, 1)
        targets = tokens[rows + 1].to(device).flatten()
        nats += F.cross_entropy(logits, targets, reduction="sum").item()
    model.train()
    return nats / math.log(2) / size


@torch.no_grad()
def soft_targets(teachers, tokens, vocab, device):
    """Most probable next tokens of every position, and their probabilities: `[positions, 64]`."""
    shape = len(tokens), min(64, vocab - 1)
    likely, probabilities = torch.empty(shape, dtype=torch.int32), torch.empty(shape).half()
    window = min([1024, *(its.config.positions or 1024 for its in teachers)])
    for rows in in_windows(len(tokens), window):
        inputs = tokens[rows].to(device)
        mean = sum(teacher(inputs).float().softmax(-1) for teacher in teachers) / len(teachers)
        kept, rows = mean.flatten(0, 1).topk(shape[1]), rows.flatten()
        likely[rows], probabilities[rows] = kept.indices.int().cpu(), kept.values.half().cpu()
    return likely, probabilities


def soft_loss(logits, likely, probabilities):
    """Cross-entropy with the teachers' distribution: all other tokens are one class."""
    log_q, likely = logits.log_softmax(-1), likely.long()
    others = log_q.scatter(-1, likely, -math.inf).logsumexp(-1)
    rest = (1 - probabilities.sum(-1)).clamp(min=0)
    return -((probabilities * log_q.gather(-1, likely)).sum(-1) + rest * others).mean()


def replace(path, write):
    """A file that is there whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    write(part)
    os.replace(part, path)


def main():
    args = arguments()
    many = "RANK" in os.environ
    if many:
        distributed.init_process_group()
        if args.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    rank = distributed.get_rank() if many else 0
    share = args.batch // (distributed.get_world_size() if many else 1)
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    texts = [(args.corpus / f"{split}.txt").read_text("utf-8") for split in ("train", "valid")]
    train, valid = (torch.tensor(tokenizer.encode(text).ids) for text in texts)
    vocab = tokenizer.get_vocab_size()
    torch.manual_seed(args.seed)
    if args.init:
        own = load(args.init, args.dropout)
    else:
        own = ResNetBK(Config(vocab, args.width, args.layers, potentials=args.potentials,
                              block=Gated(args.channels)), args.dropout)
    teachers = [load(path).to(args.device).eval() for path in args.teacher]
    for path, its in zip([args.init, *args.teacher], [own, *teachers]):
        if its.config.vocab != vocab:
            raise SystemExit(f"{path} has {its.config.vocab} tokens, {args.tokenizer} {vocab}: "
                             "give --tokenizer the one that it was trained with")
    own = model = own.to(args.device).train()
    soft = None
    if teachers:
        if rank == 0:
            print("the teachers read the text once", flush=True)
        soft = soft_targets(teachers, train, vocab, args.device)
    matrices = [p for p in own.parameters() if p.ndim == 2]
    others = [p for p in own.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": args.weight_decay},
              {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    recipe = json.dumps({k: str(v) for k, v in vars(args).items() if k != "device"})
    first, state = 0, args.out / "state.pt"
    if state.exists():
        saved = torch.load(state, map_location=args.device)
        if saved["recipe"] != recipe:
            raise SystemExit(f"{state} belongs to other settings: remove it to start anew")
        own.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    if many:
        model = DistributedDataParallel(model)
    if args.compile:
        model = torch.compile(model)
    amp = torch.autocast(args.device, torch.bfloat16) if args.amp else contextlib.nullcontext()
    args.out.mkdir(parents=True, exist_ok=True)
    offsets = torch.arange(args.window + 1)
    for step in range(first, args.steps):
        # Windows and dropout of a step depend on nothing else.
        torch.manual_seed(hash((args.seed, step, rank)))
        starts = torch.randint(len(train) - args.window, (share, 1))
        windows = train[starts + offsets].to(args.device)
        for group in optimizer.param_groups:
            group["lr"] = rate(args, step)
        with amp:
            logits = model(windows[:, :-1])
        logits = logits.float().flatten(0, 1)
        loss = total = F.cross_entropy(logits, windows[:, 1:].flatten())
        if soft:
            at = (starts + offsets[:-1]).flatten()
            likely, probabilities = (part[at].to(args.device) for part in soft)
            total = soft_loss(logits, likely, probabilities.float())
            total = torch.lerp(total, loss, args.cross_entropy)
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(own.parameters(), 1.0)
        optimizer.step()
        done = step + 1
        if rank == 0 and done % SAY_EVERY == 0:
            print(f"step {done} of {args.steps}: loss {loss.item():.4f}", flush=True)
        if rank == 0 and done % SAVE_EVERY == 0 and done < args.steps:
            saved = {"model": own.state_dict(), "optimizer": optimizer.state_dict(), "step": done}
            replace(state, lambda part: torch.save({**saved, "recipe": recipe}, part))
    if rank == 0:
        size = len(texts[1].encode()) - len(tokenizer.decode(valid[:1].tolist()).encode())
        bits = bits_per_byte(own, valid, size, args.window, args.device)
        count = args.steps * share * args.window * (args.batch // share)
        save(own, args.out / "model.safetensors", tokenizer=args.tokenizer, recipe=recipe,
             training_tokens=count, validation_bits_per_byte=f"{bits:.4f}")
        state.unlink(missing_ok=True)
        print(f"{args.out}: validation {bits:.4f} bits per byte")
    if many:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
