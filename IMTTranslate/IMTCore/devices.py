"""Where and in which precision a network runs."""

from __future__ import annotations

import torch

from .errors import BadInput, DeviceUnavailable

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(wish: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`. `auto` takes a GPU if there is one.

    Raises:
        BadInput: if the name is unknown. DeviceUnavailable: if the device is not there.
    """
    if wish == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wish)
    except RuntimeError as error:
        raise BadInput(f"Unknown device {wish!r}: use auto, cpu, cuda, cuda:N or mps.") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise BadInput(f"Unknown device {wish!r}: use auto, cpu, cuda, cuda:N or mps.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            reason = "this PyTorch is a CPU build" if torch.version.cuda is None else "PyTorch finds no usable NVIDIA GPU"
            raise DeviceUnavailable(f"There is no device {wish!r}: {reason}. Use --device cpu or auto, or run imt doctor.")
        if (device.index or 0) >= count:
            raise DeviceUnavailable(f"There is no device {wish!r}: this machine has {count} GPU(s), cuda:0 to cuda:{count - 1}.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceUnavailable(f"There is no device {wish!r}: Apple's Metal is not available here. Use --device cpu or auto.")
    return device


def cpu_has_fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    cpu = getattr(torch, "cpu", None)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        check = getattr(cpu, name, None)
        if check is not None and check():
            return True
    return False


def choose_precision(wish: str, device: torch.device) -> torch.dtype:
    """The number type for `auto`, `fp32`, `bf16` or `fp16` on `device`.

    `auto` is bfloat16 where the hardware has it, on older NVIDIA GPUs float16, else float32.

    Raises:
        BadInput: if the name is unknown, or the device cannot compute in it.
    """
    if wish == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
        return torch.bfloat16 if device.type == "cpu" and cpu_has_fast_bf16() else torch.float32
    if wish not in PRECISIONS:
        raise BadInput(f"Unknown precision {wish!r}: use auto, {', '.join(PRECISIONS)}.")
    if device.type == "cpu" and wish == "fp16":
        raise BadInput("The CPU does not compute in fp16: use --precision bf16, fp32 or auto.")
    return PRECISIONS[wish]


def precision_name(dtype: torch.dtype) -> str:
    """`fp32`, `bf16` or `fp16`."""
    return next(name for name, value in PRECISIONS.items() if value == dtype)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device's memory ran out (PyTorch has no one class for it on every device)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in ("out of memory", "can't allocate memory", "not enough memory")
    )
