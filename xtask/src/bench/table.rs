//! The measurements as tables.

use std::fmt;

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use super::measured::{Code, Exchange, Kernel, Measured, Ratio, Token};

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nInstructions per multiply-accumulate, complete products (QEMU; not cycles)"
        )?;
        writeln!(f, "{}", products(&self.kernels))?;
        if !self.tokens.is_empty() {
            writeln!(f, "\nInstructions of a token, greedy, by kind of layer")?;
            writeln!(f, "{}", tokens(&self.tokens))?;
        }
        if !self.messages.is_empty() {
            writeln!(f, "\nMessages through the shipped blob, instructions per byte of text")?;
            writeln!(f, "{}", messages(&self.messages))?;
        }
        if !self.code.is_empty() {
            writeln!(f, "\nCode of inference alone, in bytes")?;
            writeln!(f, "{}", code(&self.code))?;
        }
        if !self.host.is_empty() {
            writeln!(f, "\nSpeed on this machine, one thread, in turns; above 1 is faster")?;
            writeln!(f, "{}", ratios(&self.host))?;
        }
        if let Some(bytes) = self.session_ram_bytes {
            write!(f, "\nsession RAM {bytes} bytes")?;
        }
        Ok(())
    }
}

fn table(heads: impl IntoIterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(heads);
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A row per target and precision, a column per shape.
fn products(kernels: &[Kernel]) -> Table {
    let shape = |kernel: &Kernel| (kernel.inputs, kernel.outputs);
    let mut shapes: Vec<_> = Vec::new();
    let mut rows: Vec<(&str, &str)> = Vec::new();
    for kernel in kernels {
        if !shapes.contains(&shape(kernel)) {
            shapes.push(shape(kernel));
        }
        let row = (kernel.core, kernel.precision.as_str());
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    let heads = shapes.iter().map(|(inputs, outputs)| format!("{inputs}→{outputs}"));
    let mut table = table(["core".to_owned(), "precision".to_owned()].into_iter().chain(heads));
    for (core, precision) in rows {
        let cells = shapes.iter().map(|wanted| {
            let of_row = |k: &&Kernel| (k.core, k.precision.as_str()) == (core, precision);
            let found = kernels.iter().filter(of_row).find(|kernel| shape(kernel) == *wanted);
            right(found.map_or(String::new(), |kernel| format!("{:.3}", kernel.per_mac)))
        });
        table.add_row([Cell::new(core), Cell::new(precision)].into_iter().chain(cells));
    }
    table
}

/// A column per target and blob.
fn tokens(tokens: &[Token]) -> Table {
    let heads = tokens.iter().map(|token| format!("{}\n{}", token.core, token.blob));
    let mut table = table([String::new()].into_iter().chain(heads));
    let mut row = |name: &str, number: &dyn Fn(&Token) -> Option<u64>| {
        let cells =
            tokens.iter().map(|t| right(number(t).map_or(String::new(), |n| n.to_string())));
        table.add_row([Cell::new(name)].into_iter().chain(cells));
    };
    let kinds = tokens.iter().map(|token| &token.kinds).max_by_key(|kinds| kinds.len());
    for (kind, _) in kinds.into_iter().flatten() {
        row(kind, &|token| {
            token.kinds.iter().find(|(name, _)| name == kind).map(|(_, number)| *number)
        });
    }
    row("whole token", &|token| Some(token.instructions));
    row("token of a prompt", &|token| Some(token.fed_instructions));
    row("longest piece", &|token| Some(token.longest_piece()));
    row("whole token, blob not aligned", &|token| token.off_alignment);
    let samplers = tokens.first().map(|token| &token.samplers);
    for (sampler, _) in samplers.into_iter().flatten() {
        row(&format!("sampler {sampler}"), &|token| {
            token.samplers.iter().find(|(name, _)| name == sampler).map(|(_, number)| *number)
        });
    }
    for end in ["encode", "decode"] {
        row(&format!("coder {end}"), &|token| {
            token.coder.iter().find(|(name, _)| name == end).map(|(_, number)| *number)
        });
    }
    row("stack bytes", &|token| Some(token.stack_bytes));
    table
}

fn messages(messages: &[Exchange]) -> Table {
    let heads =
        ["core", "compress", "decompress", "stack bytes", "RAM bytes", "flash beside the blob"];
    let mut table = table(heads.map(str::to_owned));
    for line in messages {
        let Exchange { compress_per_byte, decompress_per_byte, stack_bytes, .. } = *line;
        let numbers =
            [compress_per_byte, decompress_per_byte, stack_bytes, line.ram_bytes, line.code_bytes];
        let cells = numbers.map(|number| right(number.to_string()));
        table.add_row([Cell::new(line.core)].into_iter().chain(cells));
    }
    table
}

fn ratios(ratios: &[Ratio]) -> Table {
    let heads = ["kernel", "inputs", "outputs", "against", "ratio", "half of the turns"];
    let mut table = table(heads.map(str::to_owned));
    for Ratio { kernel, inputs, outputs, against, ratio, quartiles: [low, high] } in ratios {
        let numbers = [inputs.to_string(), outputs.to_string()].map(right);
        let spread = [format!("{ratio:.2}"), format!("{low:.2} to {high:.2}")].map(right);
        let against = [Cell::new(against)];
        table.add_row([Cell::new(kernel)].into_iter().chain(numbers).chain(against).chain(spread));
    }
    table
}

fn code(code: &[Code]) -> Table {
    let mut table = table(
        ["core", "core and kernels", "all of .text", ".rodata", "functions of kernels"]
            .map(str::to_owned),
    );
    for code in code {
        let kernels: Vec<_> =
            code.kernels.iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
        let cells = [code.own, code.text, code.rodata].map(|bytes| right(bytes.to_string()));
        let kernels = Cell::new(kernels.join("\n"));
        table.add_row([Cell::new(code.core)].into_iter().chain(cells).chain([kernels]));
    }
    table
}
