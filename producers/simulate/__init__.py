"""A hospital that never was: seeded traffic of every feed, and the clients that send it over real wires."""
