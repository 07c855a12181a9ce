"""What everything in the house stands on: the object model, the client library and the world (time, chance, tasks)."""
