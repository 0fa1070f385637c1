#!/usr/bin/env bash
# All that needs an NVIDIA GPU, in one call of at most ten minutes: is the CUDA executor right, how fast is it beside what
# the GPU could do, and how far off is a simulation with the profile measured here?
#
#   cargo build --release --features cuda -p dynosim -p executor    # anywhere, no CUDA needed; glibc 2.35 or newer on both
#   executor/gpu/check.sh [FOLDER]                                  # on the GPU machine; results go to FOLDER [gpu-results]
#
# Needs libcuda.so.1 (the driver), libnvrtc.so.13 and libcublasLt.so.13 (CUDA 13.0, or the wheels nvidia-cuda-nvrtc and
# nvidia-cublas) in LD_LIBRARY_PATH. BIN is the folder of the programs [target/release]. Every step leaves its file as soon
# as it is done, so that a run that is cut short keeps what it has; what fails is told and the rest goes on. summary.json
# says what ran on what: device, driver, clocks and throttling before and after, date, and each step with its file, time and
# outcome.
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=${BIN:-target/release}
out=${1:-gpu-results}
mkdir -p "$out"
failed=0
began=$(date -u +%Y-%m-%dT%H:%M:%SZ)
steps=

# Runs a step: name, seconds it may take, its result file, then the command, whose stdout goes to that file.
step() {
    local name=$1 limit=$2 file=$3 start=$SECONDS outcome=ok
    shift 3
    if timeout "$limit" "$@" >"$out/$file" 2>"$out/$name.log"; then
        printf 'ok    %-24s %4d s  %s\n' "$name" $((SECONDS - start)) "$out/$file"
    else
        printf 'FAIL  %-24s %4d s  %s\n' "$name" $((SECONDS - start)) "$*"
        tail -n 5 "$out/$name.log"
        failed=1
        outcome=failed
    fi
    steps+="${steps:+, }{\"step\": \"$name\", \"file\": \"$file\", \"seconds\": $((SECONDS - start)), \"outcome\": \"$outcome\"}"
    summary
}

# Name, driver, memory, clocks, temperature, power and throttling of each GPU, as one JSON string.
state() {
    local fields=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,temperature.gpu,power.draw,clocks_throttle_reasons.active
    nvidia-smi --format=csv --query-gpu="$fields" 2>/dev/null | tr -d '"\\' | awk '{ printf "%s%s", (NR > 1 ? "; " : ""), $0 } END { print "" }'
}

# What is known so far, whole at any time.
summary() {
    local probe=null
    [ -s "$out/probe.json" ] && probe=$(cat "$out/probe.json")
    cat >"$out/summary.json.new" <<JSON
{"began": "$began", "ended": "$(date -u +%Y-%m-%dT%H:%M:%SZ)", "program": "$("$bin/dynosim" --version 2>/dev/null)",
 "device": $probe,
 "state_before": "${before:-}",
 "state_after": "$(state)",
 "steps": [$steps]}
JSON
    mv "$out/summary.json.new" "$out/summary.json"
}

before=$(state)
step probe 30 probe.json "$bin/cuda-check" probe
if [ "$failed" = 1 ]; then
    echo "no GPU that can be used: nothing else is run"
    exit 2
fi
# Tokens and logits beside the CPU executor's; then products, attention, steps with graphs and without, copies of blocks.
step compare 80 compare.txt "$bin/cuda-check" compare
step time-llama-8b 45 time-llama-3.1-8b.csv "$bin/cuda-check" time examples/llama-3.1-8b.json
step time-qwen3-32b 60 time-qwen3-32b.csv "$bin/cuda-check" time examples/qwen3-32b.json
# The sweep: prefill, decode, skewed and mixed steps in random order, some of them again, a fifth held out, by kind of work;
# the host's time between steps while serving; copies of KV blocks on the GPU, to the host and back.
step collect-llama-8b 105 collect-llama-3.1-8b.json "$bin/dynosim" calibrate collect examples/real-cuda.yaml --real cuda \
    --budget-s 70 --per-op --kv-copies "$out/copies-llama-3.1-8b.jsonl" --json \
    --out "$out/steps-llama-3.1-8b.jsonl" --profile "$out/llama-3.1-8b.fit.json"
step collect-qwen3-32b 115 collect-qwen3-32b.json "$bin/dynosim" calibrate collect examples/real-cuda.yaml --real cuda \
    --set model=examples/qwen3-32b.json --set engine.num_gpu_blocks=12000 --budget-s 65 --per-op --json \
    --kv-copies "$out/copies-qwen3-32b.jsonl" --out "$out/steps-qwen3-32b.jsonl" --profile "$out/qwen3-32b.fit.json"
# Traffic at a moderate load, and with 64 conversations open all the time: real twice, simulated once.
step validate-moderate 80 validate-moderate.json "$bin/dynosim" validate real examples/real-cuda.yaml --real cuda --runs 2 \
    --json --profile "$out/llama-3.1-8b.fit.json" --plot "$out/validate-moderate.png" \
    --set workload.synth.requests=100 --set workload.synth.duration_s=20
step validate-saturating 80 validate-saturating.json "$bin/dynosim" validate real examples/real-cuda.yaml --real cuda --runs 2 \
    --json --profile "$out/llama-3.1-8b.fit.json" --plot "$out/validate-saturating.png" \
    --set workload.synth.requests=300 --set workload.load.concurrency=64
exit $failed
