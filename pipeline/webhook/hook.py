"""Where the webhook's messages go, and what they are signed with.

The secret lies in HOME/webhook-secret as the data keys do: wrapped by the home's key service. `urban-reid webhook`
shows it to whoever sets up the receiver.
"""

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pipeline.encryption.key_service import key_service
from schemas.disk import locked, write_whole
from schemas.errors import HomeError, UsageError
from schemas.settings import Settings

FILE = "webhook-secret"
#: Before the wrapped secret in hex; earlier versions kept the secret itself, which is wrapped at the next use.
_WRAPPED = "wrapped:"
_OF = "webhook secret"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What X-Urban-Reid-Signature says of a message: v1=HEX."""
    return f"v1={hmac.new(secret.encode(), timestamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"


@dataclass(frozen=True)
class Hook:
    url: str = field(repr=False)  # often holds a token
    secret: str = field(repr=False)


def hook_of(settings: Settings) -> Hook | None:
    """The webhook of the settings; None without an address. Makes the secret's file where there is no secret.

    Raises UsageError for an address that cannot be used: without TLS a message goes to this machine alone. Raises
    HomeError as `webhook_secret`.
    """
    if settings.webhook_url is None:
        return None
    url = settings.webhook_url.get_secret_value()
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        stays_here = _is_loopback(parts.hostname or "")
    except ValueError:
        usable = False
    if not usable:
        raise UsageError("URBAN_REID_WEBHOOK_URL: is no address; write https://host/path")
    if parts.scheme == "http" and not stays_here:
        raise UsageError("URBAN_REID_WEBHOOK_URL: http leaves this machine unencrypted; write https://host/path")
    return Hook(url, webhook_secret(settings))


def webhook_secret(settings: Settings) -> str:
    """What messages are signed with: of the settings, or of the file, which is made if it is missing.

    Raises HomeError for a file that cannot be read, made or unwrapped, StoreError for one that is damaged.
    """
    if settings.webhook_secret is not None:
        return settings.webhook_secret.get_secret_value()
    path, keys = settings.home / FILE, key_service(settings)
    try:
        with locked(path.with_name(f"{FILE}.lock")):
            said = path.read_text(errors="replace").strip() if path.exists() else secrets.token_urlsafe(32)
            if said.startswith(_WRAPPED):
                return keys.unwrap(bytes.fromhex(said.removeprefix(_WRAPPED)), _OF).decode()
            if said:
                wrapped = keys.wrap(said.encode(), _OF)
                write_whole(path, f"{_WRAPPED}{wrapped.hex()}\n", mode=0o600, sync=True)
                return said
    except OSError as error:
        raise HomeError(f"{path}: the webhook's secret cannot be read: {error.strerror}") from None
    except ValueError:
        raise HomeError(f"{path}: is damaged; remove it, and `urban-reid up` makes a new secret") from None
    raise HomeError(f"{path}: is empty; remove it, and `urban-reid up` makes a new secret")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
