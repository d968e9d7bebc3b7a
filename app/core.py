"""The joined parts of a running service, handed to every use case."""

from dataclasses import dataclass

from app.clock import Clock
from app.db.engine import Database
from app.drift.counting import PValueCounts
from app.embedders import Embedders
from app.fitted_shelf import FittedShelf
from app.idempotency import Idempotency
from app.indexing.files import IndexFiles
from app.observe import Observing
from app.projections import Projections
from app.settings import Settings
from app.shelf import Shelf
from app.storage import ImageStore, Thumbnails


@dataclass(frozen=True, slots=True)
class Core:
    """What a use case may need; built once by `app.main`."""

    settings: Settings
    database: Database
    store: ImageStore
    thumbnails: Thumbnails
    embedders: Embedders
    shelf: Shelf
    fitted: FittedShelf
    index_files: IndexFiles
    projections: Projections
    idempotency: Idempotency
    clock: Clock
    observing: Observing
    p_values: PValueCounts
