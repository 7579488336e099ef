"""Statistics for the quantizer: second moments of the inputs of every matrix and of the gradients
of its outputs, as `resnet-bk quantize` collects them for its own models.

    python moments.py --tokens DIR MODEL.safetensors

writes statistics.safetensors beside the model. With g the gradient of the negative log-likelihood
of a token drawn from the model's own predictions: inputs x are weighted by |g|^2, gradients by
|x|^2 + 1. Normalizations are folded first, as they are before quantization.
"""

import argparse
import json
import pathlib

import torch
import torch.nn.functional as F

from store import Tokens, load_model, save_tensors

# Windows per pass.
PASS = 16
# Layers before a ReLU or a softmax: the quantizer does not ask for their gradients.
CHOICES = ("lm_head", ".up", ".qkv")


class Sums:
    """Weighted sums over the rows that a layer has seen."""

    def __init__(self, choice):
        self.rows, self.choice = 0, choice
        self.weight = self.mean = self.inputs = self.outputs = 0.0

    def add(self, x, g):
        g = g.detach().flatten(0, -2).double()
        self.rows += len(g)
        if x is None:
            self.outputs += g.T @ g
            return
        x = x.flatten(0, -2).double()
        if not self.choice:
            scaled = g * (x.square().sum(1, keepdim=True) + 1).sqrt()
            self.outputs += scaled.T @ scaled
        weight = g.square().sum(1, keepdim=True)
        self.weight += weight.sum()
        self.mean += (weight * x).sum(0)
        scaled = weight.sqrt() * x
        self.inputs += scaled.T @ scaled

    def finish(self):
        """Covariance and mean of the inputs, and second moment of the gradients."""
        if not isinstance(self.mean, torch.Tensor):
            outputs = self.outputs / self.rows
            return {"inputs": outputs, "mean": outputs.new_zeros(len(outputs))}
        mean = self.mean / self.weight
        covariance = self.inputs / self.weight - mean[:, None] * mean
        found = {"inputs": covariance, "mean": mean}
        return found if self.choice else {**found, "outputs": self.outputs / self.rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--count", type=int, default=65_536, help="tokens of the training text")
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1, help="of the tokens that are drawn")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokens = Tokens(args.tokens)
    model, about = load_model(args.model)
    if about.get("tokenizer_sha256") != tokens.tokenizer:
        raise SystemExit(f"{args.model} was trained with another tokenizer than {args.tokens}")
    model.eval().fold()
    sums = {name: Sums(name.endswith(CHOICES)) for name in model.layers()}
    for name, layer in model.layers().items():
        layer.watcher = sums[name].add
    train = tokens.split("train")
    # From the middle, as `resnet-bk quantize` does.
    start = max(0, (len(train) - args.count) // 2)
    text = train[start : start + args.count]
    windows = text[: len(text) // args.window * args.window].view(-1, args.window)
    random = torch.Generator().manual_seed(args.seed)
    for start in range(0, len(windows), PASS):
        logits = model(windows[start : start + PASS]).flatten(0, 1)
        drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=random)[:, 0]
        F.cross_entropy(logits, drawn, reduction="sum").backward()
        model.zero_grad()
    found = {name: layer.finish() for name, layer in sums.items()}
    tensors = {f"{name}.{what}": t for name, parts in found.items() for what, t in parts.items()}
    if not all(t.isfinite().all() for t in tensors.values()):
        raise SystemExit(f"{args.model} computes infinities or NaNs on the calibration text")
    rows = json.dumps({name: layer.rows for name, layer in sums.items()})
    described = {"rows": rows, "tokens": str(windows.numel()), "seed": str(args.seed)}
    save_tensors(args.model.with_name("statistics.safetensors"), tensors, described)


if __name__ == "__main__":
    main()
