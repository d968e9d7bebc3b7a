"""API keys as their holders write them: `oddity_<id>_<secret>`, of which only a hash is kept.

The secret is 256 bits of chance, so a plain SHA-256 is as good as any slow hash: there is nothing to guess from.
"""

import hashlib
import hmac
import re
import secrets

ID_BYTES = 6
SECRET_BYTES = 32
TOKEN = re.compile(r"oddity_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


def new_id() -> str:
    """The id of a new key: 12 hexadecimal digits."""
    return secrets.token_hex(ID_BYTES)


def new_token(key_id: str) -> str:
    """A new token for the key of this id."""
    return f"oddity_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"


def id_of(token: str) -> str | None:
    """The id in a token; None where this is none."""
    found = TOKEN.fullmatch(token)
    return None if found is None else found[1]


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_same(digest_presented: str, digest_kept: str) -> bool:
    """Whether two digests are the same, in a time that does not tell where they differ."""
    return hmac.compare_digest(digest_presented, digest_kept)
