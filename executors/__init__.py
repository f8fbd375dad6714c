"""Act. Contract, runner, journal; `s3` is a plugin and imports only the contract and `schemas`."""
