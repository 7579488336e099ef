//! Inference only: loads a blob, generates tokens, prints nothing. Its sections are the code size
//! of inference plus a few hundred bytes of runtime.
#![no_std]
#![no_main]

use core::hint::black_box;

use resnet_bk_bench::machine;
use resnet_bk_core::{Model, Sampler, Session};

resnet_bk_bench::entry!(run);

const WORDS: usize = 8 << 10;

fn run() -> ! {
    static mut MEMORY: [u32; WORDS] = [0; WORDS];
    let memory = &raw mut MEMORY;
    // SAFETY: this function is called once, and nothing else uses the static.
    let memory = unsafe { &mut *memory };
    machine::exit(generate(memory).map_or(1, |()| 0))
}

fn generate(memory: &mut [u32]) -> Option<()> {
    let model = Model::from_bytes(resnet_bk_bench::blob::bytes()).ok()?;
    let mut session = Session::new(model, memory).ok()?;
    let mut sampler = Sampler::greedy();
    let mut token = 1;
    for _ in 0..16 {
        token = sampler.sample(session.step(token).ok()?);
        black_box(token);
    }
    Some(())
}
