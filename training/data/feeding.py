"""Batches of crops on the training device, gathered ahead of the step that needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

AHEAD = 3


def feed(
    crops: torch.Tensor, numbered: Iterable[tuple[int, torch.Tensor]], device: torch.device
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Yield (number, rows, crops on the device) of every batch, gathered by one thread, AHEAD batches early.

    For a GPU they are gathered into page-locked memory and sent beside the computation, as uint8, a quarter
    of the floats. Nothing random happens here: the order of batches alone says what comes.

    Args:
        crops: (M, S, S, 3) uint8, in memory or mapped.
        numbered: what `training.data.order.batches` yields.
        device: where to.
    """

    def gather(rows: torch.Tensor) -> torch.Tensor:
        if device.type != "cuda":
            return crops[rows].to(device)
        target = torch.empty((len(rows), *crops.shape[1:]), dtype=crops.dtype, pin_memory=True)
        torch.index_select(crops, 0, rows, out=target)
        return target

    def send(
        number: int, rows: torch.Tensor, batch: Future[torch.Tensor]
    ) -> tuple[int, torch.Tensor, torch.Tensor]:
        return number, rows, batch.result().to(device, non_blocking=True)

    waiting: deque[tuple[int, torch.Tensor, Future[torch.Tensor]]] = deque()
    with ThreadPoolExecutor(max_workers=1) as thread:
        for number, rows in numbered:
            waiting.append((number, rows, thread.submit(gather, rows)))
            if len(waiting) > AHEAD:
                yield send(*waiting.popleft())
        while waiting:
            yield send(*waiting.popleft())
