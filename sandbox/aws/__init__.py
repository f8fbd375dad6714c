"""A local AWS on loopback for IAM, STS and CloudFormation, which enforces what its policies say.

ministack is the provider. It judges identities, trust, session policies and permissions boundaries by itself;
`sandbox.aws.server` starts it and puts right what it tells otherwise than AWS. It pins a botocore of its own, so it
runs from a folder of its own (`sandbox.aws.packages`), never from our environment.
"""

from sandbox.aws.local import AwsAddress, AwsStartError, Identity, LocalAws
from sandbox.aws.packages import PackagesError

__all__ = ["AwsAddress", "AwsStartError", "Identity", "LocalAws", "PackagesError"]
