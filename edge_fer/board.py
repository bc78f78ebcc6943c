"""What the system tells of the machine: processor, limits, memory, heat, clock, cameras.

Everything is read below a root folder, so that a test can lay one out; what is missing becomes None. Reads
nothing that names a host or a person, and opens no device.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_fer.parity.environment import cpu_class, parse_cpuinfo

# The features that decide how fast int8 runs, as /proc/cpuinfo writes them, and what they are.
INT8_FEATURES = {
    "x86-64": {"avx2": "AVX2", "avx_vnni": "AVX-VNNI", "avx512_vnni": "AVX-512 VNNI", "amx_int8": "AMX int8"},
    "aarch64": {"asimd": "NEON", "asimdhp": "half precision", "asimddp": "dot product", "i8mm": "i8mm"},
}
_THROTTLED = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
}
_SINCE_BOOT = 16  # bits; the same four, for what has happened since the board was started
_FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
_VCGENCMD_S = 5.0
_PROCESSOR_COOLING = re.compile("processor|cpu", re.IGNORECASE)
# Codecs and image pipes of a Raspberry Pi are video devices, too, and no cameras.
_NO_CAMERA = re.compile(r"bcm2835-(codec|isp)|rpi-?hevc|rpivid|pispbe|-(decode|encode|m2m)", re.IGNORECASE)
_UNLIMITED_BYTES = 1 << 60  # version 1 of cgroups writes about 2^63 for no limit
_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Temperature:
    """One sensor: the name of its zone, and degrees Celsius."""

    zone: str
    celsius: float


@dataclass(frozen=True, slots=True)
class Clock:
    """The cores that share one clock, such as "0-3"; its governor, and megahertz now and at most."""

    cores: str
    governor: str | None
    current_mhz: float | None
    max_mhz: float | None


@dataclass(frozen=True, slots=True)
class Camera:
    """A video device that may be a camera, what it calls itself, and whether this user may open it."""

    path: str
    name: str | None
    readable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The machine; None where the system does not tell.

    Attributes:
        model: of the board, such as "Raspberry Pi 5 Model B Rev 1.0"; PCs do not tell.
        system: name and version of the distribution.
        l4t: release of NVIDIA's Linux on a Jetson: R35 is JetPack 5, R36 JetPack 6.
        cpu: model of the processor.
        cpu_class: the class that certificates are for.
        int8_features: which of the features that decide how fast int8 runs it has.
        cores: that the system has.
        usable_cores: that this process may run on.
        cgroup_cpus: processors' worth of time that its control group has; None: no limit.
        memory_bytes: of the system.
        available_bytes: that could be had without swapping.
        cgroup_memory_bytes: limit of its control group; None: no limit.
        temperatures: of every sensor that answers.
        throttling: why the processor is or was slowed down; empty: it was not.
        clocks: one per group of cores.
        cameras: in the order of their numbers.
        nvidia: an NVIDIA GPU is there.
    """

    model: str | None
    system: str | None
    l4t: str | None
    cpu: str | None
    cpu_class: str
    int8_features: dict[str, bool]
    cores: int | None
    usable_cores: int | None
    cgroup_cpus: float | None
    memory_bytes: int | None
    available_bytes: int | None
    cgroup_memory_bytes: int | None
    temperatures: tuple[Temperature, ...]
    throttling: tuple[str, ...] | None
    clocks: tuple[Clock, ...]
    cameras: tuple[Camera, ...]
    nvidia: bool

    @property
    def threads(self) -> int | None:
        """Threads that can really run at a time: the cores, less what the limits take away."""
        counts = [count for count in (self.cores, self.usable_cores) if count]
        if self.cgroup_cpus is not None:
            counts.append(max(1, int(self.cgroup_cpus)))
        return min(counts, default=None)


