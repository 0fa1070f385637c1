// Copies KV blocks by a list of (to, from). A region is the keys or the values of one layer; blockIdx.y names it.
//
// Between two pools, or between a pool and a contiguous buffer (blocks 0, 1, 2, ...). Sizes are in units of 16 bytes.

KERNEL(256) copy_blocks(uint4* to, const uint4* from, const int* pairs, u64 to_region, u64 from_region, int block) {
    const int* pair = pairs + 2 * blockIdx.x;
    to += blockIdx.y * to_region + (size_t)pair[0] * block;
    from += blockIdx.y * from_region + (size_t)pair[1] * block;
    for (int i = threadIdx.x; i < block; i += blockDim.x) to[i] = from[i];
}
