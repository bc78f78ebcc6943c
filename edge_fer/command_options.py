"""The options that several device commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundleArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[BUNDLE]",
        # typer would call an unreadable path wrong usage; reading it gives the better line.
        readable=False,
        help="A bundle, folder or zip; the embedded one when left out.",
    ),
]
# readable=False: typer would call an unreadable path wrong usage; reading it gives the better line.
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", readable=False, help="A bundle, folder or zip; the embedded one when left out."),
]
EngineOption = Annotated[
    str | None,
    typer.Option("--engine", help="onnxruntime, openvino or tflite; the bundle's own when left out."),
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of one inference.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, gpu ...")]
ProviderOption = Annotated[
    str | None, typer.Option("--provider", help="The engine's way to the device: cpu, cuda, tensorrt ...")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else there.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
