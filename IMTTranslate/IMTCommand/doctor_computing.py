"""The doctor's look at what computes: memory, the GPU and its driver, one slice through a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from .doctor_problems import Finding, Findings, good, trouble

MIN_MEMORY_GB = 4.0
MIN_GPU_GB = 2.0
GPU_LIST_SECONDS = 20
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def examine_memory() -> Findings:
    """The smaller of what the computer has and what this process may use."""
    sizes = _memory_limits()
    if not sizes:
        yield good("memory", "size not known on this system")
        return
    source, size = min(sizes.items(), key=lambda item: item[1])
    detail = f"{size:.1f} GB ({source})"
    yield trouble("memory", "memory", detail) if size < MIN_MEMORY_GB else good("memory", detail)


def _memory_limits() -> dict[str, float]:
    """What limits the memory -> GB."""
    sizes: dict[str, float] = {}
    try:
        sizes["the computer's"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):
        pass
    for path in CONTAINER_LIMITS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            sizes["the container's limit"] = int(text) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return sizes
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        sizes["the process's limit, ulimit -v"] = limit / 1e9
    return sizes


def examine_gpu() -> Findings:
    """What PyTorch computes on. It must be possible to import it."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield _cuda_device(torch, index)
    elif torch.version.cuda is None and torch.version.hip is None:
        yield _without_cuda(torch)
    else:
        yield _no_device(torch)


def _cuda_device(torch: Any, index: int) -> Finding:
    try:
        properties = torch.cuda.get_device_properties(index)
        name = f"cuda:{index} {properties.name}, capability {properties.major}.{properties.minor}"
        free, total = (size / 1e9 for size in torch.cuda.mem_get_info(index))
        ones = torch.ones(8, 8, device=f"cuda:{index}")
        value = float((ones @ ones)[0, 0])
        if value != 8:
            raise RuntimeError(f"a product gave {value} instead of 8")
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return trouble("no-kernel" if "no kernel image" in str(error) else "gpu-fails", "gpu", f"cuda:{index}: {first}")
    detail = f"{name}, {free:.1f} of {total:.1f} GB free"
    return trouble("gpu-memory", "gpu", detail) if free < MIN_GPU_GB else good("gpu", detail)


def _without_cuda(torch: Any) -> Finding:
    mps = getattr(torch.backends, "mps", None)
    if mps is not None and mps.is_available():
        return good("gpu", "Apple Metal (mps)")
    if gpus := nvidia_gpus():
        return trouble("torch-cpu-build", "gpu", f"{', '.join(gpus)}; torch {torch.__version__} is a CPU build")
    return good("gpu", "none; this PyTorch is a CPU build")


def _no_device(torch: Any) -> Finding:
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        if "driver" in str(error).lower() and "too old" in str(error).lower():
            return trouble("driver-too-old", "gpu", str(error).splitlines()[0])
    return trouble("no-gpu", "gpu", f"torch {torch.__version__}; " + (f"nvidia-smi lists {', '.join(gpus)}" if (gpus := nvidia_gpus()) else "none"))


def nvidia_gpus() -> list[str]:
    """The NVIDIA GPUs that the driver's own tool lists; none without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=GPU_LIST_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def examine_network() -> Findings:
    """Time one slice through a shipped model."""
    from IMTCore.catalogue import list_cards

    cards = [card for card in list_cards()[0] if card.weights_path.is_file() and card.architecture.works_on == "slices"]
    if not cards:
        return
    try:
        yield _run_network(cards[0])
    except Exception as error:  # whatever goes wrong is the finding
        yield trouble("tiny-run", "tiny run", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _run_network(card: Any) -> Finding:
    import torch

    from IMTCore.devices import choose_device, choose_precision, precision_name
    from IMTCore.model_packages import load_network

    device = choose_device("auto")
    dtype = choose_precision("auto", device)
    network = load_network(card).to(device)
    image = torch.zeros(1, card.content["network"]["arguments"]["in_channels"], 256, 256, device=device)
    half = torch.bfloat16 if dtype == torch.float32 else dtype
    with torch.inference_mode(), torch.autocast(device.type, half, enabled=dtype != torch.float32):
        network(image)
        start = time.perf_counter()
        finite = bool(torch.isfinite(network(image)).all())
    seconds = time.perf_counter() - start
    where = f"{card.name} on {device} in {precision_name(dtype)}"
    if not finite:
        return trouble("tiny-run", "tiny run", f"{where} gave values that are not finite")
    return good("tiny run", f"{where}: {seconds * 1000:.0f} ms a slice of 256 x 256")
