"""Lets agents, and people who ask, in over HTTP. Whoever asks can't answer: this room says intents and withdrawals."""
