"""Resource allocation on the stream: who lies where, who works where, and what should come next."""
