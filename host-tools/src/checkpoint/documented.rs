//! Test: `docs/checkpoint.md` lists every tensor.

use super::{Block, Chain, ModelConfig};

/// Tensors of a model by the tables of `docs/checkpoint.md`, whose conditions are here again.
fn documented(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let page = include_str!("../../../docs/checkpoint.md");
    let start = page.find("\n## Tensors\n").unwrap();
    let mut applies = false;
    let mut found = Vec::new();
    for line in page[start..page.find("\n## What is computed\n").unwrap()].lines() {
        let Some(row) = line.strip_prefix("| `") else {
            applies = match line {
                _ if line.starts_with("Every model:") => true,
                _ if line.starts_with("A published block:") => config.block.is_published(),
                _ if line.starts_with("A gated chain:") => !config.block.is_published(),
                _ if line.starts_with("Experts, of") => config.hidden > 0,
                _ => applies,
            };
            continue;
        };
        let mut cells = row.split(" | ");
        let name = cells.next().unwrap().trim_end_matches('`');
        let exists = applies
            && (config.positions.is_some() || !name.starts_with("position_"))
            && (config.hidden > 0 || !name.contains("ffn_norm"))
            && (config.has_gate() || !name.contains("gating_network"));
        let size = |word: &str| {
            let (times, letter) = match word.split_at(1) {
                (digit, letter) if digit.parse::<usize>().is_ok() => {
                    (digit.parse().unwrap(), letter)
                }
                _ => (1, word),
            };
            times
                * match letter {
                    "" => 1,
                    "V" => config.vocab,
                    "d" => config.width,
                    "K" => config.potentials,
                    "E" => config.experts,
                    "H" => config.hidden,
                    "positions" => config.positions.unwrap_or(0),
                    "C" => match config.block {
                        Block::Gated { channels } => channels,
                        Block::Resolvent => panic!("{row}"),
                    },
                    _ => panic!("{row}"),
                }
        };
        let shape = cells.next().unwrap().trim();
        for layer in (0..config.layers).take(if name.contains(".L.") { 64 } else { 1 }) {
            let name = name.replace(".L.", &format!(".{layer}."));
            for expert in 0..if name.contains(".E.") { config.experts } else { 1 } {
                let name = name.replace(".E.", &format!(".{expert}."));
                let sizes = shape.split(" × ").filter(|&word| word != "scalar");
                if exists {
                    found.push((name, sizes.map(size).collect()));
                }
            }
        }
    }
    found.sort();
    found
}

#[test]
fn tensors_are_those_of_the_documentation() {
    let published = ModelConfig {
        vocab: 40,
        width: 16,
        layers: 2,
        experts: 3,
        top_k: 2,
        hidden: 24,
        potentials: 5,
        positions: Some(12),
        chain: Chain::Full,
        eta_floor: 1.0,
        off_diagonal: 1.0,
        block: Block::Resolvent,
    };
    let gated = ModelConfig {
        positions: None,
        chain: Chain::Half,
        block: Block::Gated { channels: 20 },
        ..published.clone()
    };
    let one_expert = ModelConfig { experts: 1, top_k: 1, ..gated.clone() };
    let none = ModelConfig { hidden: 0, ..one_expert.clone() };
    for config in [published, gated, one_expert, none] {
        let mut own: Vec<_> =
            config.tensors().into_iter().map(|spec| (spec.name, spec.shape)).collect();
        own.sort();
        assert_eq!(documented(&config), own, "{config:?}");
    }
}
