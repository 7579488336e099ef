"""Text through tokenizers of full size: `resnet-bk eval`, where it was built, finds the perplexity
that PyTorch does on the same windows."""

import array
import json
import math
import os
import pathlib
import subprocess
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from resnet_bk import Config, Gated, ResNetBK, save

ROOT = pathlib.Path(__file__).parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BUILT = [TARGET / profile / "resnet-bk" for profile in ("release", "debug")]
TOOLS = next((path for path in BUILT if path.exists()), BUILT[0])


def corpus():
    """Every text of this repository, about three megabytes."""
    files = sorted(path for end in ("md", "rs") for path in ROOT.glob(f"*/**/*.{end}"))
    files = [path for path in files if "target" not in path.parts]
    return "".join(path.read_text(encoding="utf-8") for path in files)


def gpt2(text):
    one = Tokenizer(models.BPE())
    one.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    one.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=5000, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet
    )
    one.train_from_iterator([text], trainer)
    return one


def unigram(text):
    one = Tokenizer(models.Unigram())
    one.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("  ", " ")]
    )
    one.pre_tokenizer = pre_tokenizers.Metaspace()
    one.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=2000, special_tokens=["<unk>"], unk_token="<unk>"
    )
    one.train_from_iterator(text.splitlines()[:20_000], trainer)
    return one


def characters(text):
    known = sorted(character for character, _ in Counter(text).most_common(65))
    one = Tokenizer(models.BPE({text: number for number, text in enumerate(known)}, []))
    one.decoder = decoders.Fuse()
    return one


SIZES = {gpt2: 5000, unigram: 2000, characters: 65}
FRAME = {"width": 16, "layers": 2, "potentials": 4}
KINDS = {
    "half": (dict(experts=2, top_k=1, hidden=24, positions=48), 48),
    "gated": (dict(block=Gated(24)), 128),
}


@torch.no_grad()
def nats(model, tokens, window):
    """Summed over all tokens but the first, in consecutive windows that begin afresh."""
    total = 0.0
    for start in range(0, len(tokens) - 1, window):
        part = torch.tensor(tokens[start : start + window + 1])
        total += F.cross_entropy(model(part[None, :-1])[0], part[1:], reduction="sum").item()
    return total


def evaluated(folder, *arguments):
    command = [TOOLS, "eval", "model.safetensors", "--json", "--quiet", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "WIKITEXT2_DIR"}
    found = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.skipif(not TOOLS.exists(), reason="resnet-bk was not built")
@pytest.mark.parametrize("make", SIZES)
def test_perplexity_is_that_of_pytorch(make, tmp_path):
    text = corpus()
    tokenizer = make(text)
    assert tokenizer.get_vocab_size() == SIZES[make]
    text = text[-60_000:] + "caf\u00e9 \u6f22\u5b57 \U0001f600  \ufb01ne don't 'll 1\u00bd <|endoftext|>\n"
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    encoding = tokenizer.encode(text, add_special_tokens=False)
    tokens = encoding.ids
    (tmp_path / "book.u16").write_bytes(array.array("H", tokens).tobytes())
    predicted = len(text[encoding.offsets[0][1] :].encode())
    for name, (more, window) in KINDS.items():
        torch.manual_seed(1)
        model = ResNetBK(Config(vocab=SIZES[make], **FRAME, **more)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        save(model, tmp_path / "model.safetensors")
        expected = nats(model, tokens, window)
        perplexity = math.exp(expected / (len(tokens) - 1))
        bits = expected / math.log(2)
        result = evaluated(tmp_path, "--text", "book.txt")
        found = result["fp32"]
        assert result["window"] == window and found["tokens"] == len(tokens) - 1
        assert found["perplexity"] == pytest.approx(perplexity, rel=1e-4), name
        assert found["bits_per_byte"] == pytest.approx(bits / predicted, rel=1e-4), name
        found = evaluated(tmp_path, "--text", "book.u16")["fp32"]
        assert found["perplexity"] == pytest.approx(perplexity, rel=1e-4), name
        assert found["bits_per_token"] == pytest.approx(bits / (len(tokens) - 1), rel=1e-4)
