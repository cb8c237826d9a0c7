"""Traffic in a storm: three nodes and the network in front of them fail all the time, and nothing may come of it."""
