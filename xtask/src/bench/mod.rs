//! `cargo xtask bench`: instruction counts and code size on emulated targets, against a committed
//! baseline, and speed on this machine.

mod baseline;
mod code;
mod host;
mod machine;
mod measured;
mod table;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use resnet_bk_core::coder::Encoder;
use resnet_bk_core::{LogitsDigest, Model, Sampler, Session};

use crate::steps::Steps;
use crate::terminal::{Stderr, Stdout};
use crate::tools::{Inspected, SubjectArgs, Tools};
use crate::{process, root, setup};
use baseline::Baseline;
use machine::{MACHINES, Machine};
use measured::{Exchange, Kernel, Measured, Token};

/// Policies under which whole tokens of the shipped model are counted.
const POLICIES: [&str; 2] = ["static", INT4];
/// The policy also counted with an unaligned blob: most matrices of `static` use FP16 kernels.
const INT4: &str = "uniform-int4";
/// Name of the shipped blob.
const SHIPPED: &str = "shipped";
/// A model of the other kind of block, counted under [`INT4`], and the name of its blob.
const RESOLVENT: (&str, &str) = ("models/resolvent", "resolvent");
/// Misalignment in bytes.
const OFF_ALIGNMENT: u32 = 2;
/// Tokens that the device averages over, and the first token: as in `bench-firmware`.
const TOKENS: usize = 16;
/// Calibration tokens of the blobs, whose quality does not matter here.
const CALIBRATION: &str = "4096";
const FIRST: u32 = 1;

/// What to measure, and against what.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Matrix-vector products only: needs no blobs, hence no tools.
    #[arg(long)]
    kernels: bool,
    /// Skip the comparison of this machine's kernels with candle's, which takes minutes to build at
    /// first.
    #[arg(long)]
    no_host: bool,
    /// Fail if a count is more than 2 % above its baseline, or has none.
    #[arg(long, conflicts_with = "update")]
    check: bool,
    /// Write the measured counts to the baseline.
    #[arg(long)]
    update: bool,
    /// Print one JSON object on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

/// Measures, prints, and compares with the baseline or updates it.
pub fn run(args: &Args) -> Result<()> {
    let on_host = !args.kernels && !args.no_host;
    let steps = Steps::new(if args.kernels { 2 } else { 4 + usize::from(on_host) });
    steps.next("setting up: Rust targets, QEMU");
    setup::run_setup()?;
    let mut measured = Measured::default();
    steps.next("products on every target, checked against the portable kernel");
    for machine in &MACHINES {
        writeln!(Stderr, "      {}", machine.core);
        let (kernels, portable) = products(machine)?;
        measured.kernels.extend(kernels);
        measured.portable.extend(portable);
    }
    if !args.kernels {
        steps.next("quantizing the models");
        let (tools, blobs) = blobs()?;
        steps.next("whole tokens and code");
        for machine in &MACHINES {
            writeln!(Stderr, "      {}", machine.core);
            for (name, blob) in &blobs {
                let token = token(machine, name, blob)?;
                check_pieces(&token, &tools.inspect(blob)?)?;
                measured.tokens.push(token);
            }
            measured.messages.push(exchange(machine)?);
            measured.code.push(code::of(machine, &machine.build("footprint")?)?);
        }
    }
    if on_host {
        steps.next("this machine's kernels beside candle's and the FP32 reference");
        measured.host = host::measure()?;
    }
    measured.conclude();

    if args.json {
        writeln!(Stdout, "{}", serde_json::to_string(&measured)?)?;
    } else {
        writeln!(Stdout, "{measured}")?;
    }
    let counts = Baseline::of(&measured);
    if args.update {
        counts.write(args.kernels)?;
        writeln!(Stderr, "bench: wrote {}", process::shown_path(&baseline::path()));
    } else if args.check {
        let worse = Baseline::read()?.worse(&counts);
        ensure!(
            worse.is_empty(),
            "worse than {}:\n  {}\nimprove it, or accept it with `cargo xtask bench --update`",
            process::shown_path(&baseline::path()),
            worse.join("\n  ")
        );
        writeln!(Stderr, "bench: {} counts are within 2 % of their baseline", counts.len());
    }
    Ok(())
}