def read_board(root: Path = Path("/"), machine: str | None = None) -> Board:
    """Read everything that the system tells.

    Args:
        root: the folder that stands for `/`.
        machine: as `platform.machine` names it; None: this one's.
    """
    machine = machine or os.uname().machine
    cpuinfo = _text(root / "proc/cpuinfo", 1 << 20) or ""
    cpu, features = parse_cpuinfo(cpuinfo)
    found_class = cpu_class(machine, features)
    memory = _colon_fields(_text(root / "proc/meminfo", 1 << 16) or "")
    cpus, memory_limit = _cgroup_limits(root)
    return Board(
        model=_line(root / "proc/device-tree/model"),
        system=_os_release(root),
        l4t=_l4t(root),
        cpu=cpu,
        cpu_class=found_class,
        int8_features={
            name: flag in features
            for flag, name in INT8_FEATURES.get(found_class.split()[0], {}).items()
            if features
        },
        cores=len(re.findall(r"(?m)^processor\s*:", cpuinfo)) or None,
        usable_cores=_usable_cores(root),
        cgroup_cpus=cpus,
        memory_bytes=_kilobytes(memory.get("MemTotal")),
        available_bytes=_kilobytes(memory.get("MemAvailable")),
        cgroup_memory_bytes=memory_limit,
        temperatures=tuple(_temperatures(root)),
        throttling=_throttling(root),
        clocks=tuple(_clocks(root)),
        cameras=tuple(_cameras(root)),
        nvidia=any((root / "dev" / name).exists() for name in ("nvidia0", "nvhost-gpu", "nvgpu")),
    )


def _text(path: Path, limit: int = 4096) -> str | None:
    """Return the start of a text file; None when it cannot be read, as some sensors cannot at times."""
    try:
        with path.open("rb") as stream:
            return stream.read(limit).decode("utf-8", errors="replace")
    except (OSError, ValueError):
        return None


def _line(path: Path) -> str | None:
    """Return the first line of a file without the zero that ends a device tree's texts; None for nothing."""
    lines = (_text(path) or "").replace("\0", "").strip().splitlines()
    return lines[0].strip()[:_CHARACTERS] if lines else None


def _number(path: Path) -> int | None:
    try:
        return int(_line(path) or "")
    except ValueError:
        return None


def _colon_fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _kilobytes(value: str | None) -> int | None:
    found = re.match(r"(\d+) kB", value or "")
    return int(found[1]) * 1024 if found else None


def _os_release(root: Path) -> str | None:
    text = _text(root / "etc/os-release") or _text(root / "usr/lib/os-release") or ""
    found = re.search(r'(?m)^PRETTY_NAME="?([^"\n]+)', text)
    return found[1][:_CHARACTERS] if found else None


