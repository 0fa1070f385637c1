//! The table of GPUs, one block per SKU, newest first.

use super::{Fabric, Gpu, Origin, Sourced};

const fn sheet<T>(value: T, source: &'static str) -> Sourced<T> {
    Sourced {
        value,
        origin: Origin::Datasheet,
        source,
    }
}

const fn measured<T>(value: T, source: &'static str) -> Sourced<T> {
    Sourced {
        value,
        origin: Origin::Measured,
        source,
    }
}

const fn estimated<T>(value: T, source: &'static str) -> Sourced<T> {
    Sourced {
        value,
        origin: Origin::Estimated,
        source,
    }
}

const fn mib(mib: u64) -> u64 {
    mib << 20
}

const CUDA: &str = "total memory reported by CUDA";
const SMI: &str = "nvidia-smi, as recorded in AIConfigurator 0.12";
const HOPPER: &str = "NVIDIA H100/H200 datasheet";
const AMPERE: &str = "NVIDIA A100/A30 datasheet";
const ADA: &str = "NVIDIA L4/L40/L40S datasheet";
const BLACKWELL: &str = "NVIDIA Blackwell datasheet, HGX B200/B300 and GB200 NVL72 per GPU";
const VOLTA: &str = "NVIDIA V100 datasheet, fp16: it has no bf16";
const TURING: &str = "NVIDIA T4 datasheet, fp16: it has no bf16";
const CDNA2: &str = "AMD MI250X datasheet, one of its two dies, as software sees it";
const GEFORCE: &str = "NVIDIA Ada architecture whitepaper, fp32 accumulation";

const GIGA: f64 = 1e9;
const TERA: f64 = 1e12;

