//! Finds the beginnings of articles in a text.

/// Byte offsets at which articles begin in WikiText: a line ` = Title = ` between blank ones, with
/// one `=` on each side (section headings have more). The blank line before belongs to the article.
pub fn articles(text: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    // Start of the last line if it was blank, or if it was a title after a blank one.
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

/// Whether a trimmed line is the title of an article.
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
