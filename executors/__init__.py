"""Act. Contract, runner, journal; `s3`, `iam`, `infra` are plugins and import the contract, `aws` and `schemas`."""
