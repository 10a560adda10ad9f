"""How the tables of an older FlowKit become those of this one: alembic, from inside the package."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from flowkit.store.database import Database


def config() -> Config:
    """Alembic's configuration; there is no ini file."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return made


def upgrade(database: Database, version: str) -> None:
    """Bring a database to a version, in one transaction.

    It makes the connection itself: SQLAlchemy would take its address apart in another way than its driver does.
    """
    engine = create_engine(database.engine_url, creator=database.connect, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            made = config()
            made.attributes["connection"] = connection
            command.upgrade(made, version)
    finally:
        engine.dispose()
