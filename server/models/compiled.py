"""A UNet's repeated blocks through torch.compile, each kind of block once.

What is compiled is fixed before a worker is ready: while it is learning, each block is compiled for
any number of rows and any size, and later a block that meets something else, such as a mask of
tokens or a LoRA, computes as if nothing were compiled. So no picture ever waits for a compiler.
Knows no tickets, and not what is drawn while it learns.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.decorators import maybe_mark_dynamic
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.async_compile import shutdown_compile_workers
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from torch.fx.experimental import _config as symbols

from server.errors import CheckpointError

log = logging.getLogger("darkroom.models")

BLOCKS = frozenset({"BasicTransformerBlock", "ResnetBlock2D"})
"""Attention with its projections, and convolutions with their norms: most of a UNet's time."""

CHANNELS = {3: 2, 4: 1}
"""Which axis of a block's tensors is fixed by its weights, by the number of axes: of (rows, tokens,
width) and (rows, channels, h, w)."""

MOST_KINDS = 64
"""Of blocks that differ in shape, each once for one row and once for more: twice what SDXL has."""

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""torch's own environment variable; triton's folder is in there."""

Told = Callable[[], object]
"""Told that a block has met what it was to learn."""


class Compiled:
    """The blocks of one UNet. For the thread alone that runs it.

    Args:
        backend: as torch.compile takes it.
    """

    def __init__(self, unet: Any, backend: str | Callable[..., Any] = "inductor") -> None:
        self.learning = False
        self.given_up = False
        self.told: Told = _ignore
        found = [each for each in unet.modules() if type(each).__name__ in BLOCKS]
        self._blocks = [_Block(self, each, backend) for each in found]

    def __len__(self) -> int:
        return len(self._blocks)

    @contextlib.contextmanager
    def learn(self, told: Told | None = None) -> Iterator[None]:
        """Calls in this block compile for what they meet, other than rows and sizes."""
        self.told, self.learning = told or _ignore, True
        try:
            # Else sizes that happen to be equal now would have to be equal ever after.
            alike = symbols.patch(use_duck_shape=False)  # type: ignore[attr-defined]
            with alike, torch._dynamo.config.patch(recompile_limit=MOST_KINDS):
                yield
        finally:
            self.learning = False
            shutdown_compile_workers()  # else its processes stay, with nothing to do

    def give_up(self, error: Exception) -> None:
        """Compile no more, and use nothing that was compiled."""
        self.given_up = True
        why = str(error).strip().partition("\n")[0]
        log.warning("torch.compile failed, so nothing is compiled: %s", why, exc_info=error)


class _Block:
    """One block's `forward`, in the place of its own. What listens to the block itself is outside
    of it."""

    def __init__(self, owner: Compiled, module: Any, backend: str | Callable[..., Any]) -> None:
        self._owner = owner
        self._plain = module.forward
        self._inner = [each for each in module.modules() if each is not module]
        self._compiled: Callable[..., Any] = torch.compile(self._plain, backend=backend)
        self._learned = torch._dynamo.run(self._plain)  # what is compiled already, or as it is
        module.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._owner.given_up or self._listened():
            return self._plain(*args, **kwargs)
        if self._owner.learning:
            return self._learn(*args, **kwargs)
        return self._learned(*args, **kwargs)

    def _learn(self, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.Tensor):
                free = [axis for axis in range(value.ndim) if axis != CHANNELS.get(value.ndim, 1)]
                maybe_mark_dynamic(value, free)
        try:
            made = self._compiled(*args, **kwargs)
        except TorchDynamoException as error:
            self._owner.give_up(error)
            return self._plain(*args, **kwargs)
        self._owner.told()
        return made

    def _listened(self) -> bool:
        """Whether a LoRA is worn here. torch.compile does not look for hooks that come later, and
        to compile for each LoRA would take longer than to draw with it."""
        return any(each._forward_hooks or each._forward_pre_hooks for each in self._inner)


def compile_blocks(unet: Any, folder: Path) -> Compiled:
    """Those of a UNet on its device; what is compiled is kept in `folder`, for the next start.

    Raises:
        CheckpointError: nothing can be compiled here; says why.
    """
    keep_compiled(folder)
    check_compiler(unet.device)
    return Compiled(unet)


def check_compiler(device: torch.device) -> None:
    """Compile the least there is.

    Raises:
        CheckpointError: that is not possible here; says why.
    """
    try:
        torch.compile(_least, fullgraph=True)(torch.ones(2, device=device))
    except Exception as error:  # whatever is missing: a compiler, Python's headers, triton
        needed = "triton" if device.type == "cuda" else "a C++ compiler and Python's headers"
        why = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"DARKROOM_COMPILE = blocks needs {needed} beside the worker: {why}"
        ) from error


def keep_compiled(folder: Path) -> None:
    """Keep what is compiled here from one start to the next, unless torch's own variable says
    where.

    Raises:
        CheckpointError: it cannot be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CheckpointError(f"what is compiled cannot be kept: {error.strerror}") from error
    # As soon as it is imported, torch writes its default into the variable.
    if os.environ.get(CACHE, default_cache_dir()) == default_cache_dir():
        os.environ[CACHE] = str(folder.absolute())


def _least(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.sin() + 1


def _ignore() -> None:
    """Nobody watches."""
