"""Devices are chosen by name, and their errors come out as ours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from server.errors import DeviceLost, OutOfMemory
from server.models.device import (
    AHEAD,
    Pace,
    choose_device,
    choose_dtype,
    compute_on,
    device_errors,
    has_arithmetic,
    on_device,
)
from server.models.loading import load_parts
from tests.models import tiny
from tests.models.conftest import Checkpoint

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
    ("able", "bfloat16", "float16"),
    [
        ({"architecture": "x86_64", "avx512_f": True}, False, False),
        ({"architecture": "x86_64", "amx_bf16": True, "avx512_bf16": False}, True, False),
        ({"architecture": "x86_64", "avx512_bf16": True, "avx512_fp16": True}, True, True),
        ({"architecture": "aarch64"}, True, True),
        ({}, True, True),
    ],
)
def test_a_cpu_says_what_it_computes_in(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, object], bfloat16: bool, float16: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert has_arithmetic(torch.bfloat16, CPU) is bfloat16
    assert has_arithmetic(torch.float16, CPU) is float16
    assert has_arithmetic(torch.float32, CPU)
    assert has_arithmetic(torch.bfloat16, torch.device("cuda:0"))


@pytest.mark.parametrize(("dtype", "warned"), [("bfloat16", True), ("float32", False)])
def test_a_precision_that_only_costs_time_is_warned_about(
    v1: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    dtype: str,
    warned: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64"})
    load_parts(tiny.card(v1.folder), "cpu", dtype)
    assert ("slower in bfloat16 than in float32" in caplog.text) is warned


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


def test_a_thread_keeps_its_cores_whatever_others_say_before_it_computes(one_core: None) -> None:
    """As the engine's does, while those that prepare and publish are given one core each."""
    with ThreadPoolExecutor(1) as engine, ThreadPoolExecutor(1) as publisher:
        engine.submit(compute_on, 2).result()
        publisher.submit(compute_on, 1).result()
        assert engine.submit(torch.get_num_threads).result() == 2
        assert publisher.submit(torch.get_num_threads).result() == 1


class Mark:
    """A CUDA event that writes down when somebody waits for it."""

    made = 0

    def __init__(self, waited: list[int]) -> None:
        Mark.made += 1
        self.number, self._waited = Mark.made, waited

    def record(self, stream: object) -> None:
        """Of which stream does not matter here."""

    def synchronize(self) -> None:
        self._waited.append(self.number)


def test_the_host_is_at_most_two_calls_ahead_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(Mark, "made", 0)
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: Mark(waited))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    pace = Pace(torch.device("cuda"))
    for call in range(1, 6):
        pace.keep()
        assert waited == list(range(1, call - AHEAD + 1))
    Pace(torch.device("cpu")).keep()
    assert Mark.made == 5
