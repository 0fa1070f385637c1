#!/usr/bin/env bash
# All that needs an NVIDIA GPU, in one call of at most ten minutes: is the CUDA executor right, how fast is it beside what
# the GPU could do, and how far off is a simulation with the profile measured here?
#
#   cargo build --release --features cuda -p dynosim -p executor    # anywhere, no CUDA needed; glibc 2.35 or newer on both
#   executor/gpu/check.sh [FOLDER]                                  # on the GPU machine; results go to FOLDER [gpu-results]
#
# Needs libcuda.so.1 (the driver), libnvrtc.so.13 and libcublasLt.so.13 (CUDA 13.0, or the wheels nvidia-cuda-nvrtc and
# nvidia-cublas) in LD_LIBRARY_PATH. BIN is the folder of the programs [target/release]. Every step leaves its file as soon
# as it is done, so that a run that is cut short keeps what it has; what fails is told and the rest goes on.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${BIN:-target/release}
out=${1:-gpu-results}
mkdir -p "$out"
failed=0

# Runs a step: name, seconds it may take, its result file, then the command, whose stdout goes to that file.
step() {
    local name=$1 limit=$2 file=$3 start=$SECONDS
    shift 3
    if bounded "$limit" "$@" >"$out/$file" 2>"$out/$name.log"; then
        printf 'ok    %-24s %4d s  %s\n' "$name" $((SECONDS - start)) "$out/$file"
    else
        printf 'FAIL  %-24s %4d s  %s\n' "$name" $((SECONDS - start)) "$*"
        tail -n 5 "$out/$name.log"
        failed=1
    fi
}

# A program within its time; a function as it is.
bounded() {
    local limit=$1
    shift
    if [ "$(type -t "$1")" = function ]; then "$@"; else timeout "$limit" "$@"; fi
}

# Device, driver, clocks, throttling and date, as CSV.
state() {
    date -u +%Y-%m-%dT%H:%M:%SZ
    nvidia-smi --format=csv --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,temperature.gpu,power.draw,clocks_throttle_reasons.active
}

step probe 30 probe.json "$bin/cuda-check" probe
if [ "$failed" = 1 ]; then
    echo "no GPU that can be used: nothing else is run"
    exit 2
fi
step state-before 10 state-before.csv state
step compare 90 compare.txt "$bin/cuda-check" compare
step time-llama-8b 45 time-llama-3.1-8b.csv "$bin/cuda-check" time examples/llama-3.1-8b.json
step time-qwen3-32b 60 time-qwen3-32b.csv "$bin/cuda-check" time examples/qwen3-32b.json
step collect-llama-8b 105 collect-llama-3.1-8b.txt "$bin/dynosim" calibrate collect examples/real-cuda.yaml --real cuda \
    --budget-s 75 --out "$out/steps-llama-3.1-8b.jsonl" --profile "$out/llama-3.1-8b.fit.json"
step collect-qwen3-32b 115 collect-qwen3-32b.txt "$bin/dynosim" calibrate collect examples/real-cuda.yaml --real cuda \
    --set model=examples/qwen3-32b.json --set engine.num_gpu_blocks=12000 --budget-s 75 \
    --out "$out/steps-qwen3-32b.jsonl" --profile "$out/qwen3-32b.fit.json"
step validate 125 validate.json "$bin/dynosim" validate real examples/real-cuda.yaml --real cuda --runs 2 --json \
    --profile "$out/llama-3.1-8b.fit.json" --plot "$out/validate.png"
step state-after 10 state-after.csv state
exit $failed
