"""Fixtures that all tests share: the real services."""

from tests.services.postgres import empty_postgres_database, postgres_database, postgres_template, postgres_url
from tests.services.rabbitmq import namespace, private_rabbitmq, private_rabbitmq_server, rabbitmq_url

__all__ = [
    "empty_postgres_database",
    "namespace",
    "postgres_database",
    "postgres_template",
    "postgres_url",
    "private_rabbitmq",
    "private_rabbitmq_server",
    "rabbitmq_url",
]
