//! What else people have: files of other formats, each with what helps.

use crate::import::refusal::{PASS_A_MODEL, Refusal, SAVE_AGAIN};

/// Offset of a tar archive's mark.
const TAR_MARK: usize = 257;

/// The refusal of a file that starts with these bytes.
pub(super) fn refusal(head: &[u8]) -> Refusal {
    // The first entry of the archives that PyTorch wrote before 0.2.
    let is_old = ["sys_info", "pickle", "storages", "tensors", "./sys_info"];
    let is_old = || is_old.iter().any(|name| head.starts_with(name.as_bytes()));
    let starts = |magic: &[u8]| head.starts_with(magic);
    let (problem, remedy) = match () {
        () if head.get(TAR_MARK..).is_some_and(|mark| mark.starts_with(b"ustar")) && is_old() => {
            ("it is a tar archive of PyTorch before 0.2", SAVE_AGAIN)
        }
        () if head.get(TAR_MARK..).is_some_and(|mark| mark.starts_with(b"ustar")) => {
            ("it is a tar archive", "unpack it, and import what is in it: `tar -xvf {file}`")
        }
        () if starts(b"\x1f\x8b") => (
            "it is compressed with gzip",
            "unpack it, and import what is in it: `gunzip {file}`, or `tar -xvzf {file}`",
        ),
        () if starts(b"version https://git-lfs") => (
            "it is the pointer to a file in Git LFS, not the file itself",
            "fetch the file: `git lfs pull --include {file}`",
        ),
        () if starts(b"GGUF") => (
            "it is a GGUF file, which has the weights of another kind of model",
            "import the checkpoint in PyTorch that the model was trained with: \
             `torch.save(model.state_dict(), \"weights.pt\")`",
        ),
        () if starts(&resnet_bk_core::blob::MAGIC) => (
            "it is a blob, which does not have the original weights",
            "pass the checkpoint that it was quantized from; `resnet-bk inspect {file}` says more",
        ),
        () if starts(b"\x80") => ("it is a bare pickle without the tensors' storages", SAVE_AGAIN),
        () if head.is_empty() => (
            "it is empty, and neither a ZIP archive as `torch.save` writes it nor safetensors",
            "copy or download it again; a .pt, .pth or .safetensors file is expected: `ls -l {file}`",
        ),
        () => {
            let remedy = "pass a .pt, .pth, .bin or .safetensors file with the model's state_dict, \
                          or the .index.json of several: ";
            let problem =
                "it is neither a ZIP archive as `torch.save` writes it nor a safetensors file";
            return Refusal::new(problem, format!("{remedy}{PASS_A_MODEL}"));
        }
    };
    Refusal::new(problem, remedy)
}