/// Counts of a machine's fast kernels, and of the portable one. The firmware fails if a result
/// differs from the portable kernel's.
fn products(machine: &'static Machine) -> Result<(Vec<Kernel>, Vec<Kernel>)> {
    let lines = machine.run(&machine.build("products")?, None)?;
    let (mut kernels, mut portable) = (Vec::new(), Vec::new());
    for line in &lines {
        if let ["product", precision, inputs, outputs, instructions] = line.words()[..] {
            let (inputs, outputs) = (inputs.parse()?, outputs.parse()?);
            kernels.push(Kernel::new(machine, precision, inputs, outputs, instructions.parse()?));
        }
        if let ["portable", precision, inputs, outputs, instructions] = line.words()[..] {
            let (inputs, outputs) = (inputs.parse()?, outputs.parse()?);
            portable.push(Kernel::new(machine, precision, inputs, outputs, instructions.parse()?));
        }
    }
    let checked = machine::number(&lines, "checked")?;
    ensure!(checked > 0 && !kernels.is_empty(), "{} compared nothing", machine.core);
    Ok((kernels, portable))
}

/// The blobs whose tokens are counted, by name: the shipped model's, by policy, the shipped one,
/// and that of another kind of block.
fn blobs() -> Result<(Tools, Vec<(&'static str, PathBuf)>)> {
    let shipped = SubjectArgs::default().model();
    let tools = Tools::build(&shipped, None, "bench", &[])?;
    let (path, name) = RESOLVENT;
    let resolvent = Tools::build(&root().join(path), None, "bench-resolvent", &[])?;
    let quantized = |tools: &Tools, policies: &[&'static str]| {
        let flags = ["--tokens", CALIBRATION, "--measure-tokens", "0"];
        let importance = tools.analyze("importance", &flags)?;
        let quantize = |&policy: &&'static str| {
            let flags = ["--policy", policy, "--calibration-tokens", CALIBRATION];
            Ok((policy, tools.quantize(policy, &flags, &importance)?.0))
        };
        policies.iter().map(quantize).collect::<Result<Vec<_>>>()
    };
    let mut blobs = quantized(&tools, &POLICIES)?;
    blobs.push((SHIPPED, shipped.join("model.rbk")));
    blobs.extend(quantized(&resolvent, &[INT4])?.into_iter().map(|(_, blob)| (name, blob)));
    Ok((tools, blobs))
}

/// Checks the longest pieces against the bounds that `inspect` prints for this core, if any: no
/// piece is longer, and the largest bound is at most three times the longest piece.
fn check_pieces(token: &Token, inspected: &Inspected) -> Result<()> {
    let Some(bounds) = inspected.pieces.get(&token.core.to_lowercase()) else { return Ok(()) };
    // A piece that the model does not have takes none.
    for (piece, instructions) in token.pieces.iter().filter(|(_, instructions)| *instructions > 0) {
        let bound = bounds.get(piece).with_context(|| format!("no bound for {piece}"))?;
        ensure!(
            instructions <= bound,
            "{}, {}: {piece} takes {instructions} instructions, inspect says at most {bound}",
            token.core,
            token.blob
        );
    }
    let (measured, bound) = (token.longest_piece(), bounds.values().max());
    ensure!(
        bound.is_some_and(|&bound| bound <= 3 * measured),
        "{}, {}: the longest piece takes {measured} instructions, inspect says {bound:?}",
        token.core,
        token.blob
    );
    Ok(())
}

