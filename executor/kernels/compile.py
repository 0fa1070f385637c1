#!/usr/bin/env python3
"""Compiles every kernel for sm_80 and sm_90a without a GPU and prints registers; fails on errors and register spills.

The compilers come from PyPI (about 130 MB, kept in --wheels). Exits 0 when all is well, 1 when a kernel is not, and 0 with
"skipped" when the compilers cannot be had.
"""

import argparse
import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
WHEELS = ["nvidia-cuda-nvrtc==13.0.88", "nvidia-cuda-nvcc==13.0.88"]
ARCHITECTURES = ["80", "90a"]
# HEAD_DIM, BLOCK_SIZE, GROUP: Llama-3.1-8B, Qwen3-32B or Llama-3-70B, no sharing with one token per block, the small
# model of the tests, the most heads that share.
SHAPES = [(128, 16, 4), (128, 16, 8), (64, 1, 1), (16, 16, 2), (128, 64, 16)]


def install(folder):
    """The root of the installed wheels, or a reason why there is none."""
    root = folder / "nvidia" / "cu13"
    if not (root / "bin" / "ptxas").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *WHEELS]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=90)
        except (OSError, subprocess.TimeoutExpired) as error:
            return None, str(error)
        if done.returncode != 0:
            return None, (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    return root, ""


def source():
    """The one module that the executor compiles, in the order that executor/src/cuda/kernels.rs has, too."""
    names = (HERE / "order").read_text().split()
    missing = {path.name for path in HERE.glob("*.cu")} - set(names)
    if missing:
        sys.exit(f"executor/kernels/order: found no {', '.join(sorted(missing))}, expected every kernel file")
    return "\n".join(f'#line 1 "{name}"\n' + (HERE / name).read_text() for name in names)


class Nvrtc:
    """The part of libnvrtc that turns a source into PTX."""

    def __init__(self, root):
        # NVRTC opens its built-in functions by name; loaded before, they are found outside of the loader's path too.
        ctypes.CDLL(str(root / "lib" / "libnvrtc-builtins.so.13.0"), mode=ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(root / "lib" / "libnvrtc.so.13"))

    def ptx(self, text, architecture, shape):
        program = ctypes.c_void_p()
        code = self.library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None)
        assert code == 0, f"nvrtcCreateProgram: {code}"
        head_dim, block_size, group = shape
        options = [f"--gpu-architecture=compute_{architecture}", "--std=c++17", f"-DHEAD_DIM={head_dim}"]
        options += [f"-DBLOCK_SIZE={block_size}", f"-DGROUP={group}"]
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        code = self.library.nvrtcCompileProgram(program, len(options), array)
        log = self.text(program, "ProgramLog")
        return (self.text(program, "PTX") if code == 0 else None), log

    def text(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{what}")(program, text)
        return text.value.decode()


def registers(root, ptx, architecture):
    """What ptxas says of each kernel: (name, registers, stack, spilled bytes), and its errors."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "kernels.ptx"
        path.write_text(ptx)
        command = [root / "bin" / "ptxas", f"-arch=sm_{architecture}", "-v", "-o", f"{path}.cubin", path]
        done = subprocess.run(command, capture_output=True, text=True)
    text = done.stdout + done.stderr
    if done.returncode != 0:
        return [], text
    pattern = (
        r"Function properties for (\w+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r"\s+ptxas info\s+: Used (\d+) registers"
    )
    found = re.findall(pattern, text)
    return [(name, int(used), int(stack), int(out) + int(back)) for name, stack, out, back, used in found], ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=pathlib.Path, default=HERE.parents[1] / "target" / "cuda-wheels")
    options = parser.parse_args()
    root, reason = install(options.wheels)
    if root is None:
        print(f"skipped: the CUDA compilers cannot be installed from PyPI: {reason}")
        return 0
    nvrtc, text, problems = Nvrtc(root), source(), []
    expected = set(re.findall(r"KERNEL\(\d+\)\s+(\w+)", text))
    for architecture in ARCHITECTURES:
        for shape in SHAPES:
            place = f"sm_{architecture} HEAD_DIM={shape[0]} BLOCK_SIZE={shape[1]} GROUP={shape[2]}"
            ptx, log = nvrtc.ptx(text, architecture, shape)
            if log.strip("\0\n "):
                problems.append(f"{place}: {log}")
            if ptx is None:
                continue
            kernels, errors = registers(root, ptx, architecture)
            if errors:
                problems.append(f"{place}: {errors}")
                continue
            missing = expected - {name for name, *_ in kernels}
            if missing:
                problems.append(f"{place}: found no report on {', '.join(sorted(missing))}")
            for name, used, stack, spilled in sorted(kernels):
                print(f"{place:48} {name:20} {used:4} registers {stack:5} B stack {spilled:5} B spilled")
                if spilled or stack:
                    problems.append(f"{place}: {name}: found {spilled} bytes spilled, {stack} of stack, expected none")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{len(expected)} kernels, {len(ARCHITECTURES)} architectures, {len(SHAPES)} shapes, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