def _l4t(root: Path) -> str | None:
    text = _line(root / "etc/nv_tegra_release") or ""
    found = re.search(r"(R\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else None


def _usable_cores(root: Path) -> int | None:
    """Return how many cores this process may run on, from a list such as 0-2,4."""
    listed = _colon_fields(_text(root / "proc/self/status", 1 << 16) or "").get("Cpus_allowed_list", "")
    spans = re.findall(r"(\d+)(?:-(\d+))?", listed)
    return sum(int(last or first) - int(first) + 1 for first, last in spans) or None


def _cgroup_limits(root: Path) -> tuple[float | None, int | None]:
    """Return the tightest limits of this process's control groups: processors, and bytes of memory."""
    cpus: list[float] = []
    memory: list[int] = []
    base = root / "sys/fs/cgroup"
    for line in (_text(root / "proc/self/cgroup", 1 << 16) or "").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        names = controllers.split(",")
        if not controllers:  # version 2, alone or beside version 1
            for folder in (*_upwards(base, path), *_upwards(base / "unified", path)):
                cpus += _quota(*(_line(folder / "cpu.max") or "").split()[:2])
                memory += _bytes(folder / "memory.max")
        if "cpu" in names:
            for folder in _upwards(base / "cpu", path):
                quota, period = (_line(folder / f"cpu.cfs_{kind}_us") for kind in ("quota", "period"))
                cpus += _quota(quota, period)
        if "memory" in names:
            for folder in _upwards(base / "memory", path):
                memory += _bytes(folder / "memory.limit_in_bytes")
    return min(cpus, default=None), min(memory, default=None)


def _upwards(base: Path, path: str) -> Iterator[Path]:
    """Yield a control group's folder and those above it; in a container only the upper ones may exist."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for count in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:count])


def _quota(quota: str | None = None, period: str | None = None) -> list[float]:
    try:
        taken, every = int(quota or ""), int(period or "")
    except ValueError:  # "max", or no file
        return []
    return [taken / every] if taken > 0 and every > 0 else []


def _bytes(path: Path) -> list[int]:
    found = _number(path)
    return [found] if found is not None and 0 < found < _UNLIMITED_BYTES else []


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """Return what is in a folder by the number that ends its name; nothing when the folder is not there."""
    try:
        found = [path for path in folder.glob(pattern) if re.search(r"\d+$", path.name)]
    except OSError:
        return []
    return sorted(found, key=lambda path: int(re.findall(r"\d+$", path.name)[0]))


def _temperatures(root: Path) -> Iterator[Temperature]:
    for zone in _numbered(root / "sys/class/thermal", "thermal_zone*"):
        thousandths = _number(zone / "temp")
        # A zone that is switched off says -256 000 or fails to be read.
        if thousandths is not None and -100_000 < thousandths < 200_000:
            yield Temperature(_line(zone / "type") or zone.name, thousandths / 1000)


def _throttling(root: Path) -> tuple[str, ...] | None:
    """Return what slows or slowed the processor: a Raspberry Pi's own word, else the cooling in force."""
    bits = _firmware_bits(root)
    if bits is not None:
        now = [f"{name} now" for bit, name in _THROTTLED.items() if bits >> bit & 1]
        before = [f"{name} since boot" for bit, name in _THROTTLED.items() if bits >> bit + _SINCE_BOOT & 1]
        return (*now, *before)
    states = [
        (_line(device / "type") or device.name, _number(device / "cur_state"))
        for device in _numbered(root / "sys/class/thermal", "cooling_device*")
    ]
    known = [(name, state) for name, state in states if state is not None and _PROCESSOR_COOLING.search(name)]
    return (
        tuple(f"{name} held back now (state {state})" for name, state in known if state > 0)
        if known
        else None
    )


def _firmware_bits(root: Path) -> int | None:
    """Return the Raspberry Pi firmware's word, from its file, or from `vcgencmd` below the same root."""
    told = _line(root / _FIRMWARE)
    if told is None:
        folders = os.pathsep.join(str(root / folder) for folder in ("usr/bin", "opt/vc/bin"))
        program = shutil.which("vcgencmd", path=folders)
        if program is None:
            return None
        try:
            done = subprocess.run(
                [program, "get_throttled"], capture_output=True, text=True, timeout=_VCGENCMD_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        told = done.stdout.strip().removeprefix("throttled=")
    try:
        return int(told, 16)
    except ValueError:
        return None


def _clocks(root: Path) -> Iterator[Clock]:
    for policy in _numbered(root / "sys/devices/system/cpu/cpufreq", "policy*"):
        current, most = (_number(policy / f"{name}_freq") for name in ("scaling_cur", "cpuinfo_max"))
        cores = (_line(policy / "affected_cpus") or _line(policy / "related_cpus") or "").split()
        yield Clock(
            cores=cores[0] if len(cores) == 1 else f"{cores[0]}-{cores[-1]}" if cores else policy.name,
            governor=_line(policy / "scaling_governor"),
            current_mhz=None if current is None else current / 1000,
            max_mhz=None if most is None else most / 1000,
        )


def _cameras(root: Path) -> Iterator[Camera]:
    for device in _numbered(root / "dev", "video*"):
        about = root / "sys/class/video4linux" / device.name
        name = _line(about / "name")
        # A camera's later nodes carry its metadata, not pictures.
        if (_number(about / "index") or 0) == 0 and not _NO_CAMERA.search(name or ""):
            yield Camera(f"/dev/{device.name}", name, os.access(device, os.R_OK | os.W_OK))
