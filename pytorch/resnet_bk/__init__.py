"""ResNet-BK language models in PyTorch, in the checkpoints that resnet-bk quantizes and runs.

    from resnet_bk import Config, Gated, ResNetBK, load, save

    model = ResNetBK(Config(vocab=1024, width=128, layers=10, potentials=8, block=Gated(256)))
    logits = model(tokens)                  # [batch, window] to [batch, window, vocab]
    save(model, "runs/mine/model.safetensors", tokenizer="tokenizer.json")
"""

from .checkpoint import load, save
from .config import Config, Gated
from .model import ResNetBK

__all__ = ["Config", "Gated", "ResNetBK", "load", "save"]
