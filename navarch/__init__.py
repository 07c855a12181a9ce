"""The base of everything in the house: the object model, the client library and the world (time, chance, tasks)."""
