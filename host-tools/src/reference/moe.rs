//! Mixture of experts: each position is computed only by the experts that it is routed to.

use crate::reference::dropout::Dropout;
use crate::reference::fake_quant::round_rows;
use crate::reference::linear::Linear;
use crate::reference::observer::Each;
use crate::reference::real::{Real, add_scaled, add_to, dot, size};

/// The layers of a mixture.
#[derive(Clone, Debug)]
pub(crate) struct Experts {
    /// The gating network; a single expert can do without.
    pub(crate) gate: Option<Linear>,
    /// First and second layer of each expert.
    pub(crate) layers: Vec<(Linear, Linear)>,
}

/// Activations saved for the backward pass and for observers.
#[derive(Default)]
pub(crate) struct Tape<T> {
    /// Dropout of hidden activations, during training.
    pub(crate) dropout: Option<Dropout>,
    /// Whether to round hidden activations.
    pub(crate) rounds: bool,
    /// Gate logits `[rows, E]`.
    pub(crate) logits: Vec<T>,
    /// Gate probabilities `[rows, E]`; zero for experts not selected.
    probabilities: Vec<T>,
    pub(crate) experts: Vec<ExpertTape<T>>,
    /// Gradients of gate logits, expert outputs and hidden activations.
    d_logits: Vec<T>,
    d_output: Vec<T>,
    d_hidden: Vec<T>,
    d_input: Vec<T>,
}

/// One expert's activations, for the n positions routed to it.
#[derive(Default)]
pub(crate) struct ExpertTape<T> {
    /// The positions, ascending.
    pub(crate) positions: Vec<usize>,
    /// Their gate probabilities.
    pub(crate) probabilities: Vec<T>,
    /// Inputs `[n, d]`.
    pub(crate) input: Vec<T>,
    /// First layer's outputs `[n, hidden]`, before ReLU.
    pub(crate) before: Vec<T>,
    /// After ReLU, rounded if enabled.
    pub(crate) hidden: Vec<T>,
    /// Second layer's outputs `[n, d]`.
    pub(crate) output: Vec<T>,
}

/// Adds the experts' weighted sum to `h` `[rows, d]`, given normalised inputs `u` `[rows, d]`.
pub(crate) fn forward<T: Real>(
    experts: &Experts,
    parameters: &[T],
    top_k: usize,
    u: &[T],
    h: &mut [T],
    tape: &mut Tape<T>,
) {
    let (d, count) = (experts.layers[0].0.inputs, experts.layers.len());
    let rows = u.len() / d;
    size(&mut tape.logits, rows * count);
    match &experts.gate {
        Some(gate) => gate.forward(parameters, u, &mut tape.logits),
        None => tape.logits.fill(T::ZERO),
    }
    size(&mut tape.probabilities, rows * count);
    tape.experts.resize_with(count, ExpertTape::default);
    for expert in &mut tape.experts {
        expert.positions.clear();
        expert.probabilities.clear();
        expert.input.clear();
    }
    for r in 0..rows {
        let row = r * count..(r + 1) * count;
        let probabilities = &mut tape.probabilities[row.clone()];
        route(&tape.logits[row], top_k, probabilities);
        for (expert, &p) in tape.experts.iter_mut().zip(probabilities.iter()) {
            if p > T::ZERO {
                expert.positions.push(r);
                expert.probabilities.push(p);
                expert.input.extend_from_slice(&u[r * d..][..d]);
            }
        }
    }
    let gain = tape.dropout.map_or(T::ONE, Dropout::gain);
    for ((first, second), expert) in experts.layers.iter().zip(&mut tape.experts) {
        let n = expert.positions.len();
        size(&mut expert.before, n * first.outputs);
        first.forward(parameters, &expert.input, &mut expert.before);
        if let Some(dropout) = &mut tape.dropout {
            // Zeroed before the ReLU, so that the gradient is zero, too.
            dropout.apply(&mut expert.before);
        }
        expert.hidden.clear();
        expert
            .hidden
            .extend(expert.before.iter().map(|&x| if x > T::ZERO { x * gain } else { T::ZERO }));
        if tape.rounds {
            round_rows(&mut expert.hidden, first.outputs, 255);
        }
        size(&mut expert.output, n * d);
        second.forward(parameters, &expert.hidden, &mut expert.output);
        let results = expert.output.chunks_exact(d).zip(&expert.probabilities);
        for (&r, (y, &p)) in expert.positions.iter().zip(results) {
            add_scaled(&mut h[r * d..][..d], p, y);
        }
    }
}

