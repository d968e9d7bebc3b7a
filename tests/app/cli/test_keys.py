"""`oddity keys`, `oddity audit`, and a server that does not open to others without a key."""

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.access.tokens import id_of
from app.cli.failures import CommandFailed
from app.cli.serve import settings_for
from app.settings import Settings
from tests.app.cli.conftest import Oddity


def test_the_first_key_is_made_without_a_server(oddity: Oddity, tmp_path: Path) -> None:
    made = oddity("keys", "create", "first", "--scope", "admin", "--data", tmp_path)
    assert made.code == 0
    token = made.out.strip()
    assert id_of(token) and "first" in made.err and token not in made.err

    given = ("--scope", "read", "--scope", "write", "--collection", "line-*", "--expires-days", 30)
    assert oddity("keys", "create", "camera", *given, "--data", tmp_path).code == 0
    keys = json.loads(oddity("keys", "list", "--json", "--data", tmp_path).out)
    assert [(one["name"], one["scopes"], one["collections"], one["state"]) for one in keys] == [
        ("first", ["admin"], ["*"], "active"),
        ("camera", ["read", "write"], ["line-*"], "active"),
    ]
    assert keys[0]["expires_at"] is None and keys[1]["expires_at"] > keys[1]["created_at"]
    assert "camera" in oddity("keys", "list", "--data", tmp_path).out

    rotated = oddity("keys", "rotate", "camera", "--keep-hours", 1, "--data", tmp_path)
    assert id_of(rotated.out.strip()) == keys[1]["id"]
    assert oddity("keys", "revoke", keys[1]["id"], "--data", tmp_path).code == 0
    assert json.loads(oddity("keys", "list", "--json", "--data", tmp_path).out)[1]["state"] == "revoked"

    audit = oddity("audit", "--data", tmp_path).out
    events = [json.loads(line) for line in audit.splitlines()]
    assert [(one["event"], one["name"]) for one in events] == [
        ("key_created", "first"),
        ("key_created", "camera"),
        ("key_rotated", "camera"),
        ("key_revoked", "camera"),
    ]
    assert token not in audit and rotated.out.strip() not in audit
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert token.split("_", 2)[2].encode() not in written


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("create", "x", "--scope", "everything"), 2, "scopes"),
        (("create", "x/y", "--scope", "read"), 2, "name"),
        (("create", "x", "--scope", "admin", "--collection", "a"), 2, "must be `*`"),
        (("rotate", "none"), 1, "There is no key `none`"),
        (("revoke", "none"), 1, "There is no key `none`"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    oddity: Oddity, tmp_path: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    ran = oddity("keys", *arguments, "--data", tmp_path)
    assert (ran.code, sentence in ran.err, "Traceback" in ran.err) == (code, True, False), ran.err


def test_it_does_not_open_to_others_without_a_key(oddity: Oddity, tmp_path: Path) -> None:
    ran = oddity("serve", "--host", "0.0.0.0", "--port", 0, "--data", tmp_path)
    assert ran.code == 2
    assert "oddity keys create" in ran.err and "--insecure" in ran.err and "Traceback" not in ran.err


def test_who_may_send_requests_is_decided_at_the_start(oddity: Oddity, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    for host in ("127.0.0.1", "::1", "localhost", "127.8.0.1"):
        assert settings_for(host, settings).access == "auto"
    for host in ("0.0.0.0", "::", "10.0.0.1", ""):
        with pytest.raises(CommandFailed, match="no API key"):
            settings_for(host, settings)
    with pytest.raises(CommandFailed):  # said explicitly, nobody could come in here either
        settings_for("127.0.0.1", settings.model_copy(update={"access": "keys"}))
    assert settings_for("0.0.0.0", settings, insecure=True).access == "open"
    assert settings_for("0.0.0.0", settings.model_copy(update={"access": "open"})).access == "open"
    by_setting = settings.model_copy(update={"admin_key": SecretStr("k" * 40)})
    assert settings_for("0.0.0.0", by_setting).access == "keys"
    assert oddity("keys", "create", "first", "--scope", "read", "--data", tmp_path).code == 0
    assert settings_for("0.0.0.0", settings).access == "keys"
    assert settings_for("127.0.0.1", settings).access == "auto"
    assert oddity("keys", "revoke", "first", "--data", tmp_path).code == 0
    with pytest.raises(CommandFailed):
        settings_for("0.0.0.0", settings)
