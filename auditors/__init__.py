"""Checking the trail: `verify` stands alone, `collect` reads Kafka into bundles, `story` tells them."""
