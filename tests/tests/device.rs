//! The device computes the same bits as the host: every logit, on an emulated Cortex-M4F.

use anyhow::Result;
use resnet_bk_core::coder::{Check, Framing};
use resnet_bk_core::suggest::{Suggester, Suggestion, Unit};
use resnet_bk_core::{Model, Session};
use resnet_bk_tests::{blobs, full_chain, gated, repository, tiny};
use resnet_bk_tools::compress::Link;
use resnet_bk_tools::quantize::Source;
use xtask::firmware::{Firmware, Job, Program, Sampling};
use xtask::{Board, qemu, reference};

/// Runs `job` with every kind of blob of a model on the device and on the host.
fn compare(source: &Source, job: &Job, steps: u32) -> Result<()> {
    let place = tempfile::tempdir()?;
    for (name, blob) in blobs(source)? {
        let path = place.path().join(&name).with_extension("rbk");
        std::fs::write(&path, &blob)?;
        let elf = place.path().join(&name).with_extension("elf");
        Firmware::new(&path, job.clone()).build(&elf)?;
        let report = qemu::run(&elf, qemu::Options::default())?;
        let device = report.success()?;
        let host = reference::run(&blob, job)?;
        assert!(device.steps >= steps, "{name}: only {} steps", device.steps);
        assert_eq!((device.steps, device.fed), (host.steps, host.fed), "{name}");
        assert_eq!(device.digest, host.digest, "{name}: the logits differ");
        assert_eq!(report.text, host.text, "{name}: the text differs");
    }
    Ok(())
}

#[test]
fn generation_gives_the_same_bits_for_256_tokens() -> Result<()> {
    let sampling =
        Sampling { temperature: 0.8, top_k: 20, top_p: 0.95, repetition_penalty: 1.1, seed: 5 };
    let job = Job::Generate { prompt: "The castle was".into(), tokens: 256, sampling };
    compare(&tiny()?, &job, 256)
}

/// Gated chains: convolution, SiLU and memory, in a prompt and in generation.
#[test]
fn gated_chains_give_the_same_bits_for_256_tokens() -> Result<()> {
    let sampling =
        Sampling { temperature: 0.8, top_k: 20, top_p: 0.95, repetition_penalty: 1.1, seed: 5 };
    let job = Job::Generate { prompt: "The castle was".into(), tokens: 256, sampling };
    compare(&gated()?, &job, 256)
}

#[test]
fn full_chain_windows_give_the_same_bits() -> Result<()> {
    let source = full_chain()?;
    let job = Job::Score { windows: 4, seed: 9 };
    compare(&source, &job, 4 * source.dims.positions.min(64))
}

/// Computing a token piece by piece, with other work between the pieces, gives the same bits as
/// computing it at once.
#[test]
fn pieces_beside_another_task_give_the_same_bits() -> Result<()> {
    let job = Job::Generate {
        prompt: "The castle was".into(),
        tokens: 32,
        sampling: Sampling {
            temperature: 0.8,
            top_k: 20,
            top_p: 0.95,
            repetition_penalty: 1.1,
            seed: 5,
        },
    };
    let place = tempfile::tempdir()?;
    let elf = place.path().join("embassy.elf");
    let path = repository("models/wikitext2/model.rbk");
    Firmware { program: Program::Embassy, ..Firmware::new(&path, job.clone()) }.build(&elf)?;
    let report = qemu::run(&elf, qemu::Options::default())?;
    let device = report.success()?;
    let host = reference::run(&std::fs::read(&path)?, &job)?;
    assert_eq!((device.steps, device.fed), (host.steps, host.fed));
    assert_eq!(device.digest, host.digest, "the logits differ");
    assert_eq!(report.text, host.text, "the text differs");
    let line = report.logs.iter().find(|line| line.starts_with("blinks ")).expect("no blinks");
    let words: Vec<&str> = line.split(' ').collect();
    let ["blinks", blinks, "pieces", pieces, "longest", longest] = words[..] else {
        panic!("{line}")
    };
    let (blinks, pieces): (u32, u32) = (blinks.parse()?, pieces.parse()?);
    // A token has dozens of pieces, and the other task ran after each of them.
    assert!(pieces > 40 * (host.steps + host.fed), "{line}");
    assert!(blinks.abs_diff(pieces) <= 2, "{line}");
    assert!(longest.parse::<u64>()? < device.instructions_per_token / 8, "{line}");
    Ok(())
}

