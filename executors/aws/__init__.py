"""What every executor on AWS shares: calls sent once, and sessions cut to a plan that die in time."""
