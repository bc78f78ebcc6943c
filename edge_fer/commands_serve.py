"""The command `serve`: its options and the token. `edge_fer.serve` does the work."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Annotated

import typer

from edge_fer.cli_errors import guarded
from edge_fer.command_options import (
    BundleOption,
    DebugOption,
    DeviceOption,
    EngineOption,
    ProviderOption,
    ThreadsOption,
)
from edge_fer.commands_infer import DetectorOption, ReliabilityOption, UntrainedOption
from edge_fer.errors import InputError, MissingPackageError

app = typer.Typer()

TOKEN_VARIABLE = "EDGE_FER_TOKEN"
_PACKAGES = ("fastapi", "uvicorn", "websockets", "prometheus_client")

HostOption = Annotated[
    str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all of this machine's.")
]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for a free one.")]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        readable=False,
        help=f"File with the token that clients have to show; {TOKEN_VARIABLE} may hold it, too.",
    ),
]
QueueOption = Annotated[
    int, typer.Option("--queue", min=1, max=10_000, help="Pictures under way, all clients together.")
]
MegabytesOption = Annotated[
    float, typer.Option("--max-megabytes", min=0.001, max=1000, help="Of one request, or one frame.")
]
TimeOption = Annotated[
    float, typer.Option("--time-limit", min=0.1, max=3600, help="Seconds for an answer, waiting included.")
]


@app.command()
@guarded
def serve(
    bundle: BundleOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    detector: DetectorOption = None,
    min_reliability: ReliabilityOption = None,
    token_file: TokenOption = None,
    queue: QueueOption = 64,
    max_megabytes: MegabytesOption = 20,
    time_limit: TimeOption = 10,
    engine: EngineOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    provider: ProviderOption = None,
    allow_untrained: UntrainedOption = False,
    debug: DebugOption = False,
) -> None:
    """Answer over HTTP what `infer --json` prints, with a live page; until Ctrl-C or SIGTERM."""
    _require_packages()
    from edge_fer.engines import EngineOptions, spare_cores
    from edge_fer.serve.server import serve as run
    from edge_fer.serve.settings import ServeSettings

    run(
        ServeSettings(
            bundle=bundle,
            host=host,
            port=port,
            detector=detector,
            min_reliability=min_reliability,
            token=_token(token_file),
            queue=queue,
            max_bytes=round(max_megabytes * 1e6),
            time_limit_s=time_limit,
            engine=EngineOptions(
                engine=engine, threads=threads or spare_cores(), device=device, provider=provider
            ),
            allow_untrained=allow_untrained,
            debug=debug,
        )
    )


def _require_packages() -> None:
    for package in _PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingPackageError(
                f"serve needs {package} ({error}): install it with `pip install 'edge-fer[serve]'`"
            ) from None


def _token(file: Path | None) -> bytes | None:
    """Return the token of a file, else of the environment; None when there is none.

    Raises:
        InputError: the file cannot be read, or this is no token.
    """
    if file is None:
        text, place = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
        if text is None:
            return None
    else:
        place = str(file)
        try:
            text = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError:
            text = ""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise InputError(f"{place}: expected a token of printable ASCII characters without spaces")
    return text.encode()
