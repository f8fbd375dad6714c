"""Decides. Intake (Faust) -> core (aiokafka); lifecycle, policy and classification are pure."""
