//! Other revisions and variants of the published model, by tensors that only they have. They would
//! load but compute something else.

use super::refusal::Refusal;
use super::shapes::Shapes;

pub(super) const REVISION: &str = "only the model of commit 518528f (November 2025) in its default \
     form is supported; train or export that one: `git checkout 518528f`, then \
     `torch.save(model.state_dict(), \"weights.pt\")`";

const VARIANTS: [(&[&str], &str); 6] = [
    (
        &[".birman_schwinger_core.", "prime_bump_potential."],
        "the Birman–Schwinger core, a different operator from the tridiagonal chain",
    ),
    (&[".scattering_router."], "routing by scattering phases instead of a gating network"),
    (
        &[".bk_layer.gamma", ".bk_layer.epsilon_param", ".homeostasis."],
        "a learned decay, from a later revision of the model",
    ),
    (&[".hybrid_attn.", "hyperbolic"], "hyperbolic attention, from a later revision of the model"),
    (&[".force_field.", ".layer_norm_q."], "the symplectic block of a later revision of the model"),
    (
        &[".bk_layer.ffn."],
        "the feed-forward layer of a later revision of the model, whose potentials pass through tanh",
    ),
];

/// Refuses models with tensors of a variant.
pub(super) fn refuse(shapes: &Shapes<'_>) -> Result<(), Refusal> {
    let mut problems = Vec::new();
    let mut report = |names: Vec<&str>, reason: &str| match names.as_slice() {
        [] => {}
        [name] => problems.push(format!("`{name}` belongs to {reason}")),
        [name, rest @ ..] => {
            problems.push(format!("`{name}` and {} more belong to {reason}", rest.len()));
        }
    };
    for (parts, reason) in VARIANTS {
        let has = |name: &&str| parts.iter().any(|part| name.contains(part));
        report(shapes.keys().copied().filter(has).collect(), reason);
    }
    let per_channel = shapes.iter().filter(|(name, shape)| {
        let has_axis = shape.is_some_and(|shape| shape.extents.len() == 1);
        name.ends_with(".bk_layer.bk_scale") && has_axis
    });
    let reason = "a later revision of the model, which scales each channel by itself";
    report(per_channel.map(|(name, _)| *name).collect(), reason);
    if problems.is_empty() { Ok(()) } else { Err(Refusal { problems, remedy: REVISION.into() }) }
}
