"""Users and passwords of cameras, by name; in the database and in every address that others see there is the name only.

They lie in HOME/camera-secrets.toml, which only this user can read:

    [gate]
    user = "viewer"
    password = "..."
    hosts = ["10.0.0.5"]

or in the environment, URBAN_REID_CAMERA_SECRETS='{"gate": "viewer:..."}', which counts before the file. A feed that
names none gets URBAN_REID_RTSP_USER and URBAN_REID_RTSP_PASSWORD, if they are set.

A secret is sent to its hosts alone. Those of the environment and those of earlier versions have none: they are sent
where a camera of this home is looked at through them, and `check_host` refuses further hosts to whoever may add cameras
and not read passwords.
"""

import json
import stat
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from schemas import disk
from schemas.errors import InputError
from schemas.feeds import Feed, SecretName, with_credentials
from schemas.settings import Settings
from schemas.text import Line

FILE = "camera-secrets.toml"
_NAME: TypeAdapter[str] = TypeAdapter(SecretName)
_LINE: TypeAdapter[str] = TypeAdapter(Line)


@dataclass(frozen=True)
class Secret:
    user: str
    password: str = field(repr=False)
    hosts: tuple[str, ...] | None = None  # it is sent to; None: nobody has said


def address_with_secret(feed: Feed, settings: Settings) -> str:
    """The feed's address, of a stream with its user and password. Keep it in memory, out of logs and messages.

    Raises InputError if the feed names a secret that is not there, or the file is open to others or damaged.
    """
    if feed.kind != "stream":
        return feed.address
    secret = _named(feed.secret, settings) if feed.secret is not None else _common(settings)
    if secret is None:
        return feed.address
    host = urlsplit(feed.address).hostname
    if secret.hosts is not None and host not in secret.hosts:
        raise InputError(
            f"{feed.camera}: secret {feed.secret} is for {', '.join(secret.hosts)}, and not for {host}",
            do=f"`urban-reid cameras secret set {feed.secret}` stores it with the hosts it is for",
        )
    return with_credentials(feed.address, secret.user, secret.password)


def check_host(feed: Feed, settings: Settings, others: Collection[Feed]) -> None:
    """Raises InputError where the feed's password would go to a host that nobody has said it is for.

    others: the feeds that there are. Whoever decides where a password is sent can learn it.
    """
    if feed.kind != "stream":
        return
    secret = _named(feed.secret, settings) if feed.secret is not None else _common(settings)
    host = urlsplit(feed.address).hostname
    known = {urlsplit(one.address).hostname for one in others if one.kind == "stream" and one.secret == feed.secret}
    if secret is None or secret.hosts is not None or host in known:
        return  # `address_with_secret` keeps to the hosts of one that has some
    whose = f"secret {feed.secret}" if feed.secret is not None else "the common user and password"
    raise InputError(
        f"{feed.camera}: nobody has said that {whose} may be sent to {host}",
        do="`urban-reid cameras secret set NAME --host HOST` stores one with the hosts it is for",
    )


def secret_names(settings: Settings) -> list[str]:
    """The names that there are, sorted. Raises InputError for a file that is open to others or damaged."""
    return sorted({*settings.camera_secrets, *read_secrets(settings.home / FILE)})


def read_secrets(path: Path) -> dict[str, Secret]:
    """The file's secrets by name; none without a file. Raises InputError if it is open to others or damaged."""
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise InputError(f"{path} can be opened by other users, and holds passwords; `chmod 600 {path}`")
            content = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):  # whose message may quote the line
        raise InputError(f'{path}: is not TOML; a secret is written [name], user = "...", password = "..."') from None
    secrets = {}
    for name, entry in content.items():
        if not (isinstance(entry, dict) and {"user", "password"} <= entry.keys() <= {"user", "password", "hosts"}):
            raise InputError(f"{path}: [{name[:64]}] must hold user and password, may hold hosts, and nothing else")
        secrets[name] = _secret(entry["user"], entry["password"], f"{path}: [{name[:64]}]", entry.get("hosts"))
    return secrets


