//! Blocks of a text for standard errors: neighbouring windows are correlated, so blocks, not
//! windows, count as independent.

use serde::{Deserialize, Serialize};

/// Tokens per block of a text without articles or streams: about an article of WikiText.
const BLOCK_TOKENS: usize = 8_192;
/// Least number of blocks of a short text.
const FEWEST: usize = 8;

/// Kind of block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// An article of the text.
    Article,
    /// One continuous sample from the model.
    Stream,
    /// A run of windows.
    Windows,
}

/// A text's windows, divided into blocks of neighbours that count as independent of each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// Their kind.
    pub block: Block,
    /// Tokens per window.
    pub window: usize,
    /// Number of windows in each block.
    pub windows: Vec<usize>,
}

impl Blocks {
    /// Blocks of a text of `tokens` tokens that start at these tokens; text before the first start
    /// is a block, too. A window belongs to the block of its first token.
    ///
    /// # Panics
    /// If `window` is 0.
    pub fn starting_at(block: Block, starts: &[usize], tokens: usize, window: usize) -> Self {
        let count = windows(tokens, window);
        let mut bounds: Vec<usize> =
            starts.iter().map(|start| start.div_ceil(window).min(count)).collect();
        bounds.extend([0, count]);
        bounds.sort_unstable();
        bounds.dedup();
        let windows = bounds.windows(2).map(|pair| pair[1] - pair[0]).collect();
        Self { block, window, windows }
    }

    /// Blocks of a text of `tokens` tokens without articles or streams: runs of 8,192 tokens, or
    /// eighths of a shorter text.
    ///
    /// # Panics
    /// If `window` is 0.
    pub fn runs(tokens: usize, window: usize) -> Self {
        let count = windows(tokens, window);
        let longest = BLOCK_TOKENS.div_ceil(window).min(count / FEWEST).max(1);
        let blocks = count.div_ceil(longest);
        // Block lengths differ by at most one window.
        let bound = |block: usize| block * count / blocks;
        let windows = (0..blocks).map(|block| bound(block + 1) - bound(block)).collect();
        Self { block: Block::Windows, window, windows }
    }

    /// Number and kind of blocks in words, as in "standard errors by 61 articles".
    pub fn describe(&self) -> String {
        let many =
            |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let count = self.windows.len();
        match (self.block, self.windows.iter().max()) {
            (Block::Article, _) => many(count, "article"),
            (Block::Stream, _) => many(count, "stream"),
            (Block::Windows, None | Some(1)) => many(count, "window"),
            (Block::Windows, Some(longest)) => {
                format!("{} of {longest} windows", many(count, "block"))
            }
        }
    }
}

/// Number of windows in a text of `tokens` tokens, the first of which is not predicted.
fn windows(tokens: usize, window: usize) -> usize {
    tokens.saturating_sub(1).div_ceil(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_belongs_to_the_article_of_its_first_token() {
        let blocks = |starts: &[usize]| Blocks::starting_at(Block::Article, starts, 96, 10);
        // Windows start at 0, 10, … 90; the second article starts within the third window, the
        // third exactly at a window, the fourth has no window, the fifth has the remaining ones.
        assert_eq!(blocks(&[0, 21, 50, 61, 65]).windows, [3, 2, 2, 3]);
        // An excerpt starts within an article.
        assert_eq!(blocks(&[21]).windows, [3, 7]);
        assert_eq!(blocks(&[]).windows, [10]);
        assert_eq!(blocks(&[95]).describe(), "1 article");
    }

    #[test]
    fn runs_are_of_one_length_and_short_texts_have_shorter_ones() {
        let long = Blocks::runs(128 * 1000 + 1, 128);
        assert_eq!(long.windows.iter().sum::<usize>(), 1000);
        assert!(long.windows.iter().all(|&w| w == 62 || w == 63), "{long:?}");
        assert_eq!(long.describe(), "16 blocks of 63 windows");
        let short = Blocks::runs(128 * 40 + 2, 128);
        assert_eq!((short.windows.len(), short.windows.iter().sum::<usize>()), (9, 41));
        assert_eq!(Blocks::runs(128 * 4, 128).describe(), "4 windows");
        for (tokens, blocks) in [(0, 0), (1, 0), (2, 1), (129, 1), (130, 2)] {
            assert_eq!(Blocks::runs(tokens, 128).windows.len(), blocks, "{tokens}");
        }
    }
}
