"""CPU classes from the text of real /proc/cpuinfo files, and what a report may not give away."""

from __future__ import annotations

import json
import platform

import pytest

from edge_fer.parity import environment

RASPBERRY_PI_4 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08

Revision\t: c03111
Serial\t\t: 100000001234abcd
Model\t\t: Raspberry Pi 4 Model B Rev 1.1
"""
XEON = (
    "processor : 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8481C\nflags\t\t: fpu avx2 avx512_vnni amx_int8\n"
)


def test_cpuinfo_of_arm_and_x86() -> None:
    model, features = environment.parse_cpuinfo(RASPBERRY_PI_4)
    assert model == "Raspberry Pi 4 Model B Rev 1.1"
    assert environment.cpu_class("aarch64", features) == "aarch64 no-dotprod"
    model, features = environment.parse_cpuinfo(XEON)
    assert model == "Intel(R) Xeon(R) Platinum 8481C"
    assert environment.cpu_class("x86_64", features) == "x86-64 amx"
    assert environment.parse_cpuinfo("") == (None, frozenset())


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "avx2 avx512bw avx512_vnni", "x86-64 avx512-vnni"),
        ("x86_64", "avx2 avx_vnni", "x86-64 avx-vnni"),
        ("AMD64", "sse4_1 avx2", "x86-64 avx2"),
        ("x86_64", "fpu", "x86-64 baseline"),
        ("aarch64", "asimd asimddp", "aarch64 dotprod"),
        ("aarch64", "asimd asimddp i8mm", "aarch64 i8mm"),
        ("arm64", "", "aarch64 unknown"),
        ("riscv64", "x", "riscv64"),
    ],
)
def test_cpu_class(machine: str, flags: str, expected: str) -> None:
    assert environment.cpu_class(machine, frozenset(flags.split())) == expected


def test_environment_is_plain_json_without_names_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_cpuinfo", lambda: RASPBERRY_PI_4)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    found = environment.environment()
    text = json.dumps(found, allow_nan=False)
    assert found["cpu_class"] == "aarch64 no-dotprod"
    assert found["features"] == ["asimd"]
    assert "1234abcd" not in text
    assert not platform.node() or platform.node() not in {str(value) for value in found.values()}


def test_an_emulated_processor_is_told_from_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("qemu-user 10.0, cortex-a72",) * 2, ("", None), (None, None)):
        if value is None:
            monkeypatch.delenv("EDGE_FER_EMULATED")
        else:
            monkeypatch.setenv("EDGE_FER_EMULATED", value)
        assert environment.environment()["emulated"] == expected
