"""Verifies, enriches, classifies and signs every record of `intents`. Stateless; Faust shares out the work."""