pub(super) static GPUS: [Gpu; 20] = [
    Gpu {
        name: "gb200_sxm",
        memory_bytes: measured(mib(189_471), SMI),
        memory_bytes_per_s: sheet(8.0 * TERA, BLACKWELL),
        bf16_flops: sheet(2_500.0 * TERA, BLACKWELL),
        fp8_flops: Some(sheet(5_000.0 * TERA, BLACKWELL)),
        fabric: Fabric::NvLink,
        link_bytes_per_s: sheet(900.0 * GIGA, BLACKWELL),
        gpus_per_node: 4,
    },
    Gpu {
        name: "b300_sxm",
        memory_bytes: measured(mib(275_040), SMI),
        memory_bytes_per_s: sheet(
            7.75 * TERA,
            "NVIDIA DGX B300 datasheet: 62 TB/s over 8 GPUs",
        ),
        bf16_flops: sheet(2_250.0 * TERA, BLACKWELL),
        fp8_flops: Some(sheet(4_500.0 * TERA, BLACKWELL)),
        fabric: Fabric::NvLink,
        link_bytes_per_s: sheet(900.0 * GIGA, BLACKWELL),
        gpus_per_node: 8,
    },
    Gpu {
        name: "b200_sxm",
        memory_bytes: measured(mib(182_631), CUDA),
        memory_bytes_per_s: sheet(7.7 * TERA, BLACKWELL),
        bf16_flops: sheet(2_250.0 * TERA, BLACKWELL),
        fp8_flops: Some(sheet(4_500.0 * TERA, BLACKWELL)),
        fabric: Fabric::NvLink,
        link_bytes_per_s: sheet(900.0 * GIGA, BLACKWELL),
        gpus_per_node: 8,
    },
    Gpu {
        name: "h200_sxm",
        memory_bytes: measured(mib(143_156), CUDA),
        memory_bytes_per_s: sheet(4.8 * TERA, HOPPER),
        bf16_flops: sheet(989.0 * TERA, HOPPER),
        fp8_flops: Some(sheet(1_979.0 * TERA, HOPPER)),
        fabric: Fabric::NvLink,
        link_bytes_per_s: sheet(450.0 * GIGA, HOPPER),
        gpus_per_node: 8,
    },
    Gpu {
        name: "h100_sxm",
        memory_bytes: measured(mib(81_090), CUDA),
        memory_bytes_per_s: sheet(3.35 * TERA, HOPPER),
        bf16_flops: sheet(989.0 * TERA, HOPPER),
        fp8_flops: Some(sheet(1_979.0 * TERA, HOPPER)),
        fabric: Fabric::NvLink,
        link_bytes_per_s: sheet(450.0 * GIGA, HOPPER),
        gpus_per_node: 8,
    },
    Gpu {
        name: "h100_pcie",
        memory_bytes: sheet(mib(80 * 1024), HOPPER),
        memory_bytes_per_s: sheet(2.0 * TERA, HOPPER),
        bf16_flops: sheet(756.5 * TERA, HOPPER),
        fp8_flops: Some(sheet(1_513.0 * TERA, HOPPER)),
        fabric: Fabric::Pcie,
        link_bytes_per_s: sheet(64.0 * GIGA, "PCIe 5.0 x16"),
        gpus_per_node: 8,
    },
    Gpu {
        name: "h20_sxm",
        memory_bytes: sheet(mib(96 * 1024), "NVIDIA H20: 96 GB"),
        memory_bytes_per_s: sheet(4.0 * TERA, "NVIDIA H20: 4 TB/s"),
        bf16_flops: sheet(148.0 * TERA, "NVIDIA H20: 148 TFLOP/s"),
        fp8_flops: Some(sheet(296.0 * TERA, "NVIDIA H20: 296 TFLOP/s")),
        fabric: Fabric::NvLink,
        link_bytes_per_s: sheet(450.0 * GIGA, "NVIDIA H20: NVLink 900 GB/s both ways"),
        gpus_per_node: 8,
    },
    Gpu {
        name: "a100_sxm",
        memory_bytes: sheet(mib(80 * 1024), AMPERE),
        memory_bytes_per_s: sheet(2.039 * TERA, AMPERE),
        bf16_flops: sheet(312.0 * TERA, AMPERE),
        fp8_flops: None,
        fabric: Fabric::NvLink,
        link_bytes_per_s: sheet(300.0 * GIGA, AMPERE),
        gpus_per_node: 8,
    },
    Gpu {
        name: "a100_pcie",
        memory_bytes: sheet(mib(80 * 1024), AMPERE),
        memory_bytes_per_s: sheet(1.935 * TERA, AMPERE),
        bf16_flops: sheet(312.0 * TERA, AMPERE),
        fp8_flops: None,
        fabric: Fabric::Pcie,
        link_bytes_per_s: sheet(32.0 * GIGA, "PCIe 4.0 x16"),
        gpus_per_node: 8,
    },
    Gpu {
        name: "a30",
        memory_bytes: sheet(mib(24 * 1024), AMPERE),
        memory_bytes_per_s: sheet(933.0 * GIGA, AMPERE),
        bf16_flops: sheet(165.0 * TERA, AMPERE),
        fp8_flops: None,
        fabric: Fabric::Pcie,
        link_bytes_per_s: sheet(32.0 * GIGA, "PCIe 4.0 x16"),
        gpus_per_node: 8,
    },
    Gpu {
        name: "l40s",
        memory_bytes: measured(mib(45_589), CUDA),
        memory_bytes_per_s: sheet(864.0 * GIGA, ADA),
        bf16_flops: sheet(362.05 * TERA, ADA),
        fp8_flops: Some(sheet(733.0 * TERA, ADA)),
        fabric: Fabric::Pcie,
        link_bytes_per_s: sheet(32.0 * GIGA, "PCIe 4.0 x16"),
        gpus_per_node: 8,
    },
    Gpu {
        name: "l40",
        memory_bytes: sheet(mib(46_068), "NVIDIA L40, 48 GB less ECC"),
        memory_bytes_per_s: sheet(864.0 * GIGA, ADA),
        bf16_flops: sheet(181.05 * TERA, ADA),
        fp8_flops: Some(sheet(362.0 * TERA, ADA)),
        fabric: Fabric::Pcie,
        link_bytes_per_s: sheet(32.0 * GIGA, "PCIe 4.0 x16"),
        gpus_per_node: 8,
    },
    Gpu {
        name: "l4",
        memory_bytes: sheet(mib(23_034), "NVIDIA L4, 24 GB less ECC"),
        memory_bytes_per_s: sheet(300.0 * GIGA, ADA),
        bf16_flops: sheet(121.0 * TERA, ADA),
        fp8_flops: Some(sheet(242.0 * TERA, ADA)),
        fabric: Fabric::Pcie,
        link_bytes_per_s: sheet(32.0 * GIGA, "PCIe 4.0 x16"),
        gpus_per_node: 8,
    },
    Gpu {
        name: "rtx_pro_6000_server",
        memory_bytes: measured(mib(97_887), SMI),
        memory_bytes_per_s: sheet(
            1.792 * TERA,
            "NVIDIA RTX PRO 6000 Blackwell Server datasheet",
        ),
        bf16_flops: sheet(467.8 * TERA, "AIConfigurator 0.12: dense at 2430 MHz"),
        fp8_flops: Some(sheet(
            935.6 * TERA,
            "AIConfigurator 0.12: dense at 2430 MHz",
        )),
        fabric: Fabric::Pcie,
        link_bytes_per_s: sheet(64.0 * GIGA, "PCIe 5.0 x16"),
        gpus_per_node: 8,
    },
    Gpu {
        name: "rtx_4090",
        memory_bytes: measured(25_250_627_584, CUDA),
        memory_bytes_per_s: sheet(1_008.0 * GIGA, GEFORCE),
        bf16_flops: sheet(165.2 * TERA, GEFORCE),
        fp8_flops: Some(sheet(330.3 * TERA, GEFORCE)),
        fabric: Fabric::Pcie,
        link_bytes_per_s: sheet(32.0 * GIGA, "PCIe 4.0 x16"),
        gpus_per_node: 8,
    },
    Gpu {
        name: "mi300x",
        memory_bytes: sheet(mib(192 * 1024), "AMD MI300X datasheet"),
        memory_bytes_per_s: sheet(5.3 * TERA, "AMD MI300X datasheet"),
        bf16_flops: sheet(1_307.4 * TERA, "AMD MI300X datasheet"),
        fp8_flops: Some(sheet(2_614.9 * TERA, "AMD MI300X datasheet")),
        fabric: Fabric::InfinityFabric,
        link_bytes_per_s: sheet(
            448.0 * GIGA,
            "AMD MI300X datasheet: 7 links of 64 GB/s each way",
        ),
        gpus_per_node: 8,
    },
    Gpu {
        name: "mi200",
        memory_bytes: sheet(mib(64 * 1024), CDNA2),
        memory_bytes_per_s: sheet(1.638 * TERA, CDNA2),
        bf16_flops: sheet(191.5 * TERA, CDNA2),
        fp8_flops: None,
        fabric: Fabric::InfinityFabric,
        link_bytes_per_s: estimated(
            100.0 * GIGA,
            "2 to 8 links of 50 GB/s each way, by which die is asked; the slower pairs",
        ),
        gpus_per_node: 8,
    },
    Gpu {
        name: "v100_sxm",
        memory_bytes: sheet(mib(32 * 1024), VOLTA),
        memory_bytes_per_s: sheet(900.0 * GIGA, VOLTA),
        bf16_flops: sheet(125.0 * TERA, VOLTA),
        fp8_flops: None,
        fabric: Fabric::NvLink,
        link_bytes_per_s: sheet(150.0 * GIGA, VOLTA),
        gpus_per_node: 8,
    },
    Gpu {
        name: "v100_pcie",
        memory_bytes: sheet(mib(32 * 1024), VOLTA),
        memory_bytes_per_s: sheet(900.0 * GIGA, VOLTA),
        bf16_flops: sheet(112.0 * TERA, VOLTA),
        fp8_flops: None,
        fabric: Fabric::Pcie,
        link_bytes_per_s: sheet(16.0 * GIGA, "PCIe 3.0 x16"),
        gpus_per_node: 8,
    },
    Gpu {
        name: "t4",
        memory_bytes: sheet(mib(15_360), "NVIDIA T4, 16 GB less ECC"),
        memory_bytes_per_s: sheet(320.0 * GIGA, TURING),
        bf16_flops: sheet(65.0 * TERA, TURING),
        fp8_flops: None,
        fabric: Fabric::Pcie,
        link_bytes_per_s: sheet(16.0 * GIGA, "PCIe 3.0 x16"),
        gpus_per_node: 8,
    },
];
