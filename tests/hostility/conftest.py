"""Realms on one real Kafka."""

from tests.house import new_realm, realm

__all__ = ["new_realm", "realm"]
