"""Authentication: certificates and tokens of several kinds, tried one after the other."""
