"""The command doctor: verdict, exit code, JSON, and every fault a machine can have, made for real.

Packages that do not import, crash or hang are folders in front of the real ones on the child's path.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import pytest

from edge_fer.board import Board, Camera, read_board
from edge_fer.bundle import ModelSpec, write_bundle
from edge_fer.commands_doctor import without_home
from edge_fer.doctor import (
    Advice,
    BundleFinding,
    Diagnosis,
    EngineFinding,
    Pictures,
    _advice,
    _bundle,
    _can_run,
    diagnose,
)
from edge_fer.parity.environment import environment
from edge_fer.probe import tried
from tests.conftest import certificate, json_lines, run_command

HERE = environment()["cpu_class"]
PICTURES = Pictures("4.14.0", ("FFMPEG", "V4L2"), "cascade", None, False)
ENGINES = (
    EngineFinding("onnxruntime", "onnxruntime", "1.31.1", ("cpu",), None, None),
    EngineFinding("openvino", None, None, (), "the engine openvino does not import", "pip install openvino"),
)


def stub(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, code: str) -> None:
    """Put a module in front of the installed one of that name, for the processes that doctor starts."""
    file = folder.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(code)
    if file.parent != folder:
        (file.parent / "__init__.py").touch()
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(dict.fromkeys(paths)))


def test_a_bundle_that_runs_here(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny_bundle.parent))
    result = run_command("doctor", tiny_bundle, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert str(tiny_bundle.parent) not in result.stdout
    (record,) = json_lines(result)
    assert record["able"] is True
    assert record["verdict"] == f"~/tiny.fer (tiny onnx fp32) runs on onnxruntime, certified on {HERE}"
    (bundle,) = record["bundles"]
    assert (bundle["path"], bundle["engine"], bundle["fault"]) == ("~/tiny.fer", "onnxruntime", None)
    assert bundle["certified"] is True and 0 < bundle["face_ms"] < 1000
    assert bundle["certificate"].startswith("tiny onnx fp32: parity passed on 12 faces")
    assert [engine["engine"] for engine in record["engines"]] == ["onnxruntime", "openvino", "tflite"]
    assert record["engines"][0]["version"] and "cpu" in record["engines"][0]["places"]
    assert record["board"]["cpu_class"] == HERE
    assert record["pictures"]["opencv"].startswith("4.") and "FFMPEG" in record["pictures"]["video"]
    assert record["pictures"]["detector"] and record["pictures"]["fault"] is None
    assert record["versions"].keys() == {"python", "numpy", "edge-fer"}


def test_the_verdict_comes_first_and_the_embedded_bundle_is_the_default() -> None:
    result = run_command("doctor")
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("note: the embedded bundle (grefel-lite onnx int8) runs on onnxruntime, ")
    assert max(map(len, lines[1:])) <= 160 and "\x1b" not in result.stderr
    for title in ("Bundles", "Engines", "Machine", "Pictures and video"):
        assert any(line.startswith(title) for line in lines)


def test_one_bundle_that_cannot_be_read_fails_and_the_others_are_told(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    result = run_command("doctor", tmp_path / "missing.fer", tiny_bundle)
    assert (result.exit_code, result.stdout) == (1, "")
    first = result.stderr.splitlines()[0]
    assert first.startswith("error: ") and "missing.fer does not run: " in first
    assert "tiny.fer (tiny onnx fp32) runs on onnxruntime" in first
    assert "Traceback" not in result.stderr


def test_without_the_bundle_s_engine_the_line_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("onnxruntime", "ai_edge_litert.interpreter"):
        said = f"No module named '{name.split('.')[0]}'"
        stub(monkeypatch, tmp_path, name, f"raise ModuleNotFoundError({said!r})")
    stub(monkeypatch, tmp_path, "tflite_runtime.interpreter", "class Interpreter: pass")
    result = run_command("doctor", "--json")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: the embedded bundle does not run: the engine onnxruntime does not import "
        "(No module named 'onnxruntime'): install it with `pip install onnxruntime`\n"
    )
    (record,) = json_lines(result)
    assert record["able"] is False
    assert record["bundles"][0]["path"] is None and record["bundles"][0]["face_ms"] is None
    needed = [advice["command"] for advice in record["advice"] if advice["needed"]]
    assert needed == ["pip install onnxruntime"]
    tflite = record["engines"][2]
    assert (tflite["package"], tflite["version"], tflite["fault"]) == ("tflite-runtime", "unknown", None)


def test_an_engine_that_takes_its_process_down_is_survived(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bundle: Path
) -> None:
    stub(monkeypatch, tmp_path, "onnxruntime", "import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    stub(monkeypatch, tmp_path, "cv2", "raise ImportError('libGL.so.1: cannot open shared object file')")
    found = diagnose([tiny_bundle], read_board())
    assert not found.able and "\n" not in found.verdict
    assert "onnxruntime: its process was ended by SIGILL, so it is built for another" in found.verdict
    assert "no face can be detected: OpenCV does not import (libGL.so.1: cannot open" in found.verdict
    commands = [advice.command for advice in found.advice if advice.needed]
    assert commands == ["pip install 'opencv-python-headless>=4.10,<5'"]


def test_what_was_said_before_the_end_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "__version__ = '9'\nget_available_providers = lambda: ['CPUExecutionProvider']\n"
    stub(monkeypatch, tmp_path, "onnxruntime", code)
    monkeypatch.setenv("EDGE_FER_YUNET", "")
    records, ending = tried("engine", "onnxruntime", str(tmp_path / "none.fer"))
    assert records[0] == {"package": "onnxruntime", "version": "9", "places": ["cpu"]}
    assert "none.fer" in str(records[1]["fault"]) and ending is None
    stub(monkeypatch, tmp_path, "onnxruntime", code + "print('hello')\nimport time; time.sleep(60)")
    started = time.monotonic()
    assert tried("engine", "onnxruntime", patience_s=2) == ([], "it gave no answer in 2 s")
    assert time.monotonic() - started < 30
    stub(monkeypatch, tmp_path, "onnxruntime", "raise OSError('broken\\nwheel')")
    records, ending = tried("engine", "onnxruntime")
    assert records == [] and ending is not None and "wheel" in ending


def test_untrained_weights_run_and_are_refused_all_the_same(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes]
) -> None:
    spec = dataclasses.replace(tiny_spec, untrained=True)
    found = diagnose([write_bundle(tmp_path / "t.fer", spec, tiny_members).path], read_board())
    assert not found.able and "untrained" in found.verdict and "--allow-untrained" in found.verdict


@pytest.mark.parametrize("change", ["none", "another class", "no certificate", "failed", "undecided"])
def test_only_a_passed_certificate_of_this_class_certifies(
    tmp_path: Path, tiny_spec: ModelSpec, tiny_members: dict[str, bytes], change: str
) -> None:
    members, spec = dict(tiny_members), tiny_spec
    if change == "another class":
        other = {**environment(), "cpu_class": "aarch64 i8mm"}
        members["parity.json"] = json.dumps(certificate(environment=other)).encode()
    elif change == "no certificate":
        del members["parity.json"]
    elif change == "undecided":
        members["parity.json"] = json.dumps(certificate("undecided")).encode()
    elif change == "failed":
        spec = dataclasses.replace(spec, failed=True)
    bundle = write_bundle(tmp_path / "t.fer", spec, members)
    finding = _bundle(bundle, "t.fer", {"face_ms": 1.0}, str(HERE))
    assert finding.fault is None and finding.certified is (change == "none")
    line = _can_run(finding, str(HERE))
    assert line.endswith(
        f"not certified on {HERE}: run `edge-fer self-test t.fer` before you rely on it"
    ) is (change != "none")


def advise(board: Board, root: Path = Path("/nowhere"), **changes: object) -> list[str]:
    """Return the commands that are advised for a board."""
    pictures = dataclasses.replace(PICTURES, **changes)  # type: ignore[arg-type]
    return [advice.command for advice in _advice(board, ENGINES, (), pictures, root)]


def test_advice_fits_the_board(tmp_path: Path) -> None:
    plain = dataclasses.replace(read_board(tmp_path, "aarch64"), cores=4, usable_cores=4)
    always = ["pip install openvino"]
    assert advise(plain, detector="yunet on onnxruntime") == always
    assert advise(plain) == [*always, "edge-fer detector install"]

    none = dataclasses.replace(PICTURES, detector=None, fault="no cascade")
    assert [one.command for one in _advice(plain, ENGINES, (), none, tmp_path) if one.needed] == [
        "edge-fer detector install"
    ]

    limited = dataclasses.replace(plain, cgroup_cpus=1.5)
    assert "--threads 1 in every command" in advise(limited)
    assert "sudo usermod -aG video $USER" in advise(
        dataclasses.replace(plain, cameras=(Camera("/dev/video0", None, False),))
    )
    pi = dataclasses.replace(plain, model="Raspberry Pi 5 Model B Rev 1.0")
    assert "sudo apt install python3-picamera2" in advise(pi)
    assert not any("picamera2" in command for command in advise(pi, picamera2=True))
    (tmp_path / "usr/lib/python3/dist-packages/picamera2").mkdir(parents=True)
    assert any("--system-site-packages" in command for command in advise(pi, root=tmp_path))
    gpu = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
    assert gpu in advise(dataclasses.replace(plain, nvidia=True)) and gpu not in advise(plain)
    jetson = advise(dataclasses.replace(plain, nvidia=True, l4t="R36.4.3"))
    assert gpu not in jetson and any("jetson.md" in command for command in jetson)


def test_bundles_that_run_are_not_enough_without_a_detector() -> None:
    bundle = BundleFinding(None, "m onnx int8", "onnxruntime", 1.0, None, True, None)
    found = Diagnosis({}, read_board(), ENGINES, (bundle,), PICTURES, ())
    assert found.able and found.verdict.startswith("the embedded bundle (m onnx int8) runs on onnxruntime")
    found = dataclasses.replace(found, pictures=dataclasses.replace(PICTURES, fault="no cascade"))
    assert not found.able and found.verdict.startswith("no face can be detected: no cascade; the embedded")


def test_needed_advice_comes_first() -> None:
    bundle = BundleFinding("a.fer", "m openvino fp32", "openvino", None, "no", False, None)
    tflite = EngineFinding("tflite", None, None, (), "not there", "pip install tflite")
    advice = _advice(
        read_board(), (tflite, *ENGINES), (bundle,), dataclasses.replace(PICTURES, opencv=None), Path("/")
    )
    needed = [one.needed for one in advice]
    assert needed == sorted(needed, reverse=True) and (sum(needed), len(needed)) == (2, 3)


def test_a_board_s_findings_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge_fer import commands_doctor
    from tests.edge_fer.test_board import PI4_CPU, THERMAL, lay_out

    files = {
        "proc/cpuinfo": PI4_CPU,
        "proc/meminfo": "MemTotal: 3884316 kB\n",
        f"{THERMAL}/thermal_zone0/type": "cpu-thermal",
        f"{THERMAL}/thermal_zone0/temp": "61835",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "1",
        "dev/video0": "",
    }
    board = read_board(lay_out(tmp_path, files), "aarch64")
    bundle = BundleFinding(None, "m onnx int8", "onnxruntime", 12.3456, None, True, "m: parity passed")
    advice = (Advice("something", "do it", True),)
    commands_doctor._print(Diagnosis({"python": "3.13"}, board, ENGINES, (bundle,), PICTURES, advice))
    said = capsys.readouterr().err
    for text in (
        "yes, 12.3 ms per face",
        "yes: parity passed",
        "no: the engine openvino does not import",
        "has NEON; lacks half precision, dot product, i8mm",
        "4.0 GB",
        "cpu-thermal 61.8 °C",
        "under-voltage now",
        "/dev/video0 (unnamed)",
        "no: this OpenCV has no GStreamer",
        "python 3.13",
        "do it",
    ):
        assert text in said
    assert [line for line in said.splitlines() if "not told" in line and "clock" in line]


def test_the_home_folder_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert without_home({"a": ["/home/ann/x", 1], "b": ("no /home/ann/y",)}) == {
        "a": ["~/x", 1],
        "b": ["no ~/y"],
    }
    monkeypatch.setenv("HOME", "/")
    assert without_home("/usr/lib") == "/usr/lib"
