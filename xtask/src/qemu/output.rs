//! Parser for the firmware's output.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A log line.
    Log {
        /// `error`, `warn`, `info`, `debug` or `trace`.
        level: &'static str,
        /// The line.
        message: String,
    },
    /// The prompt.
    Prompt(Vec<u8>),
    /// A sampled token.
    Token(u32),
    /// Bytes of its text; a UTF-8 character may be split between two events.
    Text(Vec<u8>),
    /// Summary of the run.
    Summary(Summary),
    /// Any other line without a level.
    Line(String),
    /// Bytes that are not a frame.
    Malformed,
}

/// Summary of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Number of tokens generated or scored.
    pub tokens: u32,
    /// Number of positions with computed logits: the prompt's last token and the generated ones.
    pub steps: u32,
    /// CRC-32C over these logits, as eight hexadecimal digits.
    pub digest: String,
    /// Instructions per step, inference only.
    pub instructions_per_token: u64,
    /// Prompt tokens before the last, without logits.
    pub fed: u32,
    /// Instructions per prompt token without logits; 0 if there are none.
    pub instructions_per_fed_token: u64,
    /// Session memory in bytes.
    pub session_bytes: u64,
    /// Peak stack use in bytes.
    pub stack_bytes: u64,
    /// All statics, including the session, plus peak stack use, in bytes.
    pub ram_bytes: u64,
    /// Code and constants, including the blob, in bytes.
    pub flash_bytes: u64,
}

/// All output of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// 0 after success, 1 after an error, 101 after a panic, 134 after a fault.
    pub exit_code: i32,
    /// Log lines, each prefixed by its level.
    pub logs: Vec<String>,
    /// Generated tokens.
    pub tokens: Vec<u32>,
    /// Their text; an incomplete character at the end becomes U+FFFD.
    pub text: String,
    /// The summary, if the run reached it.
    pub summary: Option<Summary>,
    /// Messages of the emulator itself.
    pub emulator_messages: String,
    #[serde(skip)]
    bytes: Vec<u8>,
}

impl Event {
    /// Parses a frame by its first word; anything else is an ordinary line.
    pub(super) fn parse(level: Option<&'static str>, message: String) -> Self {
        if let Some(level) = level {
            return Self::Log { level, message };
        }
        let parsed = match message.split_once(' ') {
            Some(("prompt", bytes)) => unescape(bytes).map(Self::Prompt),
            Some(("text", bytes)) => unescape(bytes).map(Self::Text),
            Some(("token", number)) => number.parse().ok().map(Self::Token),
            Some(("summary", pairs)) => Summary::parse(pairs).ok().map(Self::Summary),
            _ => None,
        };
        parsed.unwrap_or(Self::Line(message))
    }
}

impl Report {
    pub(super) fn add(&mut self, event: Event) {
        match event {
            Event::Log { level, message } => self.logs.push(format!("{level} {message}")),
            Event::Line(line) => self.logs.push(line),
            Event::Malformed => self.logs.push("(bytes that are not a log frame)".to_owned()),
            Event::Prompt(_) => {}
            Event::Token(token) => self.tokens.push(token),
            Event::Text(bytes) => self.bytes.extend(bytes),
            Event::Summary(summary) => self.summary = Some(summary),
        }
    }

    pub(super) fn finish(mut self, exit_code: i32, emulator_messages: String) -> Self {
        self.text = String::from_utf8_lossy(&self.bytes).into_owned();
        Self { exit_code, emulator_messages, ..self }
    }

    /// The summary of a successful run; otherwise an error with the last log line.
    pub fn success(&self) -> Result<&Summary> {
        self.ended()?;
        self.summary.as_ref().context("the firmware printed no summary")
    }

    /// The lines after a keyword at their beginning, of a program that prints no summary.
    pub fn lines<'a>(&'a self, keyword: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.logs.iter().filter_map(|line| line.split_once(' '));
        lines.filter(move |(word, _)| *word == keyword).map(|(_, rest)| rest)
    }

    /// Fails with the last log line unless the run was successful.
    pub fn ended(&self) -> Result<()> {
        ensure!(
            self.exit_code == 0,
            "the firmware ended with exit code {}: {} {}",
            self.exit_code,
            self.logs.last().map_or("it logged nothing", String::as_str),
            self.emulator_messages.trim()
        );
        Ok(())
    }
}

