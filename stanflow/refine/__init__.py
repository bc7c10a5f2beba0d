"""From a flow to the posterior itself: when, how long, and what it then says."""
