"""What is compared: sizes of about equal parameters for each kind of block, and one recipe."""

import dataclasses

# Learning rates are searched with the first seed: those of the preset, then onwards by this factor
# while the best is at an end. A single one is taken as it is.
FACTOR = 1.5
LIMITS = (0.002, 0.1)


@dataclasses.dataclass(frozen=True)
class Preset:
    width: int
    steps: int
    batch: int
    seeds: int
    half: bool  # weights in f16
    budgets: tuple  # bytes of whole models
    # Flags of train.py by name, and rates of its own if any; the gated chain is trained by
    # `resnet-bk train` instead.
    models: dict
    rates: tuple = (0.018, 0.027)
    window: int = 128
    weight_decay: float = 0.2
    dropout: float = 0.1
    tokenizer: str = "models/wikitext2/tokenizer.json"


def model(kind, layers, **flags):
    return {"kind": kind, "layers": layers, **flags}


SMALL = Preset(
    width=64, steps=1500, batch=32, seeds=3, half=False, budgets=(128_000, 160_000, 192_000),
    models={
        "gated": model("gated", 7, potentials=8),
        "mamba16": model("mamba", 6, states=16),
        "mamba1": model("mamba", 7, states=1),
        "gru": model("gru", 4, hidden=160),
        "attention": model("attention", 4, hidden=224),
    },
)

# Half the best rates of the small size: this one is twice as wide.
FULL = Preset(
    width=128, steps=1221, batch=64, seeds=1, half=True, budgets=(512_000, 712_000, 1_048_576),
    models={
        "gated": model("gated", 11, potentials=8, rates=(0.0135,)),
        "mamba16": model("mamba", 10, states=16, rates=(0.009,)),
        "mamba1": model("mamba", 11, states=1, rates=(0.009,)),
        "gru": model("gru", 5, hidden=512, rates=(0.006,)),
        "attention": model("attention", 6, hidden=480, rates=(0.009,)),
    },
)

# For files of 16, 64 and 256 KB. The first two are those of models/16k and models/64k: the same
# bytes of training text and of the file.
FLASH16 = Preset(
    width=32, steps=3000, batch=32, window=256, seeds=1, half=False, budgets=(16_384,),
    weight_decay=0.1, dropout=0.0, tokenizer="models/16k/tokenizer.json",
    models={
        "gated": model("gated", 2, potentials=4),
        "gru": model("gru", 2, hidden=0),
        "attention": model("attention", 2, hidden=40),
    },
)

FLASH64 = Preset(
    width=64, steps=3000, batch=32, window=256, seeds=1, half=False, budgets=(65_536,),
    weight_decay=0.1, dropout=0.0, tokenizer="models/64k/tokenizer.json",
    models={
        "gated": model("gated", 5, channels=64, potentials=8),
        "gru": model("gru", 2, hidden=64),
        "attention": model("attention", 2, hidden=128),
    },
)

FLASH256 = Preset(
    width=96, steps=3000, batch=64, seeds=1, half=False, budgets=(262_144,), dropout=0.0,
    models={
        "gated": model("gated", 6, channels=128, potentials=8),
        "gru": model("gru", 3, hidden=120),
        "attention": model("attention", 4, hidden=112),
    },
)

# To see in a few minutes that everything works; the figures mean nothing.
SMOKE = Preset(
    width=32, steps=50, batch=8, seeds=1, half=False, budgets=(64_000,), rates=(0.01,),
    models={
        "gated": model("gated", 2, potentials=8),
        "mamba16": model("mamba", 2, states=16),
        "mamba1": model("mamba", 2, states=1),
        "gru": model("gru", 1, hidden=64),
        "attention": model("attention", 1, hidden=64),
    },
)

PRESETS = {
    "small": SMALL, "full": FULL, "smoke": SMOKE,
    "flash16": FLASH16, "flash64": FLASH64, "flash256": FLASH256,
}
