//! Passes the memory map of the target's QEMU machine to the linker.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = env::var("TARGET").expect("cargo sets TARGET");
    println!("cargo::rustc-check-cfg=cfg(microbit)");
    if target.starts_with("thumbv6m") {
        println!("cargo::rustc-cfg=microbit");
    }
    let riscv = target.starts_with("riscv");
    let map = if riscv { "src/machine/riscv.x" } else { "src/machine/arm.x" };
    println!("cargo::rerun-if-changed={map}");
    fs::copy(map, out.join("memory.x")).expect("the memory map can be copied");
    println!("cargo::rustc-link-search={}", out.display());
    if riscv {
        println!("cargo::rustc-link-arg-bins=-Tmemory.x");
    } else {
        println!("cargo::rustc-link-arg-bins=--nmagic");
    }
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
}
