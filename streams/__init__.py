"""How records cross Kafka: connection and security, producers, consumers, read-to-end views, a role's process."""
