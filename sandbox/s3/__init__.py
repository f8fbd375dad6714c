"""A real S3 API with a real STS on loopback, whose credentials can die within seconds.

SeaweedFS is the store; `sandbox.s3.proxy` stands in front of it and is the provider that clients see. SeaweedFS
refuses every session policy that carries a date condition, and its sessions last 900 s at least; the proxy takes the
`DateLessThan aws:CurrentTime` conditions out of a session policy and keeps their promise itself.
"""

from sandbox.s3.local import LocalS3, S3Address, S3StartError
from sandbox.s3.settings import KeyPair

__all__ = ["KeyPair", "LocalS3", "S3Address", "S3StartError"]