/// Softmax over the `top_k` largest logits, zero elsewhere; ties go to the lower index.
fn route<T: Real>(logits: &[T], top_k: usize, probabilities: &mut [T]) {
    // Marks experts not yet selected; weights are never negative.
    let free = -T::ONE;
    probabilities.fill(free);
    let mut largest = T::ZERO;
    let mut total = T::ZERO;
    for rank in 0..top_k {
        let mut best = None;
        for (e, &logit) in logits.iter().enumerate() {
            if probabilities[e] == free && best.is_none_or(|b: usize| logit > logits[b]) {
                best = Some(e);
            }
        }
        let best = best.expect("top_k is at most the number of experts");
        if rank == 0 {
            largest = logits[best];
        }
        probabilities[best] = (logits[best] - largest).exp();
        total += probabilities[best];
    }
    for p in probabilities {
        *p = if *p == free { T::ZERO } else { *p / total };
    }
}

/// Adds parameter gradients to `gradient` and the input's gradient to `du`, given `df` `[rows, d]`.
pub(crate) fn backward<T: Real>(
    experts: &Experts,
    parameters: &[T],
    u: &[T],
    df: &[T],
    tape: &mut Tape<T>,
    (gradient, du): (&mut [T], &mut [T]),
    each: &mut Each<'_, T>,
) {
    size(&mut tape.d_logits, tape.probabilities.len());
    tape.d_logits.fill(T::ZERO);
    for (e, layers) in experts.layers.iter().enumerate() {
        backward_expert(layers, e, parameters, df, tape, (gradient, du), each);
    }
    let Some(gate) = &experts.gate else { return };
    // Softmax backward: dlogit = p · (dp − Σ p·dp); experts not selected have p = 0.
    let count = experts.layers.len();
    let rows = tape.probabilities.chunks_exact(count);
    for (p, d) in rows.zip(tape.d_logits.chunks_exact_mut(count)) {
        let mean = dot(p, d);
        for (d, &p) in d.iter_mut().zip(p) {
            *d = p * (*d - mean);
        }
    }
    gate.backward_parameters(gradient, u, &tape.d_logits, each);
    gate.backward_input(parameters, &tape.d_logits, du, true);
}

fn backward_expert<T: Real>(
    (first, second): &(Linear, Linear),
    e: usize,
    parameters: &[T],
    df: &[T],
    tape: &mut Tape<T>,
    (gradient, du): (&mut [T], &mut [T]),
    each: &mut Each<'_, T>,
) {
    let d = first.inputs;
    let experts = tape.experts.len();
    let expert = &tape.experts[e];
    let n = expert.positions.len();
    size(&mut tape.d_output, n * d);
    for (i, &r) in expert.positions.iter().enumerate() {
        let df = &df[r * d..][..d];
        tape.d_logits[r * experts + e] = dot(df, &expert.output[i * d..][..d]);
        let p = expert.probabilities[i];
        for (y, &f) in tape.d_output[i * d..][..d].iter_mut().zip(df) {
            *y = p * f;
        }
    }
    second.backward_parameters(gradient, &expert.hidden, &tape.d_output, each);
    size(&mut tape.d_hidden, n * first.outputs);
    second.backward_input(parameters, &tape.d_output, &mut tape.d_hidden, false);
    let gain = tape.dropout.map_or(T::ONE, Dropout::gain);
    for (dh, &x) in tape.d_hidden.iter_mut().zip(&expert.before) {
        *dh = if x > T::ZERO { *dh * gain } else { T::ZERO };
    }
    first.backward_parameters(gradient, &expert.input, &tape.d_hidden, each);
    size(&mut tape.d_input, n * d);
    first.backward_input(parameters, &tape.d_hidden, &mut tape.d_input, false);
    for (&r, dx) in expert.positions.iter().zip(tape.d_input.chunks_exact(d)) {
        add_to(&mut du[r * d..][..d], dx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_logits_the_lower_index_wins() {
        let mut p = [9.0; 4];
        route(&[1.0, 2.0, 2.0, 2.0], 2, &mut p);
        assert_eq!(p, [0.0, 0.5, 0.5, 0.0]);
        route(&[0.0; 4], 4, &mut p);
        assert_eq!(p, [0.25; 4]);
        // An expert whose weight underflows is still selected only once.
        route(&[0.0, -1e4, -1e5, -1e6], 3, &mut p);
        assert_eq!(p, [1.0, 0.0, 0.0, 0.0]);
        // NaN must not panic: the loss will show it.
        route(&[f64::NAN; 4], 2, &mut p);
    }

    #[test]
    fn probabilities_are_a_softmax_over_the_chosen() {
        let mut p = [0.0; 3];
        route(&[0.0, 1.0f64, -5.0], 2, &mut p);
        assert!((p[1] - 1.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-15);
        assert!((p[0] + p[1] - 1.0).abs() < 1e-15 && p[2] == 0.0);
    }
}
