//! Where the articles of a text begin.

/// Bytes at which articles begin, as WikiText sets them: a line ` = Title = ` between blank ones,
/// with one `=` on either side (headings within an article have more). The blank line before
/// belongs to it.
pub fn articles(text: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    // Where the last line began if it was blank, or a title after a blank one.
    let (mut blank, mut title) = (Some(0), None);
    let (mut offset, mut seen) = (0, false);
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        if content.is_empty() {
            starts.extend(title.take());
            blank = Some(if seen { offset } else { 0 });
        } else {
            title = blank.take().filter(|_| is_title(content));
            seen = true;
        }
        offset += line.len();
    }
    starts
}

/// Whether a line without its surrounding white space is the title of an article.
fn is_title(line: &str) -> bool {
    let title = line.strip_prefix("= ").and_then(|rest| rest.strip_suffix(" ="));
    title.is_some_and(|title| {
        let title = title.trim();
        !title.is_empty() && !title.starts_with('=') && !title.ends_with('=')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_stand_alone_between_blank_lines() {
        let text = " \n = One = \n \n Text . \n \n = = Section = = \n \n More . \n \n = Two = 2 = \n \n \
                    Text with \n = 1 µH and a = \n in a line . \n \n = Not closed \n \n";
        let starts = articles(text);
        assert_eq!(starts.len(), 2, "{starts:?}");
        assert_eq!(starts[0], 0);
        assert!(text[starts[1]..].starts_with(" \n = Two = 2 = \n"));
        assert_eq!(articles("= A =\r\n\r\ntext\r\n\r\n= B =\r\n\r\n"), [0, 15]);
        assert_eq!(articles(" \n \n = A = \n \n"), [0], "what comes before is blank");
        for none in
            ["", "text", "text\n\nmore", " = = A = = \n \n", "= =\n\n", "=\n\n", "= A =\ntext"]
        {
            assert_eq!(articles(none), [0; 0], "{none:?}");
        }
    }
}
