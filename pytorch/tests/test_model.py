"""Models against their fixtures, which the Rust reference computes, too."""

import pathlib

import pytest
import torch
from safetensors.torch import load_file

import fixtures
from resnet_bk import Config, Gated, ResNetBK, load, save


@pytest.mark.parametrize("name", [*fixtures.KINDS, *fixtures.TRAINED])
def test_logits_are_those_of_the_fixture(name):
    folder = fixtures.FOLDER / name
    if name in fixtures.TRAINED:
        folder = fixtures.MODELS / name
    model = load(folder / "model.safetensors").eval()
    exact = load_file(fixtures.FOLDER / name / "logits.safetensors")
    with torch.no_grad():
        found = model(exact["tokens"].long())
    assert (found - exact["logits"]).abs().max() < 1e-4


@pytest.mark.parametrize("kind", fixtures.KINDS)
def test_gradients(kind):
    model = fixtures.made(kind).double()
    tokens = torch.randint(19, (2, 5))
    names, values = zip(*model.named_parameters())
    loss = lambda *new: torch.func.functional_call(model, dict(zip(names, new)), (tokens,)).sin()
    directions = [torch.randn_like(value) for value in values]

    def along(step):
        return loss(*(v + step * d for v, d in zip(values, directions))).sum()

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(along, step)


def test_causal_models_do_not_look_ahead():
    for kind, config in fixtures.KINDS.items():
        model = fixtures.made(kind)
        tokens = torch.randint(19, (1, 9))
        other = tokens.clone()
        other[0, 6] = (other[0, 6] + 1) % 19
        same = torch.allclose(model(tokens)[:, :6], model(other)[:, :6], atol=1e-5)
        assert same == (config.chain == "half"), kind


def test_a_saved_model_comes_back(tmp_path):
    for kind in fixtures.KINDS:
        model, path = fixtures.made(kind), tmp_path / kind / "model.safetensors"
        tokenizer = tmp_path / "its-tokenizer.json"
        tokenizer.write_text("{}")
        save(model, path, tokenizer=tokenizer, seed="1")
        again = load(path)
        assert again.config == model.config
        for name, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)
        files = sorted(file.name for file in path.parent.iterdir())
        assert files == ["model.safetensors", "tokenizer.json"]


def test_what_is_not_finite_is_not_saved(tmp_path):
    model = fixtures.made("gated")
    with torch.no_grad():
        model.lm_head.bias[3] = torch.nan
    with pytest.raises(ValueError, match="lm_head.bias"):
        save(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", fixtures.KINDS)
def test_a_model_is_one_graph(kind):
    model = fixtures.made(kind)
    tokens = torch.randint(19, (2, 9))
    whole = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.allclose(whole(tokens), model(tokens), atol=1e-5)
    whole(tokens).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_wrapped_models_are_saved(tmp_path):
    model = fixtures.made("gated")
    save(torch.compile(model), tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").config == model.config


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"block": Gated(15)}, "multiple"),
        ({"block": Gated(16), "chain": "full"}, "causal"),
        ({"block": Gated(16), "experts": 2}, "hidden"),
        ({"hidden": 0}, "hidden"),
        ({"hidden": 4, "top_k": 2}, "top_k"),
        ({"hidden": 4, "chain": "both"}, "chain"),
    ],
)
def test_impossible_dimensions_are_named(changes, cause):
    with pytest.raises(ValueError, match=cause):
        Config(vocab=8, width=8, layers=1, potentials=4, **changes)


def test_training_learns():
    torch.manual_seed(5)
    text = torch.arange(4000) * torch.arange(4000) % 7
    model = ResNetBK(Config(vocab=7, width=16, layers=2, potentials=4, block=Gated(16)), 0.1)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    losses = []
    for _ in range(40):
        starts = torch.randint(len(text) - 33, (8,))
        windows = torch.stack([text[start : start + 33] for start in starts])
        logits = model(windows[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
