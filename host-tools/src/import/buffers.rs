//! Converts the buffers of a published block, which define H₀ and z, to our chain's constants.

use super::element::{Entries, Values};

/// H₀ = tridiag(√β, diagonal, √β) and z = iη of one block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Constants {
    pub(super) diagonal: f32,
    /// Product β of the two off-diagonals, the only form in which they enter G_tt; `None` for a
    /// chain of length 1, which has none.
    pub(super) beta: Option<f32>,
    pub(super) eta: f32,
}

/// Names and shapes of a block's buffers for a chain of `positions`.
pub(super) fn shapes(block: usize, positions: usize) -> [(String, Vec<usize>); 4] {
    let links = positions.saturating_sub(1);
    [
        (name(block, "h0_diag_base"), vec![1, positions]),
        (name(block, "h0_sub_base"), vec![1, links]),
        (name(block, "h0_super_base"), vec![1, links]),
        (name(block, "z"), vec![]),
    ]
}

fn name(block: usize, buffer: &str) -> String {
    format!("blocks.{block}.bk_layer.{buffer}")
}

/// The constants of every block, or every reason why the buffers are not constant.
pub(super) fn constants(entries: &Entries, blocks: usize) -> Result<Vec<Constants>, Vec<String>> {
    let mut problems = Vec::new();
    let mut found: Vec<Constants> = Vec::new();
    for block in 0..blocks {
        match of_block(entries, block) {
            Ok(constants) => found.push(constants),
            Err(reasons) => problems.extend(reasons),
        }
    }
    // The model has a single β.
    for (block, pair) in found.windows(2).enumerate() {
        if pair[0].beta != pair[1].beta && problems.is_empty() {
            problems.push(format!(
                "the off-diagonals of block {} have the product {:?}, those of block {block} {:?}; \
                 it must be the same in every block",
                block + 1,
                pair[1].beta.unwrap_or_default(),
                pair[0].beta.unwrap_or_default()
            ));
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

fn of_block(entries: &Entries, block: usize) -> Result<Constants, Vec<String>> {
    let values = |buffer: &str| match entries.get(&name(block, buffer)).map(|e| &e.values) {
        Some(Values::Real(values)) => values.as_slice(),
        _ => &[],
    };
    let diagonal = uniform(values("h0_diag_base"))
        .map_err(|reason| format!("`{}` {reason}", name(block, "h0_diag_base")));
    let (lower, upper) = (values("h0_sub_base"), values("h0_super_base"));
    let products: Vec<f32> = lower.iter().zip(upper).map(|(a, b)| a * b).collect();
    let beta = uniform(&products).and_then(positive).map_err(|reason| {
        let (lower, upper) = (name(block, "h0_sub_base"), name(block, "h0_super_base"));
        format!("the product of `{lower}` and `{upper}` {reason}")
    });
    let eta = match entries.get(&name(block, "z")).map(|e| &e.values) {
        Some(Values::Complex(z)) => eta(z[0]),
        Some(Values::Real(z)) => eta([z[0], z[1]]),
        _ => Err("is missing".into()),
    };
    let eta = eta.map_err(|reason| format!("`{}` {reason}", name(block, "z")));
    match (diagonal, beta, eta) {
        (Ok(Some(diagonal)), Ok(beta), Ok(eta)) => Ok(Constants { diagonal, beta, eta }),
        (diagonal, beta, eta) => {
            Err([diagonal.err(), beta.err(), eta.err()].into_iter().flatten().collect())
        }
    }
}

/// The common value of all elements; `None` if there are none.
fn uniform(values: &[f32]) -> Result<Option<f32>, String> {
    let Some(&first) = values.first() else { return Ok(None) };
    let differs = |value: f32| value.to_bits() != first.to_bits();
    if let Some(index) = values.iter().position(|v| !v.is_finite()) {
        return Err(format!("is {} at position {index}", values[index]));
    }
    match values.iter().position(|&v| differs(v)) {
        None => Ok(Some(first)),
        Some(index) => Err(format!(
            "is {first} at position 0 but {} at position {index}; only a uniform chain is supported",
            values[index]
        )),
    }
}

/// β must be positive: then Im L stays below −η, which bounds G.
fn positive(beta: Option<f32>) -> Result<Option<f32>, String> {
    match beta {
        Some(beta) if beta < 0.0 => {
            Err(format!("is {beta}; a chain with a negative one has no bound and is not supported"))
        }
        Some(0.0) => {
            Err("is 0, so no position sees another: such models are of a later revision, \
             whose potentials are also bounded differently"
                .into())
        }
        beta => Ok(beta),
    }
}

/// η of z = iη.
fn eta([re, im]: [f32; 2]) -> Result<f32, String> {
    if re == 0.0 && im > 0.0 && im.is_finite() {
        Ok(im)
    } else {
        Err(format!("is {re} + {im}i; it must be purely imaginary and above the real axis"))
    }
}
