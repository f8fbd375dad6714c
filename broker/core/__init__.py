"""The transactional core: positions, state and words of one partition in one commit."""