impl Summary {
    /// Parses `key=value` pairs; all known keys must be present, unknown ones are ignored.
    fn parse(pairs: &str) -> Result<Self> {
        let text = |key: &str| {
            pairs
                .split(' ')
                .filter_map(|pair| pair.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value)
                .with_context(|| format!("the summary has no {key}"))
        };
        let number = |key: &str| -> Result<u64> { Ok(text(key)?.parse()?) };
        Ok(Self {
            tokens: text("tokens")?.parse()?,
            steps: text("steps")?.parse()?,
            digest: text("digest")?.to_owned(),
            instructions_per_token: number("instructions_per_token")?,
            fed: text("fed")?.parse()?,
            instructions_per_fed_token: number("instructions_per_fed_token")?,
            session_bytes: number("session_bytes")?,
            stack_bytes: number("stack_bytes")?,
            ram_bytes: number("ram_bytes")?,
            flash_bytes: number("flash_bytes")?,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tokens              {:>12}", self.tokens)?;
        writeln!(f, "digest of logits    {:>12}  ({} steps)", self.digest, self.steps)?;
        writeln!(f, "instructions/token  {:>12}", self.instructions_per_token)?;
        if self.fed > 0 {
            let (each, fed) = (self.instructions_per_fed_token, self.fed);
            writeln!(f, "  of the prompt     {each:>12}  ({fed} tokens)")?;
        }
        let (session, stack) = (self.session_bytes, self.stack_bytes);
        writeln!(
            f,
            "RAM bytes           {:>12}  (session {session}, stack {stack})",
            self.ram_bytes
        )?;
        write!(f, "flash bytes         {:>12}", self.flash_bytes)
    }
}

/// The bytes of a `b"…"` literal as printed by defmt's ASCII hint.
fn unescape(literal: &str) -> Option<Vec<u8>> {
    let inner = literal.strip_prefix("b\"")?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'x' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_come_back() {
        let literal = r#"b"a\t\n\r\\\"\x00\xc3\xa9 z""#;
        assert_eq!(unescape(literal).unwrap(), b"a\t\n\r\\\"\0\xc3\xa9 z");
        for broken in ["", "b\"", "\"a\"", r#"b"\x0""#, r#"b"\xzz""#] {
            assert_eq!(unescape(broken), None, "{broken}");
        }
    }

    #[test]
    fn frames_are_told_apart() {
        let parse = |message: &str| Event::parse(None, message.to_owned());
        assert_eq!(parse("token 17"), Event::Token(17));
        assert_eq!(parse("text b\" the\""), Event::Text(b" the".to_vec()));
        assert_eq!(parse("token x"), Event::Line("token x".to_owned()));
        assert_eq!(parse("hello"), Event::Line("hello".to_owned()));
        let log = Event::parse(Some("info"), "token 17".to_owned());
        assert_eq!(log, Event::Log { level: "info", message: "token 17".to_owned() });
    }

    #[test]
    fn a_summary_needs_every_key() {
        let line = "tokens=2 steps=5 digest=00c0ffee instructions_per_token=40 fed=3 \
                    instructions_per_fed_token=30 session_bytes=1 stack_bytes=2 ram_bytes=3 flash_bytes=4 later=5";
        let summary = Summary::parse(line).unwrap();
        assert_eq!((summary.tokens, summary.digest.as_str()), (2, "00c0ffee"));
        assert_eq!((summary.fed, summary.instructions_per_fed_token), (3, 30));
        let error = Summary::parse(&line.replace("ram_", "rom_")).unwrap_err();
        assert_eq!(error.to_string(), "the summary has no ram_bytes");
    }

    #[test]
    fn a_failed_run_shows_its_last_words() {
        let mut report = Report { exit_code: 134, ..Report::default() };
        report.add(Event::Log { level: "error", message: "stack overflow".to_owned() });
        assert!(report.success().unwrap_err().to_string().contains("134: error stack overflow"));
        report.exit_code = 0;
        assert!(report.success().is_err());
    }
}