/// Counts messages through the shipped blob on a machine, whose bytes must be those that lie beside
/// the firmware, which are the host's (`core/tests/suite/codec.rs`).
fn exchange(machine: &'static Machine) -> Result<Exchange> {
    let expected = root().join("firmware-example/messages.hex");
    let expected = fs::read_to_string(&expected)
        .with_context(|| format!("cannot read {}", expected.display()))?;
    let blob = SubjectArgs::default().model().join("model.rbk");
    let program = machine.build("messages")?;
    let lines = machine.run(&program, Some((&blob, 0)))?;
    let code = code::of(machine, &program)?;
    let words: Vec<_> = lines.iter().map(machine::Line::words).collect();
    let codes = words.iter().filter(|words| words[..].first() == Some(&"code"));
    let codes: Vec<&str> = codes.filter_map(|words| words.get(1).copied()).collect();
    ensure!(
        codes.iter().copied().eq(expected.lines()),
        "{}: messages are compressed to {codes:?}, on this machine to {expected}",
        machine.core
    );
    Ok(Exchange {
        target: machine.target,
        core: machine.core,
        compress_per_byte: machine::number(&lines, "compress")?,
        decompress_per_byte: machine::number(&lines, "decompress")?,
        stack_bytes: machine::number(&lines, "stack_bytes")?,
        ram_bytes: machine::number(&lines, "ram_bytes")?,
        code_bytes: code.text + code.rodata,
    })
}

/// Counts whole tokens on a machine, whose logits must equal the host's.
fn token(machine: &'static Machine, name: &str, blob: &PathBuf) -> Result<Token> {
    let bytes = fs::read(blob).with_context(|| format!("cannot read {}", blob.display()))?;
    let (expected, expected_code) = on_host(&bytes)?;
    let program = machine.build("token")?;
    let run = |offset| {
        let lines = machine.run(&program, Some((blob, offset)))?;
        let digest = machine::value(&lines, "digest")?;
        ensure!(
            digest == expected,
            "{}, {name}, {offset} bytes off: the logits' digest is {digest}, on this machine {expected}",
            machine.core
        );
        let code = machine::value(&lines, "code")?;
        ensure!(
            code == expected_code,
            "{}, {name}: tokens are compressed to {code}, on this machine to {expected_code}",
            machine.core
        );
        Ok(lines)
    };
    let lines = run(0)?;
    let off_alignment = match name {
        INT4 => Some(machine::number(&run(OFF_ALIGNMENT)?, "token")?),
        _ => None,
    };
    let (mut kinds, mut pieces, mut samplers) = (Vec::new(), Vec::new(), Vec::new());
    let mut coder = Vec::new();
    for line in &lines {
        match line.words()[..] {
            ["kind", name, instructions] => kinds.push((name.to_owned(), instructions.parse()?)),
            ["piece", name, instructions] => pieces.push((name.to_owned(), instructions.parse()?)),
            ["sampler", name, instructions] => {
                samplers.push((name.to_owned(), instructions.parse()?));
            }
            ["coder", name, instructions] => coder.push((name.to_owned(), instructions.parse()?)),
            _ => {}
        }
    }
    Ok(Token {
        target: machine.target,
        core: machine.core,
        blob: name.to_owned(),
        instructions: machine::number(&lines, "token")?,
        kinds,
        pieces,
        fed_instructions: machine::number(&lines, "fed")?,
        samplers,
        coder,
        off_alignment,
        session_ram_bytes: machine::number(&lines, "session_ram_bytes")?,
        stack_bytes: machine::number(&lines, "stack_bytes")?,
    })
}

/// What the device computes, on the host: the digest of its logits, and the code of its tokens.
fn on_host(blob: &[u8]) -> Result<(String, String)> {
    let model = Model::from_bytes(blob)?;
    let mut session = Session::allocate(model)?;
    let mut sampler = Sampler::greedy();
    let mut digest = LogitsDigest::new();
    let mut code = [0; 4 * TOKENS];
    let mut encoder = Encoder::new(&mut code);
    let mut token = FIRST;
    for _ in 0..TOKENS {
        let logits = session.step(token)?;
        digest.update(logits);
        token = sampler.sample(logits);
        encoder.put(logits, token)?;
    }
    let len = encoder.finish()?;
    let code = code[..len].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((format!("{:08x}", digest.value()), code))
}
