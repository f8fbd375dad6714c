"""Notifiers ask people: a card says everything, an identity is checked, a desk puts the answer on the log."""
