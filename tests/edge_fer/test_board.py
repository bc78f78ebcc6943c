"""What is read of a machine, from roots laid out as a Raspberry Pi, a Jetson and a container have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fer.board import Board, Camera, Clock, Temperature, read_board

PI4_CPU = "".join(
    f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n"
    "CPU part\t: 0xd08\n\n"
    for core in range(4)
)
ORIN_CPU = "".join(
    f"processor\t: {core}\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n"
    "Features\t: fp asimd evtstrm aes crc32 fphp asimdhp asimddp\nCPU part\t: 0xd42\n\n"
    for core in range(6)
)
THERMAL, CPUFREQ = "sys/class/thermal", "sys/devices/system/cpu/cpufreq"


def lay_out(root: Path, files: dict[str, str]) -> Path:
    """Write these files below a root; their paths are relative to it."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.fixture
def pi4(tmp_path: Path) -> Path:
    files = {
        "proc/cpuinfo": PI4_CPU + "Serial\t\t: 10000000deadbeef\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
        "proc/meminfo": "MemTotal:        3884316 kB\nMemAvailable:    3012345 kB\n",
        "proc/self/status": "Name:\tpython3\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\n",
        "proc/self/cgroup": "0::/user.slice/user-1000.slice\n",
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n',
        "etc/hostname": "deadbeef-host\n",
        f"{THERMAL}/thermal_zone0/type": "cpu-thermal\n",
        f"{THERMAL}/thermal_zone0/temp": "61835\n",
        f"{THERMAL}/cooling_device0/type": "gpio-fan\n",
        f"{THERMAL}/cooling_device0/cur_state": "1\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        f"{CPUFREQ}/policy0/scaling_governor": "ondemand\n",
        f"{CPUFREQ}/policy0/scaling_cur_freq": "600000\n",
        f"{CPUFREQ}/policy0/cpuinfo_max_freq": "1800000\n",
        f"{CPUFREQ}/policy0/affected_cpus": "0 1 2 3\n",
        "dev/video0": "",
        "dev/video1": "",
        "dev/video10": "",
        "sys/class/video4linux/video0/name": "HD Webcam\n",
        "sys/class/video4linux/video0/index": "0\n",
        "sys/class/video4linux/video1/name": "HD Webcam\n",
        "sys/class/video4linux/video1/index": "1\n",
        "sys/class/video4linux/video10/name": "bcm2835-codec-decode\n",
    }
    return lay_out(tmp_path, files)


def test_a_raspberry_pi_4(pi4: Path) -> None:
    board = read_board(pi4, "aarch64")
    assert board.model == "Raspberry Pi 4 Model B Rev 1.4"
    assert board.system == "Debian GNU/Linux 12 (bookworm)" and board.l4t is None
    assert board.cpu_class == "aarch64 no-dotprod"
    assert board.int8_features == {"NEON": True, "half precision": False, "dot product": False, "i8mm": False}
    assert (board.cores, board.usable_cores, board.threads) == (4, 4, 4)
    assert (board.cgroup_cpus, board.cgroup_memory_bytes) == (None, None)
    assert (board.memory_bytes, board.available_bytes) == (3884316 * 1024, 3012345 * 1024)
    assert board.temperatures == (Temperature("cpu-thermal", 61.835),)
    # 0x50005: bits 0 and 2 now, bits 16 and 18 since the board was started.
    expected = ("under-voltage now", "throttled now", "under-voltage since boot", "throttled since boot")
    assert board.throttling == expected
    assert board.clocks == (Clock("0-3", "ondemand", 600.0, 1800.0),)
    assert board.cameras == (Camera("/dev/video0", "HD Webcam", True),)
    assert not board.nvidia


def test_nothing_names_the_host(pi4: Path) -> None:
    assert "deadbeef" not in repr(read_board(pi4, "aarch64"))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("throttled=0x0", ()),
        ("throttled=0x80008", ("soft temperature limit now", "soft temperature limit since boot")),
        ("throttled=0x20002", ("clock capped now", "clock capped since boot")),
        ("VCHI initialization failed", None),
    ],
)
def test_vcgencmd_answers_where_the_firmware_s_file_is_missing(
    pi4: Path, word: str, expected: tuple[str, ...] | None
) -> None:
    (pi4 / "sys/devices/platform/soc/soc:firmware/get_throttled").unlink()
    program = pi4 / "usr/bin/vcgencmd"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\n[ "$1" = get_throttled ] && echo "{word}"\n')
    program.chmod(0o755)
    assert read_board(pi4, "aarch64").throttling == expected


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    files = {
        "proc/cpuinfo": ORIN_CPU,
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
        "dev/nvhost-gpu": "",
        f"{THERMAL}/thermal_zone0/type": "cpu-thermal",
        f"{THERMAL}/thermal_zone0/temp": "48000",
        f"{THERMAL}/thermal_zone1/type": "cv0-thermal",
        f"{THERMAL}/thermal_zone1/temp": "-256000",
        f"{THERMAL}/thermal_zone2/type": "gpu-thermal",
        f"{THERMAL}/thermal_zone2/temp": "47500",
        f"{THERMAL}/thermal_zone10/type": "tj-thermal",
        f"{THERMAL}/thermal_zone10/temp": "51500",
        f"{THERMAL}/cooling_device0/type": "pwm-fan",
        f"{THERMAL}/cooling_device0/cur_state": "3",
        f"{THERMAL}/cooling_device1/type": "thermal-cpufreq-0",
        f"{THERMAL}/cooling_device1/cur_state": "0",
    }
    for policy, cores in enumerate(("0 1 2 3", "4", "")):
        files[f"{CPUFREQ}/policy{policy}/scaling_governor"] = "schedutil"
        files[f"{CPUFREQ}/policy{policy}/affected_cpus"] = cores
    return lay_out(tmp_path, files)


