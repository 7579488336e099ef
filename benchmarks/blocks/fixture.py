"""Writes tiny models with their logits, by which the Rust forward passes are tested:

    python fixture.py ../fixtures/blocks
"""

import pathlib
import sys

import torch

from architectures import Config, Model
from store import save_model

VOCAB, WINDOWS, WINDOW = 12, 2, 7
FRAME = {"vocab": VOCAB, "width": 8, "layers": 2}
CONFIGS = {
    "mamba": Config("mamba", states=3, channels=12, **FRAME),
    "mamba1": Config("mamba", states=1, hidden=5, **FRAME),
    "gru": Config("gru", hidden=6, **FRAME),
    "attention": Config("attention", hidden=6, heads=2, **FRAME),
    "gated": Config("gated", hidden=5, channels=12, potentials=3, **FRAME),
}


class WithLogits:
    """A model that is saved together with tokens and logits."""

    def __init__(self, model, tokens):
        self.config, self.model, self.tokens = model.config, model, tokens

    def state_dict(self):
        with torch.no_grad():
            logits = self.model.eval()(self.tokens)
        extra = {"fixture.tokens": self.tokens.float(), "fixture.logits": logits}
        return {**self.model.state_dict(), **extra}


def main():
    folder = pathlib.Path(sys.argv[1])
    for seed, (name, config) in enumerate(CONFIGS.items()):
        torch.manual_seed(seed)
        model = Model(config, deviation=1.0)
        with torch.no_grad():
            # Gains and biases that matter, as after training.
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
        tokens = torch.randint(VOCAB, (WINDOWS, WINDOW))
        save_model(folder / f"{name}.safetensors", WithLogits(model, tokens), {})


if __name__ == "__main__":
    main()
