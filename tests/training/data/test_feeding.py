"""Batches that are gathered ahead are the same batches."""

from __future__ import annotations

import pytest
import torch

from training.data.feeding import AHEAD, feed
from training.data.order import batches, epoch_order

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [0, 1, AHEAD, AHEAD + 1, 20])
def test_every_batch_comes_once_and_in_order(count: int) -> None:
    crops = torch.randint(0, 256, (max(1, count * 4), 6, 6, 3), dtype=torch.uint8)
    numbered = list(batches(epoch_order(crops[:, 0, 0, 0], 0, 0), 4, 0))[:count]
    fed = list(feed(crops, iter(numbered), CPU))
    assert [number for number, _, _ in fed] == [number for number, _ in numbered]
    for (_, rows), (_, again, got) in zip(numbered, fed, strict=True):
        assert torch.equal(rows, again) and torch.equal(got, crops[rows])


def test_an_error_reaches_the_loop_and_leaving_early_ends() -> None:
    crops = torch.zeros(8, 2, 2, 3, dtype=torch.uint8)
    with pytest.raises(IndexError):
        list(feed(crops, [(0, torch.tensor([0, 9]))], CPU))
    fed = feed(crops, ((number, torch.tensor([0])) for number in range(10_000_000)), CPU)
    assert next(fed)[0] == 0
    fed.close()  # type: ignore[attr-defined]
