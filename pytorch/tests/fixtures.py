"""Tiny models of every kind, and logits by which the Rust forward passes are tested:

    PYTHONPATH=. python tests/fixtures.py

Writes `tests/fixtures/KIND/model.safetensors` and beside it `logits.safetensors` (tokens and
logits); of checkpoints of this repository only the latter.
"""

import pathlib

import torch
from safetensors.torch import save_file

from resnet_bk import Config, Gated, ResNetBK, load, save

FOLDER = pathlib.Path(__file__).parent / "fixtures"
MODELS = pathlib.Path(__file__).parents[2] / "models"

FRAME = {"vocab": 19, "width": 12, "layers": 2}
EXPERTS = {"experts": 3, "top_k": 2, "hidden": 10}
KINDS = {
    "published": Config(
        **FRAME, **EXPERTS, potentials=1, positions=16, chain="full", eta_floor=1.0
    ),
    "full": Config(**FRAME, **EXPERTS, potentials=4, chain="full", off_diagonal=0.7),
    "half": Config(**FRAME, **EXPERTS, potentials=4, positions=9),
    "dense": Config(**FRAME, experts=2, top_k=2, hidden=10, potentials=4),
    "gated": Config(**FRAME, potentials=4, block=Gated(16)),
    "gated-ffn": Config(**FRAME, potentials=2, hidden=7, block=Gated(16)),
    "gated-experts": Config(**FRAME, **EXPERTS, potentials=4, block=Gated(16)),
}
# Checkpoints that `resnet-bk train` made.
TRAINED = ["tiny"]
BATCH, WINDOW = 2, 9


def made(kind: str) -> ResNetBK:
    """A random model whose every parameter matters, as after training."""
    torch.manual_seed(list(KINDS).index(kind))
    model = ResNetBK(KINDS[kind]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def write_logits(name: str, model: ResNetBK) -> None:
    torch.manual_seed(1)
    tokens = torch.randint(model.config.vocab, (BATCH, WINDOW))
    tensors = {"tokens": tokens.float(), "logits": model(tokens)}
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "logits.safetensors")


def main() -> None:
    for kind in KINDS:
        model = made(kind)
        save(model, FOLDER / kind / "model.safetensors", training_tokens=0)
        write_logits(kind, model)
    for name in TRAINED:
        write_logits(name, load(MODELS / name / "model.safetensors").eval())


if __name__ == "__main__":
    main()
