//! What well-known transports carry, with the source of each number.
//!
//! Numbers are those of Dynamo's disaggregated communication guide (v1.2) unless said otherwise: its transport table, what
//! it expects of `ucx_perftest`, and what it measured on EFA and TCP. One deployment recipe in circulation gives InfiniBand
//! 400, RoCE 200 and TCP 25 "GB/s"; these are Gb/s, eight times too much, and are not used. AWS's "400 GB/s EFAv4 per GPU"
//! contradicts its own total of 28.8 Tb/s for 72 GPUs and must be 400 Gb/s; it is not used either.

use engine::Span;

/// A transport between workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Fourth generation: 450 GB/s each way (900 GB/s counts both); about 1 us. Within one NVLink domain only.
    NvLink,
    /// InfiniBand NDR with GPUDirect, one port: 400 Gb/s are 50 GB/s; about 1 us.
    InfinibandNdr,
    /// InfiniBand HDR with GPUDirect, one port: 200 Gb/s are 25 GB/s, of which 20 to 25 are seen; about 1 us.
    InfinibandHdr,
    /// RDMA over converged Ethernet with GPUDirect, one 100 Gb/s port: 10 to 12 GB/s are seen, 11 taken; about 2 us.
    Roce,
    /// AWS EFA through libfabric with GDRCopy, four interfaces: 9.6 GB/s measured. The guide has no latency; 15 us are
    /// usual for its SRD protocol (an estimate).
    Efa,
    /// PCI Express 5.0, 16 lanes: 64 GB/s each way by specification; about 1 us (an estimate).
    Pcie,
    /// TCP where everything is staged in host memory: 1 to 3 GB/s in the table, 2 taken; about 50 us.
    Tcp,
    /// TCP as it is when UCX falls back to it unnoticed: about 0.1 GB/s, which explains the measured TTFT of 98 s at ten
    /// requests of 8,000 tokens.
    TcpFallback,
}

/// The numbers of a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportPreset {
    /// Its name in scenario files.
    pub name: &'static str,
    /// What it carries each way.
    pub bytes_per_s: u64,
    /// Before the first byte arrives.
    pub latency: Span,
}

impl Transport {
    /// All of them.
    pub const ALL: [Transport; 8] = [
        Transport::NvLink,
        Transport::InfinibandNdr,
        Transport::InfinibandHdr,
        Transport::Roce,
        Transport::Efa,
        Transport::Pcie,
        Transport::Tcp,
        Transport::TcpFallback,
    ];

    /// Its numbers.
    #[must_use]
    pub const fn preset(self) -> TransportPreset {
        const MB: u64 = 1_000_000;
        let (name, megabytes_per_s, latency_us) = match self {
            Transport::NvLink => ("nvlink", 450_000, 1),
            Transport::InfinibandNdr => ("infiniband-ndr", 50_000, 1),
            Transport::InfinibandHdr => ("infiniband-hdr", 25_000, 1),
            Transport::Roce => ("roce", 11_000, 2),
            Transport::Efa => ("efa", 9_600, 15),
            Transport::Pcie => ("pcie", 64_000, 1),
            Transport::Tcp => ("tcp", 2_000, 50),
            Transport::TcpFallback => ("tcp-fallback", 100, 50),
        };
        TransportPreset {
            name,
            bytes_per_s: megabytes_per_s * MB,
            latency: Span::from_ns(latency_us * 1_000),
        }
    }
}
