"""The command `infer`: its options, and what its exit code says. `inference` does the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_fer.cli_errors import end_at_once, guarded, notice
from edge_fer.command_options import (
    BundleOption,
    DebugOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ProviderOption,
    ThreadsOption,
)
from edge_fer.errors import UsageError

if TYPE_CHECKING:
    from edge_fer.engines import EngineOptions
    from edge_fer.inference import InferOptions
    from edge_fer.mqtt.address import Address
    from edge_fer.recognizer import Recognizer
    from edge_fer.sources import SourcePlan

app = typer.Typer()

SourceArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Pictures, folders, globs, videos, camera:0, rtsp://…, http://…, gst:PIPELINE, or - for JPEGs.",
    ),
]
CsvOption = Annotated[
    Path | None, typer.Option("--csv", readable=False, help="Write one row per face to this file.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", readable=False, help="Write annotated pictures and videos to this folder."),
]
MqttOption = Annotated[
    str | None,
    typer.Option(
        "--mqtt",
        metavar="URL",
        help="Publish the JSON lines: mqtt\\[s]://\\[user@]host[:port]/topic. "
        "EDGE_FER_MQTT_PASSWORD: password.",
    ),
]
DiscoveryOption = Annotated[
    str | None,
    typer.Option(
        "--mqtt-discovery",
        metavar="PREFIX",
        help="Tell Home Assistant of it; PREFIX is homeassistant, unless that was changed there.",
    ),
]
DetectorOption = Annotated[
    str | None, typer.Option("--detector", help="cascade, yunet, or the path of a YuNet .onnx file.")
]
ReliabilityOption = Annotated[
    str | None, typer.Option("--min-reliability", metavar="X|auto", help="Abstain below this, 0 to 1.")
]
EveryOption = Annotated[int, typer.Option("--every", metavar="N", help="Take every N-th frame or picture.")]
FpsOption = Annotated[
    float | None, typer.Option("--fps", metavar="F", help="Take at most F frames of a second.")
]
StartOption = Annotated[
    float | None, typer.Option("--start", metavar="S", help="Begin S seconds into the video.")
]
EndOption = Annotated[float | None, typer.Option("--end", metavar="S", help="End S seconds into it.")]
MaxFramesOption = Annotated[
    int | None, typer.Option("--max-frames", metavar="N", help="End after N frames of a source.")
]

UntrainedOption = Annotated[
    bool, typer.Option("--allow-untrained", help="Accept a bundle with untrained weights.")
]


@app.command()
@guarded
def infer(
    sources: SourceArgument,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
    csv: CsvOption = None,
    output: OutputOption = None,
    mqtt: MqttOption = None,
    mqtt_discovery: DiscoveryOption = None,
    detector: DetectorOption = None,
    no_detect: Annotated[bool, typer.Option("--no-detect", help="Every picture is one face crop.")] = False,
    min_reliability: ReliabilityOption = None,
    every: EveryOption = 1,
    fps: FpsOption = None,
    start: StartOption = None,
    end: EndOption = None,
    max_frames: MaxFramesOption = None,
    no_smooth: Annotated[bool, typer.Option("--no-smooth", help="Let every frame speak for itself.")] = False,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    provider: ProviderOption = None,
    allow_untrained: UntrainedOption = False,
    debug: DebugOption = False,
) -> None:
    """Recognise the expression of every face in pictures, videos and streams."""
    from edge_fer.engines import EngineOptions
    from edge_fer.inference import InferOptions, default_threads, resolve_sources
    from edge_fer.sources import Selection

    if no_detect and detector:
        raise UsageError("--no-detect and --detector exclude each other: leave one out")
    options = InferOptions(
        json=as_json,
        csv=csv,
        output=output,
        mqtt=_address(mqtt, mqtt_discovery),
        mqtt_discovery=mqtt_discovery,
        detector=detector,
        detect=not no_detect,
        selection=Selection(every=every, fps=fps, start_s=start, end_s=end, max_frames=max_frames),
        smooth=not no_smooth,
    )
    plans, faulty = resolve_sources(sources, options.selection)
    if plans:
        recognizer = _load(
            bundle,
            EngineOptions(
                engine=engine, threads=threads or default_threads(plans), device=device, provider=provider
            ),
            min_reliability,
            allow_untrained,
            quiet=as_json,
        )
        faulty += _work(plans, recognizer, options, faulty)
    if faulty:
        raise SystemExit(1)


def _work(plans: Sequence[SourcePlan], recognizer: Recognizer, options: InferOptions, faulty: int) -> int:
    """Return how many sources and deliveries failed; `faulty` is what failed before."""
    from edge_fer.inference import infer_sources
    from edge_fer.stopping import stop_on_signals

    with stop_on_signals() as stop:
        outcome = infer_sources(plans, recognizer, options, stop)
    failed = outcome.faulty + outcome.undelivered
    if outcome.held:
        end_at_once(stop.error() if outcome.cut else SystemExit(1 if faulty + failed else 0))
    if outcome.cut:
        raise stop.error()
    return failed


def _address(url: str | None, prefix: str | None) -> Address | None:
    from edge_fer.mqtt.address import check_topic, parse_address

    if prefix is not None:
        if url is None:
            raise UsageError("--mqtt-discovery tells of what --mqtt publishes: give both")
        check_topic(prefix, "--mqtt-discovery")
    return None if url is None else parse_address(url)


def _load(
    path: Path | None, options: EngineOptions, min_reliability: str | None, untrained: bool, *, quiet: bool
) -> Recognizer:
    """Load the model, and say what its certificate promises; its bytes are let go."""
    from edge_fer.bundle import Bundle, default_bundle
    from edge_fer.parity.certificate import summary
    from edge_fer.parity.environment import environment
    from edge_fer.recognizer import Recognizer

    bundle = Bundle.load(path or default_bundle())
    recognizer = Recognizer.load(
        bundle,
        engine=options.engine,
        threads=options.threads,
        device=options.device,
        provider=options.provider,
        min_reliability=min_reliability,
        allow_untrained=untrained,
    )
    if not quiet:
        notice(summary(bundle, str(environment()["cpu_class"])))
    return recognizer
