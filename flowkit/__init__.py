"""Durable workflows of plain async functions on RabbitMQ."""