/// A Cortex-M4F and a Cortex-M0 compress messages to the host's bytes, and read what the host
/// wrote, which is what lies beside the firmware.
#[test]
fn messages_are_the_same_bytes_on_device_and_host() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (blob, example) =
        (repository("models/wikitext2/model.rbk"), repository("firmware-example"));
    let (messages, codes) = (example.join("messages.txt"), example.join("messages.hex"));
    let text = std::fs::read_to_string(&messages)?;
    let expected = std::fs::read_to_string(&codes)?;
    let bytes = std::fs::read(&blob)?;
    let framing = Framing { identity: true, check: Check::Bits16 };
    let model = Model::from_bytes(&bytes)?;
    let link = Link::new(&model, framing, false, b"")?;
    let lines: Vec<&[u8]> = text.lines().map(str::as_bytes).collect();
    let host: Vec<String> = link.send(&lines, |_| ())?.iter().map(|code| listed(code)).collect();
    let written = host.iter().map(|code| code.replace(['[', ',', ' ', ']'], ""));
    assert!(written.eq(expected.lines()), "messages.hex is of another blob");
    for board in [Board::Mps2An386, Board::Microbit] {
        let elf = place.path().join("messages.elf");
        let program = Program::Messages { messages: messages.clone(), codes: codes.clone() };
        let job = Job::Score { windows: 1, seed: 1 };
        Firmware { program, board, ..Firmware::new(&blob, job) }.build(&elf)?;
        let report = qemu::run(&elf, qemu::Options { board, ..Default::default() })?;
        report.ended()?;
        println!("{board:?}: {}", report.lines("exchanged").next().expect("no figures"));
        assert_eq!(report.lines("code").collect::<Vec<_>>(), host, "{board:?}");
        let read = text.lines().map(|line| format!("b{line:?}")).collect::<Vec<_>>();
        assert_eq!(report.lines("read").collect::<Vec<_>>(), read, "{board:?}");
    }
    Ok(())
}

/// A device suggests the words that the host suggests, with the same probabilities.
#[test]
fn suggestions_are_the_same_on_device_and_host() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (blob, elf) = (repository("models/wikitext2/model.rbk"), place.path().join("suggest.elf"));
    let prompt = "He was born in the nor";
    let sampling = Sampling::GREEDY;
    let job = Job::Generate { prompt: prompt.into(), tokens: 1, sampling };
    Firmware { program: Program::Suggest, ..Firmware::new(&blob, job) }.build(&elf)?;
    let report = qemu::run(&elf, qemu::Options::default())?;
    report.ended()?;
    println!("{}", report.lines("suggested").next().expect("no figures"));
    let bytes = std::fs::read(&blob)?;
    let model = Model::from_bytes(&bytes)?;
    let (mut tokens, mut state) = ([0; 64], vec![0; model.dims().context_len()]);
    let mut suggester = Suggester::new(Session::allocate(model)?, &mut tokens, &mut state)?;
    let mut found = [Suggestion::NONE; 3];
    assert_eq!(suggester.suggest(prompt.as_bytes(), Unit::Word, 16, &mut found)?, 3);
    let words = found.each_ref().map(|suggestion| {
        let text = str::from_utf8(suggestion.text()).expect("a word");
        format!("{} b{text:?}", suggestion.probability())
    });
    assert_eq!(report.lines("suggestion").collect::<Vec<_>>(), words);
    Ok(())
}

/// Bytes as the device logs them.
fn listed(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[{}]", digits.join(", "))
}
