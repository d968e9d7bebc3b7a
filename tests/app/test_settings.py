"""Defaults that a first start relies on; ranges and variables are in tests/contract/test_every_setting.py."""

from pathlib import Path

from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings


def test_defaults_suit_a_first_start(monkeypatch) -> None:
    settings = Settings()
    assert settings.data == Path("data") and settings.database == f"sqlite:///{Path('data/oddity.db').resolve()}"
    assert settings.image_limit_bytes <= settings.body_limit_bytes
    assert settings.idempotency_hours == 24


def test_the_data_folder_is_made_and_holds_everything(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    with TestClient(create_app(Settings(data=data, weights="stand-in", image_size=32, threads=1))) as client:
        client.put("/v1/collections/c").raise_for_status()
        assert (data / "oddity.db").is_file() and (data / "images").is_dir()
    assert [one.name for one in tmp_path.iterdir()] == ["new"]


def test_a_url_puts_the_record_elsewhere(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/elsewhere/record.db"
    settings = Settings(data=tmp_path / "data", database_url=url, weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings)) as client:
        client.put("/v1/collections/c").raise_for_status()
    assert (tmp_path / "elsewhere" / "record.db").is_file() and not (tmp_path / "data" / "oddity.db").exists()
