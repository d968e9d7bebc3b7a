"""Servers and workers that can be killed and started again within a second: a mother that has imported everything.

Each line on standard input makes it fork one of the data folder given as the only argument: `start` a server, `work` a
worker, `migrate` a process that brings the record up to date and ends. The child says its process id, and a server its
port, on a line of standard output. Only imports and the embedder, which never change, are shared.
"""

import os
import signal
import socket
import sys
from functools import cache, partial
from pathlib import Path

import uvicorn

import app.embedders
import app.jobs.lanes
from app.db.engine import Database
from app.jobs.runner import Runner
from app.main import create_app
from app.settings import Settings
from app.worker import work
from models.backbones.choice import EngineChoice
from models.backbones.embedder import Embedder
from models.backbones.loader import EmbeddingSpec, load_embedder

SETTINGS = Settings(data=Path(sys.argv[1]), weights="stand-in", image_size=32, threads=1, log_level="error")
# A killed worker's jobs are waited for many times here; a worker that lives must still be heard of on a busy machine.
LEASE_S = 3.0


@cache
def embedder() -> Embedder:
    return load_embedder(
        EmbeddingSpec(weights="stand-in", image_size=32),
        weights_folder=SETTINGS.data / "weights",
        threads=1,
        choice=EngineChoice(engine="torch"),  # the threads of OpenVINO would not survive the fork
    )


def serve() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    print(os.getpid(), listener.getsockname()[1], flush=True)
    config = uvicorn.Config(create_app(SETTINGS), log_level="error")
    uvicorn.Server(config).run(sockets=[listener])


def run_jobs() -> None:
    print(os.getpid(), flush=True)
    work(SETTINGS)


def migrate() -> None:
    database = Database(SETTINGS.database)
    print(os.getpid(), flush=True)
    database.migrate()


CHILDREN = {"start": serve, "work": run_jobs, "migrate": migrate}


def main() -> None:
    app.embedders.load_embedder = lambda *_given, **_named: embedder()
    app.jobs.lanes.Runner = partial(Runner, lease_s=LEASE_S)
    embedder()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies: the killed are forgotten
    for line in sys.stdin:
        if os.fork() == 0:
            CHILDREN[line.strip()]()
            os._exit(0)


if __name__ == "__main__":
    main()
