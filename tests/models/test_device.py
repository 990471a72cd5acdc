"""Devices are chosen by name, and their errors come out as ours."""

from __future__ import annotations

import pytest
import torch

from server.errors import DeviceLost, OutOfMemory
from server.models.device import choose_device, choose_dtype, device_errors, on_device

CPU = torch.device("cpu")


def accelerator_error(code: int) -> torch.AcceleratorError:
    error = torch.AcceleratorError("CUDA error")
    error.error_code = code
    return error


def test_auto_means_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    assert choose_dtype("auto", CPU) == torch.float32
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_means_bfloat16_on_a_gpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert choose_dtype("auto", torch.device("cuda:0")) == dtype


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), OutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), OutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), OutOfMemory),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), OutOfMemory),
        (accelerator_error(2), OutOfMemory),
        (accelerator_error(700), DeviceLost),
        (accelerator_error(710), DeviceLost),
        (accelerator_error(214), DeviceLost),
        (accelerator_error(9), torch.AcceleratorError),
        (RuntimeError("shapes do not match"), RuntimeError),
        (KeyError("a bug"), KeyError),
    ],
)
def test_errors_are_sorted_by_what_can_be_done(
    theirs: Exception, ours: type[BaseException]
) -> None:
    with pytest.raises(ours), device_errors():
        raise theirs


def test_a_real_allocation_that_is_too_large_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemory), on_device():
        torch.empty(2**60, dtype=torch.uint8)


def test_nothing_is_recorded_for_gradients() -> None:
    with on_device():
        assert torch.is_inference_mode_enabled()
    assert not torch.is_inference_mode_enabled()
