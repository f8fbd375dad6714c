"""What every HTTP door of ours shares: who calls, what is said when it goes wrong, and a server that ends in order."""
