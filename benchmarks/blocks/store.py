"""Files: tokens, trained models, statistics."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from architectures import Config, Model

# Metadata key of the dimensions: of files written here, and of checkpoints of resnet-bk.
CONFIG, OURS = "block_config", "resnet_bk_config"


class Tokens:
    """What `resnet-bk-benchmarks tokens` wrote."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        about = json.loads((self.folder / "tokens.json").read_text())
        self.vocab, self.tokenizer = about["vocab"], about["tokenizer_sha256"]
        self.lengths = self._read("lengths")

    def _read(self, name):
        values = np.fromfile(self.folder / f"{name}.u16", dtype="<u2")
        return torch.from_numpy(values.astype(np.int64))

    def split(self, name):
        return self._read(name)


def write_atomically(path, write):
    """Calls `write` with a temporary path, then renames: an interrupted run leaves no part."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    write(temporary)
    os.replace(temporary, path)


def save_tensors(path, tensors, metadata, dtype=torch.float32):
    # Copies, since tied weights share their memory, which the format refuses.
    tensors = {n: t.detach().to("cpu", dtype).contiguous().clone() for n, t in tensors.items()}
    write_atomically(path, lambda part: save_file(tensors, part, metadata))


def save_model(path, model, metadata, dtype=torch.float32):
    config = json.dumps(dataclasses.asdict(model.config))
    save_tensors(path, model.state_dict(), {CONFIG: config, **metadata}, dtype)


def tidy(path, half):
    """Rewrites a model of `resnet-bk train`: without the command that trained it, which names
    folders of its machine, and with its weights in f16 if `half`."""
    with safe_open(path, "pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    about.pop("command", None)
    save_tensors(path, tensors, about, torch.float16 if half else torch.float32)


def copy(source, target):
    """Copies a file, under a temporary name first."""
    write_atomically(target, lambda part: shutil.copyfile(source, part))


def metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def load_model(path):
    """A model with its metadata, from a file written here or a gated chain of resnet-bk."""
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}
    if CONFIG in about:
        config = Config(**json.loads(about[CONFIG]))
    elif OURS in about:
        config = _config_of_ours(json.loads(about[OURS]), path)
        tensors = {_name_of_ours(name): tensor for name, tensor in tensors.items()}
    else:
        raise ValueError(f"{path} has no dimensions among its metadata")
    model = Model(config)
    model.load_state_dict(tensors)
    return model, about


def _config_of_ours(ours, path):
    block = ours.get("block", "resolvent")
    if not isinstance(block, dict) or "gated" not in block:
        raise ValueError(f"{path} is not a gated chain")
    if ours["experts"] != 1 or ours["off_diagonal"] != 1.0 or ours.get("positions"):
        raise ValueError(f"{path} has several experts, another chain or a position table")
    return Config(
        kind="gated",
        vocab=ours["vocab"],
        width=ours["width"],
        layers=ours["layers"],
        hidden=ours["hidden"],
        channels=block["gated"]["channels"],
        potentials=ours["potentials"],
        eta_floor=ours["eta_floor"],
    )


def _name_of_ours(name):
    for ours, here in [
        ("layer_norm_final.", "norm."),
        (".layer_norm.", ".norm."),
        (".bk_layer.moe_ffn.experts.0.0.", ".ffn.up."),
        (".bk_layer.moe_ffn.experts.0.3.", ".ffn.down."),
        (".bk_layer.", ".mixer."),
    ]:
        name = name.replace(ours, here)
    return name
