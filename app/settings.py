"""Every knob of the service, read once from the environment by `create_app` or the command line."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError, to_jsonable_python
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

# Where processes keep what they count together: the word of prometheus-client, which reads it by itself.
COUNTS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def counts_together() -> bool:
    """Whether this process is one of several that serve the same address."""
    return COUNTS_FOLDER in os.environ


def environment_of(counts: Path | None) -> dict[str, str]:
    """The environment for a process of ours, which counts for itself or together with others in that folder."""
    own = {name: value for name, value in os.environ.items() if name != COUNTS_FOLDER}
    return own if counts is None else {**own, COUNTS_FOLDER: str(counts)}


class CallerSettings(BaseSettings):
    """What the command line knows of the service it calls."""

    model_config = SettingsConfigDict(env_prefix="ODDITY_", frozen=True)

    server: Annotated[str | None, Field(description="URL of the service, where a command names none.")] = None
    api_key: Annotated[SecretStr | None, Field(description="Key that is sent to the service.")] = None


class Settings(BaseSettings):
    """Every knob. Names end in their unit; each is set by `ODDITY_` + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="ODDITY_", frozen=True, extra="forbid")

    data: Annotated[Path, Field(description="Folder of the record, the images and the weights.")] = Path("data")
    database_url: Annotated[
        SecretStr | None,
        Field(description="SQLAlchemy URL of the record; unset means SQLite in the data folder."),
    ] = None
    database_busy_s: Annotated[
        float, Field(gt=0, le=600, description="How long a writer waits for another before it gives up.")
    ] = 30.0

    image_store: Annotated[
        SecretStr | None,
        Field(
            description="Folder, or URL for fsspec such as s3://bucket/path, of images' bytes and thumbnails; unset "
            "means the data folder."
        ),
    ] = None
    image_store_options: Annotated[
        SecretStr | None,
        Field(
            description="JSON object of options for fsspec, such as keys and `endpoint_url`; often the store's own "
            "variables are enough."
        ),
    ] = None

    follow_wait_s: Annotated[
        float,
        Field(ge=0, le=60, description="How long a read with `after` waits for that change before 503 is answered."),
    ] = 5.0
    memory_budget_bytes: Annotated[
        int | None,
        Field(
            ge=2**20,
            description="Memory for collections; the least recently used make room. Unset: half of what there is.",
        ),
    ] = None
    scorer_budget_bytes: Annotated[
        int | None,
        Field(
            ge=2**20,
            le=2**44,
            description="Memory for fitted scorers; the least recently used make room. Unset: an eighth of what there "
            "is.",
        ),
    ] = None
    scorer_limit_bytes: Annotated[
        int, Field(ge=1024, le=2**36, description="Most bytes that a fitted scorer may consist of.")
    ] = 2**30
    fit_cache_limit_bytes: Annotated[
        int,
        Field(
            ge=0,
            le=2**44,
            description="Disk that one fit may take for pixels and feature maps; beyond it they are computed each "
            "time.",
        ),
    ] = 16 * 2**30

    weights: Annotated[
        str,
        Field(
            max_length=1024,
            description="Default weights of new collections: embedded, stand-in, torchvision or file:<path>.",
        ),
    ] = "default"
    backbone: Annotated[str, Field(max_length=64, description="Default backbone of new collections.")] = "resnet18"
    image_size: Annotated[
        int | None,
        Field(ge=32, le=1024, description="Default side in pixels of the network's input; unset: the weights' own."),
    ] = None
    pooling: Annotated[
        Literal["mean", "sqrt_mean"],
        Field(
            description="Default of new collections: how feature maps become a vector, by the average of each channel "
            "or the square root of it."
        ),
    ] = "mean"
    threads: Annotated[
        int | None, Field(ge=1, le=256, description="Thread budget of network and search; unset: all cores.")
    ] = None

    processes: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="Server processes that share the address, threads and memory. One keeps little more than one "
            "core busy with HTTP and small images; each has a copy of the network and of the collections it serves.",
        ),
    ] = 1

    engine: Annotated[
        Literal["auto", "openvino", "torch", "cuda"],
        Field(
            description="What computes vectors: OpenVINO on processors and torch on a GPU (auto), or one by name; "
            "where OpenVINO fails, torch takes over."
        ),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "exact", "float32", "bf16", "int8"],
        Field(
            description="How vectors of new collections are rounded: 8-bit integers on processors for weights that "
            "bring their ranges, as those that ship do, at their own image size, else the quickest floating point that "
            "the processor has in hardware (auto); float32 with every shortcut off (exact); or one by name. Each must "
            "pass a check against float32. A collection keeps what it was begun with."
        ),
    ] = "auto"

    access: Annotated[
        Literal["auto", "keys", "open"],
        Field(
            description="Who may send requests: holders of an API key (keys), anybody (open), or anybody on this "
            "machine's own address and holders of a key on every other (auto)."
        ),
    ] = "auto"
    admin_key: Annotated[
        SecretStr | None,
        Field(
            min_length=32,
            max_length=256,
            description="A key with scope admin that is not in the record, for the first start of a deployment.",
        ),
    ] = None
    audit_limit_bytes: Annotated[
        int,
        Field(ge=4096, le=2**32, description="Size at which a file of the audit log is closed and a new one begun."),
    ] = 16 * 2**20
    audit_limit_files: Annotated[
        int, Field(ge=2, le=100_000, description="Most files of the audit log; the oldest go.")
    ] = 20

    body_limit_bytes: Annotated[
        int, Field(ge=1024, le=2**34, description="Largest request body, counted while it arrives.")
    ] = 512 * 2**20
    bodies_limit_bytes: Annotated[
        int,
        Field(
            ge=1024,
            le=2**40,
            description="Bytes of all request bodies in memory at once, 72 more for each value of JSON, before 503 is "
            "answered; one alone always fits.",
        ),
    ] = 2 * 2**30
    connections_limit: Annotated[
        int, Field(ge=1, le=100_000, description="Most connections at once; one more is refused with 503.")
    ] = 1000
    head_wait_s: Annotated[
        float, Field(gt=0, le=600, description="How long request line and headers may take to arrive.")
    ] = 10.0
    body_wait_s: Annotated[
        float,
        Field(
            gt=0,
            le=3600,
            description="How long a body may take to arrive, and one second more for every 4096 bytes of it.",
        ),
    ] = 30.0
    answer_wait_s: Annotated[
        float,
        Field(
            gt=0,
            le=3600,
            description="How long a caller may take fewer than 1024 bytes a second of an answer before the connection "
            "ends.",
        ),
    ] = 60.0
    files_limit: Annotated[int, Field(ge=1, le=10_000, description="Most files in one request.")] = 1000
    image_limit_bytes: Annotated[int, Field(ge=1024, le=2**31, description="Largest encoded image.")] = 32 * 2**20
    image_limit_pixels: Annotated[
        int, Field(ge=1024, le=10**9, description="Most pixels (width times height), checked before decoding.")
    ] = 100_000_000
    image_limit_side_pixels: Annotated[
        int, Field(ge=32, le=10**6, description="Longest side, checked before decoding.")
    ] = 30_000
    image_limit_frames: Annotated[
        int, Field(ge=1, le=100_000, description="Most frames of an animation; only the first is read.")
    ] = 1000
    json_limit_bytes: Annotated[
        int, Field(ge=256, le=2**26, description="Largest metadata of one image or set, as JSON.")
    ] = 64 * 1024
    json_limit_values: Annotated[
        int, Field(ge=1000, le=10**9, description="Most values (numbers, texts, lists, objects) in a JSON body.")
    ] = 4_000_000

    decoding: Annotated[
        Literal["processes", "threads"],
        Field(
            description="Where images are decoded: in processes of their own, of which a crash costs one image, or in "
            "threads of the server."
        ),
    ] = "processes"
    decode_workers: Annotated[
        int | None,
        Field(ge=1, le=256, description="Most processes that decode; unset: as many as there are threads."),
    ] = None
    decode_limit_s: Annotated[
        float, Field(gt=0, le=3600, description="How long a process may take for one image before it is ended.")
    ] = 30.0
    decode_limit_memory_bytes: Annotated[
        int,
        Field(
            ge=16 * 2**20,
            le=2**40,
            description="What a process that decodes may allocate; about 12 bytes for each pixel are needed.",
        ),
    ] = 2 * 2**30

    import_folders: Annotated[
        tuple[Path, ...],
        NoDecode,
        Field(
            max_length=256,
            description="Folders of this machine that imports may read, with all below them; separated by colons.",
        ),
    ] = ()
    import_limit_archive_bytes: Annotated[
        int, Field(ge=1024, le=2**42, description="Largest archive that is uploaded for an import.")
    ] = 8 * 2**30
    import_limit_unpacked_bytes: Annotated[
        int, Field(ge=1024, le=2**44, description="Most bytes that an archive may unpack to.")
    ] = 64 * 2**30
    import_limit_ratio: Annotated[
        float, Field(ge=1, le=10_000, description="Most bytes that one byte of an archive may unpack to.")
    ] = 200.0
    import_limit_entries: Annotated[int, Field(ge=1, le=10_000_000, description="Most entries of an archive.")] = (
        500_000
    )
    snapshot_limit_bytes: Annotated[
        int, Field(ge=1024, le=2**44, description="Largest snapshot that is uploaded to be restored.")
    ] = 64 * 2**30

    inference_slots: Annotated[
        int, Field(ge=1, le=256, description="Requests worked on at the same time; further ones wait.")
    ] = 32  # twice what the network takes at once: the next batch is decoded while one is computed
    inference_niceness: Annotated[
        int,
        Field(
            ge=0,
            le=19,
            description="How far decoding and the network stand back for the threads that read requests and write "
            "answers, on Linux; 0: not at all.",
        ),
    ] = 5
    queue_limit_requests: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="Requests that may wait for a slot before 503 is answered, to many after a second.",
        ),
    ] = 256
    queue_limit_images: Annotated[
        int, Field(ge=1, le=100_000, description="Images that may wait for the network before 503 is answered.")
    ] = 4096
    deadline_s: Annotated[float, Field(gt=0, le=3600, description="Longest time one request may wait and compute.")] = (
        300.0
    )
    jobs: Annotated[
        Literal["process", "thread", "off"],
        Field(
            description="Where jobs run: in a worker process beside the server, in threads of the server, or off, when "
            "`oddity worker` runs elsewhere."
        ),
    ] = "process"
    job_workers: Annotated[
        int, Field(ge=1, le=64, description="Jobs of any kind run at the same time; quick ones have one place more.")
    ] = 1
    job_threads: Annotated[
        int | None,
        Field(ge=1, le=256, description="Thread budget of a worker process; unset: half the cores."),
    ] = None
    job_niceness: Annotated[
        int, Field(ge=0, le=19, description="How far a worker process stands back for the server; 0: not at all.")
    ] = 10

    index_min_images: Annotated[
        int,
        Field(ge=1, le=10**9, description="Images from which on a collection gets a structure and an index file."),
    ] = 20_000
    index_every_s: Annotated[
        float,
        Field(
            ge=0,
            le=86_400,
            description="How often a worker looks for large collections that have outgrown their index file; 0: never.",
        ),
    ] = 10.0
    collect_every_s: Annotated[
        float,
        Field(
            ge=0,
            le=86_400,
            description="How often a worker looks through one 256th of the image store for files that no image needs; "
            "0: never.",
        ),
    ] = 10.0

    idempotency_hours: Annotated[
        float, Field(gt=0, le=24 * 365, description="How long an Idempotency-Key is remembered.")
    ] = 24.0
    drift_flush_s: Annotated[
        float,
        Field(ge=0.05, le=3600, description="How often counted p-values are written to the record, for /drift."),
    ] = 10.0
    drift_kept_hours: Annotated[float, Field(ge=1, le=24 * 3660, description="How long counted p-values are kept.")] = (
        24.0 * 60
    )
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$", description="Least level logged.")] = "info"
    log_format: Annotated[
        Literal["json", "text"], Field(description="Log lines as JSON objects, or as text for people.")
    ] = "json"
    metrics_collections: Annotated[
        int,
        Field(
            ge=0,
            le=10_000,
            description="Collections, and scorers, that get labels of their own in /metrics; all others share `other`.",
        ),
    ] = 100
    otlp_endpoint: Annotated[
        str | None,
        Field(
            pattern="^https?://",
            max_length=1024,
            description="Where traces go: the address of an OpenTelemetry collector that takes OTLP over HTTP, such as "
            "http://localhost:4318; unset: none are made. Needs `pip install 'oddity[otel]'`.",
        ),
    ] = None
    otlp_headers: Annotated[
        SecretStr | None,
        Field(description="Headers for the collector, such as `authorization=Bearer …`, separated by commas."),
    ] = None
    otlp_share: Annotated[
        float, Field(ge=0, le=1, description="Share of requests that are traced, where the caller does not decide.")
    ] = 1.0
    disk_reserve_bytes: Annotated[
        int,
        Field(ge=0, le=2**44, description="Free disk in the data folder below which the service is not ready."),
    ] = 64 * 2**20
    shutdown_s: Annotated[
        float,
        Field(gt=0, le=3600, description="Time that accepted requests and running steps of jobs get at the end."),
    ] = 30.0
    drain_s: Annotated[
        float,
        Field(
            ge=0,
            le=600,
            description="How long the service goes on after SIGTERM while /readyz says that it ends, so that a load "
            "balancer takes it out first.",
        ),
    ] = 0.0

    @field_validator("import_folders", mode="before")
    @classmethod
    def _split_folders(cls, given: Any) -> Any:
        return tuple(filter(None, given.split(os.pathsep))) if isinstance(given, str) else given

    @field_validator("image_store_options")
    @classmethod
    def _check_options(cls, given: SecretStr | None) -> SecretStr | None:
        try:
            is_object = given is None or isinstance(json.loads(given.get_secret_value()), dict)
        except ValueError:
            is_object = False
        if not is_object:  # without quoting it
            raise PydanticCustomError("not_json_object", "must be a JSON object")
        return given

    @property
    def image_store_url(self) -> str | None:
        """Where images' bytes lie, if not in the data folder."""
        return None if self.image_store is None else self.image_store.get_secret_value()

    @property
    def image_store_parameters(self) -> dict[str, Any]:
        """Options of the image store."""
        given = self.image_store_options
        parameters: dict[str, Any] = {} if given is None else json.loads(given.get_secret_value())
        return parameters

    @property
    def database(self) -> str:
        """URL of the record."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.data / 'oddity.db').resolve()}"

    def handed_over(self) -> str:
        """All settings as one line of JSON for a process of ours, secrets in plain: never to be logged or stored."""
        plain = {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in self}
        return json.dumps(to_jsonable_python(plain))


def settings_page() -> str:
    """The page `docs/settings.md`: every setting with its range, default and sentence."""
    lines = [
        "# Settings",
        "",
        "Read once, when the service starts, from environment variables. This page is generated: "
        "`python -m app.settings > docs/settings.md`.",
        "",
        "| variable | default | range | what |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        limits = [f"{sign} {value}" for part in field.metadata for sign, value in _limits(part)]
        default = "unset" if field.default in (None, ()) else str(field.default)
        lines.append(f"| `ODDITY_{name.upper()}` | `{default}` | {', '.join(limits) or '–'} | {field.description} |")
    return "\n".join(lines) + "\n"


def _limits(part: object) -> list[tuple[str, object]]:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "max_length": "length ≤"}
    return [(sign, getattr(part, name)) for name, sign in signs.items() if getattr(part, name, None) is not None]


if __name__ == "__main__":
    sys.stdout.write(settings_page())
