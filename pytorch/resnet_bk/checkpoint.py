"""Reading and writing checkpoints, which `docs/checkpoint.md` specifies."""

import os
import pathlib
import shutil

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from .config import Config
from .model import ResNetBK

FORMAT, CONFIG = "resnet_bk_format", "resnet_bk_config"


def save(
    model: nn.Module,
    path: str | os.PathLike,
    *,
    tokenizer: str | os.PathLike | None = None,
    training_tokens: int | None = None,
    **metadata: str,
) -> None:
    """Writes a checkpoint in FP32, and the tokenizer beside it as `tokenizer.json`.

    The model may be wrapped by `torch.compile` or `DistributedDataParallel`. `training_tokens` is
    how many tokens it was trained on; other metadata is kept with it. Files are written under a
    temporary name, then renamed.
    """
    model = unwrapped(model)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {FORMAT: "1", CONFIG: model.config.to_json(), **metadata}
    if training_tokens is not None:
        about["training_tokens"] = str(training_tokens)
    # Copies: the format refuses tensors that share memory.
    tensors = {
        name: value.detach().to("cpu", torch.float32).contiguous().clone()
        for name, value in model.state_dict().items()
    }
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise ValueError(f"{name} has values that are not finite: nothing was written")
    part = path.with_name(f".{path.name}.part")
    save_file(tensors, part, about)
    if tokenizer is not None:
        beside = path.with_name("tokenizer.json")
        if not beside.exists() or not os.path.samefile(tokenizer, beside):
            copy = path.with_name(".tokenizer.json.part")
            shutil.copyfile(tokenizer, copy)
            os.replace(copy, beside)
    os.replace(part, path)


def load(path: str | os.PathLike, dropout: float = 0.0) -> ResNetBK:
    """The model of a checkpoint, on the CPU and in FP32."""
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
        if about.get(FORMAT) != "1" or CONFIG not in about:
            raise ValueError(
                f"{path} is not a checkpoint of this format: `resnet-bk import {path} --out FILE` "
                "makes one of it"
            )
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}
    model = ResNetBK(Config.from_json(about[CONFIG]), dropout)
    model.load_state_dict(tensors)
    return model


def unwrapped(model: nn.Module) -> ResNetBK:
    """The model inside of `torch.compile` and `DistributedDataParallel`."""
    while not isinstance(model, ResNetBK):
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if inner is None:
            raise TypeError(f"{type(model).__name__} is not a ResNetBK")
        model = inner
    return model
