"""What a run computes on, by names that people know."""

import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


def hardware(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """The model of the GPU or of the processor, the threads of a process, and the number of processes."""
    is_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_gpu else f"{device.type}, {_processor()}"
    return {"device": name, "threads": torch.get_num_threads(), "processes": processes}


def _processor() -> str:
    with suppress(OSError, UnicodeDecodeError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
