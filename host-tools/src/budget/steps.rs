//! Steps around a mix: one tensor stored with one choice more or less, and which of them matter.

use super::Choice;

/// One tensor's move to a neighbouring choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Index of the tensor.
    pub(super) tensor: usize,
    /// Its choice after the step.
    pub(super) choice: usize,
}

/// All steps from `mix`, with the choices of every tensor ascending in bytes.
pub(super) fn around(mix: &[usize], costs: &[Vec<Choice>]) -> Vec<Step> {
    let of_tensor = |(tensor, &here): (usize, &usize)| {
        let down = here.checked_sub(1);
        let up = Some(here + 1).filter(|&up| up < costs[tensor].len());
        [down, up].into_iter().flatten().map(move |choice| Step { tensor, choice })
    };
    mix.iter().enumerate().flat_map(of_tensor).collect()
}

/// The `count` steps nearest the decision, in their order: those that would be taken at a price of
/// bytes little higher or lower than that of the mix. What a byte is worth in a step is its change
/// of cost by its change of bytes; the price lies between the most that a step up is worth and
/// the least that a step down is.
pub(super) fn nearest(
    steps: Vec<Step>,
    mix: &[usize],
    costs: &[Vec<Choice>],
    count: usize,
) -> Vec<Step> {
    if steps.len() <= count {
        return steps;
    }
    // ln of a byte's worth; steps that are free or change no bytes are always near.
    let worth = |step: &Step| {
        let (here, there) = (costs[step.tensor][mix[step.tensor]], costs[step.tensor][step.choice]);
        let bytes = there.bytes.abs_diff(here.bytes) as f64;
        let worth = ((there.cost - here.cost).abs() / bytes).ln();
        worth.is_finite().then_some(worth)
    };
    let is_up = |step: &&Step| step.choice > mix[step.tensor];
    let (ups, downs): (Vec<&Step>, Vec<&Step>) = steps.iter().partition(is_up);
    let most = ups.into_iter().filter_map(worth).reduce(f64::max);
    let least = downs.into_iter().filter_map(worth).reduce(f64::min);
    let price = match (most, least) {
        (Some(most), Some(least)) => most.midpoint(least),
        (one, other) => one.or(other).unwrap_or(0.0),
    };
    let distance = |step: &Step| worth(step).map_or(0.0, |worth| (worth - price).abs());
    let mut places: Vec<usize> = (0..steps.len()).collect();
    places.sort_by(|&a, &b| distance(&steps[a]).total_cmp(&distance(&steps[b])));
    places.truncate(count);
    places.sort_unstable();
    places.into_iter().map(|place| steps[place]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_at_the_price_of_the_mix_are_nearest() {
        let choices = |costs: [f64; 3]| {
            let choice = |(i, cost)| Choice { bytes: 100 * (i + 1), cost };
            costs.into_iter().enumerate().map(choice).collect::<Vec<_>>()
        };
        // Worth of 100 bytes: of tensor 0 up 10 and down 100, of tensor 1 up 0.1 and down 12.
        let costs = [choices([110.0, 10.0, 0.0]), choices([12.1, 0.1, 0.0])];
        let mix = [1, 1];
        let all = around(&mix, &costs);
        let step = |tensor, choice| Step { tensor, choice };
        assert_eq!(all, [step(0, 0), step(0, 2), step(1, 0), step(1, 2)]);
        assert_eq!(nearest(all.clone(), &mix, &costs, 2), [step(0, 2), step(1, 0)]);
        assert_eq!(nearest(all.clone(), &mix, &costs, 4), all);
        assert_eq!(around(&[0, 2], &costs), [step(0, 1), step(1, 1)]);
    }
}
