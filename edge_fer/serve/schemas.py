"""The shapes of the answers, for OpenAPI alone: answers are written by `edge_fer.output`, not by these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(ge=0)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Face(_Closed):
    """One face."""

    box: Annotated[list[float], Field(min_length=4, max_length=4)] | None = Field(
        description="x, y, width, height in pixels; null when the whole picture is the face"
    )
    landmarks: list[Annotated[list[float], Field(min_length=2, max_length=2)]] | None = Field(
        description="five points x, y in pixels: eyes, tip of the nose, corners of the mouth"
    )
    label: str | None = Field(description="the most probable label; null when the model abstains")
    probabilities: dict[str, Share] = Field(description="the corrected distribution, by label")
    primary: dict[str, Share] = Field(description="the distribution before reliability balancing")
    reliability: Share = Field(description="1 - normalised entropy of `probabilities`")
    abstained: bool = Field(description="whether `reliability` lies below the minimum that is served with")
    track: int | None = Field(description="number of the person's track in a stream")


class Latency(_Closed):
    """Milliseconds of work, by stage; null for what did not run."""

    decode: Milliseconds | None
    detect: Milliseconds | None
    track: Milliseconds | None
    preprocess: Milliseconds | None
    recognise: Milliseconds | None
    total: Milliseconds | None


class Picture(_Closed):
    """The faces of one picture, as `edge-fer infer --json` prints them."""

    source: str = Field(description="name of the file as it was sent, - for a body without a name")
    frame: int | None
    time_s: float | None
    faces: list[Face] = Field(description="the largest first")
    detector: str | None = Field(description="what found the faces; null with ?detect=false")
    latency_ms: Latency


class Broken(_Closed):
    """One of several pictures that cannot be read."""

    source: str
    error: str


class Error(_Closed):
    """Why there is no answer: what was expected, what was got, what to do."""

    error: str


class Status(_Closed):
    """How the service is."""

    status: Literal["alive", "ready", "starting", "busy", "failing", "draining"]


class Runtime(_Closed):
    """How the bundle runs here."""

    version: str
    engine: str
    precision: str
    threads: int | None = Field(description="null: the engine's own choice")
    device: str
    detector: str
    certified_here: bool = Field(description="whether a passed certificate covers this class of processors")
    summary: str
    min_reliability: float | None = Field(description="faces below it get no label; null: never")
    batch: int = Field(description="most faces that are recognised in one run")


class BundleFacts(_Closed):
    """What answers."""

    bundle: dict[str, object] = Field(description="bundle.json and the verdict")
    certificate: dict[str, object] | None = Field(description="parity.json")
    runtime: Runtime


Answer = Picture | list[Picture | Broken]
