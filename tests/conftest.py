"""Fixtures that all tests share: the real services."""

from tests.services.rabbitmq import namespace, private_rabbitmq, rabbitmq_url

__all__ = ["namespace", "private_rabbitmq", "rabbitmq_url"]