def test_a_jetson(jetson: Path) -> None:
    board = read_board(jetson, "aarch64")
    assert (board.model, board.l4t) == ("NVIDIA Jetson Orin Nano Developer Kit", "R36.4.3")
    assert board.cpu_class == "aarch64 dotprod" and board.nvidia
    assert board.int8_features["dot product"] and not board.int8_features["i8mm"]
    # A zone that is switched off is left out; the tenth comes after the second.
    told = [("cpu-thermal", 48.0), ("gpu-thermal", 47.5), ("tj-thermal", 51.5)]
    assert board.temperatures == tuple(Temperature(*one) for one in told)
    assert board.throttling == ()
    assert [clock.cores for clock in board.clocks] == ["0-3", "4", "policy2"]
    (jetson / THERMAL / "cooling_device1/cur_state").write_text("2\n")
    assert read_board(jetson, "aarch64").throttling == ("thermal-cpufreq-0 held back now (state 2)",)


def test_limits_of_control_groups_of_version_2_are_the_tightest_on_the_way_up(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": ORIN_CPU,
        "proc/self/status": "Cpus_allowed_list:\t0-2,5\n",
        "proc/self/cgroup": "0::/system.slice/edge-fer.service\n",
        "sys/fs/cgroup/system.slice/edge-fer.service/cpu.max": "400000 100000\n",
        "sys/fs/cgroup/system.slice/edge-fer.service/memory.max": "536870912\n",
        "sys/fs/cgroup/system.slice/cpu.max": "250000 100000\n",
        "sys/fs/cgroup/system.slice/memory.max": "max\n",
        "sys/fs/cgroup/cpu.max": "max 100000\n",
    }
    board = read_board(lay_out(tmp_path, files), "aarch64")
    assert (board.cgroup_cpus, board.cgroup_memory_bytes) == (2.5, 512 << 20)
    assert (board.cores, board.usable_cores, board.threads) == (6, 4, 2)


def test_limits_of_control_groups_of_version_1(tmp_path: Path) -> None:
    """A container sees the group's path on the host, and its own limits at the top of what is mounted."""
    files = {
        "proc/cpuinfo": PI4_CPU,
        "proc/self/cgroup": "4:memory:/docker/0123\n3:cpu,cpuacct:/docker/0123\n0::/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824",
    }
    root = lay_out(tmp_path, files)
    board = read_board(root, "aarch64")
    assert (board.cgroup_cpus, board.cgroup_memory_bytes, board.threads) == (0.5, 1 << 30, 1)
    (root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").write_text("-1")
    (root / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("9223372036854771712")
    board = read_board(root, "aarch64")
    assert (board.cgroup_cpus, board.cgroup_memory_bytes, board.threads) == (None, None, 4)


def test_a_camera_that_this_user_may_not_open(pi4: Path) -> None:
    (pi4 / "dev/video0").chmod(0)
    (camera,) = read_board(pi4, "aarch64").cameras
    assert camera.readable is (os.geteuid() == 0)


def untold(board: Board) -> list[object]:
    numbers = (board.cores, board.usable_cores, board.threads, board.memory_bytes, board.available_bytes)
    return [*numbers, board.model, board.system, board.l4t, board.cpu, board.throttling]


def test_an_empty_root_is_survived(tmp_path: Path) -> None:
    board = read_board(tmp_path, "aarch64")
    assert board.cpu_class == "aarch64 unknown"
    assert set(untold(board)) == {None}
    assert not (board.int8_features or board.temperatures or board.clocks or board.cameras or board.nvidia)


def test_every_file_may_be_missing_or_a_folder(pi4: Path) -> None:
    for path in sorted(path for path in pi4.rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.unlink()
        read_board(pi4, "aarch64")
        path.mkdir()
        read_board(pi4, "aarch64")
        path.rmdir()
        path.write_bytes(content)
    assert read_board(pi4, "aarch64").throttling


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_every_file_may_hold_anything(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("root")
    zone, policy = f"{THERMAL}/thermal_zone0", f"{CPUFREQ}/policy0"
    names = ["proc/cpuinfo", "proc/meminfo", "proc/self/status", "proc/self/cgroup", "proc/device-tree/model"]
    names += ["etc/os-release", "etc/nv_tegra_release", f"{zone}/type", f"{zone}/temp"]
    names += [f"{policy}/scaling_cur_freq", f"{policy}/affected_cpus", "sys/fs/cgroup/cpu.max"]
    names += ["sys/fs/cgroup/memory.max", "sys/devices/platform/soc/soc:firmware/get_throttled"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    board = read_board(root, "x86_64")
    assert board.cores is None or board.cores > 0
    assert board.threads is None or board.threads > 0


def test_this_machine_is_read() -> None:
    board = read_board()
    if Path("/proc/meminfo").exists():
        assert board.memory_bytes and board.memory_bytes > 100_000_000
        assert board.threads and 1 <= board.threads <= (os.cpu_count() or 1)
