"""A whole Keyturn on one machine: a real Kafka, stand-ins for AWS, and what starts, watches and stops them."""
