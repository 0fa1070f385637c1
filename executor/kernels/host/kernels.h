// All kernels, for a CPU.

#pragma once
#include "primitives.h"

#include "../common.cuh"
#include "../weights.cu"
#include "../embed.cu"
#include "../norm.cu"
#include "../rotary.cu"
#include "../gate.cu"
#include "../argmax.cu"
#include "../blocks.cu"
#include "../decode_attention.cu"
#include "../prefill_attention.cu"
