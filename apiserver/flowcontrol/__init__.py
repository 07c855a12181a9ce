"""Priority and fairness: who may use the server, and how much of it, when many ask at once."""
