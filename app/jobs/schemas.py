"""Parameters of the job paths."""

from typing import Annotated, Literal

from fastapi import Path, Query

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JobId = Annotated[str, Path(alias="id", pattern="^[0-9a-f]{32}$", description="Id of the job.")]
Wait = Annotated[
    float,
    Query(
        ge=0, le=60, description="Seconds to wait for the end; 200 and the finished job if it comes in time, else 202."
    ),
]