def write_secret(path: Path, name: str, user: str, password: str, hosts: Collection[str] | None = None) -> bool:
    """Adds the secret to the file, or replaces the one of its name; returns whether it is new.

    hosts: names or addresses that it may be sent to, at least one; None: nobody says. Raises InputError.
    """
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise InputError(
            f"{name[:80]!r} is no name of a secret: 1 to 64 letters, digits, '.', '_' and '-', a letter or digit first"
        ) from None
    with disk.locked(path.with_name(f"{path.name}.lock")):
        secrets = read_secrets(path)
        new = name not in secrets
        _write(
            path, secrets | {name: _secret(user, password, f"secret {name}", None if hosts is None else list(hosts))}
        )
    return new


def remove_secret(path: Path, name: str) -> None:
    """Removes a secret from the file. Raises InputError if it is not there."""
    with disk.locked(path.with_name(f"{path.name}.lock")):
        secrets = read_secrets(path)
        if name not in secrets:
            raise InputError(f"{path} has no secret {name[:80]!r}; there are: {', '.join(sorted(secrets)) or 'none'}")
        _write(path, {key: secret for key, secret in secrets.items() if key != name})


def _write(path: Path, secrets: dict[str, Secret]) -> None:
    # Names and JSON strings without control characters are TOML as they are.
    entries = (
        f"[{json.dumps(name)}]\nuser = {json.dumps(secret.user, ensure_ascii=False)}\n"
        f"password = {json.dumps(secret.password, ensure_ascii=False)}\n"
        + ("" if secret.hosts is None else f"hosts = {json.dumps(secret.hosts)}\n")
        for name, secret in sorted(secrets.items())
    )
    disk.write_whole(path, "\n".join(entries), mode=0o600, sync=True)


def _secret(user: object, password: object, where: str, hosts: object = None) -> Secret:
    try:
        found = Secret(_LINE.validate_python(user, strict=True), _LINE.validate_python(password, strict=True))
        found = found if hosts is None else replace(found, hosts=_hosts(hosts, where))
    except ValidationError:
        raise InputError(f"{where}: user and password must be text on one line, without control characters") from None
    if not found.user:
        raise InputError(f"{where}: the user is empty")
    return found


def _hosts(hosts: object, where: str) -> tuple[str, ...]:
    """Hosts as an address has them: in small letters, IPv6 without brackets."""
    if not isinstance(hosts, list) or not hosts:
        raise InputError(f"{where}: hosts must be a list of one or more hosts that it may be sent to")
    found = []
    for host in hosts:
        try:
            address = f"[{host}]" if isinstance(host, str) and host.count(":") > 1 and "[" not in host else host
            parts = urlsplit(f"rtsp://{address}")
            name, is_host = parts.hostname, parts.netloc == address and parts.port is None and "@" not in address
        except (ValueError, TypeError):
            name, is_host = None, False
        if not name or not is_host:
            raise InputError(f"{where}: {str(host)[:80]!r} is no host; write 10.0.0.5 or camera.example")
        found.append(name)
    return tuple(dict.fromkeys(found))


def _named(name: str, settings: Settings) -> Secret:
    if (given := settings.camera_secrets.get(name)) is not None:
        user, colon, password = given.get_secret_value().partition(":")
        if not colon:
            raise InputError(f"URBAN_REID_CAMERA_SECRETS: {name} is written user:password")
        return _secret(user, password, f"URBAN_REID_CAMERA_SECRETS: {name}")
    path = settings.home / FILE
    secret = read_secrets(path).get(name)
    if secret is None:
        raise InputError(
            f"no secret {name!r} in {path} or URBAN_REID_CAMERA_SECRETS", do=f"`urban-reid cameras secret set {name}`"
        )
    return secret


def _common(settings: Settings) -> Secret | None:
    if settings.rtsp_user is None or settings.rtsp_password is None:
        return None
    return Secret(settings.rtsp_user.get_secret_value(), settings.rtsp_password.get_secret_value())
