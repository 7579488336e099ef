//! Import options: what the file does not contain.

use super::dimensions::Dimensions;

/// How to import a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Dimensions that the file may not record, of decreasing precedence, each with the name of
    /// where they come from.
    pub given: Vec<(String, Dimensions)>,
    /// Which model to import from a file that holds several: its dictionary keys and prefix, joined
    /// by dots.
    pub state: Option<String>,
    /// Whether embedding and head share their weight, so that the file may hold it once; a head
    /// without a bias then has one of 0.
    pub tied: bool,
}

impl Options {
    /// With these dimensions.
    pub fn with(dimensions: Dimensions) -> Self {
        Self { given: vec![("the flags".into(), dimensions)], ..Self::default() }
    }
}
