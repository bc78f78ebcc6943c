"""The gates without sampling, each with a planted fault."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fer.engines.base import Outputs
from edge_fer.parity.exact import batch_gate, fp32_gate, preprocess_gate
from edge_fer.samples import Golden
from tests.edge_fer.parity.conftest import LinearEngine, World, spec


def leak(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return logits - logits.mean(axis=0)


def slight_leak(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return logits + 1e-3 * np.tanh(logits.mean(axis=0))


def by_position(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return logits + 1e-3 * np.arange(len(logits))[:, None] * np.arange(logits.shape[1])


class TestPreprocess:
    def test_the_same_pixels_pass(self, world: World) -> None:
        gate = preprocess_gate(world.golden, spec())
        assert (gate.verdict, gate.value, gate.threshold) == ("passed", 0, 0)

    @pytest.mark.parametrize("sample", [0, 3])
    def test_one_changed_pixel_value_fails(self, world: World, sample: int) -> None:
        crops = world.golden.crops.copy()
        crops[sample, 5, 5, 1] ^= 1
        gate = preprocess_gate(replace(world.golden, crops=crops), spec())
        assert (gate.verdict, gate.value) == ("failed", 1)
        assert f"sample {sample}" in gate.reason

    def test_a_source_that_does_not_decode_fails(self, world: World) -> None:
        golden = replace(world.golden, sources=(b"not a picture", *world.golden.sources[1:]))
        assert preprocess_gate(golden, spec()).verdict == "failed"

    def test_landmarks_are_used_where_they_are(self, world: World) -> None:
        template = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
        rule = replace(spec().input, alignment="five-point", template=template)
        landmarks = np.broadcast_to(np.array(template, np.float32) * 12 + 3, (4, 5, 2)).copy()
        aligned = preprocess_gate(replace(world.golden, landmarks=landmarks), replace(spec(), input=rule))
        assert aligned.reason.endswith("sample 0, 1")  # 2 and 3 are whole pictures
        assert preprocess_gate(world.golden, replace(spec(), input=rule)).verdict == "passed"

    @pytest.mark.parametrize("golden", [None, "empty"])
    def test_nothing_to_replay_is_not_run(self, world: World, golden: Golden | None) -> None:
        assert preprocess_gate(golden and replace(world.golden, sources=()), spec()).verdict == "not run"


class TestBatch:
    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_independent_rows_pass(self, world: World, precision: str) -> None:
        engine = LinearEngine()
        gate = batch_gate(engine, world.crops, precision)
        assert (gate.verdict, gate.value) == ("passed", 0.0)
        assert engine.batches[:17] == [1] * 16 + [16]  # alone, then together
        assert max(engine.batches) > 16  # then among strangers

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_batch_statistics_fail(self, world: World, precision: str) -> None:
        assert batch_gate(LinearEngine(change=leak), world.crops, precision).verdict == "failed"

    @pytest.mark.parametrize("change", [slight_leak, by_position])
    def test_a_slight_influence_fails_a_float_bundle(self, world: World, change: object) -> None:
        gate = batch_gate(LinearEngine(change=change), world.crops, "fp32")  # type: ignore[arg-type]
        assert gate.verdict == "failed"
        assert gate.value is not None
        assert gate.value > 1e-5

    def test_an_int8_bundle_may_differ_without_a_flip_and_the_difference_is_told(self, world: World) -> None:
        gate = batch_gate(
            LinearEngine(change=lambda logits: logits * (1 + 1e-4 * len(logits))), world.crops, "int8"
        )
        assert (gate.verdict, gate.value) == ("passed", 0.0)
        assert "max abs diff 0 " not in gate.reason

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_nan_fails(self, world: World, precision: str) -> None:
        gate = batch_gate(LinearEngine(change=lambda logits: logits * np.nan), world.crops, precision)
        assert gate.verdict == "failed"

    def test_one_crop_is_enough(self, world: World) -> None:
        assert batch_gate(LinearEngine(), world.crops[:1], "fp32").verdict == "passed"

    def test_a_leak_into_reliability_alone_fails(self, world: World) -> None:
        class Engine(LinearEngine):
            def run(self, images: NDArray[np.uint8]) -> Outputs:
                outputs = super().run(images)
                return replace(outputs, reliability=outputs.reliability + np.float32(len(images)))

        assert batch_gate(Engine(), world.crops, "fp32").verdict == "failed"

    def test_no_crops_are_not_run(self, world: World) -> None:
        assert batch_gate(LinearEngine(), world.crops[:0], "fp32").verdict == "not run"
        assert batch_gate(LinearEngine(), None, "fp32").verdict == "not run"


class TestFp32:
    def test_identical_outputs_pass(self, world: World) -> None:
        p = world.reference.probabilities
        gate = fp32_gate(p, p)
        assert (gate.verdict, gate.value, gate.threshold) == ("passed", 0.0, 1e-4)

    def test_a_large_difference_fails(self, world: World) -> None:
        changed = world.reference.probabilities.copy()
        changed[7, 2] += 2e-4
        assert fp32_gate(world.reference.probabilities, changed).verdict == "failed"

    def test_a_changed_label_fails_however_small_the_difference(self) -> None:
        p, q = np.array([[0.50002, 0.49998]]), np.array([[0.49998, 0.50002]])
        gate = fp32_gate(p, q)
        assert gate.value is not None
        assert gate.value < 1e-4
        assert gate.verdict == "failed"
        assert "agrees on 0 of 1 faces" in gate.reason

    def test_a_tie_of_the_checkpoint_agrees_either_way(self) -> None:
        p, q = np.array([[0.5 + 2e-7, 0.5 - 2e-7]]), np.array([[0.5 - 2e-7, 0.5 + 2e-7]])
        assert fp32_gate(p, q).verdict == "passed"

    def test_nan_fails(self) -> None:
        assert fp32_gate(np.array([[0.9, 0.1]]), np.array([[np.nan, 0.1]])).verdict == "failed"

    def test_no_faces_are_not_run(self) -> None:
        assert fp32_gate(np.zeros((0, 8)), np.zeros((0, 8))).verdict == "not run"
