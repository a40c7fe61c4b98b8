"""Commands for the owner of the database: migrate it, and create logins."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated

import typer

from rates_app.ops.logs import configure_logs
from rates_app.settings import DatabaseRole, load_settings
from rates_app.store import migrate as migrations
from rates_app.store.connections import connect
from rates_app.store.roles import set_login


def migrate() -> None:
    """Migrate the database to this version's schema, and give its roles their privileges."""
    settings = load_settings()
    configure_logs(settings, sys.stderr)
    roles = migrations.migrate(settings.database_url.get_secret_value())
    text = "Its roles have their privileges." if roles else "It has no roles: this login may not create any."
    sys.stdout.write(f"The schema is up to date. {text}\n")


def login(
    role: Annotated[DatabaseRole, typer.Argument(help="Role of the login.")],
    name: Annotated[str, typer.Argument(help="Name of the login, such as rates_serving_1.")],
) -> None:
    """Create a login for a role of the database, or change its password, and print the password once.

    Sessions that are open continue. To rotate passwords without a restart, let two logins of a role alternate.

    Example: `rates login serving rates_serving_2`
    """
    password = secrets.token_urlsafe(32)
    settings = load_settings()
    configure_logs(settings, sys.stderr)
    with connect(settings.database_url.get_secret_value(), "rates-cli") as connection:
        set_login(connection, role, name, password)
    sys.stdout.write(f"{password}\n")
    sys.stderr.write("Store this password now. It cannot be displayed again.\n")
