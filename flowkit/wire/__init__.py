"""The wire contract: messages, the values a node may return, their JSON, and every exchange and queue name."""
