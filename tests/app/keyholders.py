"""Clients that hold a key of a service that asks for one."""

from typing import Any

from starlette.testclient import TestClient

from app.clock import utc_now
from app.keys.schemas import KeyParameters
from app.keys.service import create_key
from tests.app.working import core_of


def token_of(client: TestClient, name: str, *scopes: str, **given: Any) -> str:
    """The token of a new key, made on the record itself as the command line does."""
    parameters = KeyParameters.model_validate({"name": name, "scopes": scopes, **given})
    return create_key(core_of(client).database, parameters, utc_now())[1]


def holder(client: TestClient, name: str, *scopes: str, **given: Any) -> TestClient:
    """Another client of the same service, which is to be running, that sends a new key."""
    token = token_of(client, name, *scopes, **given)
    return TestClient(client.app, headers={"Authorization": f"Bearer {token}"}, raise_server_exceptions=False)
