"""The database that is backed up or restored."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlalchemy import Connection, text

from pipeline.store import dump, embedded, roles, schema, user_supplied
from pipeline.store.embedded_home import resolved
from schemas.settings import Settings


@contextmanager
def database_of(settings: Settings) -> Iterator[dump.Database]:
    """The database of `settings`, held while the block runs; the embedded one is created and started as needed."""
    if settings.database_url is None:
        with embedded.hold(settings.home):
            yield dump.of_home(resolved(settings.home))
        return
    url = user_supplied.direct_url(settings)
    with closing(user_supplied.connect(url)) as connection, connection.cursor() as cursor:
        is_owner = roles.may_become(cursor, roles.OWNER)
    variables = dict(os.environ) | {f"PG{name.upper()}": value for name, value in user_supplied.tls(url).items()}
    yield dump.Database(url, variables, lambda: user_supplied.connect(url), is_owner)


@contextmanager
def as_owner(database: dump.Database) -> Iterator[Connection]:
    """One transaction as urban_reid_owner."""
    with schema.session(database.connect) as connection, connection.begin():
        connection.execute(text(f"SET LOCAL ROLE {roles.OWNER}"))
        yield connection
